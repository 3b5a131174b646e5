"""Series and instances, and their changes of state.

Functions take a connection, so that a caller can commit a move and the job that follows it
together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.identity import Identity
from mediqa_node.domain.series import InstanceStatus, Reason, ReasonCode, SeriesState, parse_state
from mediqa_node.storage.tables import acquisitions, associations, instances, senders, series


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRow:
    """A series in the index."""

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    state: SeriesState | str
    reason: Reason | None
    scored_instead: str | None
    completion: str | None
    series_number: int | None
    calling_ae_title: str
    called_ae_title: str
    association_id: str
    n_associations: int
    longest_gap_s: float
    opened_at: float
    last_instance_at: float
    n_instances: int
    generation: int
    revision: int
    state_at: float
    pulled: bool

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: the reason as text, its code by itself."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        code = str(self.reason.code) if self.reason else None
        return values | {"reason": str(self.reason) if self.reason else None, "reason_code": code}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """A kept copy of an instance."""

    id: int
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    status: InstanceStatus | str
    calling_ae_title: str
    association_id: str
    received_at: float
    path: str
    sha256: str
    size_bytes: int
    purged_at: float | None
    peer_address: str
    identity: Identity | None
    content_digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRow:
    """The association that carried the last instance of a series."""

    closed_at: float | None
    released: bool | None
    last_series_uid: str | None
    last_instance_at: float


_SERIES = [series.c[name] for name in SeriesRow.__dataclass_fields__] + [series.c.reason_code]
INSTANCE = [instances.c[name] for name in InstanceRow.__dataclass_fields__]
_ASSOCIATION = [associations.c[name] for name in AssociationRow.__dataclass_fields__]


def _series_row(row: sa.Row[*tuple[Any, ...]]) -> SeriesRow:
    values = {name: getattr(row, name) for name in SeriesRow.__dataclass_fields__}
    code = row.reason_code
    values["state"] = parse_state(SeriesState, row.state)
    values["reason"] = Reason(parse_state(ReasonCode, code), row.reason or "") if code is not None else None
    return SeriesRow(**values)


def instance_row(row: sa.Row[*tuple[Any, ...]]) -> InstanceRow:
    """Return a row of `INSTANCE` as a value."""
    values = {name: getattr(row, name) for name in InstanceRow.__dataclass_fields__}
    known = Identity(**row.identity) if row.identity is not None else None
    return InstanceRow(**values | {"status": parse_state(InstanceStatus, row.status), "identity": known})


def series_in(connection: sa.Connection, *states: SeriesState) -> list[SeriesRow]:
    """Return the series in any of these states (none given: all), oldest change first."""
    query = sa.select(*_SERIES).order_by(series.c.last_instance_at)
    if states:
        query = query.where(series.c.state.in_(states))
    return [_series_row(row) for row in connection.execute(query)]


def find_series(connection: sa.Connection, series_instance_uid: str) -> SeriesRow | None:
    """Return one series, or None."""
    row = connection.execute(
        sa.select(*_SERIES).where(series.c.series_instance_uid == series_instance_uid)
    ).one_or_none()
    return _series_row(row) if row is not None else None


def lock_series(connection: sa.Connection, series_instance_uid: str) -> None:
    """Hold a series until the end of the transaction, so that a correction and a delivery follow one another.

    SQLite has one writer at a time, and needs no lock.
    """
    query = sa.select(series.c.generation).where(series.c.series_instance_uid == series_instance_uid)
    connection.execute(query.with_for_update()).first()


def series_of_study(connection: sa.Connection, study_instance_uid: str) -> list[SeriesRow]:
    """Return the series of a study."""
    query = sa.select(*_SERIES).where(series.c.study_instance_uid == study_instance_uid)
    return [_series_row(row) for row in connection.execute(query)]


def current_instances(connection: sa.Connection, series_instance_uid: str) -> list[InstanceRow]:
    """Return the current copies of a series' instances, in order of arrival."""
    return _instances(connection, series_instance_uid, InstanceStatus.CURRENT)


def _instances(connection: sa.Connection, series_instance_uid: str, status: InstanceStatus) -> list[InstanceRow]:
    query = (
        sa.select(*INSTANCE)
        .where(
            instances.c.series_instance_uid == series_instance_uid,
            instances.c.status == status,
            instances.c.purged_at.is_(None),
        )
        .order_by(instances.c.id)
    )
    return [instance_row(row) for row in connection.execute(query)]


def is_purged(connection: sa.Connection, series_instance_uid: str) -> bool:
    """Return whether a current instance of the series was deleted after retention."""
    query = sa.select(sa.literal(1)).where(
        instances.c.series_instance_uid == series_instance_uid,
        instances.c.status == InstanceStatus.CURRENT,
        instances.c.purged_at.is_not(None),
    )
    return connection.execute(query.limit(1)).first() is not None


def association(connection: sa.Connection, association_id: str) -> AssociationRow | None:
    """Return an association, or None."""
    row = connection.execute(sa.select(*_ASSOCIATION).where(associations.c.id == association_id)).one_or_none()
    return AssociationRow(**row._mapping) if row is not None else None


