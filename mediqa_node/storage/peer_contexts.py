"""What the destinations of forward rules accept, as they have answered when they were asked."""

import sqlalchemy as sa

from mediqa_node.storage.database import Database
from mediqa_node.storage.forward_tables import accepted_contexts


def accepted(connection: sa.Connection) -> dict[str, dict[str, list[str]]]:
    """Return, by peer, its transfer syntaxes by SOP class."""
    rows = connection.execute(sa.select(accepted_contexts.c.peer, accepted_contexts.c.contexts))
    return {row.peer: row.contexts for row in rows}


def ages(connection: sa.Connection) -> dict[str, tuple[float, bool]]:
    """Return, by peer, when it was asked, and whether it has refused since what it had accepted."""
    rows = connection.execute(
        sa.select(accepted_contexts.c.peer, accepted_contexts.c.probed_at, accepted_contexts.c.stale)
    )
    return {row.peer: (row.probed_at, bool(row.stale)) for row in rows}


def keep(database: Database, peer: str, contexts: dict[str, list[str]], *, at: float) -> None:
    """Keep what a peer accepts."""
    values = {"contexts": contexts, "probed_at": at, "stale": False}
    with database.write() as connection:
        statement = sa.update(accepted_contexts).where(accepted_contexts.c.peer == peer).values(**values)
        if not connection.execute(statement).rowcount:
            connection.execute(database.insert_or_ignore(accepted_contexts, peer=peer, **values))


def doubt(connection: sa.Connection, peer: str) -> None:
    """Have a peer asked again: it has refused what it had accepted."""
    connection.execute(sa.update(accepted_contexts).where(accepted_contexts.c.peer == peer).values(stale=True))
