"""Pages of the trends besides control charts: scanners, dose, checkpoints, constancy and phantoms."""

from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mediqa_node.domain.trends import CHARTED, CTDI, DLP, NOISE, SCORE, SSDE
from mediqa_node.reader_study.comparison import compare
from mediqa_node.storage import constancy_checks, phantoms, promotions, trend_views
from mediqa_node.storage.database import Connection
from mediqa_node.storage.trend_views import Shadowed
from mediqa_node.web.access import Context
from mediqa_node.web.pages import page, with_query
from mediqa_node.web.trend_data import VIEW_S, csv_answer
from mediqa_node.web.trends import Asked, Looking, TrendQuery

router = APIRouter(include_in_schema=False)

FEWEST_EXAMS = 20
_SHADOWED = 2_000
_CHECKS = 60


def _with_defaults(connection: Connection, query: TrendQuery, quantity: str) -> tuple[TrendQuery, dict[str, list[str]]]:
    """Return a query that names a protocol and a quantity, and what can be chosen."""
    choices = trend_views.choices(connection)
    measure = query.measure or (quantity if quantity in choices["quantity"] else next(iter(choices["quantity"]), ""))
    protocol = query.protocol or trend_views.busiest_protocol(connection, measure)
    values = {name: getattr(query, name) for name in query.__dataclass_fields__}
    return TrendQuery(**values | {"measure": measure, "protocol": protocol}), choices


@router.get("/trends/scanners")
def scanners(request: Request, context: Context, actor: Looking, query: Asked, size: str = "") -> Response:
    """Show how a quantity is distributed on each scanner of one protocol."""
    with context.database.read() as connection:
        query, choices = _with_defaults(connection, query, SCORE)
        sizes = trend_views.size_classes(connection, query.measure, query.protocol) if query.protocol else []
        since, until = query.period(context, span_s=VIEW_S)
        found = trend_views.values_by_scanner(
            connection, query.measure, protocol=query.protocol, since=since, until=until, size_class=size[:32]
        )
    charted = CHARTED.get(query.measure)
    rows = [
        {"scanner": one.scanner, "n": len(one.value),
         "quartiles": [charted.shown(float(value)) for value in np.percentile(one.value, (25, 50, 75))]}
        for one in found if charted
    ]  # fmt: skip
    arguments = query.values(show="", stratum="", size=size)
    return page(
        request, actor, "trends_scanners.html", "trends",
        part="scanners", query_=query, size=size, sizes=sizes, choices=choices, charted=CHARTED, rows=rows,
        quantity=charted, data=with_query("/trends/data/scanners", **arguments),
        csv=with_query("/trends/csv/scanners", **arguments),
    )  # fmt: skip


@router.get("/trends/dose")
def dose(request: Request, context: Context, actor: Looking, query: Asked) -> Response:
    """Show median doses by protocol and size, and noise against dose of one protocol."""
    since, until = query.period(context, span_s=VIEW_S)
    with context.database.read() as connection:
        rows = trend_views.doses(connection, since=since, until=until, fewest=FEWEST_EXAMS, scanner=query.scanner)
        one, choices = _with_defaults(connection, query, NOISE)
    protocols = sorted({row.protocol for row in rows})
    drawn = one.protocol if one.protocol in protocols else next(iter(protocols), "")
    arguments = query.values(measure="", show="", stratum="", protocol=drawn)
    return page(
        request, actor, "trends_dose.html", "trends",
        part="dose", query_=query, rows=rows, protocols=protocols, drawn=drawn, choices=choices, fewest=FEWEST_EXAMS,
        quantities=(CTDI, DLP, SSDE), charted=CHARTED, data=with_query("/trends/data/noise", **arguments),
        csv=with_query("/trends/csv/noise", **arguments), dose_csv=with_query("/trends/csv/dose", **query.values()),
    )  # fmt: skip


@router.get("/trends/csv/dose")
def dose_csv(context: Context, _: Looking, query: Asked) -> Response:
    """Return median doses by protocol and size; empty below 20 exams."""
    since, until = query.period(context, span_s=VIEW_S)
    with context.database.read() as connection:
        rows = trend_views.doses(connection, since=since, until=until, fewest=FEWEST_EXAMS, scanner=query.scanner)
    columns = """
protocol      str   -       Protocol Name (0018,1030), else Series Description
size_class    str   -       band of the water-equivalent diameter
phantom_cm    float cm      that CTDIvol refers to
exams         int   -       with any of the values
ctdi_vol_mgy  float mGy     median; empty below 20 exams
dlp_mgy_cm    float mGy.cm  median; empty below 20 exams
ssde_mgy      float mGy     median; empty below 20 exams
"""
    return csv_answer("dose", columns, (
        {"protocol": row.protocol, "size_class": row.size_class, "phantom_cm": row.phantom_cm, "exams": row.n,
         "ctdi_vol_mgy": row.medians[CTDI], "dlp_mgy_cm": row.medians[DLP], "ssde_mgy": row.medians[SSDE]}
        for row in rows
    ))  # fmt: skip


