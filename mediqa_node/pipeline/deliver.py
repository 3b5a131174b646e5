"""The courier's station: one attempt to bring one report to one destination.

A destination that is down is not slept through: the delivery goes back to `waiting` with a later
time and holds no thread, so that it delays no other.
"""

from dataclasses import dataclass

import structlog
from pydicom.uid import UID

from mediqa_node.dicom.part10 import read_header
from mediqa_node.domain.errors import MediqaError, PeerRefused, PeerUnavailable, StorageFailed
from mediqa_node.domain.series import Peer, SeriesState
from mediqa_node.network.sender import PeerLink, StudyIdentity, connect, report_contexts, study_identity
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.report import report_for
from mediqa_node.storage import assessments, index, outbox
from mediqa_node.storage.database import Connection
from mediqa_node.storage.index import SeriesRow
from mediqa_node.storage.outbox import DeliveryRow
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("courier")

_JUDGED = (SeriesState.ASSESSED, SeriesState.DELIVERED, SeriesState.PARKED, SeriesState.WITHHELD)
"""States in which deliveries decide: a series that has gone on since is moved by its next judgement."""
_COMPARE_AGAIN_S = 1.0
_STUDY_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an attempt. `again_at` is set while it goes on."""

    state: str
    message: str = ""
    status: int | None = None
    again_at: float | None = None


def deliver(node: NodeContext, delivery_id: int) -> str:
    """Make one attempt, record what came of it, and return its new state."""
    with node.database.read() as connection:
        delivery = outbox.find_delivery(connection, delivery_id)
    if delivery is None or delivery.state != "waiting":
        return "nothing to do"
    outcome = _obstacle(node, delivery) or _attempt(node, delivery)
    now = node.clock()
    with node.database.write() as connection:
        current = outbox.find_delivery(connection, delivery_id)
        if current is None or (current.state != "waiting" and outcome.state != "sent"):
            return "superseded"  # by a newer revision, while the peer was being asked
        outbox.update_delivery(
            connection,
            delivery_id,
            state=outcome.state,
            message=outcome.message,
            status=outcome.status,
            not_before=outcome.again_at if outcome.again_at is not None else delivery.not_before,
            done_at=now if outcome.state == "sent" else None,
            companions_at=now if outcome.state == "sent" and node.companions.wanted else None,
            job=None,
        )
        update_series_state(connection, delivery, now)
    _log(delivery, outcome)
    return outcome.state


def _obstacle(node: NodeContext, delivery: DeliveryRow) -> Outcome | None:
    """What speaks against sending before anybody is asked."""
    with node.database.read() as connection:
        return obstacle_in(node, connection, delivery)


def obstacle_in(node: NodeContext, connection: Connection, delivery: DeliveryRow) -> Outcome | None:
    """What speaks against sending anything of a delivery's revision at this moment, or None."""
    # copies before the generation: a copy that is resolved in between has raised the generation by then
    comparing = index.has_status(connection, delivery.series_instance_uid, "candidate")
    conflict = index.has_status(connection, delivery.series_instance_uid, "conflict")
    generation = assessments.assessed_generation(connection, delivery.series_instance_uid, delivery.revision)
    row = index.find_series(connection, delivery.series_instance_uid)
    if row is None or row.generation != generation or row.revision != delivery.revision:
        return Outcome(state="superseded", message="the series has changed since")
    if conflict:
        return Outcome(state="withheld", message="identity: two different images share a SOP Instance UID")
    if comparing:
        again_at = node.clock() + _COMPARE_AGAIN_S
        return Outcome(state="waiting", message="a further copy is being compared", again_at=again_at)
    return None


def _attempt(node: NodeContext, delivery: DeliveryRow) -> Outcome:
    peer = node.peer(delivery.destination)
    try:
        if peer is None:
            raise PeerRefused(f"{delivery.destination} is no configured peer any more")
        with node.database.write() as connection:
            outbox.update_delivery(connection, delivery.id, attempts=delivery.attempts + 1)
        return _send(node, delivery, peer)
    except PeerUnavailable as error:
        return _again(node, delivery, str(error))
    except PeerRefused as error:
        return Outcome(state="parked", message=str(error), status=error.status)
    except FileNotFoundError:
        return Outcome(state="parked", message="a spooled file is missing; `mediqa-node verify` names it")
    except OSError as error:
        raise StorageFailed(f"delivery {delivery.id}: files cannot be read: {error.strerror}") from error
    except (LookupError, MediqaError) as error:
        if isinstance(error, MediqaError) and error.retryable:
            raise  # our own disk or database: the job tries again, the destination is not to blame
        return Outcome(state="parked", message=str(error))


def _send(node: NodeContext, delivery: DeliveryRow, peer: Peer) -> Outcome:
    with connect(peer, report_contexts(peer), ae_title=node.device.ae_title, timeout_s=node.delivery.timeout_s) as link:
        sop_class_uid = _sop_class(node, delivery, link)
        obstacle, note = identity_check(node, delivery, link)
        if obstacle is not None:
            return obstacle
        report = report_for(node, delivery.series_instance_uid, delivery.revision, sop_class_uid)
        reach("after-report-commit")
        with node.database.write() as connection:
            if (changed := obstacle_in(node, connection, delivery)) is not None:
                return changed  # a correction or a further copy came while the peer was being asked
            # committed before the first byte leaves: whatever happens now, this UID may be at the peer
            outbox.update_delivery(connection, delivery.id, report_sop_instance_uid=report.sop_instance_uid)
        reach("mid-store")
        status = link.store(report.part10)
        reach("after-store")
    return Outcome(state="sent", message=note, status=status)


