"""Trends: control charts, those with a rule broken lately first, and what people decide about them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from starlette.responses import RedirectResponse, Response

from mediqa_node.domain.access import Actor, Permission
from mediqa_node.domain.control_chart import FEWEST_POINTS, PROVISIONAL_POINTS, RULES
from mediqa_node.domain.false_alarms import rate
from mediqa_node.domain.trends import CHARTED, Event, EventKind, labels
from mediqa_node.storage import trend_charts, trend_choices, trend_views
from mediqa_node.storage.trend_charts import Analysis, Chart
from mediqa_node.web.access import Context, needs, record
from mediqa_node.web.context import WebContext
from mediqa_node.web.forms import Text, Word
from mediqa_node.web.numbers import Back, Number
from mediqa_node.web.pages import page, with_query

router = APIRouter(include_in_schema=False)

Looking = Annotated[Actor, Depends(needs(Permission.TRENDS))]
Deciding = Annotated[Actor, Depends(needs(Permission.BASELINES))]
_DAY_S = 86_400.0
_SHOWN_S = 365 * _DAY_S
ON_A_PAGE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendQuery:
    """What an address asks for, as text; "" for everything.

    Attributes:
        measure: name of a quantity of `domain.trends`.
        start, end: first and last day shown, `2026-11-30`.
        stratum: number of the only stratum shown.
    """

    scanner: str = ""
    protocol: str = ""
    measure: str = ""
    show: str = ""
    start: str = ""
    end: str = ""
    stratum: str = ""

    def values(self, **changed: object) -> dict[str, object]:
        """Return the query of an address, with some of it changed."""
        own = {"from" if name == "start" else "to" if name == "end" else name: getattr(self, name)
               for name in self.__dataclass_fields__}  # fmt: skip
        return {name: value for name, value in {**own, **changed}.items() if value}

    def period(
        self, context: WebContext, *, last_at: float | None = None, span_s: float = _SHOWN_S
    ) -> tuple[float, float]:
        """Return the period in seconds since 1970, the second not included; up to a year back if none is asked for.

        Raises:
            HTTPException: 422: not dates, or the last is before the first.
        """
        until = max(context.clock(), last_at or 0.0) + 1 if not self.end else day(context, self.end) + _DAY_S
        since = day(context, self.start) if self.start else until - span_s
        if since >= until:
            raise HTTPException(422, "The period ends before it begins.")
        return since, until

    @property
    def stratum_id(self) -> int | None:
        """The stratum as a number, or None."""
        return (
            int(self.stratum)
            if self.stratum.isascii() and self.stratum.isdecimal() and len(self.stratum) < 10
            else None
        )


def day(context: WebContext, text: str) -> float:
    """Return when a day begins at the site; HTTPException 422 if it is not a date."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=context.time_zone).timestamp()
    except (ValueError, OverflowError):
        raise HTTPException(422, "A day is written as 2026-11-30.") from None


def trend_query(
    scanner: Annotated[str, Query(max_length=64)] = "",
    protocol: Annotated[str, Query(max_length=64)] = "",
    measure: Annotated[str, Query(max_length=64)] = "",
    show: Annotated[str, Query(max_length=8)] = "",
    start: Annotated[str, Query(max_length=10, alias="from")] = "",
    end: Annotated[str, Query(max_length=10, alias="to")] = "",
    stratum: Annotated[str, Query(max_length=9)] = "",
) -> TrendQuery:
    """Read what an address asks for."""
    return TrendQuery(
        scanner=scanner, protocol=protocol, measure=measure, show=show, start=start, end=end, stratum=stratum
    )


Asked = Annotated[TrendQuery, Depends(trend_query)]


@router.get("/trends")
def show(request: Request, context: Context, actor: Looking, query: Asked) -> Response:
    """Show the charts with a rule broken in the last seven days, the worst first, or all charts."""
    wanted = {"scanner": query.scanner, "protocol": query.protocol, "quantity": query.measure}
    now = context.clock()
    with context.database.read() as connection:
        broken = trend_charts.broken_lately(connection, now=now, at_most=ON_A_PAGE, **wanted)
        expected, n_points, n_charts = trend_charts.expected_lately(connection, now=now, **wanted)
        every = trend_views.charts(connection, at_most=5 * ON_A_PAGE, **wanted) if query.show == "all" else []
        values = {"choices": trend_views.choices(connection), "totals": trend_views.totals(connection, **wanted)}
    return page(
        request, actor, "trends.html", "trends",
        part="charts", query_=query, broken=broken, every=every, expected=expected, n_points=n_points,
        n_charts=n_charts, charted=CHARTED, rules=RULES, spark=sparkline, **values,
    )  # fmt: skip


