"""Query and Retrieve SCU: which series an archive has, and having it send them to us (C-MOVE, PS3.4 annex C).

The images come over an association that the archive opens to our receiver. It has to know this node's AE title, host
and port.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom import Dataset
from pynetdicom import build_context

from mediqa_node.dicom.values import integer, text, texts
from mediqa_node.domain.errors import PeerRefused, PeerUnavailable, QueryUnanswered
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.pull import ArchivedSeries
from mediqa_node.domain.uid import is_uid
from mediqa_node.network.dimse import PENDING
from mediqa_node.network.peer_link import EXPLICIT_LITTLE, IMPLICIT_LITTLE, STUDY_ROOT_FIND, PeerLink
from mediqa_node.network.sender import associate

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"

BETWEEN_S = 600.0
"""How long an archive may take from one response of a C-MOVE to the next: it may have to fetch a tape."""

_DESTINATION_UNKNOWN = 0xA801


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What became of a C-MOVE.

    Attributes:
        status: the last one (PS3.4 table C.4-2): 0x0000 all was sent, 0xB000 some was not.
        completed, failed: sub-operations; those with a warning are completed.
    """

    status: int
    completed: int
    failed: int


class RetrieveLink(PeerLink):
    """An association with an archive that is asked for series."""

    def studies_of(self, day: str, modality: str) -> list[tuple[str, str]]:
        """Return UID and date of the studies of a day, as the archive has it.

        Args:
            day: eight digits.
            modality: one that is in the study; "" for any.

        Raises:
            PeerRefused: the archive serves no such query.
            QueryUnanswered: the association broke, no answer came in time, it cannot be read, or the query failed.
        """
        query = Dataset()
        query.QueryRetrieveLevel = "STUDY"
        query.StudyDate = day
        query.StudyInstanceUID = ""
        query.ModalitiesInStudy = modality
        answers = self._answers(query, "the studies of a day")
        dated = [(answer, text(answer, "StudyDate") or day) for answer in answers]
        return [
            (uid, date)
            for answer, date in dated
            if is_uid(uid := text(answer, "StudyInstanceUID"))
            and date == day
            and modality in ("", *(texts(answer, "ModalitiesInStudy") or (modality,)))
        ]

    def series_of(self, study_instance_uid: str, study_date: str) -> list[ArchivedSeries]:
        """Return the series of a study.

        Raises:
            PeerRefused, QueryUnanswered: as `studies_of`.
        """
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID = study_instance_uid
        for keyword in ("SeriesInstanceUID", "Modality", "SeriesDescription"):
            setattr(query, keyword, "")
        query.NumberOfSeriesRelatedInstances = None
        return [
            ArchivedSeries(
                study_instance_uid=study_instance_uid,
                series_instance_uid=text(answer, "SeriesInstanceUID"),
                study_date=study_date,
                modality=text(answer, "Modality"),
                description=text(answer, "SeriesDescription"),
                n_instances=integer(answer, "NumberOfSeriesRelatedInstances"),
            )
            for answer in self._answers(query, "the series of a study")
            if is_uid(text(answer, "SeriesInstanceUID"))
        ]

    def _answers(self, query: Dataset, what: str) -> list[Dataset]:
        if not self.accepts(STUDY_ROOT_FIND):
            raise PeerRefused(f"{self.peer.name} does not accept Study Root C-FIND")
        status, found = self.found(query)
        if status != 0x0000:
            raise QueryUnanswered(f"{self.peer.name} could not be asked for {what} (C-FIND status {status:#06x})")
        return found

    def move_series(self, series: ArchivedSeries, to: str) -> Moved:
        """Have the archive send a series, and wait until it has; return what became of it.

        Args:
            to: AE title of this node, which the archive has to know.

        Raises:
            PeerRefused: it does not accept C-MOVE, or does not know the AE title (0xA801).
            PeerUnavailable: the association broke, or no response came in time.
        """
        if not self.accepts(STUDY_ROOT_MOVE):
            raise PeerRefused(f"{self.peer.name} does not accept Study Root C-MOVE")
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID = series.study_instance_uid
        query.SeriesInstanceUID = series.series_instance_uid
        self._association.dimse_timeout = BETWEEN_S
        last = Moved(status=PENDING[0], completed=0, failed=0)
        try:
            with self._watch.long_operation(BETWEEN_S) as (message, goes_on):
                for answer, _ in self._association.send_c_move(query, to, STUDY_ROOT_MOVE, msg_id=message):
                    if "Status" not in answer:
                        break
                    goes_on()
                    last = _moved(answer, last)
        except RuntimeError as error:  # pynetdicom: the association is no longer established
            raise PeerUnavailable(f"{self.peer.name} ended the association before C-MOVE") from error
        if last.status == _DESTINATION_UNKNOWN:
            raise PeerRefused(
                f"{self.peer.name} knows no move destination {to}: enter this node's AE title, host and port there",
                status=last.status,
            )
        if last.status in PENDING:
            raise PeerUnavailable(f"{self.peer.name} broke off C-MOVE after {last.completed} instances")
        return last


def _moved(answer: Dataset, before: Moved) -> Moved:
    """Return what a response says; counters that it leaves out stay."""
    completed = answer.get("NumberOfCompletedSuboperations")
    warnings = answer.get("NumberOfWarningSuboperations") or 0
    failed = answer.get("NumberOfFailedSuboperations")
    return Moved(
        status=int(answer.Status),
        completed=before.completed if completed is None else int(completed) + int(warnings),
        failed=before.failed if failed is None else int(failed),
    )


@contextmanager
def retrieve_from(peer: Peer, *, ae_title: str, timeout_s: float) -> Iterator[RetrieveLink]:
    """Open an association for queries and C-MOVE, release it at the end of the block.

    Raises:
        PeerUnavailable: not reachable, no answer in time, aborted, or rejected as transient.
        PeerRefused: rejected for good, no presentation context accepted, or the peer speaks DICOMweb.
    """
    if peer.dicomweb is not None:
        raise PeerRefused(f"{peer.name} speaks DICOMweb: series are pulled by C-MOVE, which needs an AE title")
    contexts = [build_context(uid, [EXPLICIT_LITTLE, IMPLICIT_LITTLE]) for uid in (STUDY_ROOT_FIND, STUDY_ROOT_MOVE)]
    with associate(peer, contexts, ae_title=ae_title, timeout_s=timeout_s) as (association, watch):
        yield RetrieveLink(association, peer, watch)
