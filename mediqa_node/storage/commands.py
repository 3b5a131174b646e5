"""Actions that pages ask for; the courier carries them out, one after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.commands import Command, CommandAction, CommandState
from mediqa_node.storage.workbench_tables import commands

_COLUMNS = [commands.c[name] for name in Command.__dataclass_fields__]


def _command(row: sa.Row[*tuple[object, ...]]) -> Command:
    kinds = {"action": CommandAction(row.action), "state": CommandState(row.state)}
    return Command(**dict(row._mapping) | kinds)


def ask(connection: sa.Connection, action: CommandAction, arguments: Mapping[str, Any], *, by: str, at: float) -> int:
    """Ask for an action; return its number."""
    values = {"action": action, "arguments": dict(arguments), "by": by[:64], "at": at}
    made = connection.execute(
        sa.insert(commands).values(**values, state=CommandState.WAITING, result="").returning(commands.c.id)
    )
    return int(made.scalar_one())


def next_waiting(connection: sa.Connection, among: Sequence[CommandAction]) -> Command | None:
    """Return the action of some kinds that was asked for first and waits, or None."""
    waits = sa.and_(commands.c.state == CommandState.WAITING, commands.c.action.in_(among))
    row = connection.execute(sa.select(*_COLUMNS).where(waits).order_by(commands.c.id).limit(1)).one_or_none()
    return _command(row) if row is not None else None


def start(connection: sa.Connection, number: int, *, at: float) -> None:
    """Note that an action has begun."""
    here = sa.update(commands).where(commands.c.id == number)
    connection.execute(here.values(state=CommandState.RUNNING, started_at=at))


def advance(connection: sa.Connection, number: int, share: float) -> None:
    """Note how far an action is, 0..1."""
    connection.execute(sa.update(commands).where(commands.c.id == number).values(progress=share))


def end(connection: sa.Connection, number: int, state: CommandState, result: str, *, at: float) -> None:
    """Note how an action ended."""
    here = sa.update(commands).where(commands.c.id == number)
    connection.execute(here.values(state=state, result=result, done_at=at))


def end_interrupted(connection: sa.Connection, among: Sequence[CommandAction], *, at: float) -> int:
    """Fail the actions of some kinds that a process began and did not end; return how many."""
    running = sa.and_(commands.c.state == CommandState.RUNNING, commands.c.action.in_(among))
    here = sa.update(commands).where(running)
    values = {"state": CommandState.FAILED, "result": "interrupted: the node was stopped", "done_at": at}
    return int(connection.execute(here.values(**values)).rowcount)


def find(connection: sa.Connection, number: int) -> Command | None:
    """Return an action by its number, or None."""
    row = connection.execute(sa.select(*_COLUMNS).where(commands.c.id == number)).one_or_none()
    return _command(row) if row is not None else None


def latest(
    connection: sa.Connection, among: Sequence[CommandAction] = tuple(CommandAction), *, at_most: int = 20
) -> list[Command]:
    """Return the actions of some kinds that were asked for last, the latest first."""
    query = sa.select(*_COLUMNS).where(commands.c.action.in_(among)).order_by(commands.c.id.desc()).limit(at_most)
    rows = connection.execute(query)
    return [_command(row) for row in rows]
