"""Actions that pages ask for; the courier carries them out, one after the other."""

from collections.abc import Mapping
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


def next_waiting(connection: sa.Connection) -> Command | None:
    """Return the action that was asked for first and waits, or None."""
    query = sa.select(*_COLUMNS).where(commands.c.state == CommandState.WAITING).order_by(commands.c.id).limit(1)
    row = connection.execute(query).one_or_none()
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
    connection.execute(here.values(state=state, result=result[:2000], done_at=at))


def end_interrupted(connection: sa.Connection, *, at: float) -> int:
    """Fail the actions that a process began and did not end; return how many."""
    here = sa.update(commands).where(commands.c.state == CommandState.RUNNING)
    values = {"state": CommandState.FAILED, "result": "interrupted: the node was stopped", "done_at": at}
    return int(connection.execute(here.values(**values)).rowcount)


def find(connection: sa.Connection, number: int) -> Command | None:
    """Return an action by its number, or None."""
    row = connection.execute(sa.select(*_COLUMNS).where(commands.c.id == number)).one_or_none()
    return _command(row) if row is not None else None


def latest(connection: sa.Connection, *, at_most: int = 20) -> list[Command]:
    """Return the actions that were asked for last, the latest first."""
    rows = connection.execute(sa.select(*_COLUMNS).order_by(commands.c.id.desc()).limit(at_most))
    return [_command(row) for row in rows]
