"""Reading studies as a physicist makes and ends them: cases, scale, examples; agreement; ratings for training."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import HTMLResponse, RedirectResponse, Response

from mediqa_node.domain.access import PERMISSIONS, Actor, Permission
from mediqa_node.domain.rating import CRITERIA, DIRECTIONS, HIGHER_BETTER
from mediqa_node.domain.reading import MOST_CASES, MOST_EXAMPLES, MOST_REPEATS, Criterion, Scale, Study, read_points
from mediqa_node.exchange.rating_table import write_ratings
from mediqa_node.reader_study.order import chosen, reading_order
from mediqa_node.reader_study.study import figures
from mediqa_node.storage import ratings, reading, users, worklist
from mediqa_node.storage.database import Connection
from mediqa_node.storage.reading_results import Candidate, agreed, candidates, patients_of, ratings_of
from mediqa_node.web.access import Context, needs, record
from mediqa_node.web.context import WebContext
from mediqa_node.web.filters import PERIODS, ListQuery
from mediqa_node.web.numbers import LARGEST, Number
from mediqa_node.web.reading import plain

router = APIRouter(include_in_schema=False)

Making = Annotated[Actor, Depends(needs(Permission.STUDIES))]
Line = Annotated[str, Field(max_length=200)]
QUESTIONS = {
    "overall": "How good are these images for their purpose?",
    "noise": "Freedom from noise",
    "artifact": "Freedom from artefacts",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
}
POINTS = "1 not usable\n2 poor\n3 acceptable\n4 good\n5 excellent"


class Wanted(BaseModel):
    """Which series a study takes: filters of the worklist, how many, and how they are drawn."""

    modality: Annotated[str, Field(max_length=16)] = ""
    scanner: Annotated[str, Field(max_length=64)] = ""
    protocol: Annotated[str, Field(max_length=64)] = ""
    received: Annotated[str, Field(max_length=10)] = "all"
    at_most: Annotated[int, Field(ge=1, le=MOST_CASES)] = 60
    repeats: Annotated[int, Field(ge=0, le=round(100 * MOST_REPEATS))] = 10
    spread: bool = False
    seed: Annotated[int, Field(ge=0, le=LARGEST)] = 1

    @property
    def share(self) -> float:
        """The share of cases that come twice."""
        return self.repeats / 100

    def words(self) -> str:
        """Return how the cases were chosen, for people."""
        where = [self.modality, self.scanner, self.protocol]
        period = "" if self.received == "all" else PERIODS.get(self.received, (0, self.received))[1]
        drawn = "spread over the scores" if self.spread else "at random"
        return ", ".join(filter(None, (*where, period, f"at most {self.at_most} {drawn}", f"seed {self.seed}")))


class NewStudy(Wanted):
    """What the form of a new study sends."""

    name: Annotated[str, Field(max_length=64)] = ""
    question: Annotated[str, Field(max_length=1000)] = ""
    points: Annotated[str, Field(max_length=1000)] = POINTS
    direction: Annotated[str, Field(max_length=16)] = HIGHER_BETTER
    criteria: Annotated[list[str], Field(max_length=len(CRITERIA))] = ["overall"]
    overall: Line = QUESTIONS["overall"]
    noise: Line = QUESTIONS["noise"]
    artifact: Line = QUESTIONS["artifact"]
    contrast: Line = QUESTIONS["contrast"]
    sharpness: Line = QUESTIONS["sharpness"]
    readers: Annotated[list[str], Field(max_length=200)] = []
    examples: Annotated[str, Field(max_length=1000)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The series that a filter gives, and those drawn from them."""

    n_match: int
    cases: tuple[Candidate, ...]


def _drawn(connection: Connection, context: WebContext, actor: Actor, wanted: Wanted, without: Sequence[str]) -> Drawn:
    query = ListQuery(
        modality=wanted.modality, scanner=wanted.scanner, protocol=wanted.protocol, received=wanted.received
    )
    known = [
        one for one in candidates(connection, query.as_filter(context, actor)) if one.series_instance_uid not in without
    ]
    places = chosen([one.score for one in known], wanted.at_most, seed=wanted.seed, spread=wanted.spread)
    return Drawn(n_match=len(known), cases=tuple(known[i] for i in places))


