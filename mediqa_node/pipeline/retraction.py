"""Take back reports that stand at a destination and must not: after a correction, a rejection or a withdrawal.

One row for each destination, kept until it has taken a void report, or a note that rejects the node's own objects there
(`peers.NAME.retraction`). `mediqa-node status` lists it until then.
"""

from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import pydicom
import structlog
from pydicom import Dataset
from pydicom.uid import UID

from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.report.build import report_bytes
from mediqa_node.dicom.report.retraction import retraction_note, void_report
from mediqa_node.domain.errors import MediqaError, PeerRefused, PeerUnavailable, QueryUnanswered, fault_of
from mediqa_node.domain.identity import Identity, IdentityRules
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.retraction import VoidReason
from mediqa_node.domain.series import DeliveryState
from mediqa_node.network.peer_link import Link
from mediqa_node.network.sender import contexts_for, open_link, study_query
from mediqa_node.pipeline.heartbeat import goes_on
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.peer_identity import compare_found
from mediqa_node.pipeline.report import series_number
from mediqa_node.storage import companions, outbox, retractions
from mediqa_node.storage.database import Connection
from mediqa_node.storage.outbox import ReportRow
from mediqa_node.storage.retractions import RetractionRow
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("courier")

WRONG_PATIENT = VoidReason.WRONG_PATIENT


def retract(
    node: NodeContext,
    connection: Connection,
    series_instance_uid: str,
    reason: VoidReason,
    *,
    at_destinations: Collection[str] | None = None,
) -> int:
    """Ask for the reports of a series to be taken back wherever they may stand; return how many destinations.

    Args:
        at_destinations: only from these.
    """
    at = node.clock()
    n = retractions.add(node.database, connection, series_instance_uid, reason, at=at, at_destinations=at_destinations)
    if n:
        log.warning("reports to be taken back", series=series_instance_uid, reason=reason.value, destinations=n)
    return n


def retract_naming_others(
    node: NodeContext, connection: Connection, series_instance_uid: str, identity: Identity, rules: IdentityRules
) -> int:
    """Ask for the reports of a series to be taken back that name another than its images do; return how many."""
    n = retractions.add_naming_others(node.database, connection, series_instance_uid, identity, rules, at=node.clock())
    if n:
        log.warning("reports to be taken back", series=series_instance_uid, reason="corrected", destinations=n)
    return n


def send_due_retractions(node: NodeContext, stopping: Callable[[], bool] = lambda: False) -> int:
    """Send what is due; return how many were taken. A destination that does not answer is asked once a round."""
    with node.database.read() as connection:
        due = retractions.due(connection, node.clock())
    silent: set[str] = set()
    taken = 0
    for row in due:
        if stopping():
            break
        if row.destination not in silent:
            taken += _attempt(node, row, silent)
            goes_on()
    return taken


def _attempt(node: NodeContext, row: RetractionRow, silent: set[str]) -> bool:
    values: dict[str, object] = {"attempts": row.attempts + 1}
    try:
        status = _send(node, row)
        values |= {"state": DeliveryState.SENT, "status": status, "message": None, "done_at": node.clock()}
    except PeerUnavailable as error:
        silent.add(row.destination)
        pause_s = max(node.delivery.backoff_s(row.attempts + 1), error.again_after_s)
        values |= {"message": str(error), "not_before": node.clock() + pause_s}
    except PeerRefused as error:
        values |= {"state": DeliveryState.PARKED, "message": str(error), "status": error.status}
    except Exception as error:  # one report that cannot be taken back must not stop the others
        if isinstance(error, MediqaError) and error.retryable:
            raise
        values |= {"state": DeliveryState.PARKED, "message": fault_of(error)}
    with node.database.write() as connection:
        retractions.update(connection, row.id, **values)
    taken = values.get("state") is DeliveryState.SENT
    level = log.info if taken else log.warning
    facts = {"series": row.series_instance_uid, "destination": row.destination, "message": values["message"]}
    level("retraction", state=values.get("state", row.state), **facts)
    return taken


def _send(node: NodeContext, row: RetractionRow) -> int:
    """Send once the peer has been asked for its study; unasked only if this attempt went unanswered too."""
    try:
        return _connected(node, row, asks=True)
    except QueryUnanswered:
        if node.clock() - row.created_at < node.delivery.identity_within_s:
            raise
    return _connected(node, row, asks=False)


def _connected(node: NodeContext, row: RetractionRow, *, asks: bool) -> int:
    peer = node.peer(row.destination)
    if peer is None:
        raise PeerRefused(f"{row.destination} is no longer a configured peer")
    part10 = row.part10 if row.part10 is not None else _build(node, row, peer)
    document = pydicom.dcmread(BytesIO(part10), stop_before_pixels=True)
    sop_class = str(document.SOPClassUID)
    timeout_s = node.delivery.timeout_s
    contexts = [*contexts_for([sop_class]), study_query()]
    with open_link(peer, contexts, ae_title=node.device.ae_title, timeout_s=timeout_s) as link:
        if not link.accepts(sop_class):
            raise PeerRefused(f"{peer.name} does not accept {UID(sop_class).name}")
        if asks:
            _require_same_patient(node, link, identity_of(document))
        reach("before-retraction")
        return link.store(part10, was_sent=row.part10 is not None)


