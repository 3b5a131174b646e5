"""What people answered: repeat rate and precision of the alarms by scanner and month, and the sheet of a month."""

from collections.abc import Iterable
from datetime import datetime, tzinfo
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.responses import JSONResponse, Response

from mediqa_node.domain.reject_analysis import Answered, Line, Share, lines, repeats_by, total
from mediqa_node.storage import answers, trend_views
from mediqa_node.web.access import Context
from mediqa_node.web.context import WebContext
from mediqa_node.web.pages import page
from mediqa_node.web.trend_data import csv_answer
from mediqa_node.web.trends import Looking

router = APIRouter(include_in_schema=False)

MONTHS = 12
_LINES = """
month                   str   -  of the answers
scanner                 str   -  Station Name (0008,1010), else model
series                  int   -  received
alarms                  int   -  series with Repeat? or Look
repeated                int   -  answered with Repeated
repeat_rate             float 1  repeated / series
repeat_rate_low         float 1  lower end of its 95 % interval (Wilson)
repeat_rate_high        float 1  upper end
answered_alarms         int   -  alarms with an answer
right_alarms            int   -  of those, not called a wrong alarm
alarm_precision         float 1  right / answered
alarm_precision_low     float 1  lower end of its 95 % interval (Wilson)
alarm_precision_high    float 1  upper end
repeated_without_alarm  int   -  repeated although the node did not ask for a look
"""


def _months(now: float, zone: tzinfo, n: int) -> list[tuple[str, float, float]]:
    """Return the last months, the newest first: name, begin and end in seconds since 1970."""
    at = datetime.fromtimestamp(now, zone)
    year, month = at.year, at.month
    found, end = [], _begin(year + (month == 12), month % 12 + 1, zone)
    for _ in range(n):
        begin = _begin(year, month, zone)
        found.append((f"{year:04d}-{month:02d}", begin, end))
        end, (year, month) = begin, (year, month - 1) if month > 1 else (year - 1, 12)
    return found


def _begin(year: int, month: int, zone: tzinfo) -> float:
    return datetime(year, month, 1, tzinfo=zone).timestamp()


def _collected(context: WebContext, months: list[tuple[str, float, float]]) -> tuple[list[Answered], tuple[Line, ...]]:
    zone = context.time_zone
    with context.database.read() as connection:
        given = answers.given(connection, since=months[-1][1], until=months[0][2])
        received = {
            (name, scanner): counts
            for name, since, until in months
            for scanner, counts in trend_views.received_by_scanner(connection, since=since, until=until).items()
        }
    found = [
        Answered(
            month=datetime.fromtimestamp(one.at, zone).strftime("%Y-%m"), scanner=one.scanner, protocol=one.protocol,
            kind=one.kind, category=one.category, reason=one.reason,
        )
        for one in given
    ]  # fmt: skip
    return found, lines(found, received)


def _month(context: WebContext, name: str) -> tuple[str, float, float]:
    try:
        at = datetime.strptime(name, "%Y-%m").replace(tzinfo=context.time_zone)
        return _months(at.timestamp(), context.time_zone, 1)[0]
    except (ValueError, OverflowError):  # not a month, or the last one that there is
        raise HTTPException(422, "A month is written as 2026-11.") from None


@router.get("/trends/answers")
def show(
    request: Request, context: Context, actor: Looking, month: Annotated[str, Query(max_length=7)] = ""
) -> Response:
    """Show repeat rate and precision of the alarms by scanner over the last twelve months."""
    months = _months(context.clock(), context.time_zone, MONTHS)
    given, found = _collected(context, months)
    names = [name for name, _, _ in months]
    totals = [total(found, month=name) for name in names]
    return page(
        request, actor, "trends_answers.html", "trends",
        part="answers", months=names, month=month if month in names else names[0], lines=found, totals=totals,
        n_answers=len(given),
    )  # fmt: skip


@router.get("/trends/answers/{month}")
def sheet(request: Request, context: Context, actor: Looking, month: str) -> Response:
    """Show the sheet of one month, to print."""
    chosen = _month(context, month)
    given, found = _collected(context, [chosen])
    return page(
        request, actor, "trends_sheet.html", "trends",
        part="answers", month=chosen[0], lines=found, total=total(found, month=chosen[0]),
        reasons=repeats_by(given, "reason"), protocols=repeats_by(given, "protocol")[:12], made_at=context.clock(),
    )  # fmt: skip


@router.get("/trends/csv/answers")
def answers_csv(context: Context, _: Looking, month: Annotated[str, Query(max_length=7)] = "") -> Response:
    """Return the lines of a month, or of the last twelve."""
    months = [_month(context, month)] if month else _months(context.clock(), context.time_zone, MONTHS)
    found = _collected(context, months)[1]
    return csv_answer(f"repeats-{month or 'year'}", _LINES, _rows(found))


def _rows(found: Iterable[Line]) -> Iterable[dict[str, Any]]:
    for one in found:
        yield {
            "month": one.month, "scanner": one.scanner, "series": one.n_series, "alarms": one.n_alarms,
            "repeated": one.repeated.n, **_share("repeat_rate", one.repeated),
            "answered_alarms": one.precision.of, "right_alarms": one.precision.n,
            **_share("alarm_precision", one.precision), "repeated_without_alarm": one.repeated_without_alarm,
        }  # fmt: skip


def _share(name: str, share: Share) -> dict[str, float | None]:
    if share.value is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = share.interval
    return {name: round(share.value, 5), f"{name}_low": round(low, 5), f"{name}_high": round(high, 5)}


@router.get("/trends/data/answers")
def answers_data(context: Context, _: Looking) -> Response:
    """Return the repeat rate of all scanners by month, with its interval."""
    months = _months(context.clock(), context.time_zone, MONTHS)[::-1]
    found = _collected(context, months[::-1])[1]
    totals = [total(found, month=name) for name, _, _ in months]

    def line(name: str, shares: list[Share]) -> dict[str, Any]:
        spans = [one.interval if one.of else (None, None) for one in shares]
        percent = [None if one.value is None else round(100 * one.value, 3) for one in shares]
        low, high = ([None if v is None else round(100 * v, 3) for v in side] for side in zip(*spans, strict=True))
        return {"name": name, "y": percent, "low": low, "high": high}

    figures = [line("repeat rate", [one.repeated for one in totals]),
               line("alarm precision", [one.precision for one in totals])]  # fmt: skip
    return JSONResponse({
        "kind": "lines", "name": "repeats", "heading": "Repeats and alarms", "title": "share", "unit": "%", "places": 1,
        "logarithmic": False, "t": [(begin + end) / 2 for _, begin, end in months], "lines": figures[:1],
        "more": figures[1:],
    })  # fmt: skip
