"""The courier carries out what pages ask for.

An action is a row that was committed with who asked for it: it survives any process, and its result is there to read.
"""

from collections.abc import Callable, Mapping

import structlog

from mediqa_node.domain.access import Outcome
from mediqa_node.domain.commands import Command, CommandAction, CommandState
from mediqa_node.domain.errors import MediqaError, fault_of
from mediqa_node.domain.series import HELD, DeliveryReason, DeliveryState
from mediqa_node.network.sender import open_link, verification_contexts
from mediqa_node.pipeline.deliver import update_series_state
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import audit_trail, commands, outbox, overview

log = structlog.get_logger("courier")

_WORDS = 2000
"""The most that is kept of why an action failed."""

Perform = Callable[[NodeContext, Command], str]
"""Carries an action out and returns its result for people; MediqaError: it failed, with the reason."""


class NotDone(MediqaError):
    """The person who asked has to act: nothing of that number waits any more, or a name is not configured."""


class CommandSweep:
    """Carries out the actions of some kinds that wait, one after the other."""

    def __init__(self, node: NodeContext, perform: Mapping[CommandAction, Perform]) -> None:
        self.node = node
        self._perform = perform
        with node.database.write() as connection:
            commands.end_interrupted(connection, tuple(perform), at=node.clock())

    def run(self) -> int:
        """Carry out every action that waits; return how many there were."""
        count = 0
        while (command := self._next()) is not None:
            self._carry_out(command)
            count += 1
        return count

    def _next(self) -> Command | None:
        with self.node.database.read() as connection:
            return commands.next_waiting(connection, tuple(self._perform))

    def _carry_out(self, command: Command) -> None:
        with self.node.database.write() as connection:
            commands.start(connection, command.id, at=self.node.clock())
        state, outcome = CommandState.DONE, Outcome.DONE
        try:
            result = self._perform[command.action](self.node, command)
        except Exception as error:
            state, outcome, result = CommandState.FAILED, Outcome.FAILED, fault_of(error)[:_WORDS]
            if not isinstance(error, MediqaError):
                log.exception("action failed", action=command.action, command=command.id)
        with self.node.database.write() as connection:
            now = self.node.clock()
            commands.end(connection, command.id, state, result, at=now)
            on = ", ".join(str(value) for value in command.arguments.values() if not isinstance(value, dict))
            audit_trail.add(
                connection, f"{command.action}.done", at=now, by=command.by, outcome=outcome, on=on, detail=result
            )
        log.info("action carried out", action=command.action, command=command.id, state=state)


def retry(node: NodeContext, command: Command) -> str:
    """Try held deliveries again, or have a stopped series assessed again."""
    which = [str(name) for name in command.arguments["which"]]
    with node.database.write() as connection:
        n_deliveries, n_series = overview.retry(connection, which, now=node.clock())
    if not n_deliveries + n_series:
        raise NotDone("nothing of that number is parked or withheld any more")
    return f"tried again: {n_deliveries} deliveries, {n_series} series"


def cancel(node: NodeContext, command: Command) -> str:
    """Give a delivery up: its report is not sent to this destination, and no retry finds it."""
    number, why = int(command.arguments["delivery"]), str(command.arguments["reason"])
    with node.database.write() as connection:
        delivery = outbox.find_delivery(connection, number)
        if delivery is None or delivery.state not in (*HELD, DeliveryState.WAITING) or delivery.job is not None:
            raise NotDone("this delivery is under way, or over")
        outbox.update_delivery(
            connection,
            number,
            state=DeliveryState.SUPERSEDED,
            reason_code=DeliveryReason.CANCELLED,
            message=f"cancelled by {command.by}: {why}"[:500],
            done_at=node.clock(),
        )
        update_series_state(connection, delivery, node.clock())
    return f"delivery to {delivery.destination} cancelled"


def echo(node: NodeContext, command: Command) -> str:
    """Verify a configured peer: by C-ECHO, or by QIDO-RS."""
    peer = node.peer(str(command.arguments["peer"]))
    if peer is None:
        raise NotDone(f"{command.arguments['peer']} is not a configured peer")
    started = node.clock()
    with open_link(
        peer, verification_contexts(), ae_title=node.device.ae_title, timeout_s=node.delivery.timeout_s
    ) as link:
        link.verify()
    return f"{peer.name} answers in {1000 * max(0.0, node.clock() - started):.0f} ms"


QUICK_ACTIONS: Mapping[CommandAction, Perform] = {
    CommandAction.RETRY: retry,
    CommandAction.CANCEL: cancel,
    CommandAction.ECHO: echo,
}
