"""Charts of the trends: their points against their limits, and the alarms that pages list first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from mediqa_node.domain import false_alarms
from mediqa_node.domain.control_chart import Judged, Phase, Points, Rule, Signal, judge, one_for_each_session
from mediqa_node.domain.trends import CHARTED, RECENT_S, Charted, ChartState, Event, Stratum
from mediqa_node.storage.trend_choices import BaselineRow, baselines_of, events_of
from mediqa_node.storage.trend_tables import trend_alarms, trend_charts, trend_points, trend_strata

_RECENT = 48
_STRATUM = tuple(Stratum.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One quantity of one scanner and protocol.

    Attributes:
        last_at: time of the newest point.
        false_rate: expected false alarms for each point.
        changes: raised whenever points, baseline or events change.
        recent: the last judged points: value, EWMA and its limit, in sigma.
    """

    id: int
    modality: str
    scanner: str
    protocol: str
    quantity: str
    last_at: float | None
    judged_at: float | None
    state: ChartState
    false_rate: float
    changes: int
    recent: list[list[float]]

    @property
    def place(self) -> str:
        """Scanner and protocol in words."""
        return f"{self.scanner or 'unnamed scanner'} · {self.protocol or 'no protocol'}"

    @property
    def charted(self) -> Charted:
        """What the quantity is."""
        return CHARTED.get(self.quantity) or Charted(name=self.quantity, title=self.quantity, unit="", places=2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Analysis:
    """A chart with its points, what they are compared with, and what was found.

    Attributes:
        starts: when each phase begins and why; the first is the beginning.
        chosen: the baseline of each phase that a person chose, or None.
    """

    chart: Chart
    points: Points
    strata: dict[int, Stratum]
    starts: tuple[tuple[float, str], ...]
    chosen: tuple[BaselineRow | None, ...]
    events: tuple[Event, ...]
    judged: Judged

    def expected_false_alarms(self, *, since: float = -np.inf, until: float = np.inf) -> float:
        """Return how many alarms the points of a period would raise if nothing had changed."""
        counted = self.judged.is_judged & ~self.judged.in_baseline
        counted &= (self.points.at >= since) & (self.points.at < until)
        pairs = self.judged.phase[counted] * 1_000_000_000 + self.points.stratum[counted]
        return false_alarms.expected(
            (int(n), self.judged.limits[int(pair // 1_000_000_000), int(pair % 1_000_000_000)].n)
            for pair, n in zip(*np.unique(pairs, return_counts=True), strict=True)
        )

    @property
    def state(self) -> ChartState:
        """Against what the last phase is judged."""
        last = len(self.starts) - 1
        if not any(phase == last for phase, _ in self.judged.limits):
            return ChartState.NONE
        return ChartState.PROVISIONAL if self.judged.is_provisional[last] else ChartState.CHOSEN


_CHART = [trend_charts.c[name] for name in Chart.__dataclass_fields__]


def chart_of(row: sa.Row[*tuple[Any, ...]]) -> Chart:
    """Return the chart in a row that has its columns."""
    values = {name: getattr(row, name) for name in Chart.__dataclass_fields__}
    return Chart(**values | {"state": ChartState(row.state)})


def find(connection: sa.Connection, number: int) -> Chart | None:
    """Return a chart by its number, or None."""
    row = connection.execute(sa.select(*_CHART).where(trend_charts.c.id == number)).one_or_none()
    return chart_of(row) if row is not None else None


def of_series(connection: sa.Connection, series: int) -> list[Chart]:
    """Return the charts that a series is in."""
    query = sa.select(*_CHART).join(trend_points, trend_points.c.chart_id == trend_charts.c.id)
    return [chart_of(row) for row in connection.execute(query.where(trend_points.c.series == series))]


def points_of(connection: sa.Connection, chart_id: int) -> tuple[Points, np.ndarray]:
    """Return the points of a chart, one a series, in the order of time, and the study of each."""
    columns = [trend_points.c[name] for name in ("at", "value", "stratum_id", "series", "study")]
    query = sa.select(*columns).where(trend_points.c.chart_id == chart_id)
    rows = connection.execute(query).all()
    table = np.array([tuple(row) for row in rows], dtype=float).reshape(-1, 5)
    table = table[np.lexsort((table[:, 3], table[:, 0]))]
    numbers = table[:, 2:].astype(np.int64)
    points = Points(at=table[:, 0], value=table[:, 1], stratum=numbers[:, 0], series=numbers[:, 1])
    return points, numbers[:, 2]


def strata_of(connection: sa.Connection, chart_id: int) -> dict[int, Stratum]:
    """Return the strata of a chart by number."""
    rows = connection.execute(sa.select(trend_strata).where(trend_strata.c.chart_id == chart_id))
    return {row.id: Stratum(**{name: getattr(row, name) for name in _STRATUM}) for row in rows}


def analyse(connection: sa.Connection, chart: Chart, *, stratum: int | None = None) -> Analysis:
    """Return a chart with its points judged.

    Args:
        stratum: only the points of this one.
    """
    points, study = points_of(connection, chart.id)
    strata = strata_of(connection, chart.id)
    if stratum is not None:
        here = points.stratum == stratum
        points = Points(**{name: getattr(points, name)[here] for name in Points.__dataclass_fields__})
        study = study[here]
    events = tuple(events_of(connection, chart.scanner))
    starts = _starts(points, strata, events)
    points = one_for_each_session(points, study)
    rows = [row for row in baselines_of(connection, chart.id) if row.withdrawn_at is None]
    chosen = _chosen(starts, rows)
    phases = [
        Phase(since=at, baseline=(row.since, row.until) if row is not None else None)
        for (at, _), row in zip(starts, chosen, strict=True)
    ]
    never = frozenset(number for number, one in strata.items() if not one.is_comparable)
    return Analysis(
        chart=chart, points=points, strata=strata, starts=starts, chosen=chosen, events=events,
        judged=judge(points, phases, never=never),
    )  # fmt: skip


def _starts(points: Points, strata: dict[int, Stratum], events: Sequence[Event]) -> tuple[tuple[float, str], ...]:
    """Return when phases begin: with events that say so, and with the first point of other weights or method."""
    found: dict[float, str] = {event.at: event.kind.value for event in events if event.starts_phase}
    first: dict[str, float] = {}
    for number in np.unique(points.stratum).tolist():
        basis, at = strata[number].basis, float(points.at[points.stratum == number].min())
        first[basis] = min(first.get(basis, at), at)
    newest = sorted(first.items(), key=lambda item: item[1])[1:]
    found |= {at: "weights" if len(basis) == 64 else "method" for basis, at in newest}
    return ((-np.inf, "first point"), *sorted(found.items()))


def _chosen(starts: Sequence[tuple[float, str]], rows: Sequence[BaselineRow]) -> tuple[BaselineRow | None, ...]:
    """Return the newest baseline that begins in each phase."""
    ends = [at for at, _ in starts[1:]] + [np.inf]
    found: list[BaselineRow | None] = []
    for (since, _), end in zip(starts, ends, strict=True):
        found.append(next((row for row in reversed(rows) if since <= row.since < end), None))
    return tuple(found)


# ── alarms ───────────────────────────────────────────────────────────────────


def due(connection: sa.Connection, *, at_most: int) -> list[Chart]:
    """Return charts that have changed since they were judged, those judged longest ago first."""
    waiting = trend_charts.c.changes > trend_charts.c.judged_changes
    query = sa.select(*_CHART).where(waiting).order_by(sa.func.coalesce(trend_charts.c.judged_at, 0.0))
    return [chart_of(row) for row in connection.execute(query.limit(at_most))]


def save_alarms(connection: sa.Connection, analysis: Analysis, *, now: float) -> None:
    """Replace the alarms of a chart, and note that it was judged; first of all, so that two who judge it take turns."""
    chart, points, judged = analysis.chart, analysis.points, analysis.judged
    n = len(points)
    connection.execute(
        sa.update(trend_charts)
        .where(trend_charts.c.id == chart.id)
        .values(
            judged_changes=chart.changes,
            judged_at=now,
            last_at=float(points.at[-1]) if n else None,
            state=analysis.state,
            recent=_recent(judged),
            false_rate=analysis.expected_false_alarms() / n if n else 0.0,
        )
    )
    connection.execute(sa.delete(trend_alarms).where(trend_alarms.c.chart_id == chart.id))
    rows = [_alarm(chart.id, points, judged, signal) for signal in judged.signals if signal.alarms]
    if rows:
        connection.execute(sa.insert(trend_alarms), rows)


def _recent(judged: Judged) -> list[list[float]]:
    here = np.flatnonzero(judged.is_judged)[-_RECENT:]
    return [[round(float(value), 2) for value in (judged.z[i], judged.ewma[i], judged.ewma_limit[i])] for i in here]


def _alarm(chart_id: int, points: Points, judged: Judged, signal: Signal) -> dict[str, Any]:
    return {
        "chart_id": chart_id,
        "rule": signal.rule,
        "since": float(points.at[signal.first]),
        "until": float(points.at[signal.last]),
        "series": int(points.series[signal.first]),
        "n_points": signal.last - signal.first + 1,
        "worst": signal.worst,
        "is_provisional": judged.is_provisional[int(judged.phase[signal.first])],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A chart with what was found in it lately.

    Attributes:
        rules: those that were broken.
        worst: the largest distance in sigma, as in `control_chart.Signal`.
        since: when the oldest of them was first broken; `until`: the newest point that breaks one.
        series: first series of the worst.
    """

    chart: Chart
    rules: tuple[Rule, ...]
    worst: float
    n_alarms: int
    n_points: int
    since: float
    until: float
    series: int
    is_provisional: bool


def broken_lately(connection: sa.Connection, *, now: float, at_most: int = 60, **wanted: str) -> list[Broken]:
    """Return the charts with a rule broken lately, the worst first.

    Args:
        wanted: scanner, protocol, modality or quantity.
    """
    query = (
        sa.select(trend_alarms, *(column.label(f"of_{column.name}") for column in _CHART))
        .join(trend_charts, trend_charts.c.id == trend_alarms.c.chart_id)
        .where(trend_alarms.c.until >= now - RECENT_S, *conditions(wanted))
        .order_by(trend_alarms.c.worst.desc(), trend_alarms.c.id)
    )
    found: dict[int, list[sa.Row[*tuple[Any, ...]]]] = {}
    for row in connection.execute(query):
        if row.chart_id in found or len(found) < at_most:
            found.setdefault(row.chart_id, []).append(row)
    return [_broken(rows) for rows in found.values()]


def _broken(rows: list[sa.Row[*tuple[Any, ...]]]) -> Broken:
    worst = rows[0]
    values = {name: worst._mapping[f"of_{name}"] for name in Chart.__dataclass_fields__}
    return Broken(
        chart=Chart(**values | {"state": ChartState(values["state"])}),
        rules=tuple(sorted({Rule(row.rule) for row in rows})),
        worst=worst.worst,
        n_alarms=len(rows),
        n_points=sum(row.n_points for row in rows),
        since=min(row.since for row in rows),
        until=max(row.until for row in rows),
        series=worst.series,
        is_provisional=all(row.is_provisional for row in rows),
    )


def conditions(wanted: dict[str, str]) -> list[sa.ColumnElement[bool]]:
    """Return conditions on charts for what is not empty."""
    return [trend_charts.c[name] == value for name, value in wanted.items() if value]


def expected_lately(connection: sa.Connection, *, now: float, **wanted: str) -> tuple[float, int, int]:
    """Return how many false alarms are expected of all charts lately, from how many points of how many charts."""
    latest = sa.select(trend_charts.c.id, trend_charts.c.false_rate).where(
        trend_charts.c.last_at >= now - RECENT_S, trend_charts.c.false_rate > 0, *conditions(wanted)
    )
    recent = latest.subquery()
    query = (
        sa.select(recent.c.false_rate, sa.func.count().label("n"))
        .join(trend_points, trend_points.c.chart_id == recent.c.id)
        .where(trend_points.c.at >= now - RECENT_S)
        .group_by(recent.c.id, recent.c.false_rate)
    )
    rows = connection.execute(query).all()
    return sum(row.false_rate * row.n for row in rows), sum(int(row.n) for row in rows), len(rows)
