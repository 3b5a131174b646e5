"""A node that forwards, in this process: a receiver with rules, and a forwarder to real peers."""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from threading import Event, Thread
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules
from mediqa_node.domain.rules import ForwardRule
from mediqa_node.pipeline.forward.context import ForwardContext
from mediqa_node.pipeline.forward.forwarder import Forwarder
from mediqa_node.pipeline.forward.plan import ForwardPlan
from mediqa_node.storage.forward_tables import forwards
from mediqa_node.storage.tables import instances
from support.receiving import CT, EXPLICIT, MR, Listening
from support.waiting import until

PATIENT = DeliveryRules(retry_first_s=0.2, retry_at_most_s=1.0, timeout_s=5.0)
CLASSES = {CT: (EXPLICIT, "1.2.840.10008.1.2"), MR: (EXPLICIT,)}


class Forwarding:
    """Receiver and forwarder over one database; the forwarder can be stopped and started again."""

    def __init__(
        self,
        folder: Path,
        peers: Sequence[Peer],
        rules: Sequence[ForwardRule],
        *,
        delivery: DeliveryRules = PATIENT,
        clock: Any = None,
        **policy: Any,
    ) -> None:
        def now(zone: tzinfo) -> datetime:
            return datetime.now(zone)

        self.peers = tuple(peers)
        plan = ForwardPlan(rules, peers, clock=clock or now)
        self.node = Listening(folder, plan=plan, **policy)
        self.context = ForwardContext(
            database=self.node.database,
            spool=self.node.spool,
            ae_title="MEDIQA",
            peers=self.peers,
            destinations=plan.all_destinations,
            contexts=CLASSES,
            delivery=delivery,
        )
        self._stop = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the forwarder."""
        self._stop.clear()
        self.forwarder = Forwarder(self.context, self._stop)
        self._thread = Thread(target=self.forwarder.run, daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Stop the forwarder."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join(timeout=30)
            self._thread = None

    def rows(self) -> list[Any]:
        """Return the forwards with the UID of their instance, in order."""
        query = sa.select(forwards, instances.c.sop_instance_uid, instances.c.sha256).join(
            instances, instances.c.id == forwards.c.instance_id
        )
        with self.node.database.read() as connection:
            return list(connection.execute(query.order_by(forwards.c.id)).all())

    def states(self) -> list[str]:
        """Return the state of each forward, in order."""
        return [row.state for row in self.rows()]

    def all_are(self, *states: str) -> None:
        """Wait until every forward is in one of these states."""
        until(lambda: self.states() and set(self.states()) <= set(states), f"all forwards are {' or '.join(states)}")

    def close(self) -> None:
        self.pause()
        self.node.stop(within_s=1.0)
