"""What each process leaves behind for `status`: a row for each role, rewritten by it.

A module of its own, so that the receiver, which is to be small, loads nothing else of `status`.
"""

from dataclasses import asdict

import sqlalchemy as sa

from mediqa_node.domain.health import Heartbeat, Sweep
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import metadata

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


def write_heartbeat(database: Database, beat: Heartbeat) -> None:
    """Replace the row of a role."""
    values = {name: getattr(beat, name) for name in beat.__dataclass_fields__}
    values["sweeps"] = {name: asdict(sweep) for name, sweep in beat.sweeps.items()}
    with database.write() as connection:
        changed = sa.update(heartbeats).where(heartbeats.c.role == beat.role).values(**values)
        if not connection.execute(changed).rowcount:
            connection.execute(database.insert_or_ignore(heartbeats, **values))


def read_heartbeats(connection: sa.Connection) -> list[Heartbeat]:
    """Return what each role last wrote."""
    rows = connection.execute(sa.select(heartbeats).order_by(heartbeats.c.role))
    return [
        Heartbeat(**{**row._mapping, "sweeps": {name: Sweep(**one) for name, one in row.sweeps.items()}})
        for row in rows
    ]