def move(
    connection: sa.Connection,
    series_instance_uid: str,
    state: SeriesState,
    *,
    at: float,
    generation: int | None = None,
    reason: Reason | None = None,
    scored_instead: str | None = None,
    **values: object,
) -> bool:
    """Move a series to a state; False if it has changed since `generation` was read."""
    values |= {**_why(reason), "scored_instead": scored_instead}
    statement = sa.update(series).where(series.c.series_instance_uid == series_instance_uid)
    if generation is not None:
        statement = statement.where(series.c.generation == generation)
    return bool(connection.execute(statement.values(state=state, state_at=at, **values)).rowcount)


def without_job(connection: sa.Connection) -> list[tuple[str, int, bool]]:
    """Return UID and generation of ready series without a job, and whether each was pulled."""
    query = sa.select(series.c.series_instance_uid, series.c.generation, series.c.pulled).where(
        series.c.state == SeriesState.READY, series.c.job.is_(None)
    )
    return [(row.series_instance_uid, row.generation, row.pulled) for row in connection.execute(query)]


def with_job(connection: sa.Connection) -> list[tuple[SeriesRow, str]]:
    """Return the ready series with a job, and the job."""
    query = sa.select(*_SERIES, series.c.job).where(series.c.state == SeriesState.READY, series.c.job.is_not(None))
    return [(_series_row(row), row.job) for row in connection.execute(query)]


def set_job(connection: sa.Connection, series_instance_uid: str, job: str) -> None:
    """Record which job works on a series."""
    connection.execute(sa.update(series).where(series.c.series_instance_uid == series_instance_uid).values(job=job))


def _why(reason: Reason | None) -> dict[str, object]:
    if reason is None:
        return {"reason_code": None, "reason": None}
    return {"reason_code": str(reason.code), "reason": reason.detail or None}


def reopen(connection: sa.Connection, series_instance_uid: str, *, reason: Reason, at: float, **values: object) -> None:
    """Return a series to RECEIVING because its content has changed; `values` by column."""
    connection.execute(
        sa.update(series)
        .where(series.c.series_instance_uid == series_instance_uid)
        .values(
            state=SeriesState.RECEIVING,
            **_why(reason),
            scored_instead=None,
            state_at=at,
            opened_at=at,
            generation=series.c.generation + 1,
            job=None,
            **values,
        )
    )


def assess_again(connection: sa.Connection, *where: sa.ColumnElement[bool], at: float) -> int:
    """Make series ready for another assessment; return how many."""
    again = {"state": SeriesState.READY, "state_at": at, "job": None, "generation": series.c.generation + 1}
    return int(connection.execute(sa.update(series).where(*where).values(**again)).rowcount)


def release_acquisition(connection: sa.Connection, series_instance_uid: str, *, at: float) -> None:
    """Let another reconstruction be scored for the acquisition, since this series cannot be.

    The series that were set aside for it are assessed again; the first of them takes its place.
    """
    connection.execute(sa.delete(acquisitions).where(acquisitions.c.series_instance_uid == series_instance_uid))
    aside = sa.select(series.c.series_instance_uid).where(
        series.c.state == SeriesState.NOT_SCORED,
        series.c.scored_instead == series_instance_uid,
    )
    for uid in connection.execute(aside).scalars().all():
        reopen(connection, uid, reason=Reason(ReasonCode.OTHER_RECONSTRUCTION_FAILED), at=at)


def learn_sender(connection: sa.Connection, row: SeriesRow, *, longest_gap_s: float) -> None:
    """Learn how this calling AE sent a complete series, unless an association broke or was refused something for now.

    Either may be the node's own doing, such as a restart or a full disk, and is not the sender's habit.

    Args:
        longest_gap_s: a longer pause is none of the sender's either: the series came in parts, or the clock was set.
    """
    broken = (
        sa.select(sa.literal(1))
        .join(associations, associations.c.id == instances.c.association_id)
        .where(instances.c.series_instance_uid == row.series_instance_uid, associations.c.released.is_(False))
    )
    if row.longest_gap_s > longest_gap_s or connection.execute(broken.limit(1)).first() is not None:
        return
    known = connection.execute(
        sa.select(senders).where(senders.c.calling_ae_title == row.calling_ae_title)
    ).one_or_none()
    splits = row.n_associations > 1
    if known is None:
        connection.execute(
            sa.insert(senders).values(
                calling_ae_title=row.calling_ae_title,
                splits_series=splits,
                longest_gap_s=row.longest_gap_s,
                gaps_s=[row.longest_gap_s],
            )
        )
        return
    connection.execute(
        sa.update(senders)
        .where(senders.c.calling_ae_title == row.calling_ae_title)
        .values(
            splits_series=known.splits_series or splits,
            longest_gap_s=max(known.longest_gap_s, row.longest_gap_s),
            gaps_s=[*known.gaps_s, row.longest_gap_s][-200:],
        )
    )


def sender(connection: sa.Connection, calling_ae_title: str) -> tuple[bool, Sequence[float]]:
    """Return whether this AE has split a series, and its pauses within series, seconds."""
    row = connection.execute(
        sa.select(senders.c.splits_series, senders.c.gaps_s).where(senders.c.calling_ae_title == calling_ae_title)
    ).one_or_none()
    return (bool(row.splits_series), list(row.gaps_s)) if row is not None else (False, [])
