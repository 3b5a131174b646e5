"""How the wall clock ran, and the stored times that follow it when it is set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from mediqa_node.domain.forward import ForwardState
from mediqa_node.domain.series import UNFINISHED, DeliveryState, SeriesState
from mediqa_node.storage.commitment_tables import commitment_requests, commitments, report_commitments
from mediqa_node.storage.correction_tables import clock, retractions
from mediqa_node.storage.database import Database
from mediqa_node.storage.forward_tables import forwards
from mediqa_node.storage.health import destinations
from mediqa_node.storage.tables import associations, deliveries, series

_LONGEST_BACKOFF_S = 600.0
_AHEAD_S = 1.0
_OPEN_SERIES = (SeriesState.RECEIVING, SeriesState.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRow:
    """What is known of the clock; times are seconds since 1970 on the wall clock.

    Attributes:
        boot_id: of the machine's last known start.
        offset_s: wall clock minus boot clock.
        seen_at: when this was written.
        step_s: the last time the wall clock was set, seconds, positive: forward; None: never seen.
        stepped_at: when that was noticed, on the clock as it was set.
        paused_until: until when nothing is deleted or given up, since the clock may be wrong.
        confirmed_by: who has confirmed that it is right.
    """

    boot_id: str
    offset_s: float
    seen_at: float
    step_s: float | None = None
    stepped_at: float | None = None
    paused_until: float | None = None
    confirmed_by: str | None = None


_ROW = [clock.c[name] for name in ClockRow.__dataclass_fields__]


def load(connection: sa.Connection) -> ClockRow | None:
    """Return what is known of the clock, or None on a new node."""
    row = connection.execute(sa.select(*_ROW).where(clock.c.id == 1)).one_or_none()
    return ClockRow(**row._mapping) if row is not None else None


def save(database: Database, connection: sa.Connection, row: ClockRow) -> None:
    """Keep what is known of the clock."""
    values = {name: getattr(row, name) for name in row.__dataclass_fields__}
    connection.execute(database.insert_or_ignore(clock, id=1, **values))
    connection.execute(sa.update(clock).where(clock.c.id == 1).values(**values))


def confirm(connection: sa.Connection, *, by: str) -> bool:
    """Let retention and giving up go on; False if they are not paused."""
    statement = sa.update(clock).where(clock.c.id == 1, clock.c.paused_until.is_not(None))
    return bool(connection.execute(statement.values(paused_until=None, confirmed_by=by)).rowcount)


def is_paused(connection: sa.Connection, *, now: float) -> bool:
    """Whether nothing may be deleted or given up, because the clock was set forward."""
    row = load(connection)
    return row is not None and row.paused_until is not None and now < row.paused_until


def shift(connection: sa.Connection, step_s: float, *, now: float, window_s: float) -> None:
    """Move the times that something waits for by a step of the wall clock.

    What was written since the step, by a process that goes on, stays: its time lies within the window. A deadline lies
    ahead of either clock: whether it moves depends on when its row was written. A retry sets one anew, which after a
    long step shows in the deadline itself.

    Args:
        step_s: positive: the clock was set forward.
        now: on the clock as it is set.
        window_s: how long ago the clock may have been set.
    """
    move = partial(_move, connection, step_s=step_s, now=now, window_s=window_s)
    receiving = series.c.state.in_(_OPEN_SERIES)
    for name in ("opened_at", "last_instance_at", "state_at"):
        move(series.c[name], receiving)
    sending = sa.select(series.c.association_id).where(receiving)
    carriers = sa.or_(associations.c.closed_at.is_(None), associations.c.id.in_(sending))
    for name in ("opened_at", "closed_at", "last_instance_at"):
        move(associations.c[name], carriers)
    for table, waits in (
        (deliveries, deliveries.c.state.in_(UNFINISHED)),
        (retractions, retractions.c.state == DeliveryState.WAITING),
        (forwards, forwards.c.state == ForwardState.WAITING),
    ):
        written, due = table.c.created_at, table.c.not_before
        if table is deliveries:
            move(deliveries.c.wait_for_study_until, waits, judged_by=written)
            move(deliveries.c.unanswered_since, waits)
        if abs(step_s) > _LONGEST_BACKOFF_S:
            move(due, sa.and_(waits, ~due.between(now, now + _LONGEST_BACKOFF_S)), judged_by=written)
        else:
            move(due, waits, judged_by=written)
        move(written, waits)
    _shift_sent(move)
    move(destinations.c.failing_since, sa.true())


def _shift_sent(move: Callable[..., None]) -> None:
    """Move the times of what was sent and is followed up; when it was sent and when we asked about it stay in order."""
    unconfirmed = sa.select(report_commitments.c.delivery_id).where(report_commitments.c.ask_at.is_not(None))
    following = sa.and_(
        deliveries.c.state == DeliveryState.SENT,
        sa.or_(deliveries.c.companions_at.is_not(None), deliveries.c.id.in_(unconfirmed)),
    )
    move(deliveries.c.companions_at, following, judged_by=deliveries.c.done_at)
    move(deliveries.c.done_at, following)
    forwarded = sa.and_(forwards.c.state == ForwardState.SENT, forwards.c.ask_at.is_not(None))
    move(forwards.c.ask_at, forwarded, judged_by=forwards.c.done_at)
    move(forwards.c.done_at, forwarded)
    move(commitments.c.begun_at, sa.true())
    move(report_commitments.c.ask_at, sa.true(), judged_by=report_commitments.c.since)
    move(report_commitments.c.since, sa.true())
    asked = sa.or_(commitment_requests.c.decided_at.is_(None), commitment_requests.c.tell_at.is_not(None))
    for name in ("deadline_at", "ask_at", "tell_at"):
        move(commitment_requests.c[name], asked, judged_by=commitment_requests.c.received_at)
    for name in ("received_at", "decided_at"):
        move(commitment_requests.c[name], asked)


def _move(
    connection: sa.Connection,
    column: sa.Column[float],
    where: sa.ColumnElement[bool],
    *,
    step_s: float,
    now: float,
    window_s: float,
    judged_by: sa.Column[float] | None = None,
) -> None:
    judge = column if judged_by is None else judged_by
    of_the_old_clock = ~judge.between(now - window_s, now + _AHEAD_S)
    connection.execute(sa.update(column.table).where(where, of_the_old_clock).values({column.name: column + step_s}))
