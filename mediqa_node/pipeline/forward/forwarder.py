"""The forwarder: a sender for each destination, and what is done between the sends."""

import time
from collections.abc import Callable
from threading import Event, Thread

import structlog

from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.forward import ForwardReason, ForwardState
from mediqa_node.domain.series import InstanceStatus
from mediqa_node.pipeline.forward.context import ForwardContext
from mediqa_node.pipeline.forward.probe import probe_due
from mediqa_node.pipeline.forward.reconcile import RECONCILE_EVERY_S, reconcile_due
from mediqa_node.pipeline.forward.send import Sender
from mediqa_node.storage import forwards

log = structlog.get_logger("forwarder")

_LOOK_EVERY_S = 0.5

_RESOLVED = {
    InstanceStatus.CURRENT: (ForwardState.WAITING, None),
    InstanceStatus.SAME: (ForwardState.SUPERSEDED, ForwardReason.SAME_IMAGE),
    InstanceStatus.SUPERSEDED: (ForwardState.SUPERSEDED, ForwardReason.REPLACED),
    InstanceStatus.REJECTED: (ForwardState.WAITING, None),
    InstanceStatus.DISPUTED: (ForwardState.HELD, ForwardReason.OTHER_IDENTITY),
    InstanceStatus.CONFLICT: (ForwardState.HELD, ForwardReason.OTHER_PIXELS),
}
"""What becomes of the forward of a further copy once it has been compared with the first, or a person has decided."""


class Forwarder:
    """Everything that the forwarding process does, until it stops."""

    def __init__(self, context: ForwardContext, stop: Event) -> None:
        self._context = context
        self._stop_event = stop
        self._senders: dict[str, Sender] = {}
        self._probed: dict[str, float] = {}

    def run(self) -> None:
        """Start senders as they are needed, settle copies, ask destinations what they accept."""
        look = self._context.pulse.timed("forwards", 60.0, self._guarded(self.look))
        asking = Thread(target=self._ask, name="forward questions", daemon=True)
        asking.start()
        while not self._stop_event.wait(_LOOK_EVERY_S):
            look()
        asking.join(timeout=10.0)
        for sender in self._senders.values():
            sender.join(timeout=10.0)

    def look(self) -> None:
        """Settle the forwards of copies, and start a sender for each destination that something waits for."""
        self.settle()
        with self._context.database.read() as connection:
            names = forwards.destinations(connection)
        for name in names:
            if name not in self._senders:
                self._senders[name] = Sender(self._context, name, self._stop_event)
                self._senders[name].start()

    def settle(self) -> int:
        """Move on the forwards of copies that were compared or decided about; return how many moved."""
        with self._context.database.read() as connection:
            held = forwards.held_with_status(connection)
            corrected = [row.sop_instance_uid for row, copy in held if copy is InstanceStatus.CURRENT]
            replaced = forwards.replaced(connection, corrected) if corrected else []
        moves: dict[tuple[ForwardState, ForwardReason | None], list[int]] = {}
        for row, copy in held:
            wanted = _RESOLVED.get(copy) if isinstance(copy, InstanceStatus) else None
            if wanted is not None and wanted != (row.state, row.reason_code):
                moves.setdefault(wanted, []).append(row.id)
        if not moves and not replaced:
            return 0
        now = self._context.clock()
        with self._context.database.write() as connection:
            for (state, code), ids in moves.items():
                ended = now if state is ForwardState.SUPERSEDED else None
                forwards.update(connection, ids, state=state, reason_code=code, not_before=now, done_at=ended)
                if state is ForwardState.HELD:
                    log.error("forward held: a further copy differs from the first", why=code, forwards=len(ids))
            end = {"state": ForwardState.SUPERSEDED, "reason_code": ForwardReason.REPLACED, "done_at": now}
            forwards.update(connection, replaced, **end)
        return len(replaced) + sum(map(len, moves.values()))

    def _ask(self) -> None:
        """Ask destinations what they accept and what they hold, in a thread that may wait for them."""
        pulse = self._context.pulse
        probe = pulse.timed("probes", 600.0, self._guarded(lambda: probe_due(self._context, self._probed)))
        compare = pulse.timed("reconcile", RECONCILE_EVERY_S, self._guarded(self._reconcile))
        compared_at = time.monotonic()
        while not self._stop_event.wait(_LOOK_EVERY_S):
            probe()
            if time.monotonic() - compared_at >= RECONCILE_EVERY_S:
                compare()
                compared_at = time.monotonic()

    def _reconcile(self) -> None:
        reconcile_due(self._context, self._stop_event.is_set)

    def _guarded(self, step: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                step()
            except MediqaError as error:
                log.warning("forwarder postponed", reason=str(error), hourly_for=type(error))
            except Exception as error:
                log.exception("forwarder failed", hourly_for=type(error))

        return run
