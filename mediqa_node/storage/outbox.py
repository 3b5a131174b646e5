"""The outbox: reports as bytes that are built once, and their deliveries.

A report is never rebuilt: its bytes are committed before the first send, so that every re-send is
identical bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.series import (
    ARRIVED,
    UNFINISHED,
    CompanionState,
    DeliveryReason,
    DeliveryState,
    SeriesState,
    parse_state,
)
from mediqa_node.storage.database import Database
from mediqa_node.storage.query_tables import retrieved
from mediqa_node.storage.tables import deliveries, reports, series, sr_series_numbers
from mediqa_node.storage.workbench_tables import delivery_attempts

FIRST_SERIES_NUMBER = 9000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """A built report."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    revision: int
    sop_class_uid: str
    sr_series_instance_uid: str
    series_number: int
    instance_number: int
    sha256: str
    part10: bytes
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    """One report on its way to one destination."""

    id: int
    series_instance_uid: str
    revision: int
    destination: str
    state: DeliveryState | str
    reason_code: DeliveryReason | str | None
    not_before: float
    wait_for_study_until: float
    attempts: int
    job: str | None
    jobs: int
    report_sop_instance_uid: str | None
    status: int | None
    message: str | None
    created_at: float
    done_at: float | None
    companions_at: float | None
    companions: CompanionState | str | None
    companions_note: str | None
    unanswered_since: float | None = None


_REPORT = [reports.c[name] for name in ReportRow.__dataclass_fields__]
_DELIVERY = [deliveries.c[name] for name in DeliveryRow.__dataclass_fields__]
_IN_TURN = (deliveries.c.not_before, deliveries.c.id)


def _delivery_row(row: sa.Row[*tuple[Any, ...]]) -> DeliveryRow:
    values = dict(row._mapping)
    for name, kind in (("state", DeliveryState), ("reason_code", DeliveryReason), ("companions", CompanionState)):
        if values[name] is not None:
            values[name] = parse_state(kind, values[name])
    return DeliveryRow(**values)


def save_report(database: Database, connection: sa.Connection, row: ReportRow) -> ReportRow:
    """Keep a built report and return the kept one: the first, if another destination had it built meanwhile."""
    values = {name: getattr(row, name) for name in row.__dataclass_fields__}
    connection.execute(database.insert_or_ignore(reports, **values))
    kept = find_report(connection, row.series_instance_uid, row.revision, row.sop_class_uid)
    if kept is None:
        raise LookupError(f"report {row.sop_instance_uid} was kept for another series or revision")
    return kept


def find_report(
    connection: sa.Connection, series_instance_uid: str, revision: int, sop_class_uid: str
) -> ReportRow | None:
    """Return the report of a revision in a class, or None if it was not built yet."""
    row = connection.execute(
        sa.select(*_REPORT).where(
            reports.c.series_instance_uid == series_instance_uid,
            reports.c.revision == revision,
            reports.c.sop_class_uid == sop_class_uid,
        )
    ).one_or_none()
    return ReportRow(**row._mapping) if row is not None else None


def reports_of(connection: sa.Connection, series_instance_uid: str) -> list[ReportRow]:
    """Return all reports that were built of a series, oldest first."""
    query = sa.select(*_REPORT).where(reports.c.series_instance_uid == series_instance_uid)
    return [ReportRow(**row._mapping) for row in connection.execute(query.order_by(reports.c.created_at))]


def report_by_uid(connection: sa.Connection, sop_instance_uid: str) -> ReportRow | None:
    """Return a report by its own SOP Instance UID, or None."""
    row = connection.execute(sa.select(*_REPORT).where(reports.c.sop_instance_uid == sop_instance_uid)).one_or_none()
    return ReportRow(**row._mapping) if row is not None else None


def reports_at(connection: sa.Connection, series_instance_uid: str, destination: str) -> list[ReportRow]:
    """Return the reports of a series that a destination may hold, oldest revision first."""
    held = _held(series_instance_uid)
    query = (
        sa.select(*_REPORT)
        .where(reports.c.sop_instance_uid.in_(sa.select(held.c.uid).where(held.c.destination == destination)))
        .order_by(reports.c.revision)
    )
    return [ReportRow(**row._mapping) for row in connection.execute(query)]


def _held(series_instance_uid: str) -> sa.Subquery:
    """The reports of a series that left this node, each with where they went: delivered, or retrieved by a peer."""
    delivered = sa.select(deliveries.c.destination, deliveries.c.report_sop_instance_uid.label("uid")).where(
        deliveries.c.series_instance_uid == series_instance_uid
    )
    fetched = (
        sa.select(retrieved.c.destination, retrieved.c.sop_instance_uid)
        .join(reports, reports.c.sop_instance_uid == retrieved.c.sop_instance_uid)
        .where(reports.c.series_instance_uid == series_instance_uid)
    )
    return sa.union(delivered, fetched).subquery()


