"""The reading room: one case after the other, blinded, in an order of the reader's own.

A reader sees images and nothing else of a case: no score, verdict, patient, scanner, protocol, date or rating of
others. Addresses name a place in the reader's order, never a series.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from mediqa_node.domain.access import Actor, Permission
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.reading import Example, Place, Reading, Study
from mediqa_node.reader_study.order import reading_order
from mediqa_node.storage import assessments, reading
from mediqa_node.storage.database import Connection
from mediqa_node.storage.reading import ReaderRow
from mediqa_node.web import keys
from mediqa_node.web.access import Context, needs, record
from mediqa_node.web.context import WebContext
from mediqa_node.web.images import picture
from mediqa_node.web.numbers import Number
from mediqa_node.web.numbers import Place as Index
from mediqa_node.web.pages import page
from mediqa_node.web.series import WINDOWS

router = APIRouter(include_in_schema=False)

Reader = Annotated[Actor, Depends(needs(Permission.READ))]
Looking = Annotated[Actor, Depends(needs(Permission.READ, counts=False))]
"""A reader whose page fetches pictures by itself, also ahead of time."""
_HEADS = ("head", "brain")


class Confirmed(BaseModel):
    """What the form beside the images sends; a criterion that was not rated is missing."""

    position: Annotated[int, Field(ge=1, le=10_000)]
    comment: Annotated[str, Field(max_length=1000)] = ""
    window: Annotated[str, Field(max_length=64)] = ""
    took_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None = None
    cannot: bool = False
    overall: int | None = None
    noise: int | None = None
    artifact: int | None = None
    contrast: int | None = None
    sharpness: int | None = None

    def values(self, study: Study) -> dict[str, int]:
        """Return the ratings by criterion; HTTPException 422 where one is missing or not on the scale."""
        if self.cannot:
            return {}
        found = {one.name: getattr(self, one.name) for one in study.criteria}
        if missing := [name for name, value in found.items() if value is None]:
            raise HTTPException(422, f"Not rated yet: {', '.join(missing)}.")
        if wrong := [name for name, value in found.items() if not study.scale.has(value)]:
            raise HTTPException(422, f"Not on the scale: {', '.join(wrong)}.")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Images of a case or an example, without anything that says whose they are.

    Attributes:
        slices: addresses.
        kind: windows stay between cases of one kind.
        low, high: window that the network read; "" for CT, whose numbers have a unit.
        presets: name, center and width of windows.
    """

    slices: tuple[str, ...]
    kind: str
    low: float | str
    high: float | str
    presets: tuple[tuple[str, float, float], ...]


def plain(request: Request, actor: Actor, template: str, status: int = 200, /, **values: Any) -> Response:
    """Return a page of the reading room on which nothing is rated: it has no keys of its own."""
    without: Mapping[str, Any] = {"keys": keys.of_page(""), "key_map": keys.as_map("")}
    return page(request, actor, template, "reading", status, **without, **values)


@router.get("/reading")
def studies(request: Request, context: Context, actor: Reader) -> Response:
    """Show the studies that this reader may read, and all of them to who makes them."""
    with context.database.read() as connection:
        every = reading.every(connection)
        mine = [
            (study, _progress(connection, study, actor.name))
            for study in every
            if study.is_open and study.admits(actor.name)
        ]
        counts = {study.id: reading.progress(connection, study.id) for study in every}
    managed = every if actor.may(Permission.STUDIES) else []
    return plain(request, actor, "reading.html", mine=mine, managed=managed, counts=counts)


def _progress(connection: Connection, study: Study, name: str) -> tuple[int, int]:
    """Return how many places a reader has done, of how many; (0, 0) who has not begun."""
    me = reading.reader(connection, study.id, name)
    if me is None:
        return 0, 0
    return len(reading.readings(connection, me.id)), len(reading.places(connection, me.id))


def study_of(context: WebContext, actor: Actor, number: int) -> Study:
    """Return a study that this person may read; HTTPException 404 for any other."""
    with context.database.read() as connection:
        study = reading.find(connection, number)
    if study is None or not study.admits(actor.name):
        raise HTTPException(404, "There is no reading study of this number, or not for you.")
    return study


def _me(connection: Connection, study: Study, actor: Actor) -> ReaderRow:
    me = reading.reader(connection, study.id, actor.name)
    if me is None:
        raise HTTPException(409, "Start the study first.")
    return me


@router.post("/reading/{number}/start")
def start(request: Request, context: Context, actor: Reader, number: Number) -> Response:
    """Draw the order of this reader, once, and begin."""
    study = study_of(context, actor, number)
    if not study.is_open:
        raise HTTPException(409, "This study is closed.")
    seed = f"{study.seed}:{study.id}:{actor.name}"
    order = reading_order(study.n_cases, study.repeats, seed)
    with context.database.write() as connection:
        reading.begin(connection, study, actor.name, seed=seed, order=order, at=context.clock())
        record(request, actor, "reading.started", on=study.study_id, within=connection)
    return RedirectResponse(f"/reading/{number}", 303)


