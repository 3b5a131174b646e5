"""What people decide about trends: baselines of charts and events. Both are withdrawn, never deleted."""

from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.promotion import Action
from mediqa_node.domain.trends import Event, EventKind
from mediqa_node.storage import promotions
from mediqa_node.storage.tables import constancy_checks
from mediqa_node.storage.trend_tables import trend_baselines, trend_charts, trend_events


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineRow:
    """A period that a person chose as the baseline of a chart; `until` is not included."""

    id: int
    chart_id: int
    since: float
    until: float
    reason: str
    made_at: float
    made_by: str
    withdrawn_at: float | None
    withdrawn_by: str | None


_BASELINE = [trend_baselines.c[name] for name in BaselineRow.__dataclass_fields__]


def baselines_of(connection: sa.Connection, chart_id: int) -> list[BaselineRow]:
    """Return the baselines of a chart, withdrawn ones too, the newest decision last."""
    query = sa.select(*_BASELINE).where(trend_baselines.c.chart_id == chart_id).order_by(trend_baselines.c.id)
    return [BaselineRow(**row._mapping) for row in connection.execute(query)]


def choose_baseline(
    connection: sa.Connection, chart_id: int, since: float, until: float, *, reason: str, by: str, at: float
) -> int:
    """Keep a period as the baseline of a chart; return its number."""
    values = {"chart_id": chart_id, "since": since, "until": until, "reason": reason[:200], "made_at": at}
    made = sa.insert(trend_baselines).values(**values, made_by=by[:64]).returning(trend_baselines.c.id)
    number = int(connection.execute(made).scalar_one())
    _mark(connection, trend_charts.c.id == chart_id)
    return number


def withdraw_baseline(connection: sa.Connection, number: int, *, by: str, at: float) -> int | None:
    """Withdraw a baseline; return its chart, or None if none of this number is in use."""
    here = (trend_baselines.c.id == number, trend_baselines.c.withdrawn_at.is_(None))
    chart_id = connection.execute(sa.select(trend_baselines.c.chart_id).where(*here)).scalar_one_or_none()
    if chart_id is not None:
        change = sa.update(trend_baselines).where(trend_baselines.c.id == number)
        connection.execute(change.values(withdrawn_at=at, withdrawn_by=by[:64]))
        _mark(connection, trend_charts.c.id == chart_id)
    return chart_id


def add_event(connection: sa.Connection, event: Event, *, now: float) -> int:
    """Keep an event; return its number. Charts that get a new phase by it are judged again."""
    same = {name: getattr(event, name) for name in ("at", "kind", "scanner", "starts_phase")}
    values = same | {"note": event.note[:200], "made_by": event.by[:64], "made_at": now}
    number = int(connection.execute(sa.insert(trend_events).values(**values).returning(trend_events.c.id)).scalar_one())
    _mark_of(connection, event.scanner, event.starts_phase)
    return number


def withdraw_event(connection: sa.Connection, number: int, *, by: str, at: float) -> bool:
    """Withdraw an event; False if none of this number stands."""
    here = sa.and_(trend_events.c.id == number, trend_events.c.withdrawn_at.is_(None))
    row = connection.execute(sa.select(trend_events).where(here)).one_or_none()
    if row is None:
        return False
    connection.execute(sa.update(trend_events).where(here).values(withdrawn_at=at, withdrawn_by=by[:64]))
    _mark_of(connection, row.scanner, row.starts_phase)
    return True


def events_of(connection: sa.Connection, scanner: str | None = None) -> list[Event]:
    """Return the events of a scanner, or of all: those that people entered, and those that the node recorded.

    Recorded are promotions of weights and versions of the node's software. They start no phase by themselves: a score
    of other weights is a stratum and a phase of its own, and a new version that moved scores fails its constancy check.
    """
    query = sa.select(trend_events).where(trend_events.c.withdrawn_at.is_(None))
    if scanner is not None:
        query = query.where(trend_events.c.scanner.in_(("", scanner)))
    entered = [
        Event(
            id=row.id, at=row.at, kind=EventKind(row.kind), scanner=row.scanner, note=row.note,
            starts_phase=row.starts_phase, by=row.made_by,
        )
        for row in connection.execute(query)
    ]  # fmt: skip
    return sorted([*entered, *_promotions(connection), *_versions(connection)], key=lambda event: event.at)


def _promotions(connection: sa.Connection) -> list[Event]:
    return [
        Event(
            at=one.at,
            kind=EventKind.WEIGHTS,
            scanner="",
            note=f"{one.action} {one.after.label if one.after else 'to the configured checkpoint'}",
            starts_phase=False,
            by=one.by,
        )
        for one in promotions.history(connection)
        if one.action in (Action.PROMOTE, Action.ROLLBACK)
    ]


def _versions(connection: sa.Connection) -> list[Event]:
    first = sa.func.min(constancy_checks.c.checked_at).label("at")
    query = sa.select(constancy_checks.c.software_version, first).group_by(constancy_checks.c.software_version)
    rows = connection.execute(query.order_by(first)).all()
    return [
        Event(
            at=row.at, kind=EventKind.SOFTWARE, scanner="", note=f"mediqa-node {row.software_version}",
            starts_phase=False, by="",
        )
        for row in rows[1:]
    ]  # fmt: skip


def _mark_of(connection: sa.Connection, scanner: str, starts_phase: bool) -> None:
    if starts_phase:
        _mark(connection, trend_charts.c.scanner == scanner if scanner else sa.true())


def _mark(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> None:
    connection.execute(sa.update(trend_charts).where(condition).values(changes=trend_charts.c.changes + 1))