def sparkline(chart: Chart) -> dict[str, Any] | None:
    """Return the small picture of a chart, 120 x 32, six sigma high; None without judged points."""
    if len(chart.recent) < 2:
        return None
    step = 120 / (len(chart.recent) - 1)

    def y(z: float) -> float:
        return 16 - max(-4.6, min(4.6, z)) * 16 / 5

    return {
        "dots": [(i * step, y(z), abs(z) > 3) for i, (z, _, _) in enumerate(chart.recent)],
        "ewma": " ".join(f"{i * step:.1f},{y(ewma):.1f}" for i, (_, ewma, _) in enumerate(chart.recent)),
        "limits": (y(3), y(-3)),
    }


def chart_of(context: WebContext, number: int) -> Chart:
    """Return a chart; HTTPException 404 without one of this number."""
    with context.database.read() as connection:
        chart = trend_charts.find(connection, number)
    if chart is None:
        raise HTTPException(404, "There is no chart of this number.")
    return chart


@router.get("/trends/charts/{number}")
def show_chart(request: Request, context: Context, actor: Looking, number: Number, query: Asked) -> Response:
    """Show one chart."""
    chart = chart_of(context, number)
    since, until = query.period(context, last_at=chart.last_at)
    with context.database.read() as connection:
        analysis = trend_charts.analyse(connection, chart, stratum=query.stratum_id)
        siblings = trend_views.charts(connection, at_most=60, scanner=chart.scanner, protocol=chart.protocol)
        peers = trend_views.charts(connection, at_most=60, protocol=chart.protocol, quantity=chart.quantity)
        decided = trend_choices.baselines_of(connection, chart.id)
    inside = (analysis.points.at >= since) & (analysis.points.at < until)
    return page(
        request, actor, "trends_chart.html", "trends",
        part="charts", chart=chart, analysis=analysis, query_=query, strata=_strata(analysis),
        labels=labels(analysis.strata),
        siblings=siblings, peers=peers, decided=decided[::-1], rules=RULES, signals=_signals(analysis, since, until),
        kinds=list(EventKind), n=int(inside.sum()), n_judged=int((inside & analysis.judged.is_judged).sum()),
        expected=analysis.expected_false_alarms(since=since, until=until),
        suggested=_suggested(context, analysis, query, since, until), today=_day_of(context, context.clock()),
        fewest=FEWEST_POINTS, provisional=PROVISIONAL_POINTS, since=since, until=until, one_in=lambda n: 1 / rate(n),
        data=with_query(f"/trends/data/charts/{chart.id}", **query.values(show="")),
        csv=with_query(f"/trends/csv/charts/{chart.id}", **query.values(show="")),
    )  # fmt: skip


def _day_of(context: WebContext, at: float) -> str:
    return datetime.fromtimestamp(at, context.time_zone).strftime("%Y-%m-%d")


def _suggested(
    context: WebContext, analysis: Analysis, query: TrendQuery, since: float, until: float
) -> tuple[str, str]:
    """Return the days that the form of the baseline offers: a period that was zoomed into, else the provisional one."""
    at, judged = analysis.points.at, analysis.judged
    if not len(at):
        return "", ""
    if query.start or query.end:
        return _day_of(context, max(since, float(at[0]))), _day_of(context, min(until - 1, float(at[-1])))
    of_phase = judged.phase == len(analysis.starts) - 1
    inside = of_phase & judged.in_baseline
    times = at[inside] if inside.any() else at[of_phase] if of_phase.any() else at
    return _day_of(context, float(times.min())), _day_of(context, float(np.quantile(times, 0.75)))


def _signals(analysis: Analysis, since: float, until: float) -> list[dict[str, Any]]:
    """Return the rules broken in a period, the newest first."""
    points, words = analysis.points, labels(analysis.strata)
    return [
        {
            "signal": signal,
            "at": float(points.at[signal.first]),
            "until": float(points.at[signal.last]),
            "n": signal.last - signal.first + 1,
            "series": int(points.series[signal.first]),
            "value": analysis.chart.charted.shown(float(points.value[signal.first])),
            "stratum": words[int(points.stratum[signal.first])],
        }
        for signal in reversed(analysis.judged.signals)
        if since <= points.at[signal.last] and points.at[signal.first] < until
    ]


def _strata(analysis: Analysis) -> list[dict[str, Any]]:
    """Return each stratum with what it is compared with in the last phase, the commonest first."""
    last = len(analysis.starts) - 1
    in_last = analysis.judged.phase == last
    found = []
    for number, stratum in analysis.strata.items():
        here = analysis.points.stratum == number
        limits = analysis.judged.limits.get((last, number))
        n = int(here.sum())
        found.append({
            "number": number, "stratum": stratum, "n": n, "n_last": int((here & in_last).sum()), "limits": limits,
            "low": analysis.chart.charted.shown(limits.at(-3)) if limits else None,
            "mean": analysis.chart.charted.shown(limits.at(0)) if limits else None,
            "high": analysis.chart.charted.shown(limits.at(3)) if limits else None,
        })  # fmt: skip
    return sorted((one for one in found if one["n"]), key=lambda one: -one["n"])


