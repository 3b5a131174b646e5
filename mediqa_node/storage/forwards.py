"""Forwards: rows that are committed together with their instance, and that the forwarder alone moves on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.forward import UNSENT, ForwardQueue, ForwardReason, ForwardState, Priority
from mediqa_node.domain.health import Uncommitted
from mediqa_node.domain.series import InstanceStatus, parse_state
from mediqa_node.storage.database import Database
from mediqa_node.storage.forward_tables import forwards
from mediqa_node.storage.tables import instances


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardRow:
    """One instance on its way to one destination, with what is needed to send it.

    Attributes:
        path: of the instance, relative to the spool's root.
        sha256: of its encoded dataset, as it was received.
        purged: its file was deleted.
    """

    id: int
    instance_id: int
    destination: str
    series_instance_uid: str
    study_instance_uid: str
    state: ForwardState | str
    reason_code: ForwardReason | str | None
    message: str | None
    priority: int
    not_before: float
    attempts: int
    n_uncommitted: int
    created_at: float
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    path: str
    sha256: str
    purged: bool


_OF_INSTANCE = ("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "calling_ae_title", "path", "sha256")
_ROW = [
    *(forwards.c[name] for name in ForwardRow.__dataclass_fields__ if name in forwards.c),
    *(instances.c[name] for name in _OF_INSTANCE),
    instances.c.purged_at.is_not(None).label("purged"),
]
JOINED = forwards.join(instances, instances.c.id == forwards.c.instance_id)
_WAITS = sa.text("forwards.state = 'waiting'")
"""As the partial index spells it."""
_SET_ASIDE = (InstanceStatus.SUPERSEDED, InstanceStatus.SAME)
"""Copies that another one stands for: they are never sent again."""
AS_CORRECTION_OR_BACKFILL = sa.case(
    (forwards.c.priority == Priority.CORRECTION, Priority.CORRECTION.value), else_=Priority.BACKFILL.value
)
"""The priority of what is sent again: an archive's answer to a correction means something else."""
_IDS_AT_ONCE = 1000


def _row(row: sa.Row[*tuple[Any, ...]]) -> ForwardRow:
    values = dict(row._mapping)
    values["state"] = parse_state(ForwardState, values["state"])
    if values["reason_code"] is not None:
        values["reason_code"] = parse_state(ForwardReason, values["reason_code"])
    return ForwardRow(**values)


def add(
    database: Database,
    connection: sa.Connection,
    *,
    instance_id: int,
    destinations: Sequence[str],
    series_instance_uid: str,
    study_instance_uid: str,
    is_copy: bool,
    now: float,
) -> None:
    """Add the forwards of an instance, in the transaction that enters it; those that exist stay as they are.

    Args:
        is_copy: another copy of the instance is in use: it is held until the two are compared.
    """
    for destination in destinations:
        connection.execute(
            database.insert_or_ignore(
                forwards,
                instance_id=instance_id,
                destination=destination,
                series_instance_uid=series_instance_uid,
                study_instance_uid=study_instance_uid,
                state=ForwardState.HELD if is_copy else ForwardState.WAITING,
                reason_code=ForwardReason.COPY_BEING_COMPARED if is_copy else None,
                priority=Priority.CORRECTION if is_copy else Priority.LIVE,
                not_before=now,
                attempts=0,
                created_at=now,
            )
        )


def _due() -> sa.Select[*tuple[Any, ...]]:
    now, latest = (sa.bindparam(name, type_=sa.Float) for name in ("now", "latest"))
    waiting = (forwards.c.destination == sa.bindparam("destination", type_=forwards.c.destination.type), _WAITS)
    put_off = sa.and_(forwards.c.not_before > now, forwards.c.not_before <= latest)
    delayed = (
        sa.select(forwards.c.series_instance_uid, sa.func.min(forwards.c.id).label("first"))
        .where(*waiting, put_off)
        .group_by(forwards.c.series_instance_uid)
        .subquery()
    )
    return (
        sa.select(*_ROW)
        .select_from(JOINED.outerjoin(delayed, delayed.c.series_instance_uid == forwards.c.series_instance_uid))
        .where(*waiting, ~put_off, sa.or_(delayed.c.first.is_(None), forwards.c.id < delayed.c.first))
        .order_by(forwards.c.priority, forwards.c.id)
        .limit(sa.bindparam("at_most", type_=sa.Integer))
    )


_DUE = _due()
"""Built once: it is asked for ten times a second, and building it takes longer than running it."""


