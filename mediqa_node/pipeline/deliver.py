"""The courier's station: one attempt to send one report to one destination.

A delivery to a destination that is down returns to `waiting` with a later time and holds no thread,
so that it delays no other.
"""

from collections.abc import Callable
from dataclasses import replace

import structlog
from pydicom.uid import UID

from mediqa_node.domain.errors import (
    MediqaError,
    OutOfResources,
    PeerRefused,
    PeerUnavailable,
    QueryUnanswered,
    StorageFailed,
)
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.series import (
    ARRIVED,
    HELD,
    CompanionState,
    DeliveryReason,
    DeliveryState,
    InstanceStatus,
    Reason,
    ReasonCode,
    SeriesState,
)
from mediqa_node.network.peer_link import Link
from mediqa_node.network.sender import open_link, report_contexts
from mediqa_node.pipeline.clock_watch import is_doubtful, was_set_unnoticed
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.parts import part, timed
from mediqa_node.pipeline.peer_identity import Outcome, identity_check, is_overdue, unanswered_since
from mediqa_node.pipeline.report import report_for
from mediqa_node.storage import assessments, copies, forwards, health, index, outbox, rejections
from mediqa_node.storage.database import Connection
from mediqa_node.storage.index import SeriesRow
from mediqa_node.storage.outbox import Attempt, DeliveryRow, ReportRow
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("courier")

BuildReport = Callable[[NodeContext, str, int, str], ReportRow]
"""Node, Series Instance UID, revision and SOP Class UID to the report."""

_JUDGED = (
    SeriesState.ASSESSED,
    SeriesState.DELIVERED,
    SeriesState.CONFIRMED,
    SeriesState.PARKED,
    SeriesState.WITHHELD,
)
"""States that deliveries may change; in any other, the next assessment decides."""
_ABOUT_IDENTITY = (
    DeliveryReason.OTHER_IDENTITY,
    DeliveryReason.CONFLICTING_COPIES,
    DeliveryReason.DISPUTED_IDENTITY,
    DeliveryReason.IDENTITY_UNANSWERED,
)
_AGAIN_S = 1.0
_IMAGES_SOON_S, _IMAGES_LATE_AGAIN_S = 30.0, 30.0
"""Images that have waited so long wait for an archive that is down; their report is looked at so often then."""
_OF_NO_ATTEMPT = (
    DeliveryReason.COPY_BEING_COMPARED,
    DeliveryReason.DOCUMENT_UNREAD,
    DeliveryReason.IMAGES_ON_THEIR_WAY,
)
"""Why a report waits that nobody has tried to send."""
_SLOW_S = 1.0
"""A query that fails after so long holds up the reports behind it."""
_NEXT_S = 0.001

_SENT_UNPROVEN = {
    DeliveryReason.STUDY_NOT_THERE: "the study is not in that archive yet",
    DeliveryReason.IDENTITY_NOT_CHECKED: "{peer} answers no queries: identity not checked",
}


class _NoReportClass(PeerRefused):
    """The peer accepts no Structured Report class."""


def deliver_report(node: NodeContext, delivery_id: int, *, report: BuildReport = report_for) -> str:
    """Make one attempt, record its outcome, and return the delivery's new state.

    Args:
        report: builds the report once the peer has accepted a class for it.
    """
    with node.database.read() as connection:
        delivery = outbox.find_delivery(connection, delivery_id)
    if delivery is None or delivery.state is not DeliveryState.WAITING:
        return "nothing to do"
    if delivery.job is None and delivery.not_before > node.clock():
        return "nothing to do"  # it was put off while its job was in the queue
    with timed("deliver", delivery.series_instance_uid):
        outcome = _obstacle(node, delivery) or _attempt(node, delivery, report)
    now = node.clock()
    with node.database.write() as connection:
        health.note_attempt(node.database, connection, delivery.destination, outcome.code, outcome.message, at=now)
        if outcome.code not in _OF_NO_ATTEMPT:
            outbox.note_attempt(connection, _attempt_made(delivery_id, outcome, now))
        index.lock_series(connection, delivery.series_instance_uid)
        current = outbox.find_delivery(connection, delivery_id)
        sent = outcome.state is DeliveryState.SENT
        if current is None or (current.state is not DeliveryState.WAITING and not sent):
            return DeliveryState.SUPERSEDED  # by a newer revision during the attempt
        outbox.update_delivery(
            connection,
            delivery_id,
            state=outcome.state,
            reason_code=outcome.code,
            message=outcome.message or None,
            status=outcome.status,
            not_before=outcome.again_at if outcome.again_at is not None else delivery.not_before,
            done_at=now if sent else None,
            companions_at=now if sent and node.companions.wanted else None,
            companions=CompanionState.PENDING if sent and node.companions.wanted else None,
            job=None,
            **_not_there(delivery, outcome),
        )
        update_series_state(connection, delivery, now)
    _log(delivery, outcome)
    return outcome.state


