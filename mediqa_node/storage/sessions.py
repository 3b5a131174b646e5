"""Sessions of people, tablets of rooms and access tokens. The database holds digests of their tokens only."""

import hashlib
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.access import Actor, Role
from mediqa_node.storage.workbench_tables import rooms, sessions, users

BROWSER, TOKEN = "browser", "token"
_CODE_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
"""Without 0, 1, I, L and O, which people confuse."""
_CODE_LENGTH = 10


def digest(token: str) -> str:
    """Return the digest that stands for a token or code in the database."""
    return hashlib.sha256(token.encode()).hexdigest()


def open_session(
    connection: sa.Connection,
    *,
    at: float,
    address: str,
    user_id: int | None = None,
    room_id: int | None = None,
    kind: str = BROWSER,
    label: str = "",
) -> str:
    """Open a session of a person or a room; return its token, which is not kept."""
    token = secrets.token_urlsafe(32)
    values = {"user_id": user_id, "room_id": room_id, "kind": kind, "label": label[:64], "address": address}
    connection.execute(sa.insert(sessions).values(token_sha256=digest(token), made_at=at, seen_at=at, **values))
    return token


def actor_of(connection: sa.Connection, token: str, *, at: float, idle_s: float) -> tuple[Actor, str, float] | None:
    """Return who a token stands for, its kind, and when it was last seen; None if it is over.

    Args:
        idle_s: a browser of a person that was silent for longer has to sign in again; a room's tablet has not.
    """
    query = (
        sa.select(
            sessions, users.c.name.label("user"), users.c.role, users.c.disabled_at, rooms.c.name.label("room"),
            rooms.c.scanners, rooms.c.revoked_at,
        )
        .outerjoin(users, users.c.id == sessions.c.user_id)
        .outerjoin(rooms, rooms.c.id == sessions.c.room_id)
        .where(sessions.c.token_sha256 == digest(token), sessions.c.ended_at.is_(None))
    )  # fmt: skip
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.room_id is not None:
        if row.revoked_at is not None:
            return None
        scanners = frozenset(row.scanners)
        actor = Actor(name=row.room, role=Role.TECHNOLOGIST, session_id=row.id, room_id=row.room_id, scanners=scanners)
        return actor, row.kind, row.seen_at
    if row.user is None or row.disabled_at is not None or (row.kind == BROWSER and at - row.seen_at > idle_s):
        return None
    actor = Actor(name=row.user, role=Role(row.role), session_id=row.id, broke_glass=row.broke_glass_at is not None)
    return actor, row.kind, row.seen_at


def seen(connection: sa.Connection, session_id: int, *, at: float) -> None:
    """Note that a session is in use."""
    connection.execute(sa.update(sessions).where(sessions.c.id == session_id).values(seen_at=at))


def break_glass(connection: sa.Connection, session_id: int, *, at: float) -> None:
    """Let a session show identifiers from now on."""
    connection.execute(sa.update(sessions).where(sessions.c.id == session_id).values(broke_glass_at=at))


def end(connection: sa.Connection, session_id: int, *, at: float, user_id: int | None = None) -> bool:
    """End a session; return whether it was open.

    Args:
        user_id: only if it belongs to this person.
    """
    here = sa.and_(sessions.c.id == session_id, sessions.c.ended_at.is_(None))
    if user_id is not None:
        here = sa.and_(here, sessions.c.user_id == user_id)
    return bool(connection.execute(sa.update(sessions).where(here).values(ended_at=at)).rowcount)


def end_by_token(connection: sa.Connection, token: str, *, at: float) -> None:
    """End the session of a browser that another one takes the place of."""
    here = sa.and_(sessions.c.token_sha256 == digest(token), sessions.c.kind == BROWSER, sessions.c.ended_at.is_(None))
    connection.execute(sa.update(sessions).where(here).values(ended_at=at))


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """An open session as its owner sees it."""

    id: int
    kind: str
    label: str
    made_at: float
    seen_at: float
    address: str


def of_user(connection: sa.Connection, name: str) -> list[SessionRow]:
    """Return the open sessions and access tokens of a person, the latest first."""
    columns = [sessions.c[name] for name in SessionRow.__dataclass_fields__]
    query = (
        sa.select(*columns)
        .join(users, users.c.id == sessions.c.user_id)
        .where(users.c.name == name, sessions.c.ended_at.is_(None))
        .order_by(sessions.c.seen_at.desc())
    )
    return [SessionRow(**row._mapping) for row in connection.execute(query)]


# ── rooms ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomRow:
    """A room whose tablet shows the series of its scanners."""

    id: int
    name: str
    scanners: tuple[str, ...]
    made_at: float
    made_by: str
    code_until: float | None
    revoked_at: float | None
    tablet_seen_at: float | None


def rooms_of_site(connection: sa.Connection) -> list[RoomRow]:
    """Return the rooms that are not revoked, by name."""
    seen_at = (
        sa.select(sa.func.max(sessions.c.seen_at))
        .where(sessions.c.room_id == rooms.c.id, sessions.c.ended_at.is_(None))
        .scalar_subquery()
    )
    names = ("id", "name", "made_at", "made_by", "code_until", "revoked_at")
    query = sa.select(*(rooms.c[name] for name in names), rooms.c.scanners, seen_at.label("tablet_seen_at"))
    rows = connection.execute(query.where(rooms.c.revoked_at.is_(None)).order_by(rooms.c.name))
    return [RoomRow(**dict(row._mapping) | {"scanners": tuple(row.scanners)}) for row in rows]


def add_room(
    connection: sa.Connection, name: str, scanners: list[str], *, by: str, at: float, valid_s: float
) -> tuple[int, str]:
    """Add a room; return its number and the code that enrols one tablet once."""
    code = "".join(secrets.choice(_CODE_ALPHABET) for _ in range(_CODE_LENGTH))
    values = {"name": name[:64], "scanners": scanners, "made_at": at, "made_by": by}
    made = connection.execute(
        sa.insert(rooms).values(**values, code_sha256=digest(code), code_until=at + valid_s).returning(rooms.c.id)
    )
    return int(made.scalar_one()), code


def enrol(connection: sa.Connection, code: str, *, at: float, address: str) -> tuple[str, str] | None:
    """Open the session of a room's tablet; return its token and the room, or None for a code that is not valid."""
    valid = sa.and_(
        rooms.c.code_sha256 == digest(code.strip().upper().replace("-", "")),
        rooms.c.code_until > at,
        rooms.c.revoked_at.is_(None),
    )
    used = sa.update(rooms).where(valid).values(code_sha256=None, code_until=None)  # one statement: the code works once
    room = connection.execute(used.returning(rooms.c.id, rooms.c.name)).one_or_none()
    if room is None:
        return None
    return open_session(connection, at=at, address=address, room_id=room.id), room.name


def revoke_room(connection: sa.Connection, room_id: int, *, by: str, at: float) -> bool:
    """End the tablet of a room for good; return whether there was such a room."""
    here = sa.and_(rooms.c.id == room_id, rooms.c.revoked_at.is_(None))
    values = {"revoked_at": at, "revoked_by": by, "code_sha256": None}
    return bool(connection.execute(sa.update(rooms).where(here).values(**values)).rowcount)