def standing(connection: sa.Connection, series_instance_uid: str) -> dict[str, ReportRow]:
    """Return the last report of a series that each destination may hold."""
    held = _held(series_instance_uid)
    query = (
        sa.select(held.c.destination, *_REPORT)
        .join(reports, held.c.uid == reports.c.sop_instance_uid)
        .order_by(reports.c.revision)
    )
    found = [dict(row._mapping) for row in connection.execute(query)]
    return {values.pop("destination"): ReportRow(**values) for values in found}


def is_own_report(connection: sa.Connection, sr_series_instance_uid: str) -> bool:
    """Return whether a series UID belongs to reports of this node."""
    query = sa.select(sa.literal(1)).where(reports.c.sr_series_instance_uid == sr_series_instance_uid)
    return connection.execute(query.limit(1)).first() is not None


def last_report(connection: sa.Connection, series_instance_uid: str, sop_class_uid: str) -> ReportRow | None:
    """Return the latest report of a series in a class that may have left the node, or None."""
    query = (
        sa.select(*_REPORT)
        .join(deliveries, deliveries.c.report_sop_instance_uid == reports.c.sop_instance_uid)
        .where(
            reports.c.series_instance_uid == series_instance_uid,
            reports.c.sop_class_uid == sop_class_uid,
            deliveries.c.attempts > 0,
        )
        .order_by(reports.c.revision.desc())
    )
    row = connection.execute(query.limit(1)).first()
    return ReportRow(**row._mapping) if row is not None else None


def series_number(
    database: Database, connection: sa.Connection, study_instance_uid: str, series_instance_uid: str
) -> int:
    """Return the Series Number (0020,0011) of a series' reports: allocated once, unique in the study."""
    taken = sa.select(series.c.series_number).where(
        series.c.study_instance_uid == study_instance_uid, series.c.series_number.is_not(None)
    )
    ours = sa.select(sr_series_numbers.c.series_number).where(
        sr_series_numbers.c.series_instance_uid == series_instance_uid
    )
    of_study = sa.select(sr_series_numbers.c.series_number).where(
        sr_series_numbers.c.study_instance_uid == study_instance_uid
    )
    while True:  # repeats only if two deliveries allocate at once
        known = connection.execute(ours).scalar_one_or_none()
        if known is not None:
            return int(known)
        used = {*connection.execute(of_study).scalars(), *connection.execute(taken).scalars()}
        number = next(n for n in range(FIRST_SERIES_NUMBER, 2**31) if n not in used)
        connection.execute(
            database.insert_or_ignore(
                sr_series_numbers,
                study_instance_uid=study_instance_uid,
                series_number=number,
                series_instance_uid=series_instance_uid,
            )
        )


def add_delivery(
    database: Database,
    connection: sa.Connection,
    *,
    series_instance_uid: str,
    revision: int,
    destination: str,
    not_before: float,
    wait_for_study_until: float,
    now: float,
) -> None:
    """Add a delivery, unless it exists."""
    connection.execute(
        database.insert_or_ignore(
            deliveries,
            series_instance_uid=series_instance_uid,
            revision=revision,
            destination=destination,
            state=DeliveryState.WAITING,
            not_before=not_before,
            wait_for_study_until=wait_for_study_until,
            attempts=0,
            jobs=0,
            created_at=now,
        )
    )


def find_delivery(connection: sa.Connection, delivery_id: int) -> DeliveryRow | None:
    """Return one delivery, or None."""
    row = connection.execute(sa.select(*_DELIVERY).where(deliveries.c.id == delivery_id)).one_or_none()
    return _delivery_row(row) if row is not None else None


def deliveries_in(connection: sa.Connection, *states: DeliveryState) -> list[DeliveryRow]:
    """Return deliveries in any of these states (none given: all), oldest first."""
    query = sa.select(*_DELIVERY).order_by(deliveries.c.id)
    if states:
        query = query.where(deliveries.c.state.in_(states))
    return [_delivery_row(row) for row in connection.execute(query)]


def deliveries_of(connection: sa.Connection, series_instance_uid: str) -> list[DeliveryRow]:
    """Return all deliveries of a series, oldest first."""
    query = (
        sa.select(*_DELIVERY).where(deliveries.c.series_instance_uid == series_instance_uid).order_by(deliveries.c.id)
    )
    return [_delivery_row(row) for row in connection.execute(query)]


def due_deliveries(connection: sa.Connection, now: float) -> list[DeliveryRow]:
    """Return due deliveries without a job, the one that has been due longest first."""
    query = sa.select(*_DELIVERY).where(
        deliveries.c.state == DeliveryState.WAITING, deliveries.c.job.is_(None), deliveries.c.not_before <= now
    )
    return [_delivery_row(row) for row in connection.execute(query.order_by(*_IN_TURN))]


