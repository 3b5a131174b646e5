"""Companions as bytes that are built once, and which destination has acknowledged which.

Kept compressed, since pictures are large. Retention deletes the bytes; the rows stay, so that the node
recognises its own objects when they are sent back.
"""

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.series import UNFINISHED
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import companion_deliveries, companions, deliveries

UNANSWERED = -1
"""Instead of a status in `companion_deliveries`: it was sent, and may have arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanionRow:
    """One built companion. `part10` is None after retention."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    revision: int
    sop_class_uid: str
    companion_series_instance_uid: str
    instance_number: int
    part10: bytes | None
    created_at: float


def save(database: Database, connection: sa.Connection, rows: Sequence[CompanionRow]) -> None:
    """Keep built companions; those that exist already are identical."""
    for row in rows:
        values = {name: getattr(row, name) for name in row.__dataclass_fields__ if name != "part10"}
        deflated = zlib.compress(row.part10) if row.part10 is not None else None
        connection.execute(database.insert_or_ignore(companions, **values, deflated=deflated))


def find(connection: sa.Connection, series_instance_uid: str, revision: int, sop_class_uid: str) -> list[CompanionRow]:
    """Return the companions of a revision in a class, in order; [] if not built yet."""
    query = sa.select(companions).where(
        companions.c.series_instance_uid == series_instance_uid,
        companions.c.revision == revision,
        companions.c.sop_class_uid == sop_class_uid,
    )
    return [_row(row) for row in connection.execute(query.order_by(companions.c.instance_number))]


def part10_of(connection: sa.Connection, sop_instance_uid: str) -> bytes | None:
    """Return the bytes of a companion; None if there is none, or after retention."""
    query = sa.select(companions.c.deflated).where(companions.c.sop_instance_uid == sop_instance_uid)
    deflated = connection.execute(query).scalar_one_or_none()
    return zlib.decompress(deflated) if deflated is not None else None


def _row(row: sa.Row[Any]) -> CompanionRow:
    values = dict(row._mapping)
    deflated = values.pop("deflated")
    return CompanionRow(**values, part10=zlib.decompress(deflated) if deflated is not None else None)


def next_instance_number(connection: sa.Connection, companion_series_instance_uid: str, revision: int) -> int:
    """Return the first free Instance Number (0020,0013) of a revision, above those of earlier ones."""
    query = sa.select(sa.func.max(companions.c.instance_number)).where(
        companions.c.companion_series_instance_uid == companion_series_instance_uid, companions.c.revision < revision
    )
    return int(connection.execute(query).scalar_one_or_none() or 0) + 1


def note_begun(
    database: Database, connection: sa.Connection, sop_instance_uid: str, destination: str, *, at: float
) -> bool:
    """Record that a companion is about to be sent, and may arrive unanswered; return whether this is the first time."""
    query = sa.select(sa.literal(1)).select_from(companion_deliveries).where(*_one(sop_instance_uid, destination))
    is_first = connection.execute(query).first() is None
    values = {"sop_instance_uid": sop_instance_uid, "destination": destination, "status": UNANSWERED, "sent_at": at}
    connection.execute(database.insert_or_ignore(companion_deliveries, **values))
    return is_first


def note_taken(connection: sa.Connection, sop_instance_uid: str, destination: str, *, status: int, at: float) -> None:
    """Record that a destination has acknowledged a companion that was begun."""
    begun = sa.update(companion_deliveries).where(*_one(sop_instance_uid, destination))
    connection.execute(begun.values(status=status, sent_at=at))


def note_refused(connection: sa.Connection, sop_instance_uid: str, destination: str) -> None:
    """Forget that a companion was begun: the destination has said that it did not store it."""
    connection.execute(sa.delete(companion_deliveries).where(*_one(sop_instance_uid, destination)))


def _one(sop_instance_uid: str, destination: str) -> tuple[sa.ColumnElement[bool], ...]:
    found = companion_deliveries.c
    return found.sop_instance_uid == sop_instance_uid, found.destination == destination


def taken(connection: sa.Connection, destination: str, sop_instance_uids: Sequence[str]) -> set[str]:
    """Return which of these companions a destination has acknowledged."""
    query = sa.select(companion_deliveries.c.sop_instance_uid).where(
        companion_deliveries.c.destination == destination,
        companion_deliveries.c.status != UNANSWERED,
        companion_deliveries.c.sop_instance_uid.in_(list(sop_instance_uids)),
    )
    return set(connection.execute(query).scalars())


def sent_of(
    connection: sa.Connection, series_instance_uid: str, destination: str, revisions: Collection[int]
) -> list[tuple[str, str, str]]:
    """Return class, instance and series UID of the companions of some revisions that a destination may hold."""
    query = (
        sa.select(companions.c.sop_class_uid, companions.c.sop_instance_uid, companions.c.companion_series_instance_uid)
        .join(companion_deliveries, companion_deliveries.c.sop_instance_uid == companions.c.sop_instance_uid)
        .where(
            companions.c.series_instance_uid == series_instance_uid,
            companions.c.revision.in_(list(revisions)),
            companion_deliveries.c.destination == destination,
        )
        .order_by(companions.c.revision, companions.c.instance_number)
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(query)]


def revision_of(connection: sa.Connection, sop_instance_uid: str) -> int | None:
    """Return the revision whose companion an instance is, or None."""
    query = sa.select(companions.c.revision).where(companions.c.sop_instance_uid == sop_instance_uid)
    return connection.execute(query).scalar_one_or_none()


def is_own(connection: sa.Connection, series_instance_uid: str) -> bool:
    """Return whether a series UID belongs to companions of this node."""
    query = sa.select(sa.literal(1)).where(companions.c.companion_series_instance_uid == series_instance_uid)
    return connection.execute(query.limit(1)).first() is not None


def forget_bytes(connection: sa.Connection, before: float) -> int:
    """Delete the bytes of companions built before a time that no delivery needs; return how many."""
    pending = sa.select(deliveries.c.series_instance_uid).where(deliveries.c.state.in_(UNFINISHED))
    statement = sa.update(companions).where(
        companions.c.deflated.is_not(None),
        companions.c.created_at < before,
        companions.c.series_instance_uid.not_in(pending),
    )
    return int(connection.execute(statement.values(deflated=None)).rowcount)
