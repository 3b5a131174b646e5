"""The page of one series: what it shows, why, and where each number comes from."""

import json
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response

from mediqa_node.domain.access import Actor, Permission
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.backscore import ItemState
from mediqa_node.domain.baseline import Usual
from mediqa_node.domain.measures import Measure, Validity
from mediqa_node.domain.protocol_check import check
from mediqa_node.domain.quantities import QUANTITIES, SHOWN_UNITS
from mediqa_node.domain.worklist import Entry, facts, looks_like, recorded_value
from mediqa_node.storage import answers, backscores, findings, identities, index, outbox, trend_charts, worklist
from mediqa_node.storage.database import Connection
from mediqa_node.storage.findings import Findings
from mediqa_node.storage.outbox import ReportRow
from mediqa_node.web.access import Context, Viewer, needs, record
from mediqa_node.web.context import WebContext
from mediqa_node.web.filters import Listed, ListQuery
from mediqa_node.web.images import rendered
from mediqa_node.web.numbers import After, Number
from mediqa_node.web.pages import fragment, page
from mediqa_node.web.pictures import NoPicture
from mediqa_node.web.worklist import entry_of

router = APIRouter(include_in_schema=False)

REASONS = 3
WINDOWS = {
    ("CT", "head"): (("Brain", 40, 80), ("Subdural", 75, 215), ("Soft", 40, 400), ("Bone", 600, 2800)),
    ("CT", "body"): (("Soft", 40, 400), ("Liver", 80, 150), ("Lung", -600, 1500), ("Bone", 400, 1800)),
}
"""Name, center and width in HU, by key 1 to 4."""
_HEADS = ("head", "brain")
Identifying = Annotated[Actor, Depends(needs(Permission.IDENTIFIERS))]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMeasure:
    """A measure as its row shows it; texts are empty where there is nothing to say."""

    name: str
    title: str
    definition: str
    value: str
    uncertainty: str
    unit: str
    usual: str
    position: float | None
    stands_out: bool
    method: str
    reason: str
    is_valid: bool


@router.get("/series/{number}")
def show(request: Request, context: Context, actor: Viewer, number: Number, query: Listed) -> Response:
    """Show one series."""
    entry = entry_of(context, actor, number)
    with context.database.read() as connection:
        row = index.find_series(connection, entry.series_instance_uid)
        if row is None:
            raise HTTPException(404, "The series is gone.")
        found = findings.of_series(connection, row)
        around = worklist.neighbours(connection, query.as_filter(context, actor), number)
        values = _from_storage(connection, entry, found)
    reasons = facts(found.assessment, found.technique, found.stands_out, entry.usual, row.reason)
    return page(
        request,
        actor,
        "series.html",
        "series",
        entry=entry,
        row=row,
        found=found,
        assessment=found.assessment,
        technique=found.technique,
        reasons=reasons[:REASONS],
        measured=[_measure(one, found) for one in found.measured.measures] if found.measured else [],
        looks=_looks(found),
        windows=_windows(entry),
        slices=_slices(found.assessment),
        newer=_link(around[0], query),
        older=_link(around[1], query),
        back=f"/?{_query(query)}" if query.values() else "/",
        viewer=_viewer(context, entry),
        **values,
    )


def _from_storage(connection: Connection, entry: Entry, found: Findings) -> dict[str, Any]:
    uid = entry.series_instance_uid
    deliveries = outbox.deliveries_of(connection, uid)
    earlier = findings.earlier_covariates(
        connection, scanner=entry.scanner, protocol=entry.protocol, modality=entry.modality, before=entry.id
    )
    present = findings.covariates(found.technique) if found.technique else {}
    return {
        "given": answers.current(connection, uid),
        "answers": answers.of_series(connection, uid),
        "revisions": findings.revisions(connection, uid),
        "alongside": [one for one in backscores.scores_of(connection, [uid]) if one.state is ItemState.ALONGSIDE],
        "deliveries": deliveries,
        "attempts": outbox.attempts_of(connection, [one.id for one in deliveries]),
        "reports": outbox.reports_of(connection, uid),
        "charts": {chart.quantity: chart.id for chart in trend_charts.of_series(connection, entry.id)},
        "candidates": findings.candidates(connection, uid),
        "protocol": check(entry.modality, present, earlier),
        "n_earlier": len(earlier),
    }


def _measure(one: Measure, found: Findings) -> ShownMeasure:
    quantity, usual = QUANTITIES[one.name], found.usual.get(one.name)
    unit = SHOWN_UNITS.get(one.unit, one.unit)

    def text(value: float | None) -> str:
        return "" if value is None else f"{value:.{quantity.places}f}"

    return ShownMeasure(
        name=one.name,
        title=quantity.title,
        definition=quantity.definition,
        value=text(one.value) or "–",
        uncertainty=text(one.uncertainty),
        unit=unit if one.value is not None else "",
        usual=f"{text(usual.median)} ± {text(usual.spread)} (n = {usual.n})" if usual else "",
        position=_position(one.value, usual),
        stands_out=any(other.measure.name == one.name for other in found.stands_out),
        method=str(one.method),
        reason=one.reason,
        is_valid=one.validity is Validity.VALID,
    )


