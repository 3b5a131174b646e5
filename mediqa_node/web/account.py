"""A person's own page: password, sessions, access tokens, and breaking the glass."""

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from mediqa_node.domain.access import Actor, Outcome
from mediqa_node.storage import sessions, users
from mediqa_node.web.access import Context, Viewer, address_of, record
from mediqa_node.web.context import WebContext
from mediqa_node.web.numbers import Number
from mediqa_node.web.pages import page
from mediqa_node.web.passwords import SHORTEST_PASSWORD

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Form(max_length=200)]
_SHORTEST_REASON = 10


@router.get("/account")
def show(request: Request, context: Context, actor: Viewer) -> Response:
    """Show the account of whoever is signed in."""
    return _page(request, context, actor)


def _page(request: Request, context: WebContext, actor: Actor, token: str = "") -> Response:
    with context.database.read() as connection:
        own = sessions.of_user(connection, actor.name) if actor.room_id is None else []
    return page(request, actor, "account.html", "", sessions=own, token=token, shortest=SHORTEST_PASSWORD)


def _person(actor: Actor) -> None:
    if actor.room_id is not None:
        raise HTTPException(403, "A room's tablet has no account.")


@router.post("/account/password")
def password(request: Request, context: Context, actor: Viewer, old: Text, new: Text) -> Response:
    """Change the password; other sessions end."""
    _person(actor)
    with context.database.read() as connection:
        user = users.find(connection, actor.name)
    if user is None or not context.passwords.is_right(user.password, old):
        record(request, actor, "password.changed", outcome=Outcome.REFUSED)
        raise HTTPException(403, "The old password is wrong.")
    if len(new) < SHORTEST_PASSWORD:
        raise HTTPException(422, f"A password has at least {SHORTEST_PASSWORD} characters.")
    kept = context.passwords.hash(new)
    with context.database.write() as connection:
        users.change(connection, user.id, at=context.clock(), password=kept)
    record(request, actor, "password.changed")
    return RedirectResponse("/sign-in", 303)


@router.post("/account/tokens")
def make_token(request: Request, context: Context, actor: Viewer, label: Text) -> Response:
    """Make an access token for the API; it is shown once."""
    _person(actor)
    if not label.strip():
        raise HTTPException(422, "A token has a name, to know it by later.")
    with context.database.write() as connection:
        user = users.find(connection, actor.name)
        if user is None:
            raise HTTPException(404, "This account is gone.")
        token = sessions.open_session(
            connection,
            at=context.clock(),
            address=address_of(request),
            user_id=user.id,
            kind=sessions.TOKEN,
            label=label.strip(),
        )
    record(request, actor, "token.made", on=label.strip())
    return _page(request, context, actor, token=token)


@router.post("/account/sessions/{session_id}/end")
def end(request: Request, context: Context, actor: Viewer, session_id: Number) -> Response:
    """End one of the person's own sessions or tokens."""
    _person(actor)
    with context.database.write() as connection:
        user = users.find(connection, actor.name)
        if user is None or not sessions.end(connection, session_id, at=context.clock(), user_id=user.id):
            raise HTTPException(404, "There is no such session.")
    record(request, actor, "session.ended", on=session_id)
    return RedirectResponse("/account", 303)


@router.post("/account/break-glass")
def break_glass(request: Request, context: Context, actor: Viewer, reason: Text, next: Text = "/") -> Response:
    """Let this session see identifiers, with a reason on record."""
    _person(actor)
    if len(reason.strip()) < _SHORTEST_REASON:
        raise HTTPException(422, f"A reason has at least {_SHORTEST_REASON} characters; it stays on record.")
    with context.database.write() as connection:
        sessions.break_glass(connection, actor.session_id, at=context.clock())
    record(request, actor, "glass.broken", detail=reason.strip())
    return RedirectResponse(next if next.startswith("/series/") else "/", 303)