def _require_same_patient(node: NodeContext, link: Link, ours: Identity) -> None:
    """Raise if the destination has the study under another patient only: it has moved what stood there.

    Raises:
        PeerRefused: it has.
        QueryUnanswered: it offers C-FIND and fails to answer it.
    """
    found = link.find_study(ours.study_instance_uid) or []
    # of the same patient, a study may have got another accession number
    n_agreeing, others = compare_found(node, link, replace(ours, accession_number=""), found)
    if others and not n_agreeing:
        what = ", ".join(dict.fromkeys(word for differing in others for word in differing))
        raise PeerRefused(f"{link.peer.name} has this study with another {what}: remove our report there by hand")


def _build(node: NodeContext, row: RetractionRow, peer: Peer) -> bytes:
    """Build what takes the report back, and commit it before it leaves.

    With a void report, the note that takes back what was sent with the report: no report can make a picture void.
    """
    with node.database.read() as connection:
        report = outbox.report_by_uid(connection, row.report_sop_instance_uid)
        of_pictures = report is None
        report = report or _report_of_companion(connection, row)
    if report is None:
        raise LookupError("the report to be taken back is not kept")
    delivered = pydicom.dcmread(BytesIO(report.part10))
    reports = _reports_there(node, row, report.revision, delivered)
    with node.database.read() as connection:
        revisions = {revision for revision, _ in reports}
        pictures = companions.sent_of(connection, row.series_instance_uid, row.destination, revisions)
    is_void = peer.retraction == "void" and not of_pictures
    own = [] if of_pictures else [found for _, found in reports]
    built = (
        _void(node, row, delivered)
        if is_void
        else _note(node, row, report, [*own, *(_companion(delivered, *uids) for uids in pictures)])
    )
    part10 = report_bytes(built)
    with node.database.write() as connection:
        retractions.update(
            connection,
            row.id,
            part10=part10,
            sop_instance_uid=str(built.SOPInstanceUID),
            sr_series_instance_uid=str(built.SeriesInstanceUID),
            instance_number=int(built.InstanceNumber),
        )
        if is_void and pictures:
            _, last, _ = pictures[-1]
            retractions.add_note(node.database, connection, row, last, message="pictures and maps of the report")
    return part10


def _report_of_companion(connection: Connection, row: RetractionRow) -> ReportRow | None:
    """Return the report that a companion was sent with."""
    revision = companions.revision_of(connection, row.report_sop_instance_uid)
    kept = outbox.reports_at(connection, row.series_instance_uid, row.destination)
    return next((report for report in kept if report.revision == revision), None)


def _void(node: NodeContext, row: RetractionRow, delivered: Dataset) -> Dataset:
    return void_report(
        delivered,
        VoidReason(row.reason),
        device=node.device,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        instance_number=row.instance_number,
        time_zone=node.time_zone,
    )


def _note(node: NodeContext, row: RetractionRow, report: ReportRow, objects: list[Dataset]) -> Dataset:
    return retraction_note(
        objects,
        VoidReason(row.reason),
        device=node.device,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        series_number=series_number(node, report.study_instance_uid, f"retraction {row.id} {row.reason}"),
        time_zone=node.time_zone,
    )


def _reports_there(
    node: NodeContext, row: RetractionRow, revision: int, delivered: Dataset
) -> list[tuple[int, Dataset]]:
    """Return the reports that may stand at the destination under the same patient, by revision, up to the given one.

    A later one is right: it may have left before this one was taken back.
    """
    with node.database.read() as connection:
        kept = outbox.reports_at(connection, row.series_instance_uid, row.destination)
    found = [(row.revision, pydicom.dcmread(BytesIO(row.part10))) for row in kept if row.revision <= revision]
    return [(number, report) for number, report in found if _whose(report) == _whose(delivered)]


def _whose(report: Dataset) -> tuple[str, str, str]:
    return str(report.PatientID), str(report.get("IssuerOfPatientID", "")), str(report.StudyInstanceUID)


def _companion(report: Dataset, sop_class_uid: str, sop_instance_uid: str, series_instance_uid: str) -> Dataset:
    """Return a header of a companion: it names the same patient and study as its report, and its pixels may be gone."""
    header = Dataset()
    for element in report:
        if element.keyword != "ContentSequence":
            header.add(deepcopy(element))
    header.SOPClassUID, header.SOPInstanceUID = sop_class_uid, sop_instance_uid
    header.SeriesInstanceUID = series_instance_uid
    header.Rows = 1  # it has pixels
    return header