def others_due(connection: sa.Connection, delivery: DeliveryRow, now: float) -> list[DeliveryRow]:
    """Return every other delivery that is due at the same destination, in turn."""
    query = sa.select(*_DELIVERY).where(
        deliveries.c.destination == delivery.destination,
        deliveries.c.state == DeliveryState.WAITING,
        deliveries.c.not_before <= now,
        deliveries.c.id != delivery.id,
    )
    return [_delivery_row(row) for row in connection.execute(query.order_by(*_IN_TURN))]


def update_delivery(connection: sa.Connection, delivery_id: int, **values: object) -> None:
    """Update columns of a delivery."""
    connection.execute(sa.update(deliveries).where(deliveries.c.id == delivery_id).values(**values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to send a report, and how it ended."""

    delivery_id: int
    at: float
    state: str
    reason_code: str | None
    status: int | None
    message: str


_ATTEMPT = [delivery_attempts.c[name] for name in Attempt.__dataclass_fields__]


def note_attempt(connection: sa.Connection, attempt: Attempt) -> None:
    """Keep how an attempt ended."""
    values = {name: getattr(attempt, name) for name in Attempt.__dataclass_fields__}
    connection.execute(sa.insert(delivery_attempts).values(**values))


def attempts_of(connection: sa.Connection, delivery_ids: Sequence[int]) -> list[Attempt]:
    """Return the attempts of deliveries, oldest first."""
    query = (
        sa.select(*_ATTEMPT).where(delivery_attempts.c.delivery_id.in_(delivery_ids)).order_by(delivery_attempts.c.id)
    )
    return [Attempt(**row._mapping) for row in connection.execute(query)]


def park_others(connection: sa.Connection, delivery: DeliveryRow, message: str) -> list[DeliveryRow]:
    """Park every other delivery that waits for the same destination; return them."""
    same = (deliveries.c.destination == delivery.destination, deliveries.c.state == DeliveryState.WAITING)
    query = sa.select(*_DELIVERY).where(*same, deliveries.c.id != delivery.id)
    others = [_delivery_row(row) for row in connection.execute(query)]
    for other in others:
        update_delivery(
            connection,
            other.id,
            state=DeliveryState.PARKED,
            reason_code=DeliveryReason.NO_REPORT_CLASS,
            message=message,
            job=None,
        )
    return others


def claim_delivery(connection: sa.Connection, delivery: DeliveryRow, job: str) -> bool:
    """Assign a job to a waiting delivery; False if it has changed since it was read."""
    unchanged = (
        deliveries.c.id == delivery.id,
        deliveries.c.state == DeliveryState.WAITING,
        deliveries.c.job.is_(None),
        deliveries.c.jobs == delivery.jobs,
    )
    statement = sa.update(deliveries).where(*unchanged).values(job=job, jobs=delivery.jobs + 1)
    return bool(connection.execute(statement).rowcount)


def companions_due(connection: sa.Connection, now: float) -> list[DeliveryRow]:
    """Return sent deliveries whose companions are due, oldest first."""
    query = sa.select(*_DELIVERY).where(deliveries.c.state == DeliveryState.SENT, deliveries.c.companions_at <= now)
    return [_delivery_row(row) for row in connection.execute(query.order_by(deliveries.c.id))]


def supersede_deliveries(connection: sa.Connection, series_instance_uid: str, *, reason: str, now: float) -> int:
    """Supersede unfinished deliveries of a series that has changed; return how many."""
    result = connection.execute(
        sa.update(deliveries)
        .where(
            deliveries.c.series_instance_uid == series_instance_uid,
            deliveries.c.state.in_(UNFINISHED),
        )
        .values(
            state=DeliveryState.SUPERSEDED,
            reason_code=DeliveryReason.SERIES_CHANGED,
            message=reason,
            done_at=now,
            job=None,
        )
    )
    return int(result.rowcount)


def may_have_left(connection: sa.Connection, series_instance_uid: str) -> bool:
    """Whether a report of this series has been sent, or may have arrived although nobody has confirmed it."""
    query = sa.select(sa.literal(1)).where(
        deliveries.c.series_instance_uid == series_instance_uid, deliveries.c.report_sop_instance_uid.is_not(None)
    )
    return connection.execute(query.limit(1)).first() is not None


def last_sent_at(connection: sa.Connection, series_instance_uid: str) -> float | None:
    """Return when a report of this series last reached any destination, or None."""
    return connection.execute(
        sa.select(sa.func.max(deliveries.c.done_at)).where(
            deliveries.c.series_instance_uid == series_instance_uid, deliveries.c.state.in_(ARRIVED)
        )
    ).scalar_one_or_none()


def arrived_state(rows: Sequence[DeliveryRow]) -> SeriesState:
    """Return the state of a series whose reports have arrived or were superseded: confirmed if all that arrived are."""
    sent = any(row.state is DeliveryState.SENT for row in rows)
    return SeriesState.DELIVERED if sent else SeriesState.CONFIRMED