def _sop_class(node: NodeContext, delivery: DeliveryRow, link: PeerLink) -> str:
    """Return the SR class for this peer; one that may have been sent already is never changed."""
    if delivery.report_sop_instance_uid is not None:
        with node.database.read() as connection:
            sent = outbox.report_by_uid(connection, delivery.report_sop_instance_uid)
        if sent is not None and not link.accepts(sent.sop_class_uid):
            name = UID(sent.sop_class_uid).name
            raise PeerRefused(
                f"{link.peer.name} may hold this report as {name}, and does not accept that class any more"
            )
        if sent is not None:
            return sent.sop_class_uid
    if link.sr_sop_class is None:
        message = f"{link.peer.name} accepts no Structured Report class"
        with node.database.write() as connection:  # one alarm, not a flood: nothing else need be tried there
            others = outbox.park_others(connection, delivery, message)
            for other in others:
                update_series_state(connection, other, node.clock())
        log.error("destination takes no reports", destination=link.peer.name, parked=len(others) + 1)
        raise PeerRefused(message)
    return link.sr_sop_class


def identity_check(node: NodeContext, delivery: DeliveryRow, link: PeerLink) -> tuple[Outcome | None, str]:
    """Ask the destination whose study it is; never file a report under another patient."""
    with node.database.read() as connection:
        instances = index.current_instances(connection, delivery.series_instance_uid)
    if not instances:
        raise LookupError("the instances of this series were deleted")
    header = read_header(node.spool.path(instances[0].path))
    ours = study_identity(header)
    found = link.find_study(header.StudyInstanceUID)
    if found is None:
        return None, "peer answers no C-FIND: identity not checked"
    if not found:
        if node.clock() < delivery.wait_for_study_until:
            later = min(node.clock() + _STUDY_AGAIN_S, delivery.wait_for_study_until)
            return Outcome(state="waiting", message="waiting for the study at the destination", again_at=later), ""
        return None, "study not at the destination"
    differing = [name for theirs in found for name in _differences(ours, theirs)]
    if differing:
        what = ", ".join(dict.fromkeys(differing))
        return Outcome(state="withheld", message=f"identity: {link.peer.name} has this study with another {what}"), ""
    return None, ""


def _differences(ours: StudyIdentity, theirs: StudyIdentity) -> list[str]:
    differences = ["patient ID"] if ours.patient_id != theirs.patient_id else []
    if ours.issuer and theirs.issuer and ours.issuer != theirs.issuer:
        differences.append("issuer of patient ID")
    if ours.accession_number and theirs.accession_number and ours.accession_number != theirs.accession_number:
        differences.append("accession number")
    return differences


def _again(node: NodeContext, delivery: DeliveryRow, message: str) -> Outcome:
    attempts, now = delivery.attempts + 1, node.clock()
    if now - delivery.created_at > node.delivery.give_up_after_s:
        return Outcome(state="parked", message=f"given up after {attempts} attempts: {message}")
    return Outcome(state="waiting", message=message, again_at=now + node.delivery.backoff_s(attempts))


def update_series_state(connection: Connection, delivery: DeliveryRow, now: float) -> None:
    """Bring the state of the series in line with its deliveries of this revision."""
    row = index.find_series(connection, delivery.series_instance_uid)
    if row is None or row.revision != delivery.revision or row.state not in _JUDGED:
        return
    rows = outbox.deliveries_of(connection, delivery.series_instance_uid)
    current = [other for other in rows if other.revision == delivery.revision]
    held = next((other for other in current if other.state in ("parked", "withheld")), None)
    if held is not None:
        state = SeriesState.PARKED if held.state == "parked" else SeriesState.WITHHELD
        _move(connection, row, state, now, reason=f"{held.destination}: {held.message}")
    elif all(other.state == "superseded" for other in current):
        return
    elif all(other.state in ("sent", "superseded") for other in current):
        _move(connection, row, SeriesState.DELIVERED, now)
    elif row.state is not SeriesState.ASSESSED:
        _move(connection, row, SeriesState.ASSESSED, now)


def _move(connection: Connection, row: SeriesRow, state: SeriesState, now: float, reason: str | None = None) -> None:
    """Move a series unless an instance has come in the meantime and opened it again."""
    index.move(connection, row.series_instance_uid, state, at=now, generation=row.generation, reason=reason)


def _log(delivery: DeliveryRow, outcome: Outcome) -> None:
    level = log.info if outcome.state in ("sent", "superseded") else log.warning
    level(
        "delivery",
        delivery=delivery.id,
        series=delivery.series_instance_uid,
        destination=delivery.destination,
        state=outcome.state,
        status=None if outcome.status is None else f"{outcome.status:#06x}",
        message=outcome.message,
    )
