"""Recording a received instance, inside one transaction.

Same UID, same bytes: no change, unless they were set aside before. Same UID, other bytes: a further row, the
`candidate`, which the pipeline compares by pixels, geometry and identity before anything is delivered. Otherwise a new
current row, which (re)opens its series.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from mediqa_node.dicom.reject_note import KEY_OBJECT_SELECTION
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.series import InstanceStatus, ReasonCode, ReceivedInstance, SeriesState
from mediqa_node.storage import forwards
from mediqa_node.storage.correction_tables import retractions
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import associations, companions, instances, reports, sender_addresses, series


class Recorded(StrEnum):
    """Outcome of recording an instance."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CANDIDATE = "candidate"


# Statements are built once: building one takes longer than SQLite needs to run it.
_UID: sa.BindParameter[str] = sa.bindparam("uid", type_=sa.String)
_NOW: sa.BindParameter[float] = sa.bindparam("now", type_=sa.Float)
_ASSOCIATION: sa.BindParameter[str] = sa.bindparam("association", type_=sa.String)

_KNOWN = sa.select(
    instances.c.id,
    instances.c.sha256,
    instances.c.path,
    instances.c.purged_at,
    instances.c.status,
    instances.c.calling_ae_title,
    instances.c.peer_address,
).where(instances.c.sop_instance_uid == _UID)
_ENTER = sa.insert(instances)
_OWN = sa.select(
    sa.or_(*(sa.exists().where(table.c.sop_instance_uid == _UID) for table in (reports, companions, retractions)))
)
_GAP = _NOW - series.c.last_instance_at
_IS_OPEN = series.c.state == SeriesState.RECEIVING.value
_TOUCH_SERIES = (
    sa.update(series)
    .where(series.c.series_instance_uid == _UID)
    .values(
        n_instances=series.c.n_instances + 1,
        generation=series.c.generation + 1,
        last_instance_at=_NOW,
        longest_gap_s=sa.case((series.c.longest_gap_s < _GAP, _GAP), else_=series.c.longest_gap_s),
        n_associations=series.c.n_associations + sa.case((series.c.association_id == _ASSOCIATION, 0), else_=1),
        association_id=_ASSOCIATION,
        # a series past RECEIVING is reopened
        state=SeriesState.RECEIVING.value,
        reason_code=sa.case((_IS_OPEN, series.c.reason_code), else_=ReasonCode.LATE_INSTANCE.value),
        reason=sa.case((_IS_OPEN, series.c.reason), else_=None),
        scored_instead=None,
        opened_at=sa.case((_IS_OPEN, series.c.opened_at), else_=_NOW),
        state_at=sa.case((_IS_OPEN, series.c.state_at), else_=_NOW),
    )
)
_REOPEN = (
    sa.update(series)
    .where(series.c.series_instance_uid == _UID)
    .values(
        state=SeriesState.RECEIVING.value,
        reason_code=ReasonCode.LOST_FILE_RETURNED.value,
        reason=None,
        scored_instead=None,
        generation=series.c.generation + 1,
        last_instance_at=_NOW,
        opened_at=_NOW,
        state_at=_NOW,
    )
)
_TOUCH_ASSOCIATION = (
    sa.update(associations).where(associations.c.id == _ASSOCIATION).values(last_series_uid=_UID, last_instance_at=_NOW)
)


def record(
    database: Database,
    connection: sa.Connection,
    instance: ReceivedInstance,
    modality: str,
    is_there: Callable[[str], bool],
) -> Recorded:
    """Enter a spooled instance; the caller commits.

    Args:
        is_there: whether the spooled file of an earlier row still exists; if not, the copy replaces it.
    """
    known = connection.execute(_KNOWN, {"uid": instance.sop_instance_uid}).all()
    is_in_use = any(row.status == InstanceStatus.CURRENT for row in known)
    alike = (row for row in known if row.sha256 == instance.sha256)
    same = next((row for row in alike if _counts(row, instance, is_in_use=is_in_use)), None)
    _touch_association(database, connection, instance)
    if same is not None:
        if same.path == instance.path:
            return Recorded.NEW
        _forward(database, connection, instance, same.id, is_copy=same.status != InstanceStatus.CURRENT)
        if is_there(same.path):
            _complete_sender(connection, same, instance)
            return Recorded.DUPLICATE
        connection.execute(sa.update(instances).where(instances.c.id == same.id).values(path=instance.path))
        connection.execute(_REOPEN, {"uid": instance.series_instance_uid, "now": instance.received_at.timestamp()})
        return Recorded.NEW
    _touch_series(database, connection, instance, modality, counts=not known)
    row = {name: getattr(instance, name) for name in _SAME_NAME}
    row["identity"] = {name: getattr(instance.identity, name) for name in Identity.__dataclass_fields__}
    row["unread"] = instance.sop_class_uid == KEY_OBJECT_SELECTION
    status = InstanceStatus.CANDIDATE if known else InstanceStatus.CURRENT
    entered = connection.execute(_ENTER, {**row, "status": status, "received_at": instance.received_at.timestamp()})
    if instance.forward_to and (key := entered.inserted_primary_key) is not None:
        _forward(database, connection, instance, int(key[0]), is_copy=bool(known))
    return Recorded.CANDIDATE if known else Recorded.NEW


