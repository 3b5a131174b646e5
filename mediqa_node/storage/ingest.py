"""What a received instance does to the tables, inside one transaction.

Same UID, same bytes: nothing. Same UID, other bytes: a `candidate` beside the current row, which
the pipeline compares by pixels, geometry and identity before anything is delivered. Otherwise a
new current row, and its series (re)opens.
"""

from collections.abc import Callable
from enum import StrEnum

import sqlalchemy as sa

from mediqa_node.domain.exchange import ReceivedInstance, SeriesState
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import associations, instances, series


class Recorded(StrEnum):
    """What became of an instance."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CANDIDATE = "candidate"


def record(
    database: Database,
    connection: sa.Connection,
    instance: ReceivedInstance,
    modality: str,
    is_there: Callable[[str], bool],
) -> Recorded:
    """Enter a spooled instance; the caller commits.

    Args:
        is_there: whether the spooled file of an earlier row still exists; a copy of a lost file
            is no duplicate but its replacement.
    """
    known = connection.execute(
        sa.select(instances.c.id, instances.c.sha256, instances.c.path, instances.c.purged_at).where(
            instances.c.sop_instance_uid == instance.sop_instance_uid
        )
    ).all()
    same = next((row for row in known if row.sha256 == instance.sha256 and row.purged_at is None), None)
    if same is not None:
        _touch_association(database, connection, instance)
        if same.path == instance.path:
            return Recorded.NEW
        if is_there(same.path):
            return Recorded.DUPLICATE
        connection.execute(sa.update(instances).where(instances.c.id == same.id).values(path=instance.path))
        return Recorded.NEW
    status = "candidate" if known else "current"
    _touch_series(database, connection, instance, modality, counts=not known)
    _touch_association(database, connection, instance)
    connection.execute(
        sa.insert(instances).values(
            sop_instance_uid=instance.sop_instance_uid,
            sop_class_uid=instance.sop_class_uid,
            series_instance_uid=instance.series_instance_uid,
            study_instance_uid=instance.study_instance_uid,
            transfer_syntax_uid=instance.transfer_syntax_uid,
            status=status,
            association_id=instance.association_id,
            calling_ae_title=instance.calling_ae_title,
            received_at=instance.received_at.timestamp(),
            path=instance.path,
            sha256=instance.sha256,
            size_bytes=instance.size_bytes,
        )
    )
    return Recorded.CANDIDATE if known else Recorded.NEW


def _touch_series(
    database: Database, connection: sa.Connection, instance: ReceivedInstance, modality: str, *, counts: bool
) -> None:
    now = instance.received_at.timestamp()
    if not counts:
        # a candidate changes nothing until it has been compared; only a series that is not there yet is opened
        connection.execute(database.insert_or_ignore(series, **_new_series(instance, modality, now), n_instances=0))
        return
    row = connection.execute(
        sa.select(series.c.state, series.c.last_instance_at, series.c.association_id, series.c.longest_gap_s).where(
            series.c.series_instance_uid == instance.series_instance_uid
        )
    ).one_or_none()
    if row is None:
        connection.execute(sa.insert(series).values(**_new_series(instance, modality, now), n_instances=1))
        return
    changed = {
        "last_instance_at": now,
        "n_instances": series.c.n_instances + 1,
        "generation": series.c.generation + 1,
        "association_id": instance.association_id,
        "longest_gap_s": max(row.longest_gap_s, now - row.last_instance_at),
    }
    if row.association_id != instance.association_id:
        changed["n_associations"] = series.c.n_associations + 1
    if row.state != SeriesState.RECEIVING:
        changed |= {"state": SeriesState.RECEIVING, "reason": "late instance", "opened_at": now, "state_at": now}
    connection.execute(
        sa.update(series).where(series.c.series_instance_uid == instance.series_instance_uid).values(**changed)
    )


def _new_series(instance: ReceivedInstance, modality: str, now: float) -> dict[str, object]:
    return {
        "series_instance_uid": instance.series_instance_uid,
        "study_instance_uid": instance.study_instance_uid,
        "modality": modality,
        "state": SeriesState.RECEIVING,
        "calling_ae_title": instance.calling_ae_title,
        "association_id": instance.association_id,
        "n_associations": 1,
        "longest_gap_s": 0.0,
        "opened_at": now,
        "last_instance_at": now,
        "generation": 1,
        "revision": 0,
        "state_at": now,
    }


def _touch_association(database: Database, connection: sa.Connection, instance: ReceivedInstance) -> None:
    now = instance.received_at.timestamp()
    touched = connection.execute(
        sa.update(associations)
        .where(associations.c.id == instance.association_id)
        .values(last_series_uid=instance.series_instance_uid, last_instance_at=now)
    )
    if not touched.rowcount:
        connection.execute(
            database.insert_or_ignore(
                associations,
                id=instance.association_id,
                calling_ae_title=instance.calling_ae_title,
                address=instance.peer_address,
                opened_at=now,
                last_series_uid=instance.series_instance_uid,
                last_instance_at=now,
            )
        )


def close_association(connection: sa.Connection, association_id: str, *, released: bool, at: float) -> None:
    """Note the end of an association that stored something."""
    connection.execute(
        sa.update(associations).where(associations.c.id == association_id).values(closed_at=at, released=released)
    )


def close_abandoned_associations(connection: sa.Connection, *, at: float) -> int:
    """Close what a receiver that died left open; called when no receiver runs."""
    result = connection.execute(
        sa.update(associations).where(associations.c.closed_at.is_(None)).values(closed_at=at, released=False)
    )
    return int(result.rowcount)