@router.get("/reading/new")
def form(request: Request, context: Context, actor: Making) -> Response:
    """Show the form of a new study."""
    return _form(request, context, actor, NewStudy(seed=secrets.randbelow(9000) + 1000, spread=True))


def _form(
    request: Request, context: WebContext, actor: Actor, given: NewStudy, problem: str = "", status: int = 200
) -> Response:
    with context.database.read() as connection:
        choices = worklist.choices(connection, ListQuery(received="all").as_filter(context, actor))
        people = [one for one in users.every(connection) if one.disabled_at is None]
        drawn = _drawn(connection, context, actor, given, ())
        suggested = agreed(connection)
    may_read = [one.name for one in people if Permission.READ in PERMISSIONS[one.role]]
    return plain(
        request, actor, "study_new.html", status,
        given=given, problem=problem, choices=choices, periods=PERIODS, people=may_read, criteria=CRITERIA,
        drawn=drawn, n_places=_n_places(drawn, given), most=MOST_CASES, most_examples=MOST_EXAMPLES,
        suggested=suggested,
    )  # fmt: skip


def _n_places(drawn: Drawn, wanted: Wanted) -> int:
    return len(reading_order(len(drawn.cases), wanted.share, "any")) if drawn.cases else 0


@router.get("/reading/matching")
def matching(context: Context, actor: Making, wanted: Annotated[Wanted, Query()]) -> Response:
    """Return how many series a filter gives, for the form while it is filled in."""
    with context.database.read() as connection:
        drawn = _drawn(connection, context, actor, wanted, ())
    return HTMLResponse(matching_words(drawn.n_match, len(drawn.cases), _n_places(drawn, wanted)))


def matching_words(n_match: int, n_cases: int, n_places: int) -> str:
    """Return what a study would take, as a sentence."""
    if not n_match:
        return "No scored series matches. Widen the filters."
    taken = "all are taken" if n_cases == n_match else f"{n_cases} are drawn"
    return f"{n_match} scored series match, {taken}: {n_places} readings for each reader."


@router.post("/reading/new")
def make(request: Request, context: Context, actor: Making, given: Annotated[NewStudy, Form()]) -> Response:
    """Make a study; a form with a mistake comes back as it was sent."""
    try:
        _make(request, context, actor, given)
    except ValueError as error:
        text = str(error)
        return _form(request, context, actor, given, text[:1].upper() + text[1:] + ".", 422)
    return RedirectResponse("/reading", 303)


def _make(request: Request, context: WebContext, actor: Actor, given: NewStudy) -> int:
    """Keep a study; ValueError with what is wrong in the form."""
    if not given.name.strip() or not given.name.isprintable():
        raise ValueError("a study needs a name")
    if given.direction not in DIRECTIONS:
        raise ValueError("higher or lower values are better")
    scale = Scale(points=read_points(given.points), direction=given.direction)
    criteria = tuple(
        Criterion(name=name, question=getattr(given, name).strip() or name)
        for name in CRITERIA
        if name in given.criteria
    )
    if not criteria:
        raise ValueError("a study needs a criterion")
    with context.database.write() as connection:
        ladder = _examples(connection, actor, given.examples, scale)
        drawn = _drawn(connection, context, actor, given, [uid for uid, _, _ in ladder])
        if not drawn.cases:
            raise ValueError("no scored series matches; widen the filters")
        number = reading.add_study(
            connection,
            criteria=criteria,
            scale=scale,
            cases=[(one.series_instance_uid, one.revision) for one in drawn.cases],
            examples=ladder,
            name=given.name.strip(),
            question=given.question.strip(),
            seed=given.seed,
            repeats=given.share,
            readers=sorted(set(given.readers)),
            chosen=given.words(),
            made_at=context.clock(),
            made_by=actor.name,
        )
        detail = f"{given.name}: {given.words()}"
        record(request, actor, "study.made", on=f"reading-{number}", detail=detail, within=connection)
    return number


