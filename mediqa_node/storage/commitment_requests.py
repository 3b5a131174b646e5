"""Storage commitment that callers ask of us: kept before it is acknowledged, until they have been told the result."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import sqlalchemy as sa

from mediqa_node.storage.commitment_tables import commitment_request_items as items_table
from mediqa_node.storage.commitment_tables import commitment_requests as requests
from mediqa_node.storage.commitment_tables import commitments
from mediqa_node.storage.commitments import COMMITTED, Answered
from mediqa_node.storage.database import Database

PROCESSING_FAILURE = 0x0110
"""Failure Reason (0008,1197) of an instance about which the archive gave no answer in time (PS3.3 C.14.1.1)."""


class Kept(Enum):
    """What became of a request for commitment."""

    NEW = auto()
    AGAIN = auto()
    DUPLICATE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """The request of a caller; times are seconds since 1970.

    Attributes:
        peer: name of the archive that has to commit.
    """

    id: int
    calling_ae_title: str
    transaction_uid: str
    peer: str
    received_at: float
    deadline_at: float
    ask_at: float
    decided_at: float | None
    tell_at: float | None
    attempts: int
    told_at: float | None


_ROW = [requests.c[name] for name in RequestRow.__dataclass_fields__]


def keep(
    database: Database,
    connection: sa.Connection,
    *,
    calling_ae_title: str,
    transaction_uid: str,
    peer: str,
    pairs: Mapping[str, str],
    at: float,
    deadline_at: float,
) -> Kept:
    """Keep a request.

    Args:
        pairs: SOP Class UIDs by SOP Instance UID.

    Returns:
        AGAIN if the caller repeats a request: it is told a known result again. DUPLICATE if it has used the Transaction
        UID for other instances: nothing is kept, for the answer to those would be taken for one to these.
    """
    mine = (requests.c.calling_ae_title == calling_ae_title, requests.c.transaction_uid == transaction_uid)
    values = {"peer": peer, "received_at": at, "deadline_at": deadline_at, "ask_at": at, "attempts": 0}
    key = {"calling_ae_title": calling_ae_title, "transaction_uid": transaction_uid}
    new = database.insert_or_ignore(requests, **key, **values).returning(requests.c.id)
    number = connection.execute(new).scalar_one_or_none()
    if number is None:
        known = sa.select(items_table.c.sop_instance_uid, items_table.c.sop_class_uid)
        known = known.where(items_table.c.request_id == sa.select(requests.c.id).where(*mine).scalar_subquery())
        if {row.sop_instance_uid: row.sop_class_uid for row in connection.execute(known)} != dict(pairs):
            return Kept.DUPLICATE
        decided = sa.update(requests).where(*mine, requests.c.decided_at.is_not(None))
        connection.execute(decided.values(decided_at=at, tell_at=at, attempts=0))  # another week to be told in
        return Kept.AGAIN
    rows = [{"request_id": number, "sop_instance_uid": uid, "sop_class_uid": kind} for uid, kind in pairs.items()]
    connection.execute(sa.insert(items_table), rows)
    return Kept.NEW


def n_open(connection: sa.Connection, calling_ae_title: str) -> tuple[int, int]:
    """Return how many requests of a caller are not decided yet, and how many instances they have."""
    mine = (requests.c.calling_ae_title == calling_ae_title, requests.c.decided_at.is_(None))
    joined = requests.join(items_table, items_table.c.request_id == requests.c.id)
    query = sa.select(sa.func.count(requests.c.id.distinct()), sa.func.count()).select_from(joined).where(*mine)
    n_requests, n_instances = connection.execute(query).one()
    return n_requests, n_instances


def is_owed(connection: sa.Connection) -> bool:
    """Return whether a caller waits for an answer."""
    owed = sa.or_(requests.c.decided_at.is_(None), requests.c.tell_at.is_not(None))
    return connection.execute(sa.select(requests.c.id).where(owed).limit(1)).first() is not None


def to_ask(connection: sa.Connection, *, now: float) -> list[RequestRow]:
    """Return the requests about which the archive is to be asked, or asked again, the oldest first."""
    query = sa.select(*_ROW).where(requests.c.decided_at.is_(None), requests.c.ask_at <= now)
    return [RequestRow(**row._mapping) for row in connection.execute(query.order_by(requests.c.id))]


def open_pairs(connection: sa.Connection, request_id: int) -> dict[str, str]:
    """Return the SOP Class UIDs by SOP Instance UID of the instances of a request without a result."""
    query = sa.select(items_table.c.sop_instance_uid, items_table.c.sop_class_uid).where(
        items_table.c.request_id == request_id, items_table.c.result.is_(None)
    )
    return {row.sop_instance_uid: row.sop_class_uid for row in connection.execute(query)}


def ask_again(connection: sa.Connection, request_id: int, *, at: float) -> None:
    """Set when the archive is asked about a request again."""
    connection.execute(sa.update(requests).where(requests.c.id == request_id).values(ask_at=at))


def settle(connection: sa.Connection, answered: Answered, *, at: float) -> None:
    """Take what an archive has answered over into the request that it was asked for: a `commitments.Settled`.

    The answer to another transaction counts for nothing, whatever instances it has: it may be older than a copy that
    has yet to arrive at the archive.
    """
    values = [
        {"uid": uid, "kind": kind, "found": COMMITTED if reason is None else reason}
        for (kind, uid), reason in answered.results.items()
    ]
    if answered.request_id is None or not values:
        return
    mine = (
        items_table.c.request_id == answered.request_id,
        items_table.c.sop_instance_uid == sa.bindparam("uid"),
        items_table.c.sop_class_uid == sa.bindparam("kind"),
        items_table.c.result.is_(None),
    )
    connection.execute(sa.update(items_table).where(*mine).values(result=sa.bindparam("found")), values)
    _decide(connection, {answered.request_id}, at=at)


def expire(connection: sa.Connection, *, now: float) -> int:
    """Let what archives have left open after the deadline of a request fail; return the number of such requests."""
    late = sa.select(requests.c.id).where(requests.c.decided_at.is_(None), requests.c.deadline_at <= now)
    ids = set(connection.execute(late).scalars())
    left = sa.update(items_table).where(items_table.c.request_id.in_(ids), items_table.c.result.is_(None))
    connection.execute(left.values(result=PROCESSING_FAILURE))
    _decide(connection, ids, at=now)
    return len(ids)


def _decide(connection: sa.Connection, ids: set[int], *, at: float) -> None:
    """Have the callers told of those of some requests that have a result for every instance."""
    mine = items_table.c.request_id.in_(ids)  # else every instance of the last weeks would be looked at
    open_ = sa.select(items_table.c.request_id).where(mine, items_table.c.result.is_(None))
    undecided = (requests.c.id.in_(ids), requests.c.decided_at.is_(None))
    whole = sa.update(requests).where(*undecided, requests.c.id.not_in(open_))
    connection.execute(whole.values(decided_at=at, tell_at=at, attempts=0))


def to_tell(connection: sa.Connection, *, now: float) -> list[RequestRow]:
    """Return the requests whose caller is to be told, the first decided first."""
    query = sa.select(*_ROW).where(requests.c.tell_at <= now).order_by(requests.c.decided_at)
    return [RequestRow(**row._mapping) for row in connection.execute(query)]


def results(connection: sa.Connection, request_id: int) -> dict[tuple[str, str], int | None]:
    """Return, by class and instance, the failure reasons of a decided request; None where the archive keeps it."""
    query = sa.select(items_table).where(items_table.c.request_id == request_id)
    found = connection.execute(query.order_by(items_table.c.sop_instance_uid))
    return {(row.sop_class_uid, row.sop_instance_uid): row.result or None for row in found}


def note_told(connection: sa.Connection, request_id: int, *, at: float) -> None:
    """Record that the caller has the result."""
    told = {"told_at": at, "tell_at": None}
    connection.execute(sa.update(requests).where(requests.c.id == request_id).values(**told))


def note_untold(connection: sa.Connection, row: RequestRow, *, again_at: float | None) -> None:
    """Record an attempt to tell the caller that failed; without a next one, it is given up."""
    values = {"attempts": row.attempts + 1, "tell_at": again_at}
    connection.execute(sa.update(requests).where(requests.c.id == row.id).values(**values))


def forget(connection: sa.Connection, before: float) -> None:
    """Delete the requests received before a time whose caller was told, or given up."""
    old = sa.select(requests.c.id).where(
        requests.c.received_at < before, requests.c.decided_at.is_not(None), requests.c.tell_at.is_(None)
    )
    asked = sa.update(commitments).where(commitments.c.request_id.in_(old))
    connection.execute(asked.values(request_id=None))  # SQLite gives out numbers again
    connection.execute(sa.delete(items_table).where(items_table.c.request_id.in_(old)))
    connection.execute(sa.delete(requests).where(requests.c.id.in_(old)))
