"""Calibrations: readers' ratings become thresholds on the score of a scanner and protocol, approved by a second person.

An approved calibration gives verdicts to series that are assessed from then on; reports that were written stay.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from mediqa_node.domain.access import PERMISSIONS, Actor, Permission
from mediqa_node.domain.rating import CRITERIA
from mediqa_node.domain.reading import Study
from mediqa_node.image.verdict import ANY
from mediqa_node.reader_study.thresholds import NotFitted
from mediqa_node.storage import calibrations, reading, users
from mediqa_node.storage.calibrations import Record
from mediqa_node.storage.database import Connection
from mediqa_node.storage.reading_results import newest_weights, patients_of, ratings_of, scored
from mediqa_node.web.access import Context, needs, record
from mediqa_node.web.calibration_fit import Basis, Choices, basis_of, choices_of, fitted, kept, plot
from mediqa_node.web.context import WebContext
from mediqa_node.web.forms import Text
from mediqa_node.web.numbers import LARGEST, Number
from mediqa_node.web.reading import plain

router = APIRouter(include_in_schema=False)

Calibrating = Annotated[Actor, Depends(needs(Permission.CALIBRATE))]


class Asked(BaseModel):
    """What a calibration is made of: study, criterion, scope, and the limits on the study's scale."""

    study: Annotated[int, Field(ge=0, le=LARGEST)] = 0
    criterion: Annotated[str, Field(max_length=16)] = CRITERIA[0]
    modality: Annotated[str, Field(max_length=16)] = ""
    scanner: Annotated[str, Field(max_length=64)] = ANY
    protocol: Annotated[str, Field(max_length=64)] = ANY
    look: Annotated[float, Field(ge=0, le=9, allow_inf_nan=False)] | None = None
    repeat: Annotated[float, Field(ge=0, le=9, allow_inf_nan=False)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What a question gives: a fit that may be kept, or why there is none."""

    study: Study
    asked: Asked
    choices: Choices
    basis: Basis | None
    found: dict[str, Any] | None
    problem: str


@router.get("/calibrations")
def overview(request: Request, context: Context, actor: Calibrating) -> Response:
    """Show the calibrations: those that wait, those that verdicts rest on, and those that were."""
    with context.database.read() as connection:
        every = calibrations.every(connection)
        studies = [one for one in reading.every(connection) if reading.readers(connection, one.id)]
        weights = newest_weights(connection)
    return plain(
        request, actor, "calibrations.html",
        waiting=[one for one in every if one.waits], active=[one for one in every if one.is_active],
        ended=[one for one in every if one.withdrawn_at is not None], studies=studies, weights=weights,
    )  # fmt: skip


@router.get("/calibrations/new")
def new(request: Request, context: Context, actor: Calibrating, asked: Annotated[Asked, Query()]) -> Response:
    """Show what two limits on a study's ratings give as thresholds."""
    tried = _try(context, asked)
    drawn = plot(tried.found) if tried.found else None
    return plain(
        request, actor, "calibration_new.html", tried=tried, study=tried.study, asked=tried.asked,
        choices=tried.choices, found=tried.found, plot=drawn, any=ANY,
    )  # fmt: skip


@router.post("/calibrations")
def make(request: Request, context: Context, actor: Calibrating, asked: Annotated[Asked, Form()]) -> Response:
    """Keep a calibration, which waits for its approval."""
    tried = _try(context, asked)
    if tried.found is None or tried.basis is None:
        raise HTTPException(422, tried.problem or "Name both limits.")
    of = tried.basis.checkpoint
    with context.database.write() as connection:
        number = calibrations.add(
            connection,
            by=actor.name,
            at=context.clock(),
            study_id=tried.study.id,
            basis=tried.found,
            modality=tried.asked.modality,
            station_name=tried.asked.scanner,
            protocol_name=tried.asked.protocol,
            borderline_below=tried.found["fit"]["look"]["score"],
            review_below=tried.found["fit"]["repeat"]["score"],
            n_series=len(tried.basis.series),
            n_readers=tried.basis.n_readers,
            weights_sha256=of.weights_sha256,
            card_sha256=of.card_sha256,
            fingerprint=of.fingerprint,
        )
        made = calibrations.find(connection, number)
        assert made is not None
        record(request, actor, "calibration.made", on=made.calibration.id, detail=_words(made), within=connection)
    return RedirectResponse(f"/calibrations/{number}", 303)


def _words(of: Record) -> str:
    one = of.calibration
    limits = f"look below {one.borderline_below:.4f}, repeat below {one.review_below:.4f}"
    return f"{one.modality} {one.station_name} {one.protocol_name}: {limits}, {one.n_series} series"


def _try(context: WebContext, asked: Asked) -> Tried:
    with context.database.read() as connection:
        study = reading.find(connection, asked.study)
        if study is None:
            raise HTTPException(404, "There is no reading study of this number.")
        rows = [one for one in ratings_of(connection, study) if one.criterion == asked.criterion]
        uids = sorted({one.series_instance_uid for one in rows})
        known = scored(connection, uids)
        patients = patients_of(connection, uids)
    choices = choices_of(known)
    asked = _completed(asked, study, choices)
    basis, found, problem = None, None, ""
    try:
        basis = basis_of(rows, known, modality=asked.modality, scanner=asked.scanner, protocol=asked.protocol)
        if asked.look is not None and asked.repeat is not None:
            limits = {"look": asked.look, "repeat": asked.repeat}
            found = kept(basis, fitted(basis, patients, study.scale, **limits), study.scale, asked.criterion, **limits)
    except NotFitted as error:
        problem = str(error)[:1].upper() + str(error)[1:] + "."
    return Tried(study=study, asked=asked, choices=choices, basis=basis, found=found, problem=problem)


def _completed(asked: Asked, study: Study, choices: Choices) -> Asked:
    """Return the question with what was left open: the most frequent modality, limits in the middle of the scale."""
    low, high = study.scale.low, study.scale.high
    middle = (low + high) / 2
    guess = (middle + 0.5, middle - 0.5) if study.scale.is_higher_better else (middle - 0.5, middle + 0.5)
    changed: dict[str, Any] = {}
    if asked.modality not in choices.modalities and choices.modalities:
        changed["modality"] = choices.modalities[0]
    if asked.look is None:
        changed["look"] = guess[0]
    if asked.repeat is None:
        changed["repeat"] = guess[1]
    return asked.model_copy(update=changed)


# ── one calibration ──────────────────────────────────────────────────────────


def _of(connection: Connection, number: int) -> Record:
    found = calibrations.find(connection, number)
    if found is None:
        raise HTTPException(404, "There is no calibration of this number.")
    return found


def approvers(connection: Connection) -> list[str]:
    """Return the names of everybody who may approve a calibration."""
    people = users.every(connection)
    return [one.name for one in people if one.disabled_at is None and Permission.CALIBRATE in PERMISSIONS[one.role]]


def may_approve(name: str, made_by: str, others: list[str]) -> bool:
    """Return whether a person may approve what another, or they alone, could have made."""
    return name != made_by or set(others) <= {made_by}


@router.get("/calibrations/{number}")
def show(request: Request, context: Context, actor: Calibrating, number: Number) -> Response:
    """Show one calibration and what it rests on."""
    with context.database.read() as connection:
        one = _of(connection, number)
        people = approvers(connection)
        study = reading.find(connection, one.study_id) if one.study_id else None
        weights = newest_weights(connection)
    drawn = plot(one.basis) if one.basis else None
    return plain(
        request, actor, "calibration.html", one=one, of=one.calibration, study=study, plot=drawn, found=one.basis,
        allowed=may_approve(actor.name, one.made_by, people), alone=set(people) <= {one.made_by},
        people=[name for name in people if name != one.made_by], weights=weights,
    )  # fmt: skip


@router.post("/calibrations/{number}/approve")
def approve(request: Request, context: Context, actor: Calibrating, number: Number) -> Response:
    """Let verdicts rest on a calibration; a second person does, where there is one."""
    with context.database.write() as connection:
        one = _of(connection, number)
        if not may_approve(actor.name, one.made_by, approvers(connection)):
            raise HTTPException(403, "Somebody else has to approve what you made.")
        if not calibrations.approve(connection, one, by=actor.name, role=actor.role, at=context.clock()):
            raise HTTPException(409, "It was approved or withdrawn already.")
        record(request, actor, "calibration.approved", on=one.calibration.id, detail=_words(one), within=connection)
    return RedirectResponse(f"/calibrations/{number}", 303)


@router.post("/calibrations/{number}/withdraw")
def withdraw(
    request: Request,
    context: Context,
    actor: Calibrating,
    number: Number,
    why: Text,
) -> Response:
    """Let no more verdicts rest on a calibration."""
    if not why:
        raise HTTPException(422, "Say why it is withdrawn.")
    with context.database.write() as connection:
        one = _of(connection, number)
        if not calibrations.withdraw(connection, number, by=actor.name, at=context.clock(), why=why):
            raise HTTPException(409, "It was withdrawn already.")
        record(request, actor, "calibration.withdrawn", on=one.calibration.id, detail=why, within=connection)
    return RedirectResponse(f"/calibrations/{number}", 303)
