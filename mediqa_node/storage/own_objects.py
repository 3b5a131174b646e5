"""Reports and companions that stand, for queries and C-MOVE of others.

What stands is of the last assessment, of the content that a series has now, and not taken back: a report under a wrong
patient is found by nobody.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.query import MoveState, OwnObject
from mediqa_node.domain.series import SeriesState
from mediqa_node.storage.companions import note_begun, part10_of
from mediqa_node.storage.correction_tables import retractions
from mediqa_node.storage.database import Database
from mediqa_node.storage.index import lock_series
from mediqa_node.storage.query_tables import moves, own_objects, retrieved
from mediqa_node.storage.tables import assessments, companions, reports, series

_AT_ONCE = 100
_KEPT_S = 86_400.0
_STANDS = (SeriesState.ASSESSED, SeriesState.DELIVERED, SeriesState.CONFIRMED, SeriesState.PARKED)

Describe = Callable[[bytes], Mapping[str, str]]
"""Part 10 bytes to the values of `domain.query.KEYS`."""


def list_missing(database: Database, describe: Describe, stopping: Callable[[], bool] = lambda: False) -> int:
    """Enter reports and companions that are not listed yet; return how many."""
    count = 0
    for table, read in ((reports, _report_bytes), (companions, part10_of)):
        while not stopping():
            with database.read() as connection:
                found = connection.execute(_unlisted(table)).all()
                rows = [
                    {
                        "sop_instance_uid": row.sop_instance_uid,
                        "study_instance_uid": row.study_instance_uid,
                        "series_instance_uid": row.series_instance_uid,
                        "revision": row.revision,
                        "attributes": dict(describe(content)),
                    }
                    for row in found
                    if (content := read(connection, row.sop_instance_uid)) is not None
                ]
            if not rows:
                break
            with database.write() as connection:
                for values in rows:
                    connection.execute(database.insert_or_ignore(own_objects, **values))
            count += len(rows)
    return count


def _unlisted(table: sa.Table) -> sa.Select[Any]:
    listed = sa.select(sa.literal(1)).where(own_objects.c.sop_instance_uid == table.c.sop_instance_uid)
    columns = [table.c[name] for name in ("sop_instance_uid", "study_instance_uid", "series_instance_uid", "revision")]
    kept = table.c.deflated.is_not(None) if table is companions else sa.true()
    return sa.select(*columns).where(kept, sa.not_(sa.exists(listed))).limit(_AT_ONCE)


def _report_bytes(connection: sa.Connection, sop_instance_uid: str) -> bytes | None:
    query = sa.select(reports.c.part10).where(reports.c.sop_instance_uid == sop_instance_uid)
    found: bytes | None = connection.execute(query).scalar_one_or_none()
    return found


def standing(connection: sa.Connection, study_instance_uids: Sequence[str]) -> Iterator[OwnObject]:
    """Yield the objects that stand, of these studies; of all studies, if there are none. Few are in memory at once."""
    rows = connection.execute(_standing(study_instance_uids).execution_options(yield_per=_AT_ONCE))
    return (OwnObject(values=row.attributes) for row in rows if row.attributes)


def _standing(study_instance_uids: Sequence[str]) -> sa.Select[Any]:
    current = sa.and_(
        series.c.series_instance_uid == own_objects.c.series_instance_uid,
        series.c.revision == own_objects.c.revision,
        series.c.state.in_(_STANDS),
    )
    assessed = sa.and_(
        assessments.c.series_instance_uid == series.c.series_instance_uid,
        assessments.c.revision == series.c.revision,
        assessments.c.generation == series.c.generation,
    )
    taken_back = (
        sa.select(sa.literal(1))
        .select_from(retractions)
        .join(reports, reports.c.sop_instance_uid == retractions.c.report_sop_instance_uid)
        .where(
            reports.c.series_instance_uid == own_objects.c.series_instance_uid,
            reports.c.revision == own_objects.c.revision,
        )
    )
    gone = sa.select(companions.c.sop_instance_uid).where(companions.c.deflated.is_(None))
    query = (
        sa.select(own_objects.c.sop_instance_uid, own_objects.c.attributes)
        .join(series, current)
        .join(assessments, assessed)
        .where(sa.not_(sa.exists(taken_back)), own_objects.c.sop_instance_uid.not_in(gone))
        .order_by(own_objects.c.study_instance_uid, own_objects.c.sop_instance_uid)
    )
    return query.where(own_objects.c.study_instance_uid.in_(study_instance_uids)) if study_instance_uids else query


def classes_of(connection: sa.Connection, sop_instance_uids: Sequence[str]) -> dict[str, str]:
    """Return the SOP class of each object."""
    query = sa.select(own_objects.c.sop_instance_uid, own_objects.c.attributes)
    rows = connection.execute(query.where(own_objects.c.sop_instance_uid.in_(sop_instance_uids)))
    return {row.sop_instance_uid: str(row.attributes.get("SOPClassUID", "")) for row in rows}


def take_out(
    database: Database, connection: sa.Connection, sop_instance_uid: str, destination: str, *, at: float
) -> bytes | None:
    """Return the bytes of an object, as built, for a destination that may hold it from now on: it can be taken back.

    The caller commits before the first byte leaves.

    Returns:
        None if it does not stand any more.
    """
    source = sa.select(own_objects.c.series_instance_uid).where(own_objects.c.sop_instance_uid == sop_instance_uid)
    lock_series(connection, str(connection.execute(source).scalar_one_or_none()))
    query = _standing(()).where(own_objects.c.sop_instance_uid == sop_instance_uid)
    if connection.execute(query).first() is None:
        return None
    if (report := _report_bytes(connection, sop_instance_uid)) is not None:
        values = {"sop_instance_uid": sop_instance_uid, "destination": destination, "at": at}
        connection.execute(database.insert_or_ignore(retrieved, **values))
        return report
    note_begun(database, connection, sop_instance_uid, destination, at=at)
    return part10_of(connection, sop_instance_uid)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRow:
    """A C-MOVE that was asked for. `failed` are the SOP Instance UIDs that were not sent."""

    id: int
    calling_ae_title: str
    message_id: int
    destination: str
    sop_instance_uids: tuple[str, ...]
    state: MoveState
    completed: int
    warning: int
    failed: tuple[str, ...]

    @property
    def remaining(self) -> int:
        """Sub-operations to come."""
        return len(self.sop_instance_uids) - self.completed - self.warning - len(self.failed)


def add_move(
    connection: sa.Connection,
    *,
    calling_ae_title: str,
    message_id: int,
    destination: str,
    sop_instance_uids: Sequence[str],
    at: float,
) -> int:
    """Ask the courier to send objects to a peer; return the number of the request. Old requests are forgotten."""
    connection.execute(sa.delete(moves).where(moves.c.asked_at < at - _KEPT_S))
    values = {
        "calling_ae_title": calling_ae_title,
        "message_id": message_id,
        "destination": destination,
        "sop_instance_uids": list(sop_instance_uids),
        "state": MoveState.WAITING,
        "completed": 0,
        "warning": 0,
        "failed": [],
        "asked_at": at,
    }
    return int(connection.execute(sa.insert(moves).values(**values).returning(moves.c.id)).scalar_one())


def find_move(connection: sa.Connection, number: int) -> MoveRow | None:
    """Return a request, or None."""
    row = connection.execute(sa.select(moves).where(moves.c.id == number)).one_or_none()
    return _move_row(row) if row is not None else None


def is_move_waiting(connection: sa.Connection) -> bool:
    """Return whether a request waits for the courier."""
    query = sa.select(sa.literal(1)).where(moves.c.state == MoveState.WAITING)
    return connection.execute(query.limit(1)).first() is not None


def take_move(connection: sa.Connection, *, since: float) -> MoveRow | None:
    """Take the oldest request that waits and was asked for since a time, or None."""
    waiting = sa.select(moves).where(moves.c.state == MoveState.WAITING, moves.c.asked_at >= since)
    row = connection.execute(waiting.order_by(moves.c.id).limit(1)).one_or_none()
    if row is None:
        return None
    taken = sa.update(moves).where(moves.c.id == row.id, moves.c.state == MoveState.WAITING)
    return _move_row(row) if connection.execute(taken.values(state=MoveState.SENDING)).rowcount else None


def work_before(connection: sa.Connection, number: int) -> int:
    """Return how many sub-operations of earlier requests are to come: the courier does one request after another."""
    query = sa.select(moves).where(moves.c.id < number, moves.c.state.in_((MoveState.WAITING, MoveState.SENDING)))
    return sum(_move_row(row).remaining for row in connection.execute(query))


def update_move(connection: sa.Connection, number: int, **values: object) -> bool:
    """Note progress or the end of a request that is not cancelled; return whether it is not."""
    going_on = sa.update(moves).where(moves.c.id == number, moves.c.state != MoveState.CANCELLED)
    return bool(connection.execute(going_on.values(**values)).rowcount)


def _move_row(row: sa.Row[Any]) -> MoveRow:
    values = {name: getattr(row, name) for name in MoveRow.__dataclass_fields__}
    uids, failed = tuple(values["sop_instance_uids"]), tuple(values["failed"])
    return MoveRow(**values | {"sop_instance_uids": uids, "failed": failed, "state": MoveState(values["state"])})
