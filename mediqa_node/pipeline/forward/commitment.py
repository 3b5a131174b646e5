"""Storage Commitment for forwarded instances: an archive that is asked has to commit before they may be deleted.

The courier asks, as it does for reports, once an instance was sent; the answer makes the forward CONFIRMED. What the
archive does not keep is sent again, once; after the next such answer it is parked.
"""

import structlog

from mediqa_node.domain.forward import ForwardReason, ForwardState
from mediqa_node.domain.peer import Peer
from mediqa_node.pipeline.commitment import AT_MOST, ask, failure_words
from mediqa_node.pipeline.heartbeat import goes_on
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import forwards
from mediqa_node.storage.commitments import Answered, Settled
from mediqa_node.storage.database import Connection

log = structlog.get_logger("courier")


def ask_for_forwards(node: NodeContext, peer: Peer) -> int:
    """Ask an archive about the instances that were forwarded to it, until it takes no request; return how many."""
    asked = 0
    while True:
        with node.database.read() as connection:
            due = forwards.to_commit(connection, peer.name, now=node.clock(), at_most=AT_MOST)
        if not due:
            return asked
        ids = [row.id for row in due]

        def note(connection: Connection, ask_at: float, ids: list[int] = ids) -> None:
            forwards.update(connection, ids, ask_at=ask_at)

        if not ask(node, peer, {row.sop_instance_uid: row.sop_class_uid for row in due}, note):
            return asked
        asked += len(due)
        goes_on()


def forwards_settled(node: NodeContext) -> Settled:
    """Return what an answer means for instances that were forwarded."""

    def settled(connection: Connection, answered: Answered) -> None:
        peer, results = answered.peer, answered.results
        found = forwards.sent_with(connection, peer, answered.instances, sent_by=answered.begun_at)
        sent = [row for row in found if (row.sop_class_uid, row.sop_instance_uid) in results]
        kept = [row.id for row in sent if results[row.sop_class_uid, row.sop_instance_uid] is None]
        forwards.update(connection, kept, state=ForwardState.CONFIRMED, ask_at=None)
        for row in sent:
            reason = results[row.sop_class_uid, row.sop_instance_uid]
            if reason is None:
                continue
            again = row.n_uncommitted == 0
            forwards.update(
                connection,
                [row.id],
                state=ForwardState.WAITING if again else ForwardState.PARKED,
                reason_code=ForwardReason.NOT_COMMITTED,
                message=f"{peer} does not commit to keep it: {failure_words(reason)}",
                priority=forwards.AS_CORRECTION_OR_BACKFILL,
                not_before=node.clock(),
                ask_at=None,
                n_uncommitted=row.n_uncommitted + 1,
            )
        if len(kept) < len(sent):
            log.warning("forwards not confirmed", destination=peer, forwards=len(sent) - len(kept))

    return settled
