"""The figures of the trends as JSON for the script that draws them, and as CSV for everything else."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
from fastapi import APIRouter, HTTPException, Request
from starlette.responses import JSONResponse, Response

from mediqa_node.domain.control_chart import RULES
from mediqa_node.domain.trends import CHARTED, Charted, labels
from mediqa_node.exchange.columns import columns_of
from mediqa_node.exchange.tables import csv_bytes, no_formula
from mediqa_node.storage import constancy_checks, phantoms, trend_charts, trend_views
from mediqa_node.storage.trend_charts import Analysis
from mediqa_node.web.access import Context
from mediqa_node.web.context import WebContext
from mediqa_node.web.numbers import Number
from mediqa_node.web.trend_figures import ControlFigure
from mediqa_node.web.trends import Asked, Looking, TrendQuery, chart_of
from mediqa_node.web.words import iso_in

router = APIRouter(include_in_schema=False)

VIEW_S = 90 * 86_400.0
"""How far back distributions, doses and comparisons look, unless a period is asked for."""
_BINS = 30
_STRIP = 150
_CONTROL = columns_of("""
at          str   -   acquisition, or reception where it is not recorded
value       float -   in `unit`
unit        str   -   of value
stratum     str   -   points that are compared with each other
phase       int   -   from 0, a new one with each event that starts a phase
baseline    bool  -   whether the limits rest on it
z           float -   sigma from the mean of its stratum; empty: not judged
ewma        float -   of z
ewma_limit  float -   to both sides
rules       str   -   that are broken first at this point
series      int   -   number of the series in addresses of the workbench
""")
_VALUES = columns_of("""
scanner  str   -   Station Name (0008,1010), else model
at       str   -   acquisition, or reception where it is not recorded
value    float -   in `unit`
unit     str   -   of value
series   int   -   number of the series in addresses of the workbench
""")
_NOISE = columns_of("""
scanner     str   -    Station Name (0008,1010), else model
size_class  str   -    band of the water-equivalent diameter
ssde_mgy    float mGy  size-specific dose estimate
noise_hu    float HU   noise in soft tissue
series      int   -    number of the series in addresses of the workbench
""")


def csv_answer(name: str, columns: str | tuple[Any, ...], rows: Iterable[Mapping[str, Any]]) -> Response:
    """Return rows as a file to download, none of whose cells a spreadsheet takes for a formula."""
    known = columns_of(columns) if isinstance(columns, str) else columns
    safe = ({key: no_formula(value) for key, value in row.items()} for row in rows)
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return Response(csv_bytes(known, safe), media_type="text/csv; charset=utf-8", headers=headers)


# ── control charts ───────────────────────────────────────────────────────────


def _analysed(context: WebContext, number: int, query: TrendQuery) -> tuple[Analysis, float, float]:
    chart = chart_of(context, number)
    since, until = query.period(context, last_at=chart.last_at)
    with context.database.read() as connection:
        return trend_charts.analyse(connection, chart, stratum=query.stratum_id), since, until


@router.get("/trends/data/charts/{number}")
def chart_data(context: Context, _: Looking, number: Number, query: Asked) -> Response:
    """Return one control chart; above 2,000 points an envelope."""
    analysis, since, until = _analysed(context, number, query)
    if not len(analysis.points):
        raise HTTPException(404, "This chart has no points.")
    figure = ControlFigure(analysis, since=since, until=until).as_json()
    chart = analysis.chart
    return JSONResponse({
        "kind": "control",
        "name": f"{chart.scanner} {chart.protocol} {chart.quantity}",
        "heading": f"{chart.place}, {chart.charted.title}",
        "value_unit": chart.charted.unit,
        "value_places": chart.charted.places,
        "zone": getattr(context.time_zone, "key", None),
        **figure,
    })  # fmt: skip


@router.get("/trends/csv/charts/{number}")
def chart_csv(context: Context, _: Looking, number: Number, query: Asked) -> Response:
    """Return the points of one chart, all of them."""
    analysis, since, until = _analysed(context, number, query)
    return csv_answer(f"trend-{number}", _CONTROL, _control_rows(context, analysis, since, until))


def _control_rows(context: WebContext, found: Analysis, since: float, until: float) -> Iterable[dict[str, Any]]:
    points, judged, charted = found.points, found.judged, found.chart.charted
    rules: dict[int, list[str]] = {}
    words = labels(found.strata)
    for signal in judged.signals:
        rules.setdefault(signal.first, []).append(f"{signal.rule}: {RULES[signal.rule]}")
    for i in np.flatnonzero((points.at >= since) & (points.at < until)).tolist():
        is_judged = bool(judged.is_judged[i])
        yield {
            "at": iso_in(float(points.at[i]), context.time_zone),
            "value": _figures(charted.shown(float(points.value[i]))),
            "unit": charted.unit,
            "stratum": words[int(points.stratum[i])],
            "phase": int(judged.phase[i]),
            "baseline": bool(judged.in_baseline[i]),
            "z": _figures(float(judged.z[i])) if is_judged else None,
            "ewma": _figures(float(judged.ewma[i])) if is_judged else None,
            "ewma_limit": _figures(float(judged.ewma_limit[i])) if is_judged else None,
            "rules": "; ".join(rules.get(i, ())),
            "series": int(points.series[i]),
        }


def _figures(value: float) -> float:
    return float(f"{value:.6g}")


# ── scanners and distributions ───────────────────────────────────────────────


def compared(context: WebContext, query: TrendQuery, size_class: str) -> tuple[Charted, list[trend_views.Values]]:
    """Return the values of a quantity for each scanner of a protocol; HTTPException 422 for an unknown quantity."""
    charted = CHARTED.get(query.measure)
    if charted is None:
        raise HTTPException(422, "There is no such quantity.")
    since, until = query.period(context, span_s=VIEW_S)
    with context.database.read() as connection:
        return charted, trend_views.values_by_scanner(
            connection, query.measure, protocol=query.protocol, since=since, until=until, size_class=size_class
        )


@router.get("/trends/data/scanners")
def scanners_data(context: Context, _: Looking, query: Asked, size: str = "") -> Response:
    """Return the distribution of a quantity for each scanner: quartiles, a sample of the values, and a histogram."""
    charted, found = compared(context, query, size[:32])
    everything = np.concatenate([one.value for one in found]) if found else np.zeros(0)
    shown = charted.factor * everything + charted.offset
    edges = np.histogram_bin_edges(shown, bins=_BINS) if len(shown) else np.zeros(1)
    groups = []
    for one in found:
        values = charted.factor * one.value + charted.offset
        chosen = np.unique(np.linspace(0, len(values) - 1, _STRIP).astype(int))
        groups.append({
            "name": one.scanner,
            "n": len(values),
            "quartiles": [_figures(value) for value in np.percentile(values, (25, 50, 75)).tolist()],
            "sample": [_figures(value) for value in values[chosen].tolist()],
            "series": one.series[chosen].tolist(),
            "counts": np.histogram(values, edges)[0].tolist(),
        })  # fmt: skip
    return JSONResponse({
        "kind": "scanners", "name": f"{query.protocol} {query.measure} by scanner",
        "heading": f"{query.protocol}, {charted.title}", "title": charted.title, "unit": charted.unit,
        "places": charted.places, "edges": [_figures(edge) for edge in edges.tolist()], "groups": groups,
    })  # fmt: skip


@router.get("/trends/csv/scanners")
def scanners_csv(context: Context, _: Looking, query: Asked, size: str = "") -> Response:
    """Return the values that the distributions rest on."""
    charted, found = compared(context, query, size[:32])
    rows = (
        {
            "scanner": one.scanner,
            "at": iso_in(at, context.time_zone),
            "value": _figures(charted.shown(value)),
            "unit": charted.unit,
            "series": number,
        }
        for one in found
        for at, value, number in zip(one.at.tolist(), one.value.tolist(), one.series.tolist(), strict=True)
    )
    return csv_answer("scanners", _VALUES, rows)


# ── noise against dose ───────────────────────────────────────────────────────


def _noise(context: WebContext, query: TrendQuery) -> list[tuple[str, str, float, float, int]]:
    since, until = query.period(context, span_s=VIEW_S)
    with context.database.read() as connection:
        return trend_views.noise_and_dose(connection, protocol=query.protocol, since=since, until=until)


@router.get("/trends/data/noise")
def noise_data(context: Context, _: Looking, query: Asked) -> Response:
    """Return noise against SSDE of one protocol, a group for each scanner."""
    groups: dict[str, dict[str, Any]] = {}
    for scanner, size, dose, noise, number in _noise(context, query):
        group = groups.setdefault(scanner, {"name": scanner, "x": [], "y": [], "series": [], "about": []})
        for key, value in (("x", _figures(dose)), ("y", _figures(noise)), ("series", number), ("about", size)):
            group[key].append(value)
    return JSONResponse({
        "kind": "scatter", "name": f"{query.protocol} noise against SSDE",
        "heading": f"{query.protocol}, noise against dose", "x_title": "SSDE, mGy", "title": "noise in soft tissue",
        "unit": "HU", "places": 1, "logarithmic": True, "groups": [groups[name] for name in sorted(groups)],
    })  # fmt: skip


@router.get("/trends/csv/noise")
def noise_csv(context: Context, _: Looking, query: Asked) -> Response:
    """Return noise and SSDE of each series of one protocol."""
    names = ("scanner", "size_class", "ssde_mgy", "noise_hu", "series")
    return csv_answer("noise-and-dose", _NOISE, (dict(zip(names, row, strict=True)) for row in _noise(context, query)))


# ── constancy and phantoms ───────────────────────────────────────────────────

_CHECKS_SHOWN = 400


@router.get("/trends/data/constancy")
def constancy_data(context: Context, _: Looking) -> Response:
    """Return the drift of each constancy check against its bound."""
    with context.database.read() as connection:
        checks = [one for one in constancy_checks.history(connection, at_most=_CHECKS_SHOWN)[::-1] if one.drift]
    return JSONResponse({
        "kind": "lines", "name": "constancy", "heading": "Largest difference of a reference score", "unit": "raw score",
        "title": "drift", "places": 7, "logarithmic": True, "t": [one.checked_at for one in checks],
        "lines": [{"name": "drift", "y": [one.drift for one in checks]}],
        "limit": [one.bound for one in checks], "limit_name": "bound",
        "bad": [int(not one.passed) for one in checks],
    })  # fmt: skip


@router.get("/trends/data/phantoms")
def phantom_data(context: Context, _: Looking, request: Request, station: str = "", rule: str = "") -> Response:
    """Return the measurements of one phantom of one station."""
    with context.database.read() as connection:
        rows = [one for one in phantoms.trend(connection) if (one.station_name, one.rule) == (station, rule)]
    timed = [(at, one) for one in rows if (at := _time(context, one.acquired_at)) is not None]
    unit = "HU" if not timed or timed[0][1].modality == "CT" else "signal"
    return JSONResponse({
        "kind": "lines", "name": f"phantom {station} {rule}", "heading": f"{station or 'no station name'}, {rule}",
        "title": "measured", "unit": unit, "places": 1, "logarithmic": False, "t": [at for at, _ in timed],
        "lines": [{"name": name, "y": [getattr(one, name) for _, one in timed]}
                  for name in ("mean", "noise", "uniformity")],
    })  # fmt: skip


def _time(context: WebContext, text: str) -> float | None:
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=context.time_zone).timestamp()
        except ValueError:
            continue
    return None


@router.get("/trends/csv/constancy")
def constancy_csv(context: Context, _: Looking) -> Response:
    """Return the constancy checks."""
    with context.database.read() as connection:
        checks = constancy_checks.history(connection, at_most=_CHECKS_SHOWN)
    columns = """
