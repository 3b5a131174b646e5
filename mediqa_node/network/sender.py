"""The SCU side: verify a peer, query a study, store a report.

Low volume, so pynetdicom does all of it, under the watch of `requestor`. A failure is one of two errors: it may work
later (`PeerUnavailable`), or a person has to act (`PeerRefused`). `open_link` is for any peer: one that speaks DICOMweb
is reached by `dicomweb`, and whoever sends does not know which it is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Protocol

import pydicom
from pydicom import Dataset
from pynetdicom import AE, Association, build_context
from pynetdicom.presentation import PresentationContext

from mediqa_node.dicom.values import items, text
from mediqa_node.domain.errors import PeerRefused, PeerUnavailable, QueryUnanswered
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mediqa_node.domain.peer import Peer
from mediqa_node.network.associate_pdu import MAX_CONTEXTS
from mediqa_node.network.contexts import SR_SOP_CLASSES, VERIFICATION
from mediqa_node.network.dimse import PENDING
from mediqa_node.network.pdu_stream import ABORT
from mediqa_node.network.requestor import Watch
from mediqa_node.network.statuses import check_stored

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT_LITTLE, IMPLICIT_LITTLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"

_SOP_CLASS_NOT_SUPPORTED = 0x0122
_TRANSIENT, _SERVICE_PROVIDER = 2, 3
"""Result and source of a rejection that may pass (PS3.8 Table 9-21): the latter's reasons are load and limits."""
_IDENTITY = ("PatientID", "IssuerOfPatientID", "AccessionNumber")
_KEYS = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
"""The unique key of each level (PS3.4 section C.6.2.1): every answer has it."""


class Link(Protocol):
    """What is asked of a peer and sent to it, however it is reached; errors are those of `PeerLink`."""

    peer: Peer

    @property
    def sr_sop_class(self) -> str | None:
        """The SR class to send."""

    def accepts(self, sop_class_uid: str) -> bool:
        """Return whether objects of this class may be sent."""

    def verify(self) -> None:
        """Have the peer answer."""

    def find_study(self, study_instance_uid: str) -> list[Identity] | None:
        """Return whose the study is at the peer; [] if it is absent, None if the peer answers no such questions."""

    def find_series(self, study_instance_uid: str, patient_id: str) -> list[str]:
        """Return the series of a study that the peer holds under a Patient ID."""

    def has_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool | None:
        """Return whether the peer has an instance; None if it answers no such questions."""

    def store(self, part10: bytes, *, was_sent: bool = False, moved_for: tuple[str, int] | None = None) -> int:
        """Send one object and return the peer's status if it has stored it."""