def due(
    connection: sa.Connection, destination: str, now: float, *, at_most: int, latest_s: float = 86_400.0
) -> list[ForwardRow]:
    """Return what may be sent to a destination, in turn: live, corrections, the rest, each in order of arrival.

    What follows, within its series, an instance that is tried again later waits for it.

    Args:
        latest_s: nothing is put off for longer: a later time was written before the clock was set back.
    """
    values = {"destination": destination, "now": now, "latest": now + latest_s, "at_most": at_most}
    return [_row(row) for row in connection.execute(_DUE, values)]


def waiting_pairs(connection: sa.Connection, destination: str, *, at_most: int) -> list[tuple[str, str]]:
    """Return the pairs of SOP class and transfer syntax that wait for a destination, of the first in turn."""
    first = (
        sa.select(instances.c.sop_class_uid, instances.c.transfer_syntax_uid)
        .select_from(JOINED)
        .where(forwards.c.destination == destination, _WAITS)
        .order_by(forwards.c.priority, forwards.c.id)
        .limit(2000)
        .subquery()
    )
    rows = connection.execute(sa.select(first).distinct().limit(at_most))
    return [(row.sop_class_uid, row.transfer_syntax_uid) for row in rows]


def update(
    connection: sa.Connection, ids: Collection[int], states: Collection[ForwardState] = (), **values: object
) -> int:
    """Update columns of forwards, only of those in some states if any are given; return how many."""
    wanted, count = list(ids), 0
    for some in (wanted[i : i + _IDS_AT_ONCE] for i in range(0, len(wanted), _IDS_AT_ONCE)):
        statement = sa.update(forwards).where(forwards.c.id.in_(some))
        if states:
            statement = statement.where(forwards.c.state.in_(states))
        count += int(connection.execute(statement.values(**values)).rowcount)
    return count


def move(
    connection: sa.Connection,
    ids: Collection[int] | None,
    from_states: Collection[ForwardState],
    *,
    destination: str | None = None,
    **values: object,
) -> int:
    """Update forwards that are in one of these states, by their numbers, or all; return how many."""
    statement = sa.update(forwards).where(forwards.c.state.in_(from_states))
    if values.get("state") is ForwardState.WAITING:
        set_aside = sa.select(instances.c.id).where(instances.c.status.in_(_SET_ASIDE))
        statement = statement.where(forwards.c.instance_id.not_in(set_aside))
    if ids:
        statement = statement.where(forwards.c.id.in_(ids))
    if destination is not None:
        statement = statement.where(forwards.c.destination == destination)
    return int(connection.execute(statement.values(**values)).rowcount)


_OUTCOME = ("state", "reason_code", "message", "status", "not_before", "done_at", "ask_at")
_FINISH = (  # built once: building it takes longer than running it
    sa.update(forwards)
    .where(forwards.c.id == sa.bindparam("forward_id"), forwards.c.state == ForwardState.WAITING)
    .values(
        attempts=forwards.c.attempts + 1,
        **{name: sa.bindparam(f"new_{name}", type_=forwards.c[name].type) for name in _OUTCOME},
    )
)


def finish(connection: sa.Connection, outcomes: Mapping[int, Mapping[str, object]]) -> None:
    """Record the outcomes of attempts, except of forwards that somebody has ended meanwhile.

    Args:
        outcomes: values of all columns of an outcome, by the number of the forward.
    """
    rows = [
        {"forward_id": number, **{f"new_{name}": values[name] for name in _OUTCOME}}
        for number, values in outcomes.items()
    ]
    connection.execute(_FINISH, rows)


def in_states(
    connection: sa.Connection, *states: ForwardState, destination: str | None = None, at_most: int = 200
) -> list[ForwardRow]:
    """Return forwards in these states, the oldest first."""
    query = sa.select(*_ROW).select_from(JOINED).where(forwards.c.state.in_(states)).order_by(forwards.c.id)
    if destination is not None:
        query = query.where(forwards.c.destination == destination)
    return [_row(row) for row in connection.execute(query.limit(at_most))]


def queues(connection: sa.Connection) -> list[ForwardQueue]:
    """Return what waits, is held and is parked, by destination."""

    def n(state: ForwardState) -> sa.Function[int]:
        return sa.func.count().filter(forwards.c.state == state)  # type: ignore[return-value]

    query = (
        sa.select(
            forwards.c.destination,
            n(ForwardState.WAITING).label("n_waiting"),
            n(ForwardState.HELD).label("n_held"),
            n(ForwardState.PARKED).label("n_parked"),
            sa.func.min(forwards.c.created_at).label("oldest_at"),
        )
        .where(forwards.c.state.in_(UNSENT))
        .group_by(forwards.c.destination)
        .order_by(forwards.c.destination)
    )
    return [ForwardQueue(**row._mapping) for row in connection.execute(query)]


