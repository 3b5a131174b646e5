"""The SCU side: verify a peer, query a study, store a report.

Low volume, so pynetdicom does all of it. A failure is one of two errors: it may work later
(`PeerUnavailable`), or a person has to act (`PeerRefused`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom import Dataset
from pynetdicom import AE, Association, build_context, evt
from pynetdicom.pdu import A_ASSOCIATE_RJ
from pynetdicom.presentation import PresentationContext

from mediqa_node.domain.errors import OutOfResources, PeerRefused, PeerUnavailable, QueryUnanswered
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mediqa_node.domain.peer import Peer
from mediqa_node.network.associate_pdu import MAX_CONTEXTS, readable_abort, readable_acceptance, readable_rejection
from mediqa_node.network.contexts import SR_SOP_CLASSES, VERIFICATION
from mediqa_node.network.pdu_stream import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT_LITTLE, IMPLICIT_LITTLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"

STORED = frozenset({0x0000, 0xB000, 0xB006, 0xB007})
"""Success and the three warnings after which the object is in the archive (PS3.4 table B.2-1)."""

_SOP_CLASS_NOT_SUPPORTED = 0x0122
_IDENTITY = ("PatientID", "IssuerOfPatientID", "AccessionNumber")


class PeerLink:
    """An open association with a peer."""

    def __init__(self, association: Association, peer: Peer) -> None:
        self._association = association
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
        if self._status(self._association.send_c_echo(), "C-ECHO") != 0x0000:
            raise PeerRefused(f"{self.peer.name} answered C-ECHO with a failure")

    def find_study(self, study_instance_uid: str) -> list[Identity] | None:
        """Return patient ID, issuer and accession number of a study at the peer, which may hold it several times.

        Returns:
            [] if the study is absent; None if the peer answers no C-FIND.

        Raises:
            QueryUnanswered: the association broke, no answer came in time, or the query failed.
        """
        if not self.accepts(STUDY_ROOT_FIND):
            return None
        query = Dataset()
        query.QueryRetrieveLevel = "STUDY"
        query.StudyInstanceUID = study_instance_uid
        for keyword in _IDENTITY:
            setattr(query, keyword, "")
        found = []
        for code, identifier in self._found(query):
            if code in (0xFF00, 0xFF01) and identifier is not None:
                found.append(_study_identity(identifier, study_instance_uid))
            elif code == _SOP_CLASS_NOT_SUPPORTED and not found:
                return None
            elif code != 0x0000:
                raise QueryUnanswered(f"{self.peer.name} could not be asked for the study (C-FIND status {code:#06x})")
        return found

    def find_series(self, study_instance_uid: str, patient_id: str) -> list[str]:
        """Return the series of a study that the peer holds under a Patient ID; [] if it does not say.

        A peer that leaves the Patient ID out of its answers is taken to mean every series of the study.

        Raises:
            QueryUnanswered: the association broke, or no answer came in time.
        """
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID = study_instance_uid
        query.SeriesInstanceUID = ""
        query.PatientID = ""
        found = []
        for code, identifier in self._found(query):
            if code in (0xFF00, 0xFF01) and identifier is not None:
                whose = _text(identifier, "PatientID")
                if not whose or whose == patient_id:
                    found.append(_text(identifier, "SeriesInstanceUID"))
            elif code != 0x0000:
                return []
        return found

    def _found(self, query: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        """Send a C-FIND and yield the status and identifier of each answer."""
        try:
            for status, identifier in self._association.send_c_find(query, STUDY_ROOT_FIND):
                if "Status" not in status:
                    raise QueryUnanswered(f"{self.peer.name} did not answer C-FIND")
                yield int(status.Status), identifier
        except RuntimeError as error:  # pynetdicom: the association is no longer established
            raise QueryUnanswered(f"{self.peer.name} ended the association before C-FIND") from error

    def has_instance(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bool | None:
        """Return whether the peer finds an instance; None if it answers no C-FIND at this level."""
        if not self.accepts(STUDY_ROOT_FIND):
            return None
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID = study_instance_uid
        query.SeriesInstanceUID = series_instance_uid
        query.SOPInstanceUID = sop_instance_uid
        found = False
        for code, _ in self._found(query):
            if code in (0xFF00, 0xFF01):
                found = True
            elif code != 0x0000:
                return None
        return found

    def store(self, part10: bytes) -> int:
        """Send one object and return the peer's status if it has stored it.

        Raises:
            PeerUnavailable: the association broke, no answer, or out of resources (0xA7xx).
            PeerRefused: any other failure.
        """
        try:
            answer = self._association.send_c_store(pydicom.dcmread(BytesIO(part10)))
        except RuntimeError as error:  # pynetdicom: the association is no longer established
            raise PeerUnavailable(f"{self.peer.name} ended the association before C-STORE") from error
        status = self._status(answer, "C-STORE")
        if status in STORED:
            return status
        if 0xA700 <= status <= 0xA7FF:
            raise OutOfResources(f"{self.peer.name} is out of resources (status {status:#06x})")
        raise PeerRefused(f"{self.peer.name} refused the object (status {status:#06x})", status=status)

    def _status(self, answer: Dataset, what: str) -> int:
        if "Status" not in answer:
            raise PeerUnavailable(f"{self.peer.name} did not answer {what}")
        return int(answer.Status)


def _study_identity(answer: Dataset, study_instance_uid: str) -> Identity:
    return Identity(
        patient_id=_text(answer, "PatientID"),
        issuer=_text(answer, "IssuerOfPatientID"),
        accession_number=_text(answer, "AccessionNumber"),
        study_instance_uid=study_instance_uid,
    )


def _text(answer: Dataset, keyword: str) -> str:
    return str(answer.get(keyword, "") or "").strip()


def contexts_for(sop_class_uids: Sequence[str]) -> list[PresentationContext]:
    """Return the contexts proposed to store objects of these classes."""
    return [build_context(uid, [EXPLICIT_LITTLE, IMPLICIT_LITTLE]) for uid in sop_class_uids]


def report_contexts(peer: Peer, companions: Sequence[str] = ()) -> list[PresentationContext]:
    """Return the contexts proposed to a destination of reports.

    Args:
        companions: SOP Class UIDs of companions.
    """
    classes = SR_SOP_CLASSES.values() if peer.sr_sop_class == "auto" else [SR_SOP_CLASSES[peer.sr_sop_class]]
    return [
        *contexts_for([*classes, *companions]),
        build_context(STUDY_ROOT_FIND, [EXPLICIT_LITTLE, IMPLICIT_LITTLE]),
    ]


def verification_contexts() -> list[PresentationContext]:
    """Return the contexts proposed for C-ECHO."""
    return [build_context(VERIFICATION, [EXPLICIT_LITTLE, IMPLICIT_LITTLE])]


@contextmanager
def connect(
    peer: Peer, contexts: Sequence[PresentationContext], *, ae_title: str, timeout_s: float = 30.0
) -> Iterator[PeerLink]:
    """Open an association, release it at the end of the block.

    Raises:
        PeerUnavailable: not reachable, no answer in time, aborted, or rejected as transient.
        PeerRefused: rejected for good, or no presentation context accepted.
    """
    entity = AE(ae_title=ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = min(timeout_s, 10.0)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_s
    rejections: list[A_ASSOCIATE_RJ] = []
    try:
        association = entity.associate(
            peer.host,
            peer.port,
            list(contexts),
            ae_title=peer.ae_title,
            evt_handlers=[(evt.EVT_CONN_OPEN, _read_leniently), (evt.EVT_PDU_RECV, _keep_rejection, [rejections])],
        )
    except OSError as error:  # the host name does not resolve
        raise PeerUnavailable(f"{peer.name} ({peer.host}): {error.strerror}") from error
    if not association.is_established:
        raise _failure(association, peer, rejections)
    try:
        yield PeerLink(association, peer)
    finally:
        if association.is_established:
            association.release()


def _read_leniently(event: evt.Event) -> None:
    """Rewrite the answer to a request before pynetdicom decodes it, which refuses one for an odd version name.

    pynetdicom offers no place for that; its minor version is pinned, and a test sees this one go.
    """
    provider: Any = event.assoc.dul
    decode = provider._decode_pdu

    def readable(raw: bytearray) -> Any:
        if raw[0] == ASSOCIATE_AC:
            raw = bytearray(readable_acceptance(bytes(raw)))
        elif raw[0] == ASSOCIATE_RJ:
            raw = bytearray(readable_rejection(bytes(raw)))
        elif raw[0] == ABORT:
            raw = bytearray(readable_abort(bytes(raw)))
        return decode(raw)

    provider._decode_pdu = readable


def _keep_rejection(event: evt.Event, rejections: list[A_ASSOCIATE_RJ]) -> None:
    """Note a rejection as it is read: one that comes at once, pynetdicom may take for a connection that failed."""
    if isinstance(event.pdu, A_ASSOCIATE_RJ):
        rejections.append(event.pdu)


def _failure(
    association: Association, peer: Peer, rejections: Sequence[A_ASSOCIATE_RJ]
) -> PeerUnavailable | PeerRefused:
    where = f"{peer.name} ({peer.ae_title} at {peer.host}:{peer.port})"
    if rejections:
        reason = f"{where} rejected the association: {rejections[0].reason_str}"
        return PeerUnavailable(reason) if rejections[0].result == 2 else PeerRefused(reason)
    if association.acceptor.primitive is not None and association.acceptor.primitive.result == 0:
        return PeerRefused(f"{where} accepts none of the presentation contexts proposed")
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
        with connect(peer, contexts, ae_title=ae_title) as link:
            for path in (path for pair in some for path in by_pair[pair]):
                try:
                    link.store(path.read_bytes())
                except (PeerRefused, PeerUnavailable, ValueError) as error:
                    yield path, str(error)
                else:
                    yield path, ""
