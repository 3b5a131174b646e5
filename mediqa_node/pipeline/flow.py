"""The life of a series, top to bottom.

    a scanner sends it   receive    C-STORE → spool and index → 0x0000           RECEIVING
    its series ends      complete   announced | contiguous | quiet | forced      READY
    the worker           assess     harvest → stacks → slices → score            ASSESSED | NOT_SCORED | WITHHELD
    the courier          deliver    identity → report → C-STORE → status         DELIVERED | WITHHELD | PARKED

A late instance, a corrected copy or a reject note returns the series to RECEIVING and makes the next
revision. Each station commits its result together with the job of the next: killed at any point, the
next start continues from the last commit.

    station      process    called by                   reads                  commits
    receive      receiver   one thread per sender       the socket             instance row (group commit)
    complete     courier    a sweep                     series, associations   state + score job
    assess       worker     DBOS queue `score`          spooled files, model   technique; assessment + deliveries + jobs
    deliver      courier    DBOS queue `deliver`        outbox, peer           report bytes, then their status
    companions   courier    a sweep                     sent deliveries, peer  companions' bytes, then their status

Stations are imported inside the functions: the receiver imports this file and stays small.
"""

from typing import TYPE_CHECKING

from mediqa_node.domain.policy import ReceiverPolicy
from mediqa_node.network.contexts import acceptor_contexts
from mediqa_node.network.receiver import Receiver
from mediqa_node.pipeline.intake import SpoolingIntake
from mediqa_node.storage.database import Database
from mediqa_node.storage.spool import Spool
from mediqa_node.storage.writer import IndexWriter

if TYPE_CHECKING:
    from mediqa_node.network.services import Services
    from mediqa_node.pipeline.node import NodeContext
    from mediqa_node.storage.outbox import ReportRow


def receive(
    database: Database,
    spool: Spool,
    policy: ReceiverPolicy,
    *,
    ae_title: str,
    host: str,
    port: int,
    transfer_syntaxes: tuple[str, ...],
    services: "Services | None" = None,
) -> tuple[Receiver, IndexWriter]:
    """Start the receiver; its status 0x0000 means spooled, indexed and durable.

    Args:
        services: in addition to C-STORE and C-ECHO.
    """
    writer = IndexWriter(database, spool)
    receiver = Receiver(
        ae_title=ae_title,
        host=host,
        port=port,
        policy=policy,
        contexts=acceptor_contexts(
            transfer_syntaxes, policy.private_sop_classes, [syntax for syntax, _ in services or {}]
        ),
        services=services,
        intake=SpoolingIntake(spool, writer, ae_title),
        has_room=spool.has_room,
    )
    return receiver, writer


def assess(node: "NodeContext", series_instance_uid: str, generation: int) -> str:
    """Harvest and score a complete series, named by UID and generation of its content; return the outcome in a word."""
    from mediqa_node.pipeline.assess import assess_series

    return assess_series(node, series_instance_uid, generation)


def deliver(node: "NodeContext", delivery_id: int) -> str:
    """Make one attempt to bring a report to its destination; return the delivery's new state."""
    from mediqa_node.pipeline.deliver import deliver_report

    return deliver_report(node, delivery_id, report=report)


def report(node: "NodeContext", series_instance_uid: str, revision: int, sop_class_uid: str) -> "ReportRow":
    """Return the report of a revision in the class that the destination accepts, built once and kept."""
    from mediqa_node.pipeline.report import report_for

    return report_for(node, series_instance_uid, revision, sop_class_uid)