def _examples(connection: Connection, actor: Actor, text: str, scale: Scale) -> list[tuple[str, int, int]]:
    """Return series, revision and value of lines such as `2094 = 3`; ValueError names the line."""
    found: list[tuple[str, int, int]] = []
    for line in filter(None, (line.strip() for line in text.replace(",", "\n").splitlines())):
        number, _, value = (part.strip() for part in line.partition("="))
        if not (number.isascii() and number.isdigit() and value.isascii() and value.isdigit() and len(number) < 10):
            raise ValueError(f"an example is a number of a series and its rating, such as “2094 = 3”, unlike “{line}”")
        entry = worklist.find(connection, int(number), actor.scanners)
        if entry is None or entry.score is None:
            raise ValueError(f"series {number} of the examples is unknown, or was not scored")
        if len(value) > 1 or not scale.has(int(value)):
            raise ValueError(f"{value} of series {number} is not on the scale")
        found.append((entry.series_instance_uid, entry.revision, int(value)))
    if len(found) > MOST_EXAMPLES:
        raise ValueError(f"a ladder has at most {MOST_EXAMPLES} examples")
    if len({uid for uid, _, _ in found}) < len(found):
        raise ValueError("each example comes once")
    return found


# ── one study ────────────────────────────────────────────────────────────────


def _study(context: WebContext, number: int) -> Study:
    with context.database.read() as connection:
        study = reading.find(connection, number)
    if study is None:
        raise HTTPException(404, "There is no reading study of this number.")
    return study


@router.get("/reading/{number}/agreement")
def agreement(request: Request, context: Context, actor: Making, number: Number) -> Response:
    """Show how far the readers are, and how well they agree."""
    study = _study(context, number)
    with context.database.read() as connection:
        rows = ratings_of(connection, study)
        patients = patients_of(connection, sorted({one.series_instance_uid for one in rows}))
        progress = reading.progress(connection, number)
        ladder = reading.examples(connection, number)
    names = {one.reader.pseudonym: one.reader.name for one in progress}
    return plain(
        request, actor, "agreement.html",
        study=study, progress=progress, found=figures(rows, patients), names=names, n_ratings=len(rows),
        ladder=ladder, can_import=context.import_ratings is not None,
    )  # fmt: skip


@router.post("/reading/{number}/close")
def close(request: Request, context: Context, actor: Making, number: Number) -> Response:
    """Let a study take no more ratings."""
    study = _study(context, number)
    with context.database.write() as connection:
        done = reading.close(connection, number, by=actor.name, at=context.clock())
        if done:
            record(request, actor, "study.closed", on=study.study_id, within=connection)
    return _back(number)


@router.post("/reading/{number}/import")
def use(request: Request, context: Context, actor: Making, number: Number) -> Response:
    """Take the ratings of a closed study for training, as `mediqa-node annotations import` takes a table."""
    study = _study(context, number)
    if study.is_open or study.import_id is not None:
        raise HTTPException(409, "Only the ratings of a closed study are taken, and once.")
    if context.import_ratings is None:
        raise HTTPException(409, "This process cannot import ratings.")
    with context.database.read() as connection:
        content = write_ratings(ratings_of(connection, study))
    made, problems = context.import_ratings(content, by=actor.name, at=context.clock())
    if made is None:
        raise HTTPException(409, f"Nothing was imported: {'; '.join(problems[:3]) or 'no rating was given'}.")
    with context.database.write() as connection:
        reading.set_import(connection, number, made)
        record(request, actor, "study.imported", on=study.study_id, detail=f"import {made}", within=connection)
    return _back(number)


@router.post("/reading/{number}/withdraw")
def withdraw(request: Request, context: Context, actor: Making, number: Number) -> Response:
    """Let the ratings of a study count no more for training; they stay on record."""
    study = _study(context, number)
    if study.import_id is None:
        raise HTTPException(409, "The ratings of this study are not used for training.")
    with context.database.write() as connection:
        ratings.withdraw(connection, study.import_id, by=actor.name, at=context.clock())
        reading.set_import(connection, number, None)
        detail = f"import {study.import_id}"
        record(request, actor, "study.withdrawn", on=study.study_id, detail=detail, within=connection)
    return _back(number)


@router.get("/reading/{number}/ratings.csv")
def table(request: Request, context: Context, actor: Making, number: Number) -> Response:
    """Return the ratings as a table that `mediqa-node annotations import` takes as it is."""
    study = _study(context, number)
    with context.database.read() as connection:
        content = write_ratings(ratings_of(connection, study))
    record(request, actor, "study.downloaded", on=study.study_id)
    headers = {"content-disposition": f'attachment; filename="{study.study_id}.csv"'}
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


def _back(number: int) -> Response:
    return RedirectResponse(f"/reading/{number}/agreement", 303)
