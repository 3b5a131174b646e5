"""Signing in and out, and enrolling the tablet of a room by its one-time code."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from mediqa_node.domain.access import Outcome
from mediqa_node.storage import sessions, users
from mediqa_node.storage.users import UserRow
from mediqa_node.web.access import (
    COOKIE,
    LOCK_S,
    LOCKS_AFTER,
    Context,
    address_of,
    find_actor,
    record,
)
from mediqa_node.web.context import WebContext
from mediqa_node.web.pages import page

router = APIRouter(include_in_schema=False)

Field = Annotated[str, Form(max_length=200)]
_TABLET_S = 400 * 86_400
_WRONG = "Name or password is wrong, or the name is locked after failures; try again in five minutes."


@router.get("/sign-in")
def form(request: Request, next: str = "/") -> Response:
    """Show the form; whoever is signed in goes on."""
    if find_actor(request) is not None:
        return RedirectResponse(_local(next), 303)
    return page(request, None, "signin.html", "", next=_local(next), problem="", name="")


@router.post("/sign-in")
def sign_in(request: Request, context: Context, name: Field, password: Field, next: Field = "/") -> Response:
    """Open a session for a name and its password."""
    name = name.strip()
    if not context.attempts.admits(address_of(request), context.clock()):
        record(request, None, "sign-in", outcome=Outcome.REFUSED, by=name, detail="too many attempts")
        return page(request, None, "signin.html", "", 429, next=_local(next), name=name,
                    problem="Too many attempts from here; wait a minute.")  # fmt: skip
    user = _checked(context, name, password)
    if user is None:
        record(request, None, "sign-in", outcome=Outcome.REFUSED, by=name)
        return page(request, None, "signin.html", "", 401, next=_local(next), name=name, problem=_WRONG)
    now = context.clock()
    with context.database.write() as connection:
        token = sessions.open_session(connection, at=now, address=address_of(request), user_id=user.id)
    record(request, None, "sign-in", by=user.name)
    return _with_cookie(context, _local(next), token, lasts_s=None)


def _checked(context: WebContext, name: str, password: str) -> UserRow | None:
    """Return the person if the password is right and the name is neither locked nor disabled.

    A hash is computed for unknown names too, so that time does not tell which names exist.
    """
    now = context.clock()
    with context.database.read() as connection:
        user = users.find(connection, name)
    right = context.passwords.is_right(user.password if user else None, password)
    if user is None or user.disabled_at is not None or user.is_locked(now):
        return None
    with context.database.write() as connection:
        if not right:
            users.note_failure(connection, user, at=now, locks_after=LOCKS_AFTER, lock_s=LOCK_S)
            return None
        renewed = context.passwords.hash(password) if context.passwords.is_outdated(user.password) else None
        users.note_success(connection, user, at=now, password=renewed)
    return user


@router.get("/enrol")
def enrolment(request: Request, code: str = "") -> Response:
    """Show the form that turns this browser into the tablet of a room."""
    return page(request, None, "enrol.html", "", code=code[:20], problem="")


@router.post("/enrol")
def enrol(request: Request, context: Context, code: Field) -> Response:
    """Turn this browser into the tablet of the room that a code is for."""
    now = context.clock()
    found = None
    if context.attempts.admits(address_of(request), now):
        with context.database.write() as connection:
            found = sessions.enrol(connection, code, at=now, address=address_of(request))
    if found is None:
        record(request, None, "enrol", outcome=Outcome.REFUSED)
        problem = "This code is not valid: it was used, is too old, or was mistyped. An administrator makes another."
        return page(request, None, "enrol.html", "", 401, code="", problem=problem)
    token, room = found
    record(request, None, "enrol", by=room, on=room)
    return _with_cookie(context, "/", token, lasts_s=_TABLET_S)


@router.post("/sign-out")
def sign_out(request: Request, context: Context) -> Response:
    """End the session."""
    actor = find_actor(request)
    if actor is not None:
        with context.database.write() as connection:
            sessions.end(connection, actor.session_id, at=context.clock())
        record(request, actor, "sign-out")
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