def _forward(
    database: Database, connection: sa.Connection, instance: ReceivedInstance, instance_id: int, *, is_copy: bool
) -> None:
    """Have an instance forwarded, unless it is a report or companion of this node that somebody has sent back."""
    if not instance.forward_to or _is_own(connection, instance.sop_instance_uid):
        return
    forwards.add(
        database,
        connection,
        instance_id=instance_id,
        destinations=instance.forward_to,
        series_instance_uid=instance.series_instance_uid,
        study_instance_uid=instance.study_instance_uid,
        is_copy=is_copy,
        now=instance.received_at.timestamp(),
    )


def _is_own(connection: sa.Connection, sop_instance_uid: str) -> bool:
    return connection.execute(_OWN, {"uid": sop_instance_uid}).scalar_one()


def _counts(row: sa.Row[*tuple[Any, ...]], instance: ReceivedInstance, *, is_in_use: bool) -> bool:
    """Whether a row with the same bytes makes an instance a duplicate.

    Not if its file was deleted, and not if it was set aside, or rejected and replaced: that it comes again is a
    question for a person. Neither where it matters who has sent it, and that is somebody else: a copy that waits to be
    compared, a disputed or rejected one, or a document.

    Args:
        is_in_use: a copy of this instance is current.
    """
    if row.path == instance.path:
        return True
    replaced = row.status == InstanceStatus.REJECTED and is_in_use
    if row.purged_at is not None or row.status == InstanceStatus.SUPERSEDED or replaced:
        return False
    sender = (row.calling_ae_title, row.peer_address) == (instance.calling_ae_title, instance.peer_address)
    matters = row.status in (InstanceStatus.CANDIDATE, InstanceStatus.DISPUTED, InstanceStatus.REJECTED)
    return sender or not (matters or instance.sop_class_uid == KEY_OBJECT_SELECTION)


_SAME_NAME = (
    "sop_instance_uid",
    "sop_class_uid",
    "series_instance_uid",
    "study_instance_uid",
    "transfer_syntax_uid",
    "association_id",
    "calling_ae_title",
    "peer_address",
    "path",
    "sha256",
    "size_bytes",
)


def _complete_sender(connection: sa.Connection, row: sa.Row[*tuple[Any, ...]], instance: ReceivedInstance) -> None:
    """Keep the address of a sender that was not known: the file was found after a crash."""
    if row.peer_address == "" and instance.peer_address and row.calling_ae_title == instance.calling_ae_title:
        found = sa.update(instances).where(instances.c.id == row.id)
        connection.execute(found.values(peer_address=instance.peer_address))


def _touch_series(
    database: Database, connection: sa.Connection, instance: ReceivedInstance, modality: str, *, counts: bool
) -> None:
    """Count a new instance; a candidate at most creates its series."""
    now = instance.received_at.timestamp()
    if counts:
        values = {"uid": instance.series_instance_uid, "now": now, "association": instance.association_id}
        if connection.execute(_TOUCH_SERIES, values).rowcount:
            return
    new = {
        "series_instance_uid": instance.series_instance_uid,
        "study_instance_uid": instance.study_instance_uid,
        "modality": modality,
        "series_number": instance.series_number,
        "state": SeriesState.RECEIVING,
        "calling_ae_title": instance.calling_ae_title,
        "called_ae_title": instance.called_ae_title[:16],
        "association_id": instance.association_id,
        "n_associations": 1,
        "longest_gap_s": 0.0,
        "opened_at": now,
        "last_instance_at": now,
        "generation": 1,
        "revision": 0,
        "state_at": now,
    }
    connection.execute(database.insert_or_ignore(series, **new, n_instances=int(counts)))


def _touch_association(database: Database, connection: sa.Connection, instance: ReceivedInstance) -> None:
    now = instance.received_at.timestamp()
    values = {"association": instance.association_id, "uid": instance.series_instance_uid, "now": now}
    if connection.execute(_TOUCH_ASSOCIATION, values).rowcount:
        return
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
    if instance.peer_address:
        connection.execute(
            database.insert_or_ignore(
                sender_addresses,
                calling_ae_title=instance.calling_ae_title,
                address=instance.peer_address,
                first_seen=now,
            )
        )


def close_association(connection: sa.Connection, association_id: str, *, released: bool, at: float) -> None:
    """Record the end of an association that stored something."""
    connection.execute(
        sa.update(associations).where(associations.c.id == association_id).values(closed_at=at, released=released)
    )


def close_abandoned_associations(connection: sa.Connection, *, at: float) -> int:
    """Close associations that a dead receiver left open; called while no receiver runs."""
    result = connection.execute(
        sa.update(associations).where(associations.c.closed_at.is_(None)).values(closed_at=at, released=False)
    )
    return int(result.rowcount)