at        str   -  of the check
passed    bool  -  within the bound
drift     float -  largest difference of a raw score; empty: a series was not scored
bound     float -  that it is held against
software  str   -  version
weights   str   -  SHA-256
problem   str   -  why the reference set could not be scored
"""
    rows = (
        {
            "at": iso_in(one.checked_at, context.time_zone), "passed": one.passed, "drift": one.drift,
            "bound": one.bound, "software": one.identity.software_version, "weights": one.identity.weights_sha256,
            "problem": one.problem,
        }
        for one in checks
    )  # fmt: skip
    return csv_answer("constancy", columns, rows)


@router.get("/trends/csv/phantoms")
def phantoms_csv(context: Context, _: Looking) -> Response:
    """Return all measurements of phantoms."""
    with context.database.read() as connection:
        rows = phantoms.trend(connection)
    columns = """
station_name  str   -  Station Name (0008,1010)
rule          str   -  site rule that named it a phantom
modality      str   -  CT or MR
acquired_at   str   -  as recorded
mean          float -  HU, or signal
noise         float -  HU, or signal
uniformity    float -  HU, or percent
"""
    names = ("station_name", "rule", "modality", "acquired_at", "mean", "noise", "uniformity")
    return csv_answer("phantoms", columns, ({name: getattr(row, name) for name in names} for row in rows))