class PeerLink:
    """An open association with a peer."""

    def __init__(self, association: Association, peer: Peer, watch: Watch) -> None:
        self._association = association
        self._watch = watch
        self.peer = peer

    @property
    def sr_sop_class(self) -> str | None:
        """The SR class to send: the configured one, or the richest that the peer accepted."""
        wanted = SR_SOP_CLASSES if self.peer.sr_sop_class == "auto" else {"": SR_SOP_CLASSES[self.peer.sr_sop_class]}
        return next((uid for uid in wanted.values() if self.accepts(uid)), None)

    def accepts(self, sop_class_uid: str) -> bool:
        """Return whether the peer accepted a presentation context for this class."""
        return sop_class_uid in {str(context.abstract_syntax) for context in self._association.accepted_contexts}

    def verify(self) -> None:
        """Send C-ECHO.

        Raises:
            PeerUnavailable: no answer.
        """
        if self._answer(self._association.send_c_echo, what="C-ECHO") != 0x0000:
            raise PeerRefused(f"{self.peer.name} answered C-ECHO with a failure")

    def find_study(self, study_instance_uid: str) -> list[Identity] | None:
        """Return patient ID, issuer and accession number of a study at the peer, which may hold it several times.

        Returns:
            [] if the study is absent; None if the peer answers no C-FIND.

        Raises:
            QueryUnanswered: the association broke, no answer came in time, it cannot be read, or the query failed.
        """
        if not self.accepts(STUDY_ROOT_FIND):
            return None
        query = Dataset()
        query.QueryRetrieveLevel = "STUDY"
        query.StudyInstanceUID = study_instance_uid
        for keyword in _IDENTITY:
            setattr(query, keyword, "")
        status, found = self.found(query)
        if status == _SOP_CLASS_NOT_SUPPORTED and not found:
            return None
        if status != 0x0000:
            raise QueryUnanswered(f"{self.peer.name} could not be asked for the study (C-FIND status {status:#06x})")
        return [_study_identity(answer) for answer in found]

    def find_series(self, study_instance_uid: str, patient_id: str) -> list[str]:
        """Return the series of a study that the peer holds under a Patient ID; [] if it does not serve such queries.

        A peer that leaves the Patient ID out of its answers is taken to mean every series of the study.

        Raises:
            QueryUnanswered: the association broke, no answer came in time, it cannot be read, or the query failed.
        """
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID = study_instance_uid
        query.SeriesInstanceUID = ""
        query.PatientID = ""
        status, found = self.found(query)
        if status == _SOP_CLASS_NOT_SUPPORTED and not found:
            return []
        if status != 0x0000:
            raise QueryUnanswered(f"{self.peer.name} could not be asked for the series (C-FIND status {status:#06x})")
        return [text(answer, "SeriesInstanceUID") for answer in found if text(answer, "PatientID") in ("", patient_id)]

    def found(self, query: Dataset) -> tuple[int, list[Dataset]]:
        """Send a C-FIND; return its final status and the answers that match.

        An archive that ignores a key answers with objects that were not asked for.

        Raises:
            QueryUnanswered: the association broke, no answer came in time, or it cannot be read.
        """
        found: list[Dataset] = []
        try:
            with self._watch.operation() as message:
                for answer, identifier in self._association.send_c_find(query, STUDY_ROOT_FIND, msg_id=message):
                    if "Status" not in answer:
                        raise QueryUnanswered(f"{self.peer.name} did not answer C-FIND")
                    if answer.Status not in PENDING:
                        return int(answer.Status), found
                    if identifier is None or not _is_readable(identifier, query.QueryRetrieveLevel):
                        raise QueryUnanswered(f"{self.peer.name} answered C-FIND with an identifier that is unreadable")
                    if all(text(identifier, key) in ("", query[key].value) for key in _KEYS.values() if query.get(key)):
                        found.append(identifier)
        except RuntimeError as error:  # pynetdicom: the association is no longer established
            raise QueryUnanswered(f"{self.peer.name} ended the association before C-FIND") from error
        raise QueryUnanswered(f"{self.peer.name} did not answer C-FIND")

    def has_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool | None:
        """Return whether the peer finds an instance; None if it answers no C-FIND at this level."""
        if not self.accepts(STUDY_ROOT_FIND):
            return None
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID = study_instance_uid
        query.SeriesInstanceUID = series_instance_uid
        query.SOPInstanceUID = sop_instance_uid
        status, found = self.found(query)
        return bool(found) if status == 0x0000 else None

    def store(self, part10: bytes, *, was_sent: bool = False, moved_for: tuple[str, int] | None = None) -> int:
        """Send one object and return the peer's status if it has stored it.

        Args:
            was_sent: these bytes were sent before, and no answer came: the peer may call them a duplicate.
            moved_for: AE title and Message ID of the C-MOVE that this belongs to.

        Raises:
            PeerUnavailable: the association broke, no answer, or out of resources (0xA7xx).
            PeerRefused: any other failure.
        """
        send = self._association.send_c_store
        if moved_for is not None:
            send = partial(send, originator_aet=moved_for[0], originator_id=moved_for[1])
        status = self._answer(send, pydicom.dcmread(BytesIO(part10)), what="C-STORE")
        return check_stored(status, self.peer.name, was_sent=was_sent)

    def _answer(self, send: Callable[..., Dataset], *arguments: Dataset, what: str) -> int:
        try:
            with self._watch.operation() as message:
                answer = send(*arguments, msg_id=message)
        except RuntimeError as error:  # pynetdicom: the association is no longer established
            raise PeerUnavailable(f"{self.peer.name} ended the association before {what}") from error
        if "Status" not in answer:
            raise PeerUnavailable(f"{self.peer.name} did not answer {what}")
        return int(answer.Status)


def _is_readable(identifier: Dataset, level: str) -> bool:
    """Whether an answer to C-FIND says what it found, and no identifier of the patient is something else than text."""
    return bool(text(identifier, _KEYS[level])) and not any(items(identifier, keyword) for keyword in _IDENTITY)


def _study_identity(answer: Dataset) -> Identity:
    return Identity(
        patient_id=text(answer, "PatientID"),
        issuer=text(answer, "IssuerOfPatientID"),
        accession_number=text(answer, "AccessionNumber"),
        study_instance_uid=text(answer, "StudyInstanceUID"),
    )


def contexts_for(sop_class_uids: Sequence[str]) -> list[PresentationContext]:
    """Return the contexts proposed to store objects of these classes."""
    return [build_context(uid, [EXPLICIT_LITTLE, IMPLICIT_LITTLE]) for uid in sop_class_uids]


def report_contexts(peer: Peer, companions: Sequence[str] = ()) -> list[PresentationContext]:
    """Return the contexts proposed to a destination of reports.

    Args:
        companions: SOP Class UIDs of companions.
    """
    classes = SR_SOP_CLASSES.values() if peer.sr_sop_class == "auto" else [SR_SOP_CLASSES[peer.sr_sop_class]]
    return [*contexts_for([*classes, *companions]), study_query()]


