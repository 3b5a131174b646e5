"""The worklist, and the answers that are given in it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.responses import HTMLResponse, Response

from mediqa_node.domain.access import Actor, Permission
from mediqa_node.domain.worklist import AnswerKind, Entry
from mediqa_node.storage import answers, worklist
from mediqa_node.web.access import Background, Context, Viewer, needs, record
from mediqa_node.web.context import WebContext
from mediqa_node.web.filters import PERIODS, Listed
from mediqa_node.web.forms import Word
from mediqa_node.web.numbers import After, Before, Number
from mediqa_node.web.pages import fragment, page

router = APIRouter(include_in_schema=False)

ON_A_PAGE = 60
_ROOMS_SINCE_S = 14 * 86_400.0
Answering = Annotated[Actor, Depends(needs(Permission.ANSWER))]


@router.get("/")
def show(request: Request, context: Context, actor: Viewer, query: Listed, before: Before = None) -> Response:
    """Show the rooms and the newest series, or those before one."""
    wanted = query.as_filter(context, actor)
    with context.database.read() as connection:
        change = worklist.last_change(connection)  # first: what changes meanwhile comes by the stream
        entries = worklist.page(connection, wanted, at_most=ON_A_PAGE + 1, before=before)
        counts, n_open = worklist.counts(connection, wanted)
        rooms = worklist.rooms(connection, since=context.clock() - _ROOMS_SINCE_S, scanners=actor.scanners)
        choices = worklist.choices(connection, wanted)
    return page(
        request,
        actor,
        "worklist.html",
        "worklist",
        entries=entries[:ON_A_PAGE],
        more=len(entries) > ON_A_PAGE,
        before=before,
        counts=counts,
        n_open=n_open,
        n_all=sum(counts.values()),
        rooms=rooms,
        choices=choices,
        filters=query,
        periods=PERIODS,
        change=change,
    )


@router.get("/rows")
def rows(request: Request, context: Context, actor: Background, query: Listed, after: After = 0) -> Response:
    """Return the rows of a list that are newer than one, for a page that is open."""
    with context.database.read() as connection:
        wanted = query.as_filter(context, actor)
        entries = worklist.page(connection, wanted, at_most=ON_A_PAGE, after=after)
    return HTMLResponse("".join(row(request, actor, entry) for entry in entries))


def row(request: Request, actor: Actor, entry: Entry) -> str:
    """Return the row of an entry."""
    return fragment(request, actor, "_row.html", entry=entry)


def entry_of(context: WebContext, actor: Actor, number: int) -> Entry:
    """Return an entry that the actor may see; HTTPException 404 for any other."""
    with context.database.read() as connection:
        entry = worklist.find(connection, number, actor.scanners)
    if entry is None:
        raise HTTPException(404, "There is no series of this number, or not for you.")
    return entry


@router.post("/series/{number}/answer")
def answer(
    request: Request,
    context: Context,
    actor: Answering,
    number: Number,
    kind: Annotated[str, Form(max_length=16)],
    initials: Annotated[str, Form(max_length=8)] = "",
    reason: Word = "",
    shape: Annotated[str, Form(max_length=8)] = "row",
) -> Response:
    """Keep what a person has done about a series; `undo` takes it back."""
    entry = entry_of(context, actor, number)
    if kind != "undo" and kind not in set(AnswerKind):
        raise HTTPException(422, f"An answer is one of {', '.join(AnswerKind)} or undo.")
    if kind == AnswerKind.WRONG_ALARM and not entry.is_alarm:
        raise HTTPException(422, "There was no alarm that could be wrong.")
    initials = "".join(letter for letter in initials if letter.isalpha()).upper()
    if actor.room_id is not None and kind != "undo" and not initials:
        raise HTTPException(422, "On a room's tablet an answer needs initials.")
    now = context.clock()
    with context.database.write() as connection:
        if kind == "undo":
            answers.undo(connection, entry, by=actor.name, at=now)
        else:
            answers.give(
                connection,
                entry,
                AnswerKind(kind),
                by=actor.name,
                role=actor.role,
                at=now,
                initials=initials,
                reason=reason,
            )
        record(request, actor, "answer", on=entry.id, detail=f"{kind} {initials}".strip(), within=connection)
    entry = entry_of(context, actor, number)
    if shape == "bar":
        with context.database.read() as connection:
            given = answers.current(connection, entry.series_instance_uid)
        return HTMLResponse(fragment(request, actor, "_answer_bar.html", entry=entry, given=given))
    return HTMLResponse(row(request, actor, entry))