# ── decisions ────────────────────────────────────────────────────────────────


@router.post("/trends/charts/{number}/baseline")
def choose(
    request: Request,
    context: Context,
    actor: Deciding,
    number: Number,
    start: Annotated[str, Form(alias="from", max_length=10)],
    end: Annotated[str, Form(alias="to", max_length=10)],
    reason: Text = "",
) -> Response:
    """Take a period as the baseline of the phase that it lies in."""
    chart = chart_of(context, number)
    since, until = TrendQuery(start=start, end=end).period(context)
    with context.database.read() as connection:
        analysis = trend_charts.analyse(connection, chart)
    at, phase = analysis.points.at, analysis.judged.phase
    inside = (at >= since) & (at < until)
    if not _is_enough(analysis, inside):
        raise HTTPException(
            422, f"No stratum has {FEWEST_POINTS} points from {start} to {end}. Choose a longer period."
        )
    if len(np.unique(phase[inside])) > 1:
        raise HTTPException(422, "An event lies within this period. Choose one that lies between two events.")
    now = context.clock()
    with context.database.write() as connection:
        made = trend_choices.choose_baseline(
            connection, chart.id, max(since, float(at[inside][0])), until, reason=reason, by=actor.name, at=now
        )
        detail = f"{made}: {start} to {end} {reason}".strip()
        record(request, actor, "baseline.chosen", on=chart.id, detail=detail, within=connection)
    _judge(context, chart.id)
    return RedirectResponse(f"/trends/charts/{number}", 303)


def _is_enough(analysis: Analysis, inside: np.ndarray) -> bool:
    _, counts = np.unique(analysis.points.stratum[inside], return_counts=True)
    return bool(len(counts)) and int(counts.max()) >= FEWEST_POINTS


@router.post("/trends/charts/{number}/baseline/{baseline}/withdraw")
def withdraw(request: Request, context: Context, actor: Deciding, number: Number, baseline: Number) -> Response:
    """Withdraw a baseline: the one before it holds again, or provisional limits."""
    with context.database.write() as connection:
        chart_id = trend_choices.withdraw_baseline(connection, baseline, by=actor.name, at=context.clock())
        if chart_id is not None:
            record(request, actor, "baseline.withdrawn", on=chart_id, detail=str(baseline), within=connection)
    if chart_id is None:
        raise HTTPException(409, "It was withdrawn before.")
    _judge(context, chart_id)
    return RedirectResponse(f"/trends/charts/{number}", 303)


def _judge(context: WebContext, number: int) -> None:
    """Judge a chart now, so that the list shows what the page shows; the courier would do it seconds later."""
    chart = chart_of(context, number)
    with context.database.read() as connection:
        analysis = trend_charts.analyse(connection, chart)
    with context.database.write() as connection:
        trend_charts.save_alarms(connection, analysis, now=context.clock())


@router.post("/trends/events")
def add_event(
    request: Request,
    context: Context,
    actor: Deciding,
    kind: Annotated[EventKind, Form()],
    date: Annotated[str, Form(max_length=10)],
    time: Annotated[str, Form(max_length=5)] = "00:00",
    scanner: Word = "",
    note: Text = "",
    starts_phase: Annotated[str, Form(max_length=2)] = "",
    back: Back = 0,
) -> Response:
    """Keep an event; if it starts a phase, the charts of its scanner are judged again."""
    try:
        at = datetime.strptime(f"{date} {time or '00:00'}", "%Y-%m-%d %H:%M").replace(tzinfo=context.time_zone)
    except ValueError:
        raise HTTPException(422, "A day is written as 2026-11-30, a time as 14:30.") from None
    event = Event(
        at=at.timestamp(), kind=kind, scanner=scanner, note=note, starts_phase=bool(starts_phase),
        by=actor.name,
    )  # fmt: skip
    with context.database.write() as connection:
        made = trend_choices.add_event(connection, event, now=context.clock())
        detail = f"{kind} {scanner or 'all scanners'} {date}: {event.note}"
        record(request, actor, "event.added", on=made, detail=detail, within=connection)
    if back and starts_phase:
        _judge(context, back)
    return RedirectResponse(f"/trends/charts/{back}" if back else "/trends", 303)


@router.post("/trends/events/{number}/withdraw")
def withdraw_event(request: Request, context: Context, actor: Deciding, number: Number, back: Back = 0) -> Response:
    """Withdraw an event."""
    with context.database.write() as connection:
        done = trend_choices.withdraw_event(connection, number, by=actor.name, at=context.clock())
        if done:
            record(request, actor, "event.withdrawn", on=number, within=connection)
    if not done:
        raise HTTPException(409, "It was withdrawn before.")
    if back:
        _judge(context, back)
    return RedirectResponse(f"/trends/charts/{back}" if back else "/trends", 303)
