"""Transactions of Storage Commitment that we have begun, whatever their instances are to us: reports, or images.

The receiver writes an answer down and acknowledges it; what follows from it, the courier does.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.storage.commitment_tables import commitment_items, commitments

COMMITTED = 0

Pair = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What an archive has answered to one of our transactions.

    Attributes:
        peer: name of the archive.
        request_id: of the caller's request that the transaction is about; None: it is about what we have sent.
        begun_at: when we asked, seconds since 1970: the answer says nothing of what was sent later.
        results: failure reasons; None where the archive keeps the instance.
    """

    peer: str
    request_id: int | None
    begun_at: float
    results: Mapping[Pair, int | None]

    @property
    def instances(self) -> list[str]:
        """The SOP Instance UIDs with a result."""
        return [uid for _, uid in self.results]


Settled = Callable[[sa.Connection, Answered], None]
"""What follows from an answer. Called in the transaction that records that it was; instances of others are in it."""


def begin(
    connection: sa.Connection,
    transaction_uid: str,
    peer: str,
    pairs: Mapping[str, str],
    *,
    at: float,
    request_id: int | None = None,
) -> None:
    """Keep a transaction before it is asked for.

    Args:
        pairs: SOP Class UIDs by SOP Instance UID.
        request_id: of the caller's request that it is about.
    """
    values = {"transaction_uid": transaction_uid, "peer": peer, "request_id": request_id, "begun_at": at}
    connection.execute(sa.insert(commitments).values(**values))
    rows = [
        {"transaction_uid": transaction_uid, "sop_instance_uid": instance, "sop_class_uid": sop_class}
        for instance, sop_class in pairs.items()
    ]
    connection.execute(sa.insert(commitment_items), rows)


def note_asked(connection: sa.Connection, transaction_uid: str, *, at: float) -> None:
    """Record that the archive has taken a request."""
    mine = commitments.c.transaction_uid == transaction_uid
    connection.execute(sa.update(commitments).where(mine).values(asked_at=at))


def take_answer(
    connection: sa.Connection,
    transaction_uid: str,
    peers: Collection[str],
    results: Mapping[Pair, int],
    *,
    at: float,
) -> bool:
    """Keep what an archive has answered; the first result of an instance stands. False if nothing was asked of it.

    Args:
        peers: names of the peers that the answer may come from.
        results: `COMMITTED` or a failure reason; an instance that was asked about under another class has none.
    """
    asked = sa.select(commitments.c.peer).where(commitments.c.transaction_uid == transaction_uid)
    if connection.execute(asked.with_for_update()).scalar_one_or_none() not in peers:
        return False
    found = commitment_items.c
    known = connection.execute(
        sa.select(found.sop_class_uid, found.sop_instance_uid).where(
            found.transaction_uid == transaction_uid, found.result.is_(None)
        )
    )
    pairs = [(row.sop_class_uid, row.sop_instance_uid) for row in known]
    new = [{"uid": pair[1], "found": results[pair]} for pair in pairs if pair in results]
    if new:
        mine = (found.transaction_uid == transaction_uid, found.sop_instance_uid == sa.bindparam("uid"))
        connection.execute(sa.update(commitment_items).where(*mine).values(result=sa.bindparam("found")), new)
        answered = sa.update(commitments).where(commitments.c.transaction_uid == transaction_uid)
        connection.execute(answered.values(answered_at=at, settled_at=None))
    return True


def unsettled(connection: sa.Connection) -> list[str]:
    """Return the transactions with an answer from which nothing has followed yet, the first answered first."""
    query = sa.select(commitments.c.transaction_uid).where(
        commitments.c.answered_at.is_not(None), commitments.c.settled_at.is_(None)
    )
    return list(connection.execute(query.order_by(commitments.c.answered_at)).scalars())


def settle(connection: sa.Connection, transaction_uid: str, followers: Collection[Settled], *, at: float) -> None:
    """Do what follows from the answer to a transaction, and record that it is done; again, nothing happens."""
    mine = commitments.c.transaction_uid == transaction_uid
    claimed = sa.update(commitments).where(mine, commitments.c.settled_at.is_(None)).values(settled_at=at)
    if not connection.execute(claimed).rowcount:
        return
    asked = connection.execute(sa.select(commitments).where(mine)).one()
    query = sa.select(commitment_items).where(
        commitment_items.c.transaction_uid == transaction_uid, commitment_items.c.result.is_not(None)
    )
    found = connection.execute(query)
    answered = Answered(
        peer=asked.peer,
        request_id=asked.request_id,
        begun_at=asked.begun_at,
        results={(row.sop_class_uid, row.sop_instance_uid): row.result or None for row in found},
    )
    for follow in followers:
        follow(connection, answered)


def withdraw(connection: sa.Connection, peer: str, sop_instance_uids: Collection[str]) -> None:
    """Await no answer about some instances: they are about to be sent again, and an earlier request is out of date."""
    of_peer = sa.select(commitments.c.transaction_uid).where(commitments.c.peer == peer)
    connection.execute(
        sa.delete(commitment_items).where(
            commitment_items.c.sop_instance_uid.in_(list(sop_instance_uids)),
            commitment_items.c.result.is_(None),
            commitment_items.c.transaction_uid.in_(of_peer),
        )
    )


def forget(connection: sa.Connection, before: float) -> None:
    """Delete the transactions begun before a time."""
    old = sa.select(commitments.c.transaction_uid).where(commitments.c.begun_at < before)
    connection.execute(sa.delete(commitment_items).where(commitment_items.c.transaction_uid.in_(old)))
    connection.execute(sa.delete(commitments).where(commitments.c.begun_at < before))
