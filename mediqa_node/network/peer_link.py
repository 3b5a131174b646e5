"""What is asked of a peer and sent to it over an open association: verify, query, store, commitment."""

from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Protocol

import pydicom
from pydicom import Dataset
from pynetdicom import Association

from mediqa_node.dicom.values import items, text
from mediqa_node.domain.errors import PeerRefused, PeerUnavailable, QueryUnanswered
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.peer import Peer
from mediqa_node.network.contexts import COMMITMENT_INSTANCE, SR_SOP_CLASSES, STORAGE_COMMITMENT
from mediqa_node.network.dimse import PENDING
from mediqa_node.network.requestor import Watch
from mediqa_node.network.responses import MAX_ANSWERS, MAX_IMAGES
from mediqa_node.network.statuses import check_stored

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT_LITTLE, IMPLICIT_LITTLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"

_SOP_CLASS_NOT_SUPPORTED = 0x0122
_REQUEST = 1
"""Action Type ID: Request Storage Commitment (PS3.4 table J.3.2-1)."""
_ALL_COMMITTED, _SOME_FAILED = 1, 2
"""Event Type ID (PS3.4 table J.3.3-1)."""
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
            at_most = MAX_IMAGES if query.QueryRetrieveLevel == "IMAGE" else MAX_ANSWERS
            with self._watch.operation(at_most) as message:
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

    def find_instances(self, study_instance_uid: str, series_instance_uid: str) -> set[str] | None:
        """Return the SOP Instance UIDs of a series at the peer; None if it answers no C-FIND at this level.

        Raises:
            QueryUnanswered: the association broke, no answer came in time, it cannot be read, or the query failed.
        """
        if not self.accepts(STUDY_ROOT_FIND):
            return None
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID = study_instance_uid
        query.SeriesInstanceUID = series_instance_uid
        query.SOPInstanceUID = ""
        status, found = self.found(query)
        if status == _SOP_CLASS_NOT_SUPPORTED and not found:
            return None
        if status != 0x0000:
            raise QueryUnanswered(f"{self.peer.name} could not be asked for the images (C-FIND status {status:#06x})")
        return {text(answer, "SOPInstanceUID") for answer in found}

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

    def ask_commitment(self, transaction_uid: str, pairs: Mapping[str, str]) -> None:
        """Ask the peer to commit to keep instances (PS3.4 section J.3.2); its answer comes to our receiver.

        Args:
            pairs: SOP Class UIDs by SOP Instance UID.

        Raises:
            PeerUnavailable: the association broke, or no answer.
            PeerRefused: any status but Success.
        """
        request = Dataset()
        request.TransactionUID = transaction_uid
        request.ReferencedSOPSequence = [_reference(sop_class, uid) for uid, sop_class in pairs.items()]
        self._commitment(self._association.send_n_action, request, _REQUEST, what="N-ACTION")

    def report_commitment(self, transaction_uid: str, results: Mapping[tuple[str, str], int | None]) -> None:
        """Tell a caller what became of its request for commitment (PS3.4 section J.3.3), as the SCP.

        Args:
            results: failure reasons by SOP Class and SOP Instance UID; None: committed.

        Raises:
            PeerUnavailable: the association broke, or no answer.
            PeerRefused: any status but Success.
        """
        report = Dataset()
        report.TransactionUID = transaction_uid
        kept = [_reference(*pair) for pair, reason in results.items() if reason is None]
        failed = [_reference(*pair, reason) for pair, reason in results.items() if reason is not None]
        if kept:
            report.ReferencedSOPSequence = kept
        if failed:
            report.FailedSOPSequence = failed
        event = _SOME_FAILED if failed else _ALL_COMMITTED
        self._commitment(self._association.send_n_event_report, report, event, what="N-EVENT-REPORT")

    def _commitment(
        self, send: Callable[..., tuple[Dataset, Dataset | None]], what_about: Dataset, kind: int, *, what: str
    ) -> None:
        if not self.accepts(STORAGE_COMMITMENT):
            raise PeerRefused(f"{self.peer.name} does not accept Storage Commitment")

        def sent(msg_id: int) -> Dataset:
            answer, _ = send(what_about, kind, STORAGE_COMMITMENT, COMMITMENT_INSTANCE, msg_id=msg_id)
            return answer

        if (status := self._answer(sent, what=what)) != 0x0000:
            raise PeerRefused(f"{self.peer.name} refused {what} (status {status:#06x})", status=status)

    def _answer(self, send: Callable[..., Dataset], *arguments: Dataset, what: str) -> int:
        try:
            with self._watch.operation() as message:
                answer = send(*arguments, msg_id=message)
        except RuntimeError as error:  # pynetdicom: the association is no longer established
            raise PeerUnavailable(f"{self.peer.name} ended the association before {what}") from error
        if "Status" not in answer:
            raise PeerUnavailable(f"{self.peer.name} did not answer {what}")
        return int(answer.Status)


def _reference(sop_class_uid: str, sop_instance_uid: str, failure_reason: int | None = None) -> Dataset:
    """Return an item of Referenced or Failed SOP Sequence."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class_uid
    reference.ReferencedSOPInstanceUID = sop_instance_uid
    if failure_reason is not None:
        reference.FailureReason = failure_reason
    return reference


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
