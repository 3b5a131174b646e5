"""Transactions of Storage Commitment that we have begun, whatever their instances are to us: reports, or images.

The receiver writes an answer down and acknowledges it; what follows from it, the courier does.
"""

from collections.abc import Callable, Collection, Mapping

import sqlalchemy as sa

from mediqa_node.storage.commitment_tables import commitment_items, commitments

COMMITTED = 0

Settled = Callable[[sa.Connection, str, Mapping[str, int | None]], None]
"""What follows from an answer: the name of the archive, and by SOP Instance UID its failure reason, None if it keeps
the instance. Called in the transaction that records that it was; instances of others are among them."""


def begin(connection: sa.Connection, transaction_uid: str, peer: str, pairs: Mapping[str, str], *, at: float) -> None:
    """Keep a transaction before it is asked for.

    Args:
        pairs: SOP Class UIDs by SOP Instance UID.
    """
    connection.execute(sa.insert(commitments).values(transaction_uid=transaction_uid, peer=peer, begun_at=at))
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
    results: Mapping[str, int],
    *,
    at: float,
) -> bool:
    """Keep what an archive has answered; the first result of an instance stands. False if nothing was asked of it.

    Args:
        peers: names of the peers that the answer may come from.
        results: by SOP Instance UID: `COMMITTED` or a failure reason.
    """
    asked = sa.select(commitments.c.peer).where(commitments.c.transaction_uid == transaction_uid)
    if connection.execute(asked.with_for_update()).scalar_one_or_none() not in peers:
        return False
    found = commitment_items.c
    known = connection.execute(
        sa.select(found.sop_instance_uid).where(found.transaction_uid == transaction_uid, found.result.is_(None))
    )
    new = [{"uid": uid, "found": results[uid]} for uid in known.scalars().all() if uid in results]
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
    peer = connection.execute(sa.select(commitments.c.peer).where(mine)).scalar_one()
    query = sa.select(commitment_items.c.sop_instance_uid, commitment_items.c.result).where(
        commitment_items.c.transaction_uid == transaction_uid, commitment_items.c.result.is_not(None)
    )
    results = {row.sop_instance_uid: row.result or None for row in connection.execute(query)}
    for follow in followers:
        follow(connection, peer, results)


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
