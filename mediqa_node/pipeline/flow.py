"""The life of one instance, top to bottom.

    a scanner sends it   receive   C-STORE → spool and index → 0x0000         RECEIVING
    its series ends      settle    announced | contiguous | quiet | forced    READY
    the worker judges    judge     harvest → stacks → slices → score          ASSESSED | NOT_SCORED | WITHHELD
    the courier sends    deliver   identity → report → C-STORE → status       DELIVERED | WITHHELD | PARKED

A late instance, a corrected copy or a reject note returns the series to RECEIVING and makes the
next revision. Each station commits its result together with the job of the next: killed at any
point, the next start goes on where the last commit was.

    station   process    called by                 reads                  commits
    receive   receiver   one thread a sender       the socket             instance row (group commit)
    settle    courier    a sweep, 10 times a second series, associations   state + score job
    judge     worker     DBOS queue `score`        spooled files, model   technique; assessment + deliveries + jobs
    deliver   courier    DBOS queue `deliver`      outbox, peer           report bytes, then its status
    accompany courier    a sweep, every second     sent deliveries, peer  companions' bytes, then their status
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mediqa_node.domain.policy import ReceiverPolicy
from mediqa_node.network.contexts import acceptor_contexts
from mediqa_node.network.receiver import Receiver
from mediqa_node.pipeline.intake import SpoolingIntake
from mediqa_node.storage.database import Database
from mediqa_node.storage.spool import Spool
from mediqa_node.storage.writer import IndexWriter

if TYPE_CHECKING:  # the receiver imports this file and must stay small
    from mediqa_node.pipeline.node import NodeContext


def receive(
    database: Database,
    spool: Spool,
    policy: ReceiverPolicy,
    *,
    ae_title: str,
    host: str,
    port: int,
    transfer_syntaxes: tuple[str, ...],
) -> tuple[Receiver, IndexWriter]:
    """Open the door: a listening receiver whose 0x0000 means spooled, indexed and durable."""
    writer = IndexWriter(database, spool)
    receiver = Receiver(
        ae_title=ae_title,
        host=host,
        port=port,
        policy=policy,
        contexts=acceptor_contexts(transfer_syntaxes, policy.private_sop_classes),
        intake=SpoolingIntake(spool, writer),
        has_room=spool.has_room,
    )
    return receiver, writer


def complete_series(node: "NodeContext") -> Callable[[], int]:
    """Return the sweep that finds complete series and hands them to the worker."""
    from mediqa_node.pipeline.completion_sweep import CompletionSweep

    return CompletionSweep(node).sweep


def judge(node: "NodeContext") -> Callable[[str, int], str]:
    """Return the station that harvests and scores a series, named by UID and generation of its content."""
    from mediqa_node.pipeline.assess import assess_series

    return lambda series_instance_uid, generation: assess_series(node, series_instance_uid, generation)


def deliver(node: "NodeContext") -> Callable[[int], str]:
    """Return the station that makes one attempt to bring a report to its destination."""
    from mediqa_node.pipeline.deliver import deliver as attempt

    return lambda delivery_id: attempt(node, delivery_id)
