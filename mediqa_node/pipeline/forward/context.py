"""What the forwarder needs: open resources and the policy of the site."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules
from mediqa_node.pipeline.heartbeat import Pulse
from mediqa_node.storage.database import Database
from mediqa_node.storage.spool import Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardContext:
    """Open resources and policy of the forwarder.

    Attributes:
        ae_title: of this node.
        destinations: names of all peers in forward rules.
        contexts: transfer syntaxes by SOP class that this node receives.
    """

    database: Database
    spool: Spool
    ae_title: str
    peers: tuple[Peer, ...]
    destinations: frozenset[str]
    contexts: Mapping[str, Sequence[str]]
    delivery: DeliveryRules = DeliveryRules()
    pulse: Pulse = field(default_factory=Pulse)
    clock: Callable[[], float] = time.time

    def peer(self, name: str) -> Peer | None:
        """Return a configured peer by name, or None."""
        return next((peer for peer in self.peers if peer.name == name), None)