# ── the candidate in shadow ──────────────────────────────────────────────────


def _shadowed(connection: Connection) -> tuple[Any, list[Shadowed]]:
    candidate = promotions.standing(connection).shadow or promotions.last_shadowed(connection)
    return candidate, trend_views.shadowed(connection, candidate, at_most=_SHADOWED) if candidate is not None else []


def _groups(found: list[Shadowed]) -> dict[tuple[str, str], list[Shadowed]]:
    groups: dict[tuple[str, str], list[Shadowed]] = {}
    for one in found:
        groups.setdefault((one.station_name, one.modality), []).append(one)
    return dict(sorted(groups.items()))


@router.get("/trends/checkpoints")
def checkpoints(request: Request, context: Context, actor: Looking) -> Response:
    """Compare the candidate's scores with those of the active checkpoint."""
    with context.database.read() as connection:
        candidate, found = _shadowed(connection)
    rows = []
    for (station, modality), members in _groups(found).items():
        both = [one for one in members if one.candidate is not None]
        pairs = np.array([(one.quality, one.candidate) for one in both], dtype=float).reshape(-1, 2)
        rows.append({
            "station": station, "modality": modality, "n": len(both), "not_scored": len(members) - len(both),
            "comparison": compare(pairs[:, 0], pairs[:, 1]) if both else None,
            "moved": sum(one.verdict != one.candidate_verdict for one in both),
        })  # fmt: skip
    return page(
        request, actor, "trends_checkpoints.html", "trends",
        part="checkpoints", candidate=candidate, rows=rows, n=len(found), at_most=_SHADOWED,
    )  # fmt: skip


@router.get("/trends/data/checkpoints")
def checkpoints_data(context: Context, _: Looking) -> Response:
    """Return the difference of both scores against their mean, a group for each scanner (Bland & Altman 1986)."""
    with context.database.read() as connection:
        _, found = _shadowed(connection)
    groups = []
    for (station, modality), members in _groups(found).items():
        both = [(one.quality, one.candidate) for one in members if one.candidate is not None]
        groups.append({
            "name": f"{station or 'no station name'} {modality}",
            "x": [round(50 * (a + b), 2) for a, b in both],
            "y": [round(100 * (b - a), 2) for a, b in both],
        })  # fmt: skip
    return JSONResponse({
        "kind": "scatter", "name": "candidate against active", "heading": "Candidate minus active",
        "title": "candidate minus active", "unit": "of 100", "x_title": "mean of both scores, of 100", "places": 1,
        "logarithmic": False, "zero": True, "groups": groups,
    })  # fmt: skip


@router.get("/trends/csv/checkpoints")
def checkpoints_csv(context: Context, _: Looking) -> Response:
    """Return the scores of both checkpoints."""
    with context.database.read() as connection:
        _, found = _shadowed(connection)
    columns = """
station_name  str   -  Station Name (0008,1010)
modality      str   -  of the series
active        float 1  score of the active checkpoint
candidate     float 1  score of the candidate; empty: not scored
verdict       str   -  of the active checkpoint
"""
    return csv_answer("checkpoints", columns, (
        {"station_name": one.station_name, "modality": one.modality, "active": one.quality,
         "candidate": one.candidate, "verdict": one.verdict}
        for one in found
    ))  # fmt: skip


@router.get("/trends/constancy")
def constancy(request: Request, context: Context, actor: Looking) -> Response:
    """Show constancy checks of the score, and the site's phantoms."""
    with context.database.read() as connection:
        checks = constancy_checks.history(connection, at_most=_CHECKS)
        measured = phantoms.trend(connection)
    groups: dict[tuple[str, str, str], list[phantoms.PhantomRow]] = {}
    for row in measured:
        groups.setdefault((row.station_name, row.rule, row.modality), []).append(row)
    return page(request, actor, "trends_constancy.html", "trends", part="constancy", checks=checks, groups=groups)
