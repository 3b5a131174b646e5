"""The context that all stations share: open resources and site policy."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Protocol

from mediqa_node.dicom.report.request import ReportDevice
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import (
    CompanionRules,
    CompletionRules,
    DeliveryRules,
    ReceiverPolicy,
    ReportRules,
    Retention,
    ScorePolicy,
)
from mediqa_node.domain.rules import ReturnRule
from mediqa_node.pipeline.heartbeat import Pulse
from mediqa_node.pipeline.score import Assessor
from mediqa_node.storage.database import Connection, Database
from mediqa_node.storage.spool import Spool

if TYPE_CHECKING:
    from mediqa_node.pipeline.preparation import Preparation


class Jobs(Protocol):
    """Enqueues durable jobs inside the caller's transaction."""

    def score(
        self, connection: Connection, job: str, series_instance_uid: str, generation: int, *, can_wait: bool = False
    ) -> None:
        """Enqueue the assessment of a series, behind all others if it can wait."""

    def backscore(self, connection: Connection, job: str, number: int, series_instance_uid: str) -> None:
        """Enqueue the score of a series for a set, behind everything else."""

    def deliver(self, connection: Connection, job: str, delivery_id: int, destination: str) -> None:
        """Enqueue one attempt to send a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """Open resources and policy of one process. Only a worker has an `assessor`, and a `preparation`."""

    database: Database
    spool: Spool
    jobs: Jobs
    device: ReportDevice
    host_id: str | None = None
    time_zone: tzinfo = UTC
    peers: tuple[Peer, ...] = ()
    returns: tuple[ReturnRule, ...] = ()
    receiver: ReceiverPolicy = ReceiverPolicy()
    completion: CompletionRules = CompletionRules()
    score: ScorePolicy = ScorePolicy()
    delivery: DeliveryRules = DeliveryRules()
    report: ReportRules = ReportRules()
    companions: CompanionRules = CompanionRules()
    retention: Retention = Retention()
    allow_untrained: bool = False
    assessor: Assessor | None = None
    preparation: "Preparation | None" = None
    pulse: Pulse = field(default_factory=Pulse)
    clock: Callable[[], float] = time.time

    def peer(self, name: str) -> Peer | None:
        """Return a configured peer by name, or None."""
        return next((peer for peer in self.peers if peer.name == name), None)

    def peer_of(self, ae_title: str) -> Peer | None:
        """Return the configured peer with this AE title, or None."""
        return next((peer for peer in self.peers if peer.ae_title == ae_title and not peer.dicomweb), None)
