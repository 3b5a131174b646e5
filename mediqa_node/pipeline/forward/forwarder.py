"""The forwarder: a sender for each destination, and what is done between the sends."""

import time
from collections.abc import Callable, Sequence
from threading import Event, Thread

import structlog

from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.forward import ForwardReason, ForwardState, Priority
from mediqa_node.domain.series import InstanceStatus
from mediqa_node.pipeline.forward.context import ForwardContext
from mediqa_node.pipeline.forward.probe import probe_due
from mediqa_node.pipeline.forward.reconcile import RECONCILE_EVERY_S, reconcile_due
from mediqa_node.pipeline.forward.send import Sender
from mediqa_node.storage import forward_copies, forwards
from mediqa_node.storage.database import Connection
from mediqa_node.storage.forward_copies import Settled

log = structlog.get_logger("forwarder")

_LOOK_EVERY_S = 0.5

_Move = tuple[ForwardState, ForwardReason | None, Priority]


_HELD_BECAUSE = {
    InstanceStatus.DISPUTED: ForwardReason.OTHER_IDENTITY,
    InstanceStatus.CONFLICT: ForwardReason.OTHER_PIXELS,
    InstanceStatus.REJECTED: ForwardReason.OTHER_PIXELS,
}


def settled_as(copy: Settled) -> _Move | None:
    """Return what becomes of the forward of a further copy that was compared, or decided about; None: nothing yet."""
    if copy.copy is InstanceStatus.CURRENT:
        return ForwardState.WAITING, None, Priority.CORRECTION
    if copy.copy is InstanceStatus.SUPERSEDED:
        return ForwardState.SUPERSEDED, ForwardReason.REPLACED, Priority.CORRECTION
    if copy.copy is InstanceStatus.SAME or (copy.copy is InstanceStatus.REJECTED and copy.is_same):
        if copy.is_served:
            return ForwardState.SUPERSEDED, ForwardReason.SAME_IMAGE, Priority.CORRECTION
        return ForwardState.WAITING, None, Priority.LIVE  # the first copy is not bound for this destination
    if isinstance(copy.copy, InstanceStatus) and (why := _HELD_BECAUSE.get(copy.copy)) is not None:
        return ForwardState.HELD, why, Priority.CORRECTION
    return None


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
        settle = self._context.pulse.timed("copies", 60.0, self._guarded(self.settle))
        asking = Thread(target=self._ask, name="forward questions", daemon=True)
        asking.start()
        while not self._stop_event.is_set():
            settle()
            look()
            self._stop_event.wait(_LOOK_EVERY_S)
        asking.join(timeout=10.0)
        for sender in self._senders.values():
            sender.join(timeout=10.0)

    def look(self) -> None:
        """Start a sender for each destination that something waits for, and another for one that has died."""
        with self._context.database.read() as connection:
            names = forwards.destinations(connection)
        for name in names:
            if (known := self._senders.get(name)) is None or not known.is_alive():
                self._senders[name] = Sender(self._context, name, self._stop_event)
                self._senders[name].start()

    def settle(self) -> int:
        """Move on the forwards of copies that were compared or decided about; return how many moved."""
        with self._context.database.read() as connection:
            settled = forward_copies.settled_copies(connection)
        moves: dict[_Move, list[Settled]] = {}
        for one in settled:
            move = settled_as(one)
            if move is not None and (move[0] is not ForwardState.HELD or move[1] != one.reason_code):
                moves.setdefault(move, []).append(one)
        if not moves:
            return 0
        now = self._context.clock()
        with self._context.database.write() as connection:
            for (state, code, priority), copies in moves.items():
                ids, ended = [one.id for one in copies], now if state is ForwardState.SUPERSEDED else None
                values = {"reason_code": code, "priority": priority, "not_before": now, "done_at": ended}
                forwards.update(connection, ids, [ForwardState.HELD], state=state, **values)
                if state is ForwardState.HELD:
                    log.error("forward held: a further copy differs from the first", why=code, forwards=len(ids))
                if state is ForwardState.WAITING and priority is Priority.CORRECTION:
                    self._end_replaced(connection, copies, now)
        return sum(map(len, moves.values()))

    def _end_replaced(self, connection: Connection, corrections: Sequence[Settled], now: float) -> None:
        """End what still had to be sent of images whose correction goes to the same destination."""
        for name in {one.destination for one in corrections}:
            uids = [one.sop_instance_uid for one in corrections if one.destination == name]
            values = {"state": ForwardState.SUPERSEDED, "reason_code": ForwardReason.REPLACED, "done_at": now}
            unsent = [ForwardState.WAITING, ForwardState.PARKED]
            forwards.update(connection, forward_copies.replaced(connection, name, uids), unsent, **values)

    def _ask(self) -> None:
        """Ask destinations what they accept and what they hold, in a thread that may wait for them."""
        pulse = self._context.pulse
        probe = pulse.timed("probes", 600.0, self._guarded(lambda: probe_due(self._context, self._probed)))
        compare = pulse.timed("reconcile", RECONCILE_EVERY_S, self._guarded(self._reconcile))
        compared_at = time.monotonic()
        while not self._stop_event.is_set():
            probe()
            if time.monotonic() - compared_at >= RECONCILE_EVERY_S:
                compare()
                compared_at = time.monotonic()
            self._stop_event.wait(_LOOK_EVERY_S)

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
