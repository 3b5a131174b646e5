"""Storage Commitment as SCU: a report counts as confirmed once its archive has committed to keep it (PS3.4 annex J).

One sweep of the courier asks, by N-ACTION, about the reports that were sent and whose companions are over. The answer
comes to the receiver on an association of the archive's own, and is written down there; the sweep does what follows.

    answer                       then
    it keeps all of them         delivery CONFIRMED; the series too, once all of its deliveries are
    it does not keep one         the report is sent again, once; after the next such answer it is parked
    none within an hour          asked again, under a fresh Transaction UID; a concern in `status` after a day
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from uuid import uuid4

import structlog

from mediqa_node.domain.errors import PeerRefused, PeerUnavailable
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.series import DeliveryReason, DeliveryState
from mediqa_node.network.sender import commitment_contexts, connect
from mediqa_node.pipeline.deliver import update_series_state
from mediqa_node.pipeline.heartbeat import goes_on
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import commitments, companions, forwards, index, outbox, report_commitments
from mediqa_node.storage.commitments import Answered, Settled
from mediqa_node.storage.database import Connection
from mediqa_node.storage.outbox import DeliveryRow
from mediqa_node.storage.report_commitments import Owed
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("courier")

AT_MOST = 500
"""Instances of one transaction."""
_IN_HAND_S = 120.0
"""A request that was begun is not begun again for so long, or its process ended in it."""
_FAILURES = {
    0x0110: "processing failure",
    0x0112: "no such object",
    0x0119: "class and instance contradict each other",
    0x0122: "class not supported",
    0x0131: "duplicate transaction",
    0x0213: "out of resources",
}
"""Failure Reason (0008,1197), PS3.3 section C.14.1.1."""

Note = Callable[[Connection, float], None]
"""Keeps when the archive is asked again, seconds since 1970, in the transaction given."""


def instances_on_their_way(
    connection: Connection, peer: str, uids: Collection[str], *, sent_after: float | None = None
) -> bool:
    """Return whether any of some instances is still to be sent to an archive, so that it cannot commit to them yet.

    Args:
        sent_after: those that were sent later than this count too.
    """
    return forwards.on_their_way(connection, peer, uids, sent_after=sent_after)


def failure_words(reason: int) -> str:
    """Return a failure reason as people read it.

    >>> failure_words(0x0112)
    'failure reason 0x0112, no such object'
    """
    return ", ".join(filter(None, (f"failure reason {reason:#06x}", _FAILURES.get(reason, ""))))


def settle_answers(node: NodeContext, followers: Sequence[Settled]) -> int:
    """Do what follows from each answer of an archive, once; return how many there were."""
    with node.database.read() as connection:
        answered = commitments.unsettled(connection)
    for transaction_uid in answered:
        with node.database.write() as connection:
            commitments.settle(connection, transaction_uid, followers, at=node.clock())
        goes_on()
    return len(answered)


def ask(node: NodeContext, peer: Peer, pairs: Mapping[str, str], note: Note, *, request_id: int | None = None) -> bool:
    """Ask an archive to commit to instances, in a transaction of its own; return whether it took the request.

    Args:
        pairs: at most `AT_MOST` SOP Class UIDs by SOP Instance UID.
        note: called before the request leaves, and when it was taken, or was not.
        request_id: of the caller's request that it is about, the only one that the answer can settle.
    """
    transaction_uid, now = f"2.25.{uuid4().int}", node.clock()
    with node.database.write() as connection:
        commitments.begin(connection, transaction_uid, peer.name, pairs, at=now, request_id=request_id)
        note(connection, now + _IN_HAND_S)
    reach("commitment-begun")
    own, timeout_s = node.device.ae_title, node.delivery.timeout_s
    try:
        with connect(peer, commitment_contexts(), ae_title=own, timeout_s=timeout_s) as link:
            link.ask_commitment(transaction_uid, pairs)
    except (PeerUnavailable, PeerRefused) as error:
        log.warning("commitment not asked for", destination=peer.name, reason=str(error), hourly_for=peer.name)
        with node.database.write() as connection:
            note(connection, node.clock() + node.delivery.retry_at_most_s)
        return False
    reach("commitment-asked")
    with node.database.write() as connection:
        commitments.note_asked(connection, transaction_uid, at=node.clock())
        note(connection, node.clock() + node.delivery.commitment_within_s)
    log.info("commitment asked for", destination=peer.name, instances=len(pairs))
    return True


# ── reports ──────────────────────────────────────────────────────────────────


def ask_for_reports(node: NodeContext, peer: Peer) -> int:
    """Ask a destination about the reports that are due, until it takes no request; return how many it was asked."""
    asked = 0
    while True:
        now = node.clock()
        with node.database.read() as connection:
            since = now - node.delivery.give_up_after_s
            due = report_commitments.due(connection, peer.name, now=now, sent_after=since, at_most=AT_MOST)
        some, pairs = _first(due)
        if not pairs:
            return asked
        if not ask(node, peer, pairs, _note_of(node, [one.delivery.id for one in some], now)):
            return asked
        asked += len(some)
        goes_on()


def _first(due: Sequence[Owed]) -> tuple[list[Owed], dict[str, str]]:
    """Return as many reports as one transaction holds, each with all of its companions, and their instances."""
    some: list[Owed] = []
    pairs: dict[str, str] = {}
    for one in due:
        if some and len(pairs) + len(one.pairs) > AT_MOST:
            break
        some.append(one)
        pairs |= one.pairs
    return some, pairs


def _note_of(node: NodeContext, delivery_ids: list[int], since: float) -> Note:
    def note(connection: Connection, ask_at: float) -> None:
        report_commitments.note(node.database, connection, delivery_ids, since=since, ask_at=ask_at)

    return note


def reports_settled(node: NodeContext) -> Settled:
    """Return what an answer means for reports that were sent."""

    def settled(connection: Connection, answered: Answered) -> None:
        peer, results = answered.peer, answered.results
        sent = report_commitments.sent_with(connection, peer, answered.instances, sent_by=answered.begun_at)
        for delivery in sent:
            index.lock_series(connection, delivery.series_instance_uid)
            instances = report_commitments.pairs_of(connection, delivery)
            pairs = {(kind, uid) for uid, kind in instances.items()}
            failed = {pair[1]: reason for pair in pairs if (reason := results.get(pair)) is not None}
            if failed:
                _not_kept(node, connection, delivery, failed, instances)
            elif pairs <= results.keys():
                outbox.update_delivery(connection, delivery.id, state=DeliveryState.CONFIRMED)
                update_series_state(connection, delivery, node.clock())
                log.info("delivery confirmed", delivery=delivery.id, destination=peer)

    return settled


def _not_kept(
    node: NodeContext,
    connection: Connection,
    delivery: DeliveryRow,
    failed: Mapping[str, int],
    instances: Collection[str],
) -> None:
    """Send a report again that its archive does not keep, and the companions it names; the second time, park it."""
    reason = failure_words(next(iter(failed.values())))
    message = f"{delivery.destination} does not commit to keep it: {reason}"
    log.warning("delivery not confirmed", delivery=delivery.id, destination=delivery.destination, reason=reason)
    row = index.find_series(connection, delivery.series_instance_uid)
    if row is None or row.revision != delivery.revision:  # another report stands there by now, or will
        report_commitments.note(node.database, connection, [delivery.id], ask_at=None)
        return
    now = node.clock()
    again = report_commitments.n_failures(connection, delivery.id) == 0
    report_commitments.note(node.database, connection, [delivery.id], n_failures=int(again), ask_at=now)
    commitments.withdraw(connection, delivery.destination, instances)
    for uid in failed:
        companions.note_refused(connection, uid, delivery.destination)
    values = {"not_before": now, "created_at": now} if again else {}
    outbox.update_delivery(
        connection,
        delivery.id,
        state=DeliveryState.WAITING if again else DeliveryState.PARKED,
        reason_code=DeliveryReason.NOT_COMMITTED,
        message=message,
        job=None,
        **values,
    )
    update_series_state(connection, delivery, now)
