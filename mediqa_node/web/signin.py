"""Signing in and out, and enrolling the tablet of a room by its one-time code."""

import unicodedata

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from mediqa_node.domain.access import Outcome
from mediqa_node.storage import sessions, users
from mediqa_node.storage.database import Connection
from mediqa_node.web.access import (
    COOKIE,
    LOCK_S,
    LOCKS_AFTER,
    Context,
    address_of,
    find_actor,
    record,
    source_of,
)
from mediqa_node.web.context import WebContext
from mediqa_node.web.forms import Secret, Text, Word
from mediqa_node.web.pages import page

router = APIRouter(include_in_schema=False)

_TABLET_S = 400 * 86_400
_WRONG = "Name or password is wrong, or the name is locked after failures; try again in five minutes."


@router.get("/sign-in")
def form(request: Request, next: str = "/") -> Response:
    """Show the form; whoever is signed in goes on."""
    if find_actor(request) is not None:
        return RedirectResponse(_local(next), 303)
    return page(request, None, "signin.html", "", next=_local(next), problem="", name="")


@router.post("/sign-in")
def sign_in(request: Request, context: Context, name: Text, password: Secret, next: Text = "/") -> Response:
    """Open a session for a name and its password."""
    if not context.attempts.admits(source_of(request), context.clock()):
        if context.floods.admits(source_of(request), context.clock()):
            record(request, None, "sign-in", outcome=Outcome.REFUSED, detail="too many attempts")
        return page(request, None, "signin.html", "", 429, next=_local(next), name=name,
                    problem="Too many attempts from here; wait a minute.")  # fmt: skip
    token = _opened(request, context, unicodedata.normalize("NFKC", name), password)
    if token is None:
        return page(request, None, "signin.html", "", 401, next=_local(next), name=name, problem=_WRONG)
    return _with_cookie(context, _local(next), token, lasts_s=None)


def _opened(request: Request, context: WebContext, name: str, password: str) -> str | None:
    """Open a session if the password is right and the name neither locked nor disabled; return its token, or None.

    A hash is computed for unknown names too, and there is one transaction whatever the outcome, so that time does not
    tell which names exist. Who tries in parallel is counted one by one: the row is read again after the hash.
    """
    now = context.clock()
    with context.database.read() as connection:
        found = users.find(connection, name)
    right = context.passwords.is_right(found.password if found else None, password)
    renewed = (
        context.passwords.hash(password) if found and right and context.passwords.is_outdated(found.password) else None
    )
    with context.database.write() as connection:
        user = users.find(connection, name, to_change=True)
        is_open = user is not None and user.disabled_at is None and not user.is_locked(now)
        if user is None or found is None or not (right and is_open and user.password == found.password):
            if user is not None and is_open:
                users.note_failure(connection, user, at=now, locks_after=LOCKS_AFTER, lock_s=LOCK_S)
            # of a name that does not exist nothing is kept: it may be a password in the wrong field
            by, detail = (user.name, "") if user else ("", "unknown name")
            record(request, None, "sign-in", outcome=Outcome.REFUSED, by=by, detail=detail, within=connection)
            return None
        users.note_success(connection, user, at=now, password=renewed)
        _end_earlier(request, connection, now)
        record(request, None, "sign-in", by=user.name, within=connection)
        return sessions.open_session(connection, at=now, address=address_of(request), user_id=user.id)


def _end_earlier(request: Request, connection: Connection, now: float) -> None:
    """End the session whose cookie this browser is about to lose."""
    if (token := request.cookies.get(COOKIE)) is not None:
        sessions.end_by_token(connection, token, at=now)


@router.get("/enrol")
def enrolment(request: Request, code: str = "") -> Response:
    """Show the form that turns this browser into the tablet of a room."""
    return page(request, None, "enrol.html", "", code=code[:20], problem="")


@router.post("/enrol")
def enrol(request: Request, context: Context, code: Word) -> Response:
    """Turn this browser into the tablet of the room that a code is for."""
    now = context.clock()
    found = None
    if admitted := context.attempts.admits(source_of(request), now):
        with context.database.write() as connection:
            found = sessions.enrol(connection, code, at=now, address=address_of(request))
            if found is not None:
                _end_earlier(request, connection, now)
                record(request, None, "enrol", by=found[1], on=found[1], within=connection)
    if found is None:
        if admitted or context.floods.admits(source_of(request), now):
            record(request, None, "enrol", outcome=Outcome.REFUSED, detail="" if admitted else "too many attempts")
        problem = "This code is not valid: it was used, is too old, or was mistyped. An administrator makes another."
        return page(request, None, "enrol.html", "", 401, code="", problem=problem)
    return _with_cookie(context, "/", found[0], lasts_s=_TABLET_S)


@router.post("/sign-out")
def sign_out(request: Request, context: Context) -> Response:
    """End the session."""
    actor = find_actor(request)
    if actor is not None:
        with context.database.write() as connection:
            sessions.end(connection, actor.session_id, at=context.clock())
            record(request, actor, "sign-out", within=connection)
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=context.secure)
    return answer


def _with_cookie(context: WebContext, where: str, token: str, *, lasts_s: int | None) -> Response:
    answer = RedirectResponse(where, 303)
    answer.set_cookie(COOKIE, token, max_age=lasts_s, path="/", httponly=True, samesite="strict", secure=context.secure)
    return answer


def _local(where: str) -> str:
    """Return an address of this node; any other leads to the first page."""
    is_local = where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable()
    return where if is_local and "\\" not in where else "/"