def destinations(connection: sa.Connection) -> list[str]:
    """Return the destinations that something waits for."""
    query = sa.select(forwards.c.destination).where(_WAITS).distinct()
    return list(connection.execute(query).scalars())


def to_commit(connection: sa.Connection, destination: str, *, now: float, at_most: int) -> list[ForwardRow]:
    """Return the sent forwards about which a destination is to be asked, or asked again; each instance once."""
    query = (
        sa.select(*_ROW)
        .select_from(JOINED)
        .where(
            forwards.c.destination == destination,
            forwards.c.ask_at.is_not(None),
            forwards.c.ask_at <= now,
            forwards.c.state == ForwardState.SENT,
        )
        .order_by(forwards.c.ask_at, forwards.c.id)
        .limit(at_most)
    )
    rows = [_row(row) for row in connection.execute(query)]
    return list({row.sop_instance_uid: row for row in reversed(rows)}.values())[::-1]


def sent_with(
    connection: sa.Connection, destination: str, sop_instance_uids: Collection[str], *, sent_by: float
) -> list[ForwardRow]:
    """Return the forwards to a destination, sent by a time, that are of some instances and not committed to yet."""
    query = (
        sa.select(*_ROW)
        .select_from(JOINED)
        .where(
            forwards.c.destination == destination,
            forwards.c.state == ForwardState.SENT,
            forwards.c.ask_at.is_not(None),
            forwards.c.done_at <= sent_by,
            instances.c.sop_instance_uid.in_(list(sop_instance_uids)),
            instances.c.status.not_in(_SET_ASIDE),
        )
    )
    return [_row(row) for row in connection.execute(query)]


def uncommitted(connection: sa.Connection, *, before: float) -> list[Uncommitted]:
    """Return, by destination, the instances that were sent before a time and whose commitment has not come."""
    query = (
        sa.select(
            forwards.c.destination.label("name"),
            sa.func.count().label("n"),
            sa.func.min(forwards.c.done_at).label("oldest_at"),
        )
        .where(forwards.c.state == ForwardState.SENT, forwards.c.ask_at.is_not(None), forwards.c.done_at < before)
        .group_by(forwards.c.destination)
        .order_by(forwards.c.destination)
    )
    return [Uncommitted(**row._mapping) for row in connection.execute(query)]


def series_waits_since(connection: sa.Connection, destination: str, series_instance_uid: str) -> float | None:
    """Return since when images of a series wait to be sent to a destination; what was refused does not count."""
    query = sa.select(sa.func.min(forwards.c.created_at)).where(
        forwards.c.destination == destination,
        forwards.c.series_instance_uid == series_instance_uid,
        forwards.c.state == ForwardState.WAITING,
    )
    since: float | None = connection.execute(query).scalar_one()
    return since


def forget_unasked(connection: sa.Connection, committing: Collection[str]) -> int:
    """Let instances go whose destination is no longer asked to commit to them; return how many."""
    statement = sa.update(forwards).where(
        forwards.c.ask_at.is_not(None), forwards.c.destination.not_in(list(committing))
    )
    return int(connection.execute(statement.values(ask_at=None)).rowcount)


def file_is_back(connection: sa.Connection, instance_id: int, *, now: float) -> int:
    """Have the forwards of an instance go on that were parked because its file was lost; return how many."""
    statement = sa.update(forwards).where(
        forwards.c.instance_id == instance_id,
        forwards.c.state == ForwardState.PARKED,
        forwards.c.reason_code == ForwardReason.FILE_MISSING,
    )
    return int(connection.execute(statement.values(state=ForwardState.WAITING, not_before=now)).rowcount)


def on_their_way(
    connection: sa.Connection, destination: str, sop_instance_uids: Collection[str], *, sent_after: float | None = None
) -> bool:
    """Whether any of these instances still has to be sent to a destination, or was after a time."""
    unsent = forwards.c.state.in_(UNSENT)
    query = (
        sa.select(sa.literal(1))
        .select_from(JOINED)
        .where(
            forwards.c.destination == destination,
            unsent if sent_after is None else sa.or_(unsent, forwards.c.done_at > sent_after),
            instances.c.sop_instance_uid.in_(sop_instance_uids),
        )
        .limit(1)
    )
    return connection.execute(query).first() is not None