def _attempt_made(delivery_id: int, outcome: Outcome, now: float) -> Attempt:
    return Attempt(
        delivery_id=delivery_id,
        at=now,
        state=outcome.state,
        reason_code=outcome.code,
        status=outcome.status,
        message=outcome.message or "",
    )


def _not_there(delivery: DeliveryRow, outcome: Outcome) -> dict[str, object]:
    """Forget that a report may have arrived, if the peer has refused it and no earlier attempt was in doubt."""
    refused = outcome.was_refused and delivery.report_sop_instance_uid is None
    return {"report_sop_instance_uid": None} if refused else {}


def _obstacle(node: NodeContext, delivery: DeliveryRow) -> Outcome | None:
    """Return what prevents sending, as far as the database shows, or None."""
    with node.database.read() as connection:
        return obstacle_in(node, connection, delivery)


def obstacle_in(node: NodeContext, connection: Connection, delivery: DeliveryRow) -> Outcome | None:
    """Return what prevents sending a delivery's revision now, or None."""
    # read copies before the generation: resolving a copy raises the generation
    comparing = copies.has_status(connection, delivery.series_instance_uid, InstanceStatus.CANDIDATE)
    conflict = copies.has_status(connection, delivery.series_instance_uid, InstanceStatus.CONFLICT)
    question = copies.open_question(connection, delivery.series_instance_uid)
    generation = assessments.assessed_generation(connection, delivery.series_instance_uid, delivery.revision)
    row = index.find_series(connection, delivery.series_instance_uid)
    if row is None or row.generation != generation or row.revision != delivery.revision:
        return Outcome(
            state=DeliveryState.SUPERSEDED,
            code=DeliveryReason.SERIES_CHANGED,
            message="the series has changed since",
        )
    if conflict:
        return Outcome(
            state=DeliveryState.WITHHELD,
            code=DeliveryReason.CONFLICTING_COPIES,
            message="identity: two different images share a SOP Instance UID",
        )
    if question is not None:
        return Outcome(
            state=DeliveryState.WITHHELD,
            code=DeliveryReason.DISPUTED_IDENTITY,
            message=f"identity: {question.detail}",
        )
    if comparing:
        return _soon(node, DeliveryReason.COPY_BEING_COMPARED, "a further copy is being compared")
    return _under_way(node, connection, delivery, row)


def _under_way(node: NodeContext, connection: Connection, delivery: DeliveryRow, row: SeriesRow) -> Outcome | None:
    """Return what a report waits for although nothing is wrong with it, or None."""
    if row.study_instance_uid in rejections.studies_with_unread(connection):
        return _soon(node, DeliveryReason.DOCUMENT_UNREAD, "a document of the study is being read")
    since = forwards.series_waits_since(connection, delivery.destination, delivery.series_instance_uid)
    if since is not None:
        outcome = _soon(node, DeliveryReason.IMAGES_ON_THEIR_WAY, "its images are still being forwarded there")
        lately = node.clock() - since < _IMAGES_SOON_S
        return outcome if lately else replace(outcome, again_at=node.clock() + _IMAGES_LATE_AGAIN_S)
    return None


def _soon(node: NodeContext, code: DeliveryReason, message: str) -> Outcome:
    return Outcome(state=DeliveryState.WAITING, code=code, message=message, again_at=node.clock() + _AGAIN_S)


def _attempt(node: NodeContext, delivery: DeliveryRow, report: BuildReport) -> Outcome:
    peer = node.peer(delivery.destination)
    if peer is None:
        return _parked(DeliveryReason.NOT_CONFIGURED, f"{delivery.destination} is no longer a configured peer")
    try:
        with node.database.write() as connection:
            outbox.update_delivery(connection, delivery.id, attempts=delivery.attempts + 1)
        return _send(node, delivery, peer, report)
    except PeerUnavailable as error:
        wait = _unanswered if isinstance(error, QueryUnanswered) else _again
        outcome = _not_before(wait(node, delivery, str(error)), node.clock() + error.again_after_s)
        return replace(outcome, was_refused=isinstance(error, OutOfResources))
    except PeerRefused as error:
        code = DeliveryReason.NO_REPORT_CLASS if isinstance(error, _NoReportClass) else DeliveryReason.REFUSED
        return replace(_parked(code, str(error), status=error.status), was_refused=error.status is not None)
    except FileNotFoundError:
        return _parked(DeliveryReason.FILE_MISSING, "a spooled file is missing; `mediqa-node verify` names it")
    except OSError as error:
        raise StorageFailed(f"delivery {delivery.id}: files cannot be read: {error.strerror}") from error
    except (LookupError, MediqaError) as error:
        if isinstance(error, MediqaError) and error.retryable:
            raise  # our own disk or database failed: the job tries again
        return _parked(DeliveryReason.NOT_BUILT, str(error))