def study_query() -> PresentationContext:
    """Return the context proposed to ask for a study."""
    return build_context(STUDY_ROOT_FIND, [EXPLICIT_LITTLE, IMPLICIT_LITTLE])


def verification_contexts() -> list[PresentationContext]:
    """Return the contexts proposed for C-ECHO."""
    return [build_context(VERIFICATION, [EXPLICIT_LITTLE, IMPLICIT_LITTLE])]


def open_link(
    peer: Peer, contexts: Sequence[PresentationContext], *, ae_title: str, timeout_s: float = 30.0
) -> AbstractContextManager[Link]:
    """Return a link to a peer, by an association with these contexts or by DICOMweb, for the block that follows.

    Raises:
        PeerUnavailable, PeerRefused: as `connect`; by DICOMweb, not before the first question.
    """
    if peer.dicomweb is None:
        return connect(peer, contexts, ae_title=ae_title, timeout_s=timeout_s)
    from mediqa_node.network import dicomweb  # http and TLS are of no use to most nodes

    return dicomweb.connect(peer, peer.dicomweb, timeout_s=timeout_s)


@contextmanager
def connect(
    peer: Peer, contexts: Sequence[PresentationContext], *, ae_title: str, timeout_s: float = 30.0
) -> Iterator[PeerLink]:
    """Open an association, release it at the end of the block.

    Raises:
        PeerUnavailable, PeerRefused: as `associate`.
    """
    with associate(peer, contexts, ae_title=ae_title, timeout_s=timeout_s) as (association, watch):
        yield PeerLink(association, peer, watch)


@contextmanager
def associate(
    peer: Peer, contexts: Sequence[PresentationContext], *, ae_title: str, timeout_s: float = 30.0
) -> Iterator[tuple[Association, Watch]]:
    """Open an association and its watch for a link, release it at the end of the block.

    Raises:
        PeerUnavailable: not reachable, no answer in time, aborted, or rejected as transient.
        PeerRefused: rejected for good, or no presentation context accepted.
    """
    entity = AE(ae_title=ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = min(timeout_s, 10.0)
    entity.acse_timeout = entity.dimse_timeout = timeout_s
    entity.network_timeout = None  # an idle association would be aborted twice, where another timeout is due as well
    with closing(Watch(timeout_s)) as watch:
        try:
            association = entity.associate(
                peer.host, peer.port, list(contexts), ae_title=peer.ae_title, evt_handlers=watch.handlers
            )
        except (OSError, UnicodeError) as error:  # the host name does not resolve, or is none
            reason = error.strerror if isinstance(error, OSError) else "no host name"
            raise PeerUnavailable(f"{peer.name} ({peer.host}): {reason}") from error
        watch.negotiated()
        if not association.is_established:
            raise _failure(association, peer, watch)
        try:
            yield association, watch
        finally:
            watch.release(association)


def _failure(association: Association, peer: Peer, watch: Watch) -> PeerUnavailable | PeerRefused:
    where = f"{peer.name} ({peer.where})"
    if watch.rejections:
        rejection = watch.rejections[0]
        reason = f"{where} rejected the association: {rejection.reason_str}"
        may_pass = rejection.result == _TRANSIENT or rejection.source == _SERVICE_PROVIDER
        return PeerUnavailable(reason) if may_pass else PeerRefused(reason)
    if association.accepted_contexts:
        return PeerUnavailable(f"{where} ended the association as soon as it had accepted it")
    if association.acceptor.primitive is not None and association.acceptor.primitive.result == 0:
        return PeerRefused(f"{where} accepts none of the presentation contexts proposed")
    if ABORT in watch.received:
        return PeerUnavailable(f"{where} aborted the association")
    return PeerUnavailable(f"{where} is not reachable or did not answer")


def send_files(peer: Peer, paths: Sequence[Path], *, ae_title: str) -> Iterator[tuple[Path, str]]:
    """Send Part 10 files; yield each with "" or why it was not stored.

    A presentation context is proposed for each pair of SOP class and transfer syntax. An association holds 128 of them
    (PS3.8 section 7.1.1.13), so that files of more pairs take several associations, one after the other.
    """
    by_pair: dict[tuple[str, str], list[Path]] = {}
    for path in paths:
        meta = pydicom.filereader.read_file_meta_info(path)
        pair = str(meta.get("MediaStorageSOPClassUID", "")), str(meta.get("TransferSyntaxUID", IMPLICIT_LITTLE))
        by_pair.setdefault(pair, []).append(path)
    pairs = list(by_pair)
    for some in (pairs[i : i + MAX_CONTEXTS] for i in range(0, len(pairs), MAX_CONTEXTS)):
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in some if sop_class]
        with open_link(peer, contexts, ae_title=ae_title) as link:
            for path in (path for pair in some for path in by_pair[pair]):
                try:
                    link.store(path.read_bytes())
                except (PeerRefused, PeerUnavailable, ValueError) as error:
                    yield path, str(error)
                else:
                    yield path, ""
