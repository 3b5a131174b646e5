"""The life of a series, top to bottom.

    a scanner sends it   receive    C-STORE → spool and index → 0x0000           RECEIVING
                         forward    unchanged to other archives, where `forward` says so
    its series ends      complete   announced | contiguous | quiet | forced      READY
    the worker           assess     harvest → stacks → slices → score            ASSESSED | NOT_SCORED | WITHHELD
                         (prepare   the same of what has arrived, before the series ends)
    the courier          deliver    identity → report → C-STORE → status         DELIVERED | WITHHELD | PARKED
    the archive          confirm    N-ACTION, then its N-EVENT-REPORT            CONFIRMED

A late instance, a corrected copy or a reject note returns the series to RECEIVING and makes the next
revision. Each station commits its result together with the job of the next: killed at any point, the
next start continues from the last commit.

    station      process    called by                   reads                  commits
    receive      receiver   one thread per sender       the socket             instance row (group commit)
    complete     courier    a sweep                     series, associations   state + score job
    prepare      worker     a thread                    spooled files, model   nothing: `assess` recalls it
    assess       worker     DBOS queue `score`          spooled files, model   technique; assessment + deliveries + jobs
    backscore    worker     DBOS queue `score`          spooled files, model   assessment, or a score kept alongside
    deliver      courier    DBOS queue `deliver`        outbox, peer           report bytes, then their status
    companions   courier    a sweep                     sent deliveries, peer  companions' bytes, then their status
    forward      forwarder  one thread per destination  spooled files, peer    status, some instances at a time
    commitment   courier    a sweep                     sent deliveries, peer  request; then what its answer means

Stations are imported inside the functions: the receiver imports this file and stays small.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mediqa_node.domain.policy import ReceiverPolicy
from mediqa_node.network.contexts import VERIFICATION, acceptor_contexts
from mediqa_node.network.listeners import Listener
from mediqa_node.network.receiver import Receiver
from mediqa_node.network.services import Services
from mediqa_node.pipeline.forward.offer import Offer
from mediqa_node.pipeline.forward.plan import ForwardPlan
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
    also_called: Collection[str] = (),
    listeners: Sequence[Listener],
    transfer_syntaxes: tuple[str, ...],
    plan: ForwardPlan | None = None,
    services: Services | None = None,
) -> tuple[Receiver, IndexWriter]:
    """Start the receiver; its status 0x0000 to a C-STORE means spooled, indexed and durable, with all its forwards.

    Args:
        plan: the forward rules of the site; None without any.
        services: further services by abstract syntax and Command Field.
    """
    own = (VERIFICATION, *(abstract_syntax for abstract_syntax, _ in services or {}))
    writer = IndexWriter(database, spool)
    contexts = acceptor_contexts(transfer_syntaxes, policy.private_sop_classes, own[1:])
    offer = Offer(database, plan, contexts, always=own) if plan is not None else None
    receiver = Receiver(
        ae_title=ae_title,
        also_called=also_called,
        listeners=listeners,
        policy=policy,
        contexts=contexts,
        services=services,
        intake=SpoolingIntake(spool, writer, ae_title, plan),
        has_room=spool.has_room,
        offered=offer.to if offer is not None else None,
    )
    return receiver, writer


def assess(node: "NodeContext", series_instance_uid: str, generation: int) -> str:
    """Harvest and score a complete series, named by UID and generation of its content; return the outcome in a word."""
    from mediqa_node.pipeline.assess import assess_series

    return assess_series(node, series_instance_uid, generation)


def backscore(node: "NodeContext", number: int, series_instance_uid: str) -> str:
    """Score a series that the node already holds, for a set of that number; return the outcome in a word."""
    from mediqa_node.pipeline.backscore.station import backscore_series

    return backscore_series(node, number, series_instance_uid)


def deliver(node: "NodeContext", delivery_id: int) -> str:
    """Make one attempt to bring a report to its destination; return the delivery's new state."""
    from mediqa_node.pipeline.deliver import deliver_report

    return deliver_report(node, delivery_id, report=report)


def report(node: "NodeContext", series_instance_uid: str, revision: int, sop_class_uid: str) -> "ReportRow":
    """Return the report of a revision in the class that the destination accepts, built once and kept."""
    from mediqa_node.pipeline.report import report_for

    return report_for(node, series_instance_uid, revision, sop_class_uid)
