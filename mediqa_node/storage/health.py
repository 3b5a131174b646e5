"""What processes and destinations leave behind for `status`: a row for each role, rewritten by it, and one for each
destination, rewritten by each attempt to reach it."""

from dataclasses import asdict

import sqlalchemy as sa

from mediqa_node.domain.health import Destination, Heartbeat, Sweep
from mediqa_node.domain.series import DeliveryReason, DeliveryState
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import deliveries, metadata

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

destinations = sa.Table(
    "destinations",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("failing_since", sa.Float, comment="first failed attempt since the last answer; null: it answered"),
    sa.Column("failure", sa.Text, comment="of the last failed attempt, for people"),
    sa.Column("answered_at", sa.Float),
)

_NO_ANSWER = (DeliveryReason.NO_ANSWER, DeliveryReason.GIVEN_UP)
_ANSWER = (
    None,
    DeliveryReason.STUDY_NOT_THERE_YET,
    DeliveryReason.IDENTITY_UNANSWERED,
    DeliveryReason.STUDY_NOT_THERE,
    DeliveryReason.IDENTITY_NOT_CHECKED,
    DeliveryReason.OTHER_IDENTITY,
    DeliveryReason.REFUSED,
    DeliveryReason.NO_REPORT_CLASS,
)
"""Outcomes of an attempt that show whether the destination answers; the others end before it is called."""


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


def note_attempt(
    database: Database,
    connection: sa.Connection,
    destination: str,
    code: DeliveryReason | None,
    message: str,
    *,
    at: float,
) -> None:
    """Record whether a destination answered an attempt.

    Args:
        code: of the outcome; None: sent.
    """
    here = destinations.c.name == destination
    connection.execute(database.insert_or_ignore(destinations, name=destination))
    if code in _NO_ANSWER:
        since = sa.func.coalesce(destinations.c.failing_since, at)
        connection.execute(sa.update(destinations).where(here).values(failing_since=since, failure=message))
    elif code in _ANSWER:
        answered = {"failing_since": None, "failure": None, "answered_at": at}
        connection.execute(sa.update(destinations).where(here).values(**answered))


def waiting_destinations(connection: sa.Connection) -> list[Destination]:
    """Return the destinations that deliveries wait for, by name."""
    query = (
        sa.select(
            deliveries.c.destination.label("name"),
            sa.func.count().label("n_waiting"),
            sa.func.min(deliveries.c.created_at).label("oldest_at"),
            destinations.c.failing_since,
            sa.func.coalesce(destinations.c.failure, sa.func.max(deliveries.c.message), "").label("why"),
        )
        .outerjoin(destinations, destinations.c.name == deliveries.c.destination)
        .where(deliveries.c.state == DeliveryState.WAITING)
        .group_by(deliveries.c.destination, destinations.c.failing_since, destinations.c.failure)
        .order_by(deliveries.c.destination)
    )
    return [Destination(**row._mapping) for row in connection.execute(query)]
