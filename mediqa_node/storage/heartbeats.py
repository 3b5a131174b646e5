"""What each process leaves behind for `status`: a row for each, rewritten by it.

A module of its own, so that the receiver, which is to be small, loads nothing else of `status`.
"""

from dataclasses import asdict

import sqlalchemy as sa

from mediqa_node.domain.health import SILENT_AFTER_S, Heartbeat, Sweep
from mediqa_node.storage.cluster_tables import processes
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import metadata

# written by versions before `processes`, which know no leases
heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("role", sa.String(16), primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("sweeps", sa.JSON, nullable=False, comment="domain.health.Sweep by name"),
    sa.Column("n_associations", sa.Integer, comment="open ones, of the receiver"),
    sa.Column("max_associations", sa.Integer),
)
_FORGOTTEN_AFTER_S = 7 * 86_400.0


def write_heartbeat(database: Database, beat: Heartbeat) -> None:
    """Replace the row of a process."""
    values = {column.name: getattr(beat, column.name) for column in processes.c}
    values["sweeps"] = {name: asdict(sweep) for name, sweep in beat.sweeps.items()}
    with database.write() as connection:
        changed = sa.update(processes).where(processes.c.name == beat.name).values(**values)
        if not connection.execute(changed).rowcount:
            connection.execute(database.insert_or_ignore(processes, **values))


def read_heartbeats(connection: sa.Connection) -> list[Heartbeat]:
    """Return what each process last wrote, by name."""
    rows = connection.execute(sa.select(processes).order_by(processes.c.name))
    return [
        Heartbeat(**{**row._mapping, "sweeps": {name: Sweep(**one) for name, one in row.sweeps.items()}})
        for row in rows
    ]


def forget_processes(connection: sa.Connection, *, now: float) -> None:
    """Delete the rows of processes that have not run for a week: hosts come and go."""
    connection.execute(sa.delete(processes).where(processes.c.at < now - _FORGOTTEN_AFTER_S))


def runs_without_lease(connection: sa.Connection, role: str, *, now: float) -> bool:
    """Whether a process of a version that knows no leases fills a role: it is left alone until it has ended."""
    query = sa.select(heartbeats.c.at).where(heartbeats.c.role == role)
    at = connection.execute(query).scalar_one_or_none()
    return at is not None and abs(now - at) < SILENT_AFTER_S