@router.get("/reading/{number}")
def read(request: Request, context: Context, actor: Reader, number: Number) -> Response:
    """Show the first case that this reader has not rated yet."""
    study = study_of(context, actor, number)
    with context.database.read() as connection:
        me = reading.reader(connection, number, actor.name)
        ladder = reading.examples(connection, number)
        if me is None or not study.is_open:
            return plain(request, actor, "reading_start.html", study=study)
        places = reading.places(connection, me.id)
        done = {given.position: given for given in reading.readings(connection, me.id)}
        left = [place for place in places if place.position not in done]
        if not left:
            return plain(request, actor, "reading_done.html", study=study, n=len(places))
        before = reading.taken_back(connection, me.id, left[0].position)
        case, *after = (_shown(connection, study, me, place) for place in left[:2])
        rungs = [(one, _example(connection, study, one)) for one in ladder]
    return page(
        request,
        actor,
        "reading_case.html",
        "reading",
        study=study,
        place=left[0],
        case=case,
        ahead=after[0].slices if after else (),
        n_done=len(done),
        n=len(places),
        before=before,
        rungs=rungs,
    )


def _shown(connection: Connection, study: Study, me: ReaderRow, place: Place) -> Shown:
    base = f"/reading/{study.id}/cases/{place.position}/slices"
    token = hashlib.sha256(f"{me.seed}:{me.began_at}:{place.position}".encode()).hexdigest()[:12]
    found = assessments.load_assessment(connection, place.series_instance_uid, place.revision)
    return _images(found, base, f"?v={token}")  # another reader in the same browser has other addresses


def _example(connection: Connection, study: Study, one: Example) -> Shown:
    found = assessments.load_assessment(connection, one.series_instance_uid, one.revision)
    return _images(found, f"/reading/{study.id}/examples/{one.place}/slices")


def _images(assessment: Assessment | None, base: str, query: str = "") -> Shown:
    if assessment is None:
        return Shown(slices=(), kind="", low="", high="", presets=())
    modality, region = assessment.modality, assessment.primary.prompt.region.value
    part = "head" if region in _HEADS else "body"
    window = assessment.primary.window if modality == "MR" else None
    return Shown(
        slices=tuple(f"{base}/{index}{query}" for index in range(len(assessment.primary.slices))),
        kind=f"reading-CT-{part}" if modality == "CT" else f"reading-{modality}",
        low=window[0] if window else "",
        high=window[1] if window else "",
        presets=tuple(WINDOWS["CT", part]) if modality == "CT" else (),
    )


@router.post("/reading/{number}/ratings")
def confirm(
    request: Request, context: Context, actor: Reader, number: Number, given: Annotated[Confirmed, Form()]
) -> Response:
    """Keep the rating of a case; it is committed before the next one is shown."""
    study = study_of(context, actor, number)
    if not study.is_open:
        raise HTTPException(409, "This study was closed meanwhile; the rating was not kept.")
    values = given.values(study)
    with context.database.write() as connection:
        me = _me(connection, study, actor)
        if given.position not in {place.position for place in reading.places(connection, me.id)}:
            raise HTTPException(404, "There is no such case in this study.")
        kept = reading.confirm(
            connection,
            me.id,
            given.position,
            values,
            comment=given.comment.strip(),
            window=given.window.strip(),
            took_s=given.took_s,
            at=context.clock(),
        )
    if not kept:
        raise HTTPException(409, "This case was rated already, perhaps in another tab. Reload to go on.")
    return _on(request, number)


@router.post("/reading/{number}/undo")
def undo(request: Request, context: Context, actor: Reader, number: Number) -> Response:
    """Take back what this reader confirmed last; the case comes again."""
    study = study_of(context, actor, number)
    if not study.is_open:
        raise HTTPException(409, "This study is closed; its ratings stand.")
    with context.database.write() as connection:
        undone: Reading | None = reading.undo_last(connection, _me(connection, study, actor).id, at=context.clock())
    if undone is None:
        raise HTTPException(409, "There is nothing to take back.")
    return _on(request, number)


def _on(request: Request, number: int) -> Response:
    if request.headers.get("hx-request"):
        return Response(status_code=204)
    return RedirectResponse(f"/reading/{number}", 303)


# ── images ───────────────────────────────────────────────────────────────────


@router.get("/reading/{number}/cases/{position}/slices/{index}")
async def case_slice(
    request: Request, context: Context, actor: Looking, number: Number, position: Number, index: Index
) -> Response:
    """Return a slice of the case at a place of this reader's order."""
    return await picture(
        request, "slice", index=index, **await run_in_threadpool(_at_case, context, actor, number, position)
    )


def _at_case(context: WebContext, actor: Actor, number: int, position: int) -> dict[str, Any]:
    study = study_of(context, actor, number)
    with context.database.read() as connection:
        return _at(reading.places(connection, _me(connection, study, actor).id), position)


def _at_example(context: WebContext, actor: Actor, number: int, place: int) -> dict[str, Any]:
    study_of(context, actor, number)
    with context.database.read() as connection:
        return _at(reading.examples(connection, number), place)


def _at(places: Sequence[Place | Example], wanted: int) -> dict[str, Any]:
    """Return series and revision at a place; HTTPException 404 where there is none."""
    for one in places:
        if wanted == (one.position if isinstance(one, Place) else one.place):
            return {"series": one.series_instance_uid, "revision": one.revision}
    raise HTTPException(404, "There is no such case in this study.")


@router.get("/reading/{number}/examples/{place}/thumb")
async def example_thumb(request: Request, context: Context, actor: Looking, number: Number, place: Number) -> Response:
    """Return a small picture of an example."""
    return await picture(request, "thumb", **await run_in_threadpool(_at_example, context, actor, number, place))


@router.get("/reading/{number}/examples/{place}/slices/{index}")
async def example_slice(
    request: Request, context: Context, actor: Looking, number: Number, place: Number, index: Index
) -> Response:
    """Return a slice of an example."""
    at = await run_in_threadpool(_at_example, context, actor, number, place)
    return await picture(request, "slice", index=index, **at)
