"""Storage Commitment as SCP, as a proxy: this node commits to what its archive has committed to, and to nothing else.

A scanner deletes after commitment, and this node deletes after retention. The request of a caller is kept before it is
acknowledged. The archive is asked about the same instances once none of them is on its way to it any more. When each
has a result, or the deadline has passed, the caller is told on an association of ours, at its configured address.
"""

from collections.abc import Callable, Mapping

import structlog

from mediqa_node.domain.errors import PeerRefused, PeerUnavailable
from mediqa_node.domain.peer import Peer
from mediqa_node.network.contexts import STORAGE_COMMITMENT
from mediqa_node.network.sender import commitment_contexts, connect
from mediqa_node.pipeline.clock_watch import is_doubtful
from mediqa_node.pipeline.commitment import (
    AT_MOST,
    Note,
    ask,
    ask_for_reports,
    instances_on_their_way,
    reports_settled,
    settle_answers,
)
from mediqa_node.pipeline.forward.commitment import ask_for_forwards, forwards_settled
from mediqa_node.pipeline.heartbeat import goes_on
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import commitment_requests
from mediqa_node.storage.commitment_requests import RequestRow
from mediqa_node.storage.commitments import Answered, Settled
from mediqa_node.storage.database import Connection

log = structlog.get_logger("courier")

_LOOK_AGAIN_S, _LOOK_AGAIN_AT_MOST_S = 5.0, 60.0
"""Pause before a request that cannot be asked for yet is looked at again: a tenth of its age, within these."""


def is_wanted(node: NodeContext) -> bool:
    """Return whether this node asks for commitment, commits, or owes a caller what it has once promised to answer."""
    if node.receiver.commit_with is not None or any(peer.commitment for peer in node.peers):
        return True
    with node.database.read() as connection:
        return commitment_requests.is_owed(connection)


class CommitmentSweep:
    """Settles answers, asks archives, and tells callers.

    Args:
        stopping: whether the process is about to end.
        followers: what else follows from an answer, in addition to what it means for reports and callers.
    """

    def __init__(
        self, node: NodeContext, stopping: Callable[[], bool] = lambda: False, followers: tuple[Settled, ...] = ()
    ) -> None:
        self.node = node
        self._stopping = stopping
        self._followers = (reports_settled(node), forwards_settled(node), requests_settled(node), *followers)

    def run(self) -> None:
        """Do what is due. A peer that does not answer is left alone until the next time."""
        settle_answers(self.node, self._followers)
        for peer in self.node.peers:
            if peer.commitment and not self._stopping():
                ask_for_reports(self.node, peer)
                ask_for_forwards(self.node, peer)
        if not self._stopping():
            ask_for_callers(self.node)
        if not self._stopping():
            tell_callers(self.node)


def requests_settled(node: NodeContext) -> Settled:
    """Return what an answer means for the requests of callers.

    While a copy that is newer than the question is on its way, the archive cannot commit to it: it is asked again.
    """

    def settled(connection: Connection, answered: Answered) -> None:
        if answered.request_id is None:
            return
        uids, begun_at = answered.instances, answered.begun_at
        if instances_on_their_way(connection, answered.peer, uids, sent_after=begun_at):
            commitment_requests.ask_again(connection, answered.request_id, at=node.clock() + _LOOK_AGAIN_S)
        else:
            commitment_requests.settle(connection, answered, at=node.clock())

    return settled


def ask_for_callers(node: NodeContext) -> int:
    """Ask archives about what callers want committed, and end what is overdue; return how many requests were asked."""
    now, asked = node.clock(), 0
    with node.database.read() as connection:
        waiting = commitment_requests.to_ask(connection, now=now)
    if any(row.deadline_at <= now for row in waiting) and not is_doubtful(node):
        with node.database.write() as connection:
            expired = commitment_requests.expire(connection, now=now)
        log.warning("commitment not given in time", requests=expired)
    silent: set[str] = set()
    for row in waiting:
        if row.deadline_at > now and row.peer not in silent:
            if _ask_for(node, row):
                asked += 1
            else:
                silent.add(row.peer)
        goes_on()
    return asked


def _ask_for(node: NodeContext, row: RequestRow) -> bool:
    """Ask the archive about one request, in as many transactions as it takes; False if the archive did not take one."""
    peer = node.peer(row.peer)
    with node.database.read() as connection:
        pairs = commitment_requests.open_pairs(connection, row.id)
        waits = peer is None or instances_on_their_way(connection, row.peer, list(pairs))
    note = _note_of(row)
    if peer is None or waits:  # an archive that is no longer configured may be so again, until the deadline
        now = node.clock()
        pause_s = min(max((now - row.received_at) / 10, _LOOK_AGAIN_S), _LOOK_AGAIN_AT_MOST_S)
        with node.database.write() as connection:
            note(connection, now + pause_s)
        return True
    left = list(pairs.items())
    parts = [dict(left[i : i + AT_MOST]) for i in range(0, len(left), AT_MOST)]
    return all(ask(node, peer, part, note, request_id=row.id) for part in parts)


def _note_of(row: RequestRow) -> Note:
    def note(connection: Connection, ask_at: float) -> None:
        commitment_requests.ask_again(connection, row.id, at=min(ask_at, row.deadline_at))

    return note


def tell_callers(node: NodeContext) -> int:
    """Tell the callers whose requests are decided; return how many were told."""
    with node.database.read() as connection:
        due = commitment_requests.to_tell(connection, now=node.clock())
    silent: set[str] = set()
    told = 0
    for row in due:
        if row.calling_ae_title not in silent:
            if _tell(node, row):
                told += 1
            else:
                silent.add(row.calling_ae_title)
        goes_on()
    return told


def _tell(node: NodeContext, row: RequestRow) -> bool:
    peer = node.peer_of(row.calling_ae_title)
    with node.database.read() as connection:
        results = commitment_requests.results(connection, row.id)
    try:
        if peer is None:
            raise PeerRefused(f"{row.calling_ae_title} is no longer the AE title of a configured peer")
        _report(node, peer, row, results)
    except (PeerUnavailable, PeerRefused) as error:
        now = node.clock()
        again_at = now + node.delivery.backoff_s(row.attempts + 1)
        overdue = again_at - (row.decided_at or now) > node.delivery.give_up_after_s
        given_up = overdue and not is_doubtful(node)
        facts = {"caller": row.calling_ae_title, "transaction": row.transaction_uid, "given_up": given_up}
        log.warning("commitment not reported", **facts, reason=str(error), hourly_for=(row.id, given_up))
        with node.database.write() as connection:
            commitment_requests.note_untold(connection, row, again_at=None if given_up else again_at)
        return False
    with node.database.write() as connection:
        commitment_requests.note_told(connection, row.id, at=node.clock())
    failed = sum(reason is not None for reason in results.values())
    log.info("commitment reported", caller=row.calling_ae_title, instances=len(results), failed=failed)
    return True


def _report(node: NodeContext, peer: Peer, row: RequestRow, results: Mapping[tuple[str, str], int | None]) -> None:
    with connect(
        peer,
        commitment_contexts(),
        ae_title=node.device.ae_title,
        timeout_s=node.delivery.timeout_s,
        as_scp=[STORAGE_COMMITMENT],
    ) as link:
        link.report_commitment(row.transaction_uid, results)
