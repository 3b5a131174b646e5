"""Recording a received instance, inside one transaction.

Same UID, same bytes: no change, unless they were set aside before. Same UID, other bytes: a further row, the
`candidate`, which the pipeline compares by pixels, geometry and identity before anything is delivered. Otherwise a new
current row, which (re)opens its series.

A series whose first instance this node had moved here is `pulled`; the C-STORE names this node as the Move Originator,
or it comes from an archive that was asked for the series. The first instance of it that its source sends by
itself, be it a duplicate, makes the series live, and it is assessed again.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa

from mediqa_node.dicom.reject_note import KEY_OBJECT_SELECTION
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.pull import PullState
from mediqa_node.domain.series import InstanceStatus, ReasonCode, ReceivedInstance, SeriesState
from mediqa_node.storage import forwards
from mediqa_node.storage.correction_tables import retractions
from mediqa_node.storage.database import Database
from mediqa_node.storage.prepared import Prepared
from mediqa_node.storage.pull_tables import pulls
from mediqa_node.storage.spool import owner_of
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
_CALLING: sa.BindParameter[str] = sa.bindparam("calling", type_=sa.String)
_PULLED: sa.BindParameter[bool] = sa.bindparam("is_pulled", type_=sa.Boolean)


class _Known(NamedTuple):
    """What is known of an earlier copy of an instance."""

    id: int
    sha256: str
    path: str
    purged_at: float | None
    status: str
    calling_ae_title: str
    peer_address: str
    move_originator: str | None


_KNOWN = Prepared(
    sa.select(*(instances.c[name] for name in _Known._fields)).where(instances.c.sop_instance_uid == _UID)
)
_OWN = sa.select(
    sa.or_(*(sa.exists().where(table.c.sop_instance_uid == _UID) for table in (reports, companions, retractions)))
)
_GAP = _NOW - series.c.last_instance_at
_IS_OPEN = series.c.state == SeriesState.RECEIVING.value
_ASKED_FOR = sa.select(pulls.c.move_destination).where(
    pulls.c.series_instance_uid == _UID,
    pulls.c.state != PullState.PULLED.value,
    pulls.c.peer_ae_title == _CALLING,
    sa.func.coalesce(pulls.c.done_at, pulls.c.asked_at) >= sa.bindparam("since", type_=sa.Float),
)
"""Whether an archive was asked for a series lately, all of which is not here: some do not say for whom they send."""
_LATELY_S = 3600.0
"""A pull that began, or failed, earlier is over: what comes later, the archive sends of its own accord."""
_COMES_PULLED = sa.or_(_PULLED, sa.exists(_ASKED_FOR))
_GOES_LIVE = sa.and_(series.c.pulled, sa.not_(_COMES_PULLED))
_GIVEN = (
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
"""Columns of an instance that have the name and the value of an attribute of `ReceivedInstance`."""
_FOUND = ("status", "received_at", "identity", "unread")
_ORIGINATOR = sa.func.coalesce(sa.bindparam("originator", type_=sa.String), _ASKED_FOR.scalar_subquery())
_ENTER = Prepared(
    sa.insert(instances)
    .values({name: sa.bindparam(f"i_{name}", type_=instances.c[name].type) for name in (*_GIVEN, *_FOUND)})
    .values(move_originator=_ORIGINATOR)
    .returning(instances.c.id)
)


def _received_again(why: ReasonCode) -> dict[str, Any]:
    """Return the columns of a series that begins again."""
    return {
        "state": SeriesState.RECEIVING.value,
        "reason_code": why.value,
        "reason": None,
        "scored_instead": None,
        "generation": series.c.generation + 1,
        "last_instance_at": _NOW,
        "opened_at": _NOW,
        "state_at": _NOW,
    }


_TOUCH_SERIES = Prepared(
    sa.update(series)
    .where(series.c.series_instance_uid == _UID)
    .values(
        n_instances=series.c.n_instances + 1,
        generation=series.c.generation + 1,
        last_instance_at=_NOW,
        longest_gap_s=sa.case((series.c.longest_gap_s < _GAP, _GAP), else_=series.c.longest_gap_s),
        n_associations=series.c.n_associations + sa.case((series.c.association_id == _ASSOCIATION, 0), else_=1),
        association_id=_ASSOCIATION,
        pulled=sa.and_(series.c.pulled, _COMES_PULLED),
        calling_ae_title=sa.case((_GOES_LIVE, _CALLING), else_=series.c.calling_ae_title),
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
        **_received_again(ReasonCode.LOST_FILE_RETURNED),
    )
)
_GO_LIVE = (
    sa.update(series)
    .where(series.c.series_instance_uid == _UID, series.c.pulled, sa.not_(sa.exists(_ASKED_FOR)))
    .values(
        pulled=False,
        calling_ae_title=_CALLING,
        association_id=_ASSOCIATION,
        n_associations=series.c.n_associations + 1,
        **_received_again(ReasonCode.SENT_LIVE),
    )
)
_FORGET_ORIGINATOR = (
    sa.update(instances)
    .where(instances.c.id == sa.bindparam("row", type_=sa.Integer), sa.not_(sa.exists(_ASKED_FOR)))
    .values(move_originator=None)
)
_TOUCH_ASSOCIATION = Prepared(
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
    known = [_Known(*row) for row in _KNOWN.run(connection, {"uid": instance.sop_instance_uid}).fetchall()]
    is_in_use = any(row.status == InstanceStatus.CURRENT for row in known)
    alike = (row for row in known if row.sha256 == instance.sha256)
    same = next((row for row in alike if _counts(row, instance, is_in_use=is_in_use)), None)
    _touch_association(database, connection, instance)
    if not instance.pulled and any(row.move_originator is not None for row in known):
        _go_live(connection, instance, same)
    if same is not None:
        if same.path == instance.path:
            return Recorded.NEW
        _forward(database, connection, instance, same.id, is_copy=same.status != InstanceStatus.CURRENT)
        if is_there(same.path):
            _complete_sender(connection, same, instance)
            return Recorded.DUPLICATE
        connection.execute(sa.update(instances).where(instances.c.id == same.id).values(path=instance.path))
        forwards.file_is_back(connection, same.id, now=instance.received_at.timestamp())
        connection.execute(_REOPEN, {"uid": instance.series_instance_uid, "now": instance.received_at.timestamp()})
        return Recorded.NEW
    _touch_series(database, connection, instance, modality, counts=not known)
    status = InstanceStatus.CANDIDATE if known else InstanceStatus.CURRENT
    instance_id = _enter(connection, instance, status)
    _forward(database, connection, instance, instance_id, is_copy=bool(known))
    return Recorded.CANDIDATE if known else Recorded.NEW


def _enter(connection: sa.Connection, instance: ReceivedInstance, status: InstanceStatus) -> int:
    """Insert the row of an instance; return its id."""
    row = {f"i_{name}": getattr(instance, name) for name in _GIVEN}
    row |= {
        "i_status": status.value,
        "i_received_at": instance.received_at.timestamp(),
        "i_identity": {name: getattr(instance.identity, name) for name in Identity.__dataclass_fields__},
        "i_unread": instance.sop_class_uid == KEY_OBJECT_SELECTION,
        "originator": instance.move_originator,
    }
    [(instance_id,)] = _ENTER.run(connection, row | _asking(instance)).fetchall()
    return int(instance_id)


def _forward(
    database: Database, connection: sa.Connection, instance: ReceivedInstance, instance_id: int, *, is_copy: bool
) -> None:
    """Have an instance forwarded, unless this node has asked for it, or has made it itself."""
    if not instance.forward_to or instance.pulled or _is_own(connection, instance):
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


def _is_own(connection: sa.Connection, instance: ReceivedInstance) -> bool:
    """Whether an instance was pulled, or is a report or companion of this node that somebody has sent back."""
    if _is_asked_for(connection, instance):
        return True
    return bool(connection.execute(_OWN, {"uid": instance.sop_instance_uid}).scalar_one())


def _go_live(connection: sa.Connection, instance: ReceivedInstance, same: _Known | None) -> None:
    """Treat a series that was pulled as one that its source has sent, from the first image that it does send."""
    values = {"uid": instance.series_instance_uid, "now": instance.received_at.timestamp()}
    values |= _asking(instance) | {"association": instance.association_id}
    connection.execute(_GO_LIVE, values)
    if same is not None and instance.move_originator is None:
        connection.execute(_FORGET_ORIGINATOR, values | {"row": same.id})


def _counts(row: _Known, instance: ReceivedInstance, *, is_in_use: bool) -> bool:
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
    known_address = instance.peer_address in (row.peer_address, "")  # without one: recovered from its file
    sender = row.calling_ae_title == instance.calling_ae_title and known_address
    matters = row.status in (InstanceStatus.CANDIDATE, InstanceStatus.DISPUTED, InstanceStatus.REJECTED)
    return sender or not (matters or instance.sop_class_uid == KEY_OBJECT_SELECTION)


def _complete_sender(connection: sa.Connection, row: _Known, instance: ReceivedInstance) -> None:
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
        values = {
            **_asking(instance),
            "now": now,
            "association": instance.association_id,
            "is_pulled": instance.pulled,
        }
        if _TOUCH_SERIES.run(connection, values).rowcount:
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
        "pulled": instance.pulled or _is_asked_for(connection, instance),
    }
    connection.execute(database.insert_or_ignore(series, **new, n_instances=int(counts)))


def _is_asked_for(connection: sa.Connection, instance: ReceivedInstance) -> bool:
    return connection.execute(_ASKED_FOR, _asking(instance)).first() is not None


def _asking(instance: ReceivedInstance) -> dict[str, Any]:
    """Return the parameters of `_ASKED_FOR`."""
    return {
        "uid": instance.series_instance_uid,
        "calling": instance.calling_ae_title,
        "since": instance.received_at.timestamp() - _LATELY_S,
    }


def _touch_association(database: Database, connection: sa.Connection, instance: ReceivedInstance) -> None:
    now = instance.received_at.timestamp()
    values = {"association": instance.association_id, "uid": instance.series_instance_uid, "now": now}
    if _TOUCH_ASSOCIATION.run(connection, values).rowcount:
        return
    connection.execute(
        database.insert_or_ignore(
            associations,
            id=instance.association_id,
            calling_ae_title=instance.calling_ae_title,
            address=instance.peer_address,
            opened_at=now,
            host_id=owner_of(instance.path),
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


def close_abandoned_associations(connection: sa.Connection, host_id: str | None, *, at: float) -> int:
    """Close the associations that the receiver of a host has left open; called while it does not run."""
    abandoned = associations.c.host_id.is_not_distinct_from(host_id), associations.c.closed_at.is_(None)
    result = connection.execute(sa.update(associations).where(*abandoned).values(closed_at=at, released=False))
    return int(result.rowcount)