def _position(value: float | None, usual: Usual | None) -> float | None:
    """Return where a value lies on a bar of four spreads to both sides of the median, 0..1; None without a bar."""
    if value is None or usual is None or usual.spread <= 0:
        return None
    return min(1.0, max(0.0, 0.5 + (value - usual.median) / (8 * usual.spread)))


def _looks(found: Findings) -> dict[str, Any] | None:
    """Return predicted range, recorded value and the ends of a logarithmic axis for both."""
    predicted = looks_like(found.assessment.primary.prediction) if found.assessment else None
    recorded = recorded_value(found.technique)
    numbers = [*(predicted[:2] if predicted else ()), *((recorded,) if recorded else ())]
    if not numbers or min(numbers) <= 0:
        return None
    name = found.technique.label_name if found.technique else None
    unit = predicted[2] if predicted else {"mas": "mAs", "tesla": "T"}.get(name or "", "")
    ends = min(numbers) / 2, max(numbers) * 2
    return {"predicted": predicted, "recorded": recorded, "unit": unit, "ends": ends}


def _windows(entry: Entry) -> list[tuple[str, float, float]]:
    if entry.modality != "CT":
        return []
    return list(WINDOWS["CT", "head" if entry.region in _HEADS else "body"])


def _slices(assessment: Assessment | None) -> list[dict[str, Any]]:
    """Return number, position, score and weight of each scored slice."""
    if assessment is None:
        return []
    stack = assessment.primary.stack
    places = {frame: place for place, frame in enumerate(stack.frames)}
    low, high = (min(stack.positions_mm), max(stack.positions_mm)) if stack.is_volume else (0.0, 0.0)
    found = []
    for index_, part in enumerate(assessment.primary.slices):
        place = places.get(part.frame)
        at = stack.positions_mm[place] if stack.is_volume and place is not None else None
        found.append({
            "index": index_,
            "score": part.quality,
            "weight": part.weight,
            "place": None if place is None else place + 1,
            "z_mm": at,
            "height": None if at is None or high <= low else (high - at) / (high - low),
        })  # fmt: skip
    return found


def _query(query: ListQuery) -> str:
    return urlencode(query.values())


def _link(number: int | None, query: ListQuery) -> str | None:
    if number is None:
        return None
    return f"/series/{number}?{_query(query)}" if query.values() else f"/series/{number}"


def _viewer(context: WebContext, entry: Entry) -> str | None:
    if context.viewer is None:
        return None
    address = context.viewer.replace("{StudyInstanceUID}", quote(entry.study_instance_uid, safe=""))
    return address.replace("{SeriesInstanceUID}", quote(entry.series_instance_uid, safe=""))


@router.get("/series/{number}/report")
async def report(request: Request, context: Context, actor: Viewer, number: Number) -> Response:
    """Return the newest report as a readable tree."""
    row = await run_in_threadpool(_newest_report, context, actor, number)
    tree, problem = [], ""
    if row is not None:
        try:
            tree = json.loads(await rendered(request, "report", {"report": row.sop_instance_uid}))
        except NoPicture as error:
            problem = str(error)
    body = partial(fragment, request, actor, "_report.html", report=row, tree=tree, problem=problem)
    return HTMLResponse(await run_in_threadpool(body))


def _newest_report(context: WebContext, actor: Actor, number: int) -> ReportRow | None:
    entry = entry_of(context, actor, number)
    with context.database.read() as connection:
        rows = outbox.reports_of(connection, entry.series_instance_uid)
    return rows[-1] if rows else None


@router.get("/series/{number}/report.dcm")
def download(request: Request, context: Context, actor: Identifying, number: Number, revision: After = 0) -> Response:
    """Return a report as it was sent; it names the patient, so that the look is audited."""
    entry = entry_of(context, actor, number)
    with context.database.read() as connection:
        rows = outbox.reports_of(connection, entry.series_instance_uid)
    rows = [row for row in rows if revision in (0, row.revision)]
    if not rows:
        raise HTTPException(404, "No report of this series was built yet.")
    record(request, actor, "report.downloaded", on=number)
    headers = {"content-disposition": f'attachment; filename="mediqa-{number}-revision-{rows[-1].revision}.dcm"'}
    return Response(rows[-1].part10, media_type="application/dicom", headers=headers)


@router.post("/series/{number}/patient")
def patient(request: Request, context: Context, actor: Identifying, number: Number) -> Response:
    """Return whom the images name; each look is audited."""
    entry = entry_of(context, actor, number)
    with context.database.read() as connection:
        identity = identities.of_series(connection, entry.series_instance_uid)
    record(request, actor, "patient.shown", on=number)
    return HTMLResponse(fragment(request, actor, "_patient.html", identity=identity, entry=entry))