def _not_before(outcome: Outcome, at: float) -> Outcome:
    """Leave a peer alone for as long as it has asked for."""
    return outcome if outcome.again_at is None else replace(outcome, again_at=max(outcome.again_at, at))


def _parked(code: DeliveryReason, message: str, *, status: int | None = None) -> Outcome:
    return Outcome(state=DeliveryState.PARKED, code=code, message=message, status=status)


def _send(node: NodeContext, delivery: DeliveryRow, peer: Peer, build: BuildReport) -> Outcome:
    """Send a report once the peer has been asked for its study; unasked only if this attempt went unanswered too."""
    asked_at = node.clock()
    try:
        return _connected(node, delivery, peer, build, asks=True)
    except QueryUnanswered as error:
        since = unanswered_since(node, delivery)
        if node.clock() - asked_at >= min(node.delivery.timeout_s, _SLOW_S):
            _put_off_others(node, delivery, str(error))
        if node.delivery.identity_unanswered != "send" or not is_overdue(node, since):
            raise
    return _connected(node, delivery, peer, build, asks=False)


def _connected(node: NodeContext, delivery: DeliveryRow, peer: Peer, build: BuildReport, *, asks: bool) -> Outcome:
    with open_link(
        peer, report_contexts(peer), ae_title=node.device.ae_title, timeout_s=node.delivery.timeout_s
    ) as link:
        sop_class_uid = _sop_class(node, delivery, link)
        unchecked = None, DeliveryReason.IDENTITY_NOT_CHECKED
        with part("identity"):
            obstacle, unproven = identity_check(node, delivery, link) if asks else unchecked
        if obstacle is not None:
            return obstacle
        with part("report"):
            report = build(node, delivery.series_instance_uid, delivery.revision, sop_class_uid)
        reach("after-report-commit")
        with node.database.write() as connection:
            index.lock_series(connection, delivery.series_instance_uid)
            if (changed := obstacle_in(node, connection, delivery)) is not None:
                return changed  # a correction or a further copy arrived meanwhile
            # committed before the first byte leaves: from here on this UID may be at the peer
            outbox.update_delivery(connection, delivery.id, report_sop_instance_uid=report.sop_instance_uid)
        reach("mid-store")
        was_sent = delivery.report_sop_instance_uid == report.sop_instance_uid
        with part("store"):
            status = link.store(report.part10, was_sent=was_sent)
        reach("after-store")
    message = _SENT_UNPROVEN[unproven].format(peer=peer.name) if unproven else ""
    return Outcome(state=DeliveryState.SENT, code=unproven, message=message, status=status)


def _sop_class(node: NodeContext, delivery: DeliveryRow, link: Link) -> str:
    """Return the SR class for this peer; once a report may have been sent, its class never changes."""
    if delivery.report_sop_instance_uid is not None:
        with node.database.read() as connection:
            sent = outbox.report_by_uid(connection, delivery.report_sop_instance_uid)
        if sent is not None and not link.accepts(sent.sop_class_uid):
            name = UID(sent.sop_class_uid).name
            raise PeerRefused(f"{link.peer.name} may hold this report as {name}, and no longer accepts that class")
        if sent is not None:
            return sent.sop_class_uid
    if link.sr_sop_class is None:
        message = f"{link.peer.name} accepts no Structured Report class"
        with node.database.write() as connection:  # one alarm instead of one per delivery
            others = outbox.park_others(connection, delivery, message)
            for other in others:
                update_series_state(connection, other, node.clock())
        log.error("destination takes no reports", destination=link.peer.name, parked=len(others) + 1)
        raise _NoReportClass(message)
    return link.sr_sop_class


def _unanswered(node: NodeContext, delivery: DeliveryRow, message: str) -> Outcome:
    """A peer that offers C-FIND and fails to answer holds a report for a while, not for ever."""
    since = unanswered_since(node, delivery)
    if not is_overdue(node, since) or node.delivery.identity_unanswered == "send":
        again = _again(node, delivery, message)
        latest = max(since + node.delivery.identity_within_s, node.clock() + _AGAIN_S)
        if again.again_at is None:
            return again
        return replace(again, code=DeliveryReason.IDENTITY_UNANSWERED, again_at=min(again.again_at, latest))
    return Outcome(
        state=DeliveryState.WITHHELD,
        code=DeliveryReason.IDENTITY_UNANSWERED,
        message=f"identity: {message}",
    )


