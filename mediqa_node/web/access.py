"""Who is asking: sessions, permissions, and the audit of what was refused.

A page or request names the permission that it needs. The cookie holds a random token of 256 bits whose digest is in
the database.
"""

from collections.abc import Callable
from contextlib import nullcontext
from ipaddress import ip_address, ip_network
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from mediqa_node.domain.access import Actor, Outcome, Permission
from mediqa_node.storage import audit_trail, sessions
from mediqa_node.storage.database import Connection
from mediqa_node.web.context import WebContext

COOKIE = "mediqa"
LOCKS_AFTER, LOCK_S = 5, 300.0
"""Wrong passwords in a row that lock a name, and for how long."""
_SEEN_EVERY_S = 60.0


class SignInNeeded(Exception):
    """Nobody is signed in; a browser is led to the page where it can be mended."""


def context_of(request: Request) -> WebContext:
    """Return the resources of the process."""
    context: WebContext = request.app.state.context
    return context


def address_of(request: Request) -> str:
    """Return the address that a request comes from."""
    return request.client.host[:64] if request.client else ""  # a proxy passes on what it was told


def source_of(request: Request) -> str:
    """Return what attempts are counted by: the address, or the network of an IPv6 one, of which a host has many."""
    address = address_of(request)
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if known.version == 6 and known.ipv4_mapped is None:
        return str(ip_network(f"{known}/64", strict=False))
    return address


def bearer(request: Request) -> str | None:
    """Return the access token of a request of the API, or None."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def find_actor(request: Request, *, counts: bool = True) -> Actor | None:
    """Return who is asking, by cookie, or by access token if it is for the API; None if nobody is signed in.

    Args:
        counts: the request is something that a person did, and not what an open page asks for by itself.
    """
    context = context_of(request)
    token, kind = bearer(request), sessions.TOKEN
    if token is None:
        token, kind = request.cookies.get(COOKIE), sessions.BROWSER
    elif not request.url.path.startswith("/api/"):  # pages could give a token more than it was made for
        return None
    if not token:
        return None
    now = context.clock()
    with context.database.read() as connection:
        found = sessions.actor_of(connection, token, at=now, idle_s=context.idle_s)
    if found is None or found[1] != kind:
        return None
    actor, _, seen_at = found
    if (counts or actor.room_id is not None) and now - seen_at > _SEEN_EVERY_S:
        with context.database.write() as connection:
            sessions.seen(connection, actor.session_id, at=now)
    return actor


def needs(permission: Permission, *, counts: bool = True) -> Callable[[Request], Actor]:
    """Return a dependency that gives who is asking.

    Args:
        counts: as of `find_actor`.

    Raises:
        SignInNeeded: nobody is signed in.
        HTTPException: 403: the role has not this permission; the refusal is audited.
    """

    def allowed(request: Request) -> Actor:
        actor = find_actor(request, counts=counts)
        if actor is None:
            raise SignInNeeded
        if not actor.may(permission):
            record(request, actor, f"{permission}.refused", outcome=Outcome.REFUSED, on=request.url.path)
            raise HTTPException(403, f"Your role, {actor.role}, may not do this.")
        return actor

    return allowed


def record(
    request: Request,
    actor: Actor | None,
    action: str,
    *,
    outcome: Outcome = Outcome.DONE,
    on: object = "",
    detail: str = "",
    by: str = "",
    within: Connection | None = None,
) -> None:
    """Add an action to the audit trail.

    Args:
        by: who acted, where nobody is signed in.
        within: the transaction that the action is done in, so that neither is without the other.
    """
    context = context_of(request)
    role = "" if actor is None else actor.role if actor.room_id is None else "room"
    with nullcontext(within) if within is not None else context.database.write() as connection:
        audit_trail.add(
            connection,
            action,
            at=context.clock(),
            by=actor.name if actor else by,
            role=role,
            address=address_of(request),
            outcome=outcome,
            on=on,
            detail=detail,
        )


Viewer = Annotated[Actor, Depends(needs(Permission.WORKLIST))]
"""Anybody who is signed in."""
Background = Annotated[Actor, Depends(needs(Permission.WORKLIST, counts=False))]
"""Anybody who is signed in, for what an open page asks for by itself: it keeps no session from its idle time-out."""
Context = Annotated[WebContext, Depends(context_of)]
