"""A person's own page: password, sessions, access tokens, and breaking the glass."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from mediqa_node.domain.access import Actor, Outcome
from mediqa_node.storage import sessions, users
from mediqa_node.web.access import Context, Viewer, address_of, record
from mediqa_node.web.context import WebContext
from mediqa_node.web.forms import Secret, Text, Word
from mediqa_node.web.numbers import Number
from mediqa_node.web.pages import page
from mediqa_node.web.passwords import SHORTEST_PASSWORD

router = APIRouter(include_in_schema=False)

_SHORTEST_REASON = 10


@router.get("/account")
def show(request: Request, context: Context, actor: Viewer) -> Response:
    """Show the account of whoever is signed in."""
    return _page(request, context, actor)


def _page(request: Request, context: WebContext, actor: Actor, token: str = "") -> Response:
    with context.database.read() as connection:
        own = sessions.of_user(connection, actor.name) if actor.room_id is None else []
    return page(request, actor, "account.html", "", sessions=own, token=token, shortest=SHORTEST_PASSWORD)


def _person(request: Request, actor: Viewer) -> Actor:
    """Return a person who is signed in; HTTPException 403 for a tablet, audited."""
    if actor.room_id is not None:
        record(request, actor, "account.refused", outcome=Outcome.REFUSED, on=request.url.path)
        raise HTTPException(403, "A room's tablet has no account.")
    return actor


Person = Annotated[Actor, Depends(_person)]


@router.post("/account/password")
def password(request: Request, context: Context, actor: Person, old: Secret, new: Secret) -> Response:
    """Change the password; all sessions and tokens end."""
    if not context.attempts.admits(f"account {actor.name}", context.clock()):
        raise HTTPException(429, "Too many attempts; wait a minute.")
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
        record(request, actor, "password.changed", within=connection)
    return RedirectResponse("/sign-in", 303)


@router.post("/account/tokens")
def make_token(request: Request, context: Context, actor: Person, label: Word) -> Response:
    """Make an access token for the API; it is shown once."""
    if not label:
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
            label=label,
        )
        record(request, actor, "token.made", on=label, within=connection)
    return _page(request, context, actor, token=token)


@router.post("/account/sessions/{session_id}/end")
def end(request: Request, context: Context, actor: Person, session_id: Number) -> Response:
    """End one of the person's own sessions or tokens."""
    with context.database.write() as connection:
        user = users.find(connection, actor.name)
        if user is None or not sessions.end(connection, session_id, at=context.clock(), user_id=user.id):
            raise HTTPException(404, "There is no such session.")
        record(request, actor, "session.ended", on=session_id, within=connection)
    return RedirectResponse("/account", 303)


@router.post("/account/break-glass")
def break_glass(request: Request, context: Context, actor: Person, reason: Text, next: Text = "/") -> Response:
    """Let this session see identifiers, with a reason on record."""
    if len(reason) < _SHORTEST_REASON:
        raise HTTPException(422, f"A reason has at least {_SHORTEST_REASON} characters; it stays on record.")
    with context.database.write() as connection:
        sessions.break_glass(connection, actor.session_id, at=context.clock())
        record(request, actor, "glass.broken", detail=reason, within=connection)
    return RedirectResponse(next if next.startswith("/series/") else "/", 303)
