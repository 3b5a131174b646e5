"""The same data as JSON under /api/v1, for programs with an access token; OpenAPI describes it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from mediqa_node.domain.access import Actor, Permission
from mediqa_node.domain.measures import by_name
from mediqa_node.domain.worklist import Entry, facts
from mediqa_node.storage import answers, audit_trail, findings, index, outbox, pulse, worklist
from mediqa_node.web.access import Context, Viewer, needs
from mediqa_node.web.filters import Listed
from mediqa_node.web.numbers import Before, Number
from mediqa_node.web.worklist import entry_of


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "the address or body cannot be read"},
    401: {"model": Problem, "description": "no access token, or one that has ended"},
    403: {"model": Problem, "description": "the role may not do this; the refusal is on record"},
    422: {"model": Problem, "description": "a value is out of range"},
    503: {"model": Problem, "description": "the database does not answer at this moment"},
}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "there is no such series, or not for this actor"}
}
router = APIRouter(
    prefix="/api/v1",
    tags=["v1"],
    responses=_PROBLEMS,
    dependencies=[Depends(HTTPBearer(auto_error=False, description="an access token, made on the page Account"))],
)

Watching = Annotated[Actor, Depends(needs(Permission.OPERATIONS))]
Auditing = Annotated[Actor, Depends(needs(Permission.AUDIT))]
AtMost = Annotated[int, Query(ge=1, le=500, description="entries on a page")]


class SeriesOut(BaseModel):
    """A series as the worklist shows it; times are seconds since 1970 UTC, scores 0..1."""

    id: int
    series_instance_uid: str
    study_instance_uid: str
    modality: str
    scanner: str
    model: str
    protocol: str
    description: str
    series_number: int | None
    acquired: str
    received_at: float
    n_images: int
    state: str
    category: str
    reason_code: str | None
    region: str
    type: str
    score: float | None
    trained: bool
    provisional: bool
    usual_scores: tuple[float, float, float] | None
    why: str
    predicted: tuple[float, float] | None
    recorded: float | None
    unit: str
    delivery: str | None
    destination: str
    answer: str | None


class SeriesPage(BaseModel):
    """Series, the newest first; `next` goes into `before` for the older ones, and is null on the last page."""

    series: list[SeriesOut]
    next: int | None


def _out(entry: Entry, now: float) -> SeriesOut:
    own = {name: getattr(entry, name) for name in SeriesOut.model_fields if name in Entry.__dataclass_fields__}
    usual = entry.usual
    return SeriesOut(
        **own,
        provisional=entry.is_provisional(now),
        usual_scores=(usual.low, usual.median, usual.high) if usual else None,
    )


@router.get("/series")
def list_series(
    context: Context, actor: Viewer, query: Listed, at_most: AtMost = 100, before: Before = None
) -> SeriesPage:
    """Return series by the filters of the worklist."""
    with context.database.read() as connection:
        wanted = query.as_filter(context, actor)
        entries = worklist.page(connection, wanted, at_most=at_most + 1, before=before)
    shown = entries[:at_most]
    more = len(entries) > at_most
    return SeriesPage(series=[_out(entry, context.clock()) for entry in shown], next=shown[-1].id if more else None)


@router.get("/series/{number}", responses=_NOT_FOUND)
def one_series(context: Context, actor: Viewer, number: Number) -> dict[str, Any]:
    """Return one series with its facts, measures, deliveries and answers."""
    entry = entry_of(context, actor, number)
    uid = entry.series_instance_uid
    with context.database.read() as connection:
        row = index.find_series(connection, uid)
        found = findings.of_series(connection, row) if row else None
        deliveries = outbox.deliveries_of(connection, uid)
        given = answers.of_series(connection, uid)
    reasons = facts(found.assessment, found.technique, found.stands_out, entry.usual, None) if found else ()
    assessment = found.assessment if found else None
    return {
        **_out(entry, context.clock()).model_dump(),
        "facts": [{"short": one.short, "text": one.text, "adverse": one.is_adverse} for one in reasons],
        "slices": [{"score": part.quality, "weight": part.weight} for part in assessment.primary.slices]
        if assessment
        else [],
        "measures": by_name(found.measured.measures) if found and found.measured else {},
        "deliveries": [
            {"destination": one.destination, "revision": one.revision, "state": str(one.state),
             "reason_code": one.reason_code, "attempts": one.attempts, "status": one.status, "done_at": one.done_at}
            for one in deliveries
        ],
        "answers": [
            {"kind": one.kind, "reason": one.reason, "by": one.by, "initials": one.initials, "at": one.at,
             "undone_at": one.undone_at}
            for one in given
        ],
    }  # fmt: skip


@router.get("/status")
def status(context: Context, actor: Watching) -> dict[str, float | int | None]:
    """Return what the node does at this moment, in numbers."""
    with context.database.read() as connection:
        return pulse.read(connection)


@router.get("/audit")
def audit(context: Context, actor: Auditing, q: Annotated[str, Query(max_length=64)] = "", before: Before = None,
          at_most: AtMost = 100) -> dict[str, Any]:  # fmt: skip
    """Return audited actions, the latest first."""
    with context.database.read() as connection:
        found = audit_trail.search(connection, text=q, before=before, at_most=at_most)
    rows = [{name: getattr(one, name) for name in one.__dataclass_fields__} for one in found]
    return {"events": rows, "next": found[-1].id if len(found) == at_most else None}
