"""What `status` is told: a row for each destination, rewritten by each attempt to reach it, and what needs a person."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.cluster import Member
from mediqa_node.domain.forward import ForwardQueue
from mediqa_node.domain.health import UNCOMMITTED_AFTER_S, Concern, Destination, Heartbeat, Stuck, concerns
from mediqa_node.domain.series import DeliveryReason, DeliveryState, SeriesState
from mediqa_node.domain.tls import TlsFile
from mediqa_node.storage import forwards, reconciliations, report_commitments
from mediqa_node.storage.database import Database
from mediqa_node.storage.heartbeats import read_heartbeats
from mediqa_node.storage.tables import deliveries, metadata, series

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


def outage_over(connection: sa.Connection, destination: str, *, at: float) -> None:
    """Take the time in which a destination was unreachable off that in which it answered no C-FIND about reports."""
    here = destinations.c.name == destination
    since = connection.execute(sa.select(destinations.c.failing_since).where(here)).scalar_one_or_none()
    if since is None:
        return
    waited = sa.and_(deliveries.c.destination == destination, deliveries.c.unanswered_since <= since)
    later = deliveries.c.unanswered_since + max(at - since, 0.0)
    connection.execute(sa.update(deliveries).where(waited).values(unanswered_since=later))
    connection.execute(sa.update(destinations).where(here).values(failing_since=None, failure=None, answered_at=at))


def waiting_destinations(connection: sa.Connection) -> list[Destination]:
    """Return the destinations that deliveries, companions of sent reports or forwards wait for, by name."""
    waits = deliveries.c.state == DeliveryState.WAITING
    follows = sa.and_(deliveries.c.state == DeliveryState.SENT, deliveries.c.companions_at.is_not(None))
    why = sa.case((waits, deliveries.c.message), else_=deliveries.c.companions_note)
    query = (
        sa.select(
            deliveries.c.destination.label("name"),
            sa.func.count().filter(waits).label("n_waiting"),
            sa.func.count().filter(follows).label("n_companions"),
            sa.func.min(sa.case((waits, deliveries.c.created_at), else_=deliveries.c.done_at)).label("oldest_at"),
            destinations.c.failing_since,
            sa.func.coalesce(destinations.c.failure, sa.func.max(why), "").label("why"),
        )
        .outerjoin(destinations, destinations.c.name == deliveries.c.destination)
        .where(sa.or_(waits, follows))
        .group_by(deliveries.c.destination, destinations.c.failing_since, destinations.c.failure)
        .order_by(deliveries.c.destination)
    )
    found = {row.name: Destination(**row._mapping) for row in connection.execute(query)}
    for queue in forwards.queues(connection):
        if queue.n_waiting:
            known = found.get(queue.destination) or _destination(connection, queue)
            oldest_at = min(known.oldest_at, queue.oldest_at)
            found[queue.destination] = replace(known, n_forwards=queue.n_waiting, oldest_at=oldest_at)
    return [found[name] for name in sorted(found)]


def _destination(connection: sa.Connection, queue: ForwardQueue) -> Destination:
    """Return what is known of a destination that no report waits for."""
    query = sa.select(destinations).where(destinations.c.name == queue.destination)
    row = connection.execute(query).one_or_none()
    return Destination(
        name=queue.destination,
        n_waiting=0,
        oldest_at=queue.oldest_at,
        failing_since=row.failing_since if row else None,
        why=(row.failure if row else None) or "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What waits, what the processes have written about themselves, and what a person should look at."""

    destinations: list[Destination]
    heartbeats: list[Heartbeat]
    concerns: list[Concern]


def load(
    connection: sa.Connection,
    *,
    running: Collection[str],
    has_room: bool,
    now: float,
    stuck_before: float,
    host_id: str | None = None,
    no_images: str = "",
    tls: Sequence[TlsFile] = (),
) -> Health:
    """Return the health of the node.

    Args:
        running: names of the processes that run on this host.
        host_id: of this host; those of others count by what they have written.
        has_room: whether the spool has more free space than `retention.low_water_bytes`.
        stuck_before: series that have not moved on since then are stuck.
        no_images: why received images cannot be read; "" if they can.
        tls: the certificates and keys that the configuration names.
    """
    waiting, beats = waiting_destinations(connection), read_heartbeats(connection)
    found = concerns(
        waiting,
        [beat for beat in beats if beat.name in running or _is_elsewhere(beat, host_id)],
        has_room=has_room,
        now=now,
        stuck=stuck_series(connection, before=stuck_before),
        no_images=no_images,
        forwards=forwards.queues(connection),
        gaps=reconciliations.gaps(connection),
        tls=tls,
        uncommitted=report_commitments.uncommitted(connection, before=now - UNCOMMITTED_AFTER_S),
        uncommitted_forwards=forwards.uncommitted(connection, before=now - UNCOMMITTED_AFTER_S),
    )
    return Health(destinations=waiting, heartbeats=beats, concerns=list(found))


def _is_elsewhere(beat: Heartbeat, host_id: str | None) -> bool:
    """Whether a process belongs to another host, and was not asked to stop."""
    return Member.named(beat.name).host_id != host_id and beat.ended_at is None


def stuck_series(connection: sa.Connection, *, before: float) -> list[Stuck]:
    """Return, by state, the series that have been arriving, or ready for assessment, since before a time."""
    query = (
        sa.select(series.c.state, series.c.state_at, series.c.series_instance_uid)
        .where(
            series.c.state.in_((SeriesState.RECEIVING, SeriesState.READY)),
            series.c.state_at < before,
            series.c.last_instance_at < before,
        )
        .order_by(series.c.state_at, series.c.series_instance_uid)
    )
    by_state: dict[str, list[sa.Row[*tuple[Any, ...]]]] = {}
    for row in connection.execute(query):
        by_state.setdefault(row.state, []).append(row)
    return [
        Stuck(state=state.lower(), n=len(rows), oldest_at=rows[0].state_at, oldest_uid=rows[0].series_instance_uid)
        for state, rows in by_state.items()
    ]
