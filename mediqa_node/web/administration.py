"""People, rooms and the audit trail."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from mediqa_node.domain.access import Actor, Permission, Role, user_name
from mediqa_node.storage import audit_trail, sessions, users, worklist
from mediqa_node.storage.worklist import Filter
from mediqa_node.web.access import Context, needs, record
from mediqa_node.web.context import WebContext
from mediqa_node.web.forms import Secret, Text, Word, Words
from mediqa_node.web.numbers import Before, Number
from mediqa_node.web.pages import page
from mediqa_node.web.passwords import SHORTEST_PASSWORD

router = APIRouter(include_in_schema=False)

Administering = Annotated[Actor, Depends(needs(Permission.USERS))]
Auditing = Annotated[Actor, Depends(needs(Permission.AUDIT))]
CODE_VALID_S = 900.0
_EVENTS = 100


@router.get("/users")
def people(request: Request, context: Context, actor: Administering) -> Response:
    """Show who may sign in."""
    with context.database.read() as connection:
        found = users.every(connection)
    return page(request, actor, "users.html", "operations", people=found, roles=list(Role), shortest=SHORTEST_PASSWORD)


@router.post("/users")
def add(request: Request, context: Context, actor: Administering, name: Text, role: Text, password: Secret) -> Response:
    """Add a person."""
    try:
        name = user_name(name)
    except ValueError as error:
        why = str(error)
        raise HTTPException(422, f"{why[:1].upper()}{why[1:]}.") from None
    wanted, kept = _role(role), _hashed(context, password)
    with context.database.write() as connection:
        if not users.add(connection, name, wanted, kept, by=actor.name, at=context.clock()):
            raise HTTPException(409, "This name is taken.")
        record(request, actor, "user.added", on=name, detail=wanted, within=connection)
    return RedirectResponse("/users", 303)


@router.post("/users/{user_id}")
def change(
    request: Request,
    context: Context,
    actor: Administering,
    user_id: Number,
    what: Text,
    value: Secret = "",
) -> Response:
    """Change role or password of a person, or disable or enable the name; the sessions end."""
    now = context.clock()
    changed = _changed(context, what, value, now)
    loses = what == "disable" or (what == "role" and value != Role.ADMINISTRATOR)
    with context.database.write() as connection:
        every = users.hold(connection)  # two administrators who disable each other do so one after the other
        user = next((one for one in every if one.id == user_id), None)
        if user is None:
            raise HTTPException(404, "There is no such person.")
        administrators = [one for one in every if one.role is Role.ADMINISTRATOR and one.disabled_at is None]
        if loses and [one.id for one in administrators] == [user.id]:
            raise HTTPException(409, "This is the last administrator; name another one first.")
        users.change(connection, user_id, at=now, **changed)
        record(request, actor, f"user.{what}", on=user.name, detail=value if what == "role" else "", within=connection)
    return RedirectResponse("/users", 303)


def _changed(context: WebContext, what: str, value: str, now: float) -> dict[str, object]:
    """Return the columns that change."""
    unlocked: dict[str, object] = {"n_failures": 0, "locked_until": None}
    if what == "role":
        return {"role": _role(value)}
    if what == "password":
        return {"password": _hashed(context, value), **unlocked}
    if what == "disable":
        return {"disabled_at": now}
    if what == "enable":
        return {"disabled_at": None, **unlocked}
    raise HTTPException(422, "What changes is role, password, disable or enable.")


def _role(name: str) -> Role:
    try:
        return Role(name)
    except ValueError:
        raise HTTPException(422, f"A role is one of {', '.join(Role)}.") from None


def _hashed(context: WebContext, password: str) -> str:
    if len(password) < SHORTEST_PASSWORD:
        raise HTTPException(422, f"A password has at least {SHORTEST_PASSWORD} characters.")
    return context.passwords.hash(password)


# ── rooms ────────────────────────────────────────────────────────────────────


@router.get("/rooms")
def rooms(request: Request, context: Context, actor: Administering) -> Response:
    """Show the rooms with a tablet."""
    return _rooms(request, context, actor)


def _rooms(request: Request, context: WebContext, actor: Actor, made: tuple[str, str] | None = None) -> Response:
    with context.database.read() as connection:
        found = sessions.rooms_of_site(connection)
        known = worklist.choices(connection, Filter())["scanner"]
    return page(
        request, actor, "rooms.html", "operations", rooms=found, scanners=known, made=made, valid_s=CODE_VALID_S
    )


@router.post("/rooms")
def add_room(
    request: Request,
    context: Context,
    actor: Administering,
    name: Word,
    scanner: Words,
) -> Response:
    """Add a room, and show the code that enrols its tablet; it is shown once."""
    scanners = [one for one in scanner if one]
    if not name or not scanners:
        raise HTTPException(422, "A room has a name and at least one scanner.")
    with context.database.write() as connection:
        _, code = sessions.add_room(connection, name, scanners, by=actor.name, at=context.clock(), valid_s=CODE_VALID_S)
        record(request, actor, "room.added", on=name, detail=", ".join(scanners), within=connection)
    return _rooms(request, context, actor, made=(name, code))


@router.post("/rooms/{room_id}/revoke")
def revoke(request: Request, context: Context, actor: Administering, room_id: Number) -> Response:
    """End the tablet of a room."""
    with context.database.write() as connection:
        if not sessions.revoke_room(connection, room_id, by=actor.name, at=context.clock()):
            raise HTTPException(404, "There is no such room.")
        record(request, actor, "room.revoked", on=room_id, within=connection)
    return RedirectResponse("/rooms", 303)


# ── audit ────────────────────────────────────────────────────────────────────


@router.get("/audit")
def audit(request: Request, context: Context, actor: Auditing, q: str = "", before: Before = None) -> Response:
    """Show and search the audit trail."""
    with context.database.read() as connection:
        found = audit_trail.search(connection, text=q[:64], before=before, at_most=_EVENTS + 1)
    return page(request, actor, "audit.html", "operations", events=found[:_EVENTS], more=len(found) > _EVENTS, q=q[:64])