def _put_off_others(node: NodeContext, delivery: DeliveryRow, message: str) -> None:
    """Spare the other reports that are due at a destination a query that would take as long to fail.

    They keep their turns and ask before this one does again: it may be the only study that the peer has trouble with.
    Those that have waited as long as the site allows are withheld; with `send`, each has to ask before it leaves.
    """
    now, rules = node.clock(), node.delivery
    overdue_since = float("-inf") if was_set_unnoticed(node) else now - rules.identity_within_s
    with node.database.write() as connection:
        others = outbox.others_due(connection, delivery, now)
        since = {other.id: now if other.unanswered_since is None else other.unanswered_since for other in others}
        overdue = [other for other in others if since[other.id] <= overdue_since]
        code, put_off = DeliveryReason.IDENTITY_UNANSWERED, [other for other in others if other not in overdue]
        for place, other in enumerate(reversed(put_off), start=1):
            again_at = min(now + rules.retry_first_s, max(since[other.id] + rules.identity_within_s, now + _AGAIN_S))
            values = {"unanswered_since": since[other.id], "not_before": again_at - place * _NEXT_S, "job": None}
            outbox.update_delivery(connection, other.id, reason_code=code, message=message, **values)
    withheld = overdue if rules.identity_unanswered == "withhold" else []
    for other in withheld:
        with node.database.write() as connection:
            index.lock_series(connection, other.series_instance_uid)
            current = outbox.find_delivery(connection, other.id)
            if current is None or current.state is not DeliveryState.WAITING:
                continue
            held = {"state": DeliveryState.WITHHELD, "reason_code": code, "message": f"identity: {message}"}
            outbox.update_delivery(connection, other.id, **held, job=None)
            update_series_state(connection, other, now)
    if withheld:
        log.warning("reports withheld", destination=delivery.destination, reports=len(withheld), message=message)


def _again(node: NodeContext, delivery: DeliveryRow, message: str) -> Outcome:
    attempts, now = delivery.attempts + 1, node.clock()
    if now - delivery.created_at > node.delivery.give_up_after_s and not is_doubtful(node):
        return _parked(DeliveryReason.GIVEN_UP, f"given up after {attempts} attempts: {message}")
    again_at = now + node.delivery.backoff_s(attempts)
    return Outcome(state=DeliveryState.WAITING, code=DeliveryReason.NO_ANSWER, message=message, again_at=again_at)


def update_series_state(connection: Connection, delivery: DeliveryRow, now: float) -> None:
    """Derive the state of the series from its deliveries of this revision."""
    row = index.find_series(connection, delivery.series_instance_uid)
    if row is None or row.revision != delivery.revision or row.state not in _JUDGED:
        return
    rows = outbox.deliveries_of(connection, delivery.series_instance_uid)
    current = [other for other in rows if other.revision == delivery.revision]
    held = next((other for other in current if other.state in HELD), None)
    if held is not None:
        state = SeriesState.PARKED if held.state is DeliveryState.PARKED else SeriesState.WITHHELD
        code = ReasonCode.IDENTITY if held.reason_code in _ABOUT_IDENTITY else ReasonCode.DELIVERY
        message = str(held.message).removeprefix("identity: ") if code is ReasonCode.IDENTITY else held.message
        _move(connection, row, state, now, reason=Reason(code, f"{held.destination}: {message}"))
    elif (question := copies.open_question(connection, row.series_instance_uid)) is not None:
        _move(connection, row, SeriesState.WITHHELD, now, reason=question)
    elif all(other.state is DeliveryState.SUPERSEDED for other in current):
        if (
            given_up := next((one for one in current if one.reason_code is DeliveryReason.CANCELLED), None)
        ) is not None:
            reason = Reason(ReasonCode.DELIVERY_CANCELLED, f"{given_up.destination}: {given_up.message}")
            _move(connection, row, SeriesState.ASSESSED, now, reason=reason)
    elif all(other.state in (*ARRIVED, DeliveryState.SUPERSEDED) for other in current):
        _move(connection, row, outbox.arrived_state(current), now)
    elif row.state is not SeriesState.ASSESSED:
        _move(connection, row, SeriesState.ASSESSED, now)


def _move(connection: Connection, row: SeriesRow, state: SeriesState, now: float, reason: Reason | None = None) -> None:
    """Move a series unless a new instance has reopened it."""
    index.move(connection, row.series_instance_uid, state, at=now, generation=row.generation, reason=reason)


def _log(delivery: DeliveryRow, outcome: Outcome) -> None:
    level = log.info if outcome.state in (DeliveryState.SENT, DeliveryState.SUPERSEDED) else log.warning
    if outcome.code in _OF_NO_ATTEMPT:
        level = log.debug  # every second, until that is done
    level(
        "delivery",
        # asked every five seconds while the study is not there
        **({"hourly_for": delivery.id} if outcome.code is DeliveryReason.STUDY_NOT_THERE_YET else {}),
        delivery=delivery.id,
        series=delivery.series_instance_uid,
        destination=delivery.destination,
        state=outcome.state,
        status=None if outcome.status is None else f"{outcome.status:#06x}",
        message=outcome.message,
    )
