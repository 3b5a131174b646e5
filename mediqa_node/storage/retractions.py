"""Reports that stand at a destination and must not: what takes each of them back, and whether it was taken."""

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import sqlalchemy as sa
from pydicom import dcmread

from mediqa_node.dicom.identity import identity_of
from mediqa_node.domain.identity import EXACT, Identity, IdentityRules, differences
from mediqa_node.domain.retraction import VoidReason
from mediqa_node.domain.series import HELD, DeliveryState, parse_state
from mediqa_node.storage import outbox
from mediqa_node.storage.correction_tables import retractions
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import deliveries, reports


@dataclass(frozen=True, slots=True, kw_only=True)
class RetractionRow:
    """One report that has to be taken back from one destination."""

    id: int
    series_instance_uid: str
    destination: str
    report_sop_instance_uid: str
    reason: VoidReason | str
    state: DeliveryState | str
    message: str | None
    status: int | None
    attempts: int
    not_before: float
    created_at: float
    done_at: float | None
    sop_instance_uid: str | None
    sr_series_instance_uid: str | None
    instance_number: int | None
    part10: bytes | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the bytes."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "part10"}


_ROW = [retractions.c[name] for name in RetractionRow.__dataclass_fields__]


def _row(row: sa.Row[*tuple[object, ...]]) -> RetractionRow:
    values = dict(row._mapping)
    values["state"] = parse_state(DeliveryState, row.state)
    values["reason"] = parse_state(VoidReason, row.reason)
    return RetractionRow(**values)


def add(
    database: Database, connection: sa.Connection, series_instance_uid: str, reason: VoidReason, *, at: float
) -> int:
    """Ask for the last report of a series at each destination that may hold one to be taken back; return how many."""
    standing = _standing(connection, series_instance_uid)
    for destination, uid in standing.items():
        _add(database, connection, series_instance_uid, destination, uid, reason, at)
    return len(standing)


def add_naming_others(
    database: Database,
    connection: sa.Connection,
    series_instance_uid: str,
    identity: Identity | None,
    rules: IdentityRules = EXACT,
    *,
    at: float,
) -> int:
    """Ask for those last reports to be taken back that name another patient or visit than the one given.

    The report itself decides: a stray image may have been among those of its series since. Where it is not known whom
    the images name, any report may be another patient's.
    """
    found = _naming_others(connection, series_instance_uid, identity, rules)
    for destination, uid, reason in found:
        _add(database, connection, series_instance_uid, destination, uid, reason, at)
    return len(found)


def stands_for_another(
    connection: sa.Connection, series_instance_uid: str, identity: Identity | None, rules: IdentityRules = EXACT
) -> bool:
    """Whether any last report of a series names another than the identity given, and nobody has asked it back."""
    asked_back = sa.select(retractions.c.destination, retractions.c.report_sop_instance_uid).where(
        retractions.c.series_instance_uid == series_instance_uid
    )
    known = {(row.destination, row.report_sop_instance_uid) for row in connection.execute(asked_back)}
    found = _naming_others(connection, series_instance_uid, identity, rules)
    return any((destination, uid) not in known for destination, uid, _ in found)


def _naming_others(
    connection: sa.Connection, series_instance_uid: str, identity: Identity | None, rules: IdentityRules
) -> list[tuple[str, str, VoidReason]]:
    """Return the last reports that name another, by destination and UID, and why they are taken back."""
    found = []
    for destination, uid in _standing(connection, series_instance_uid).items():
        report = outbox.report_by_uid(connection, uid)
        differing: tuple[str, ...] = ("patient ID",)
        if identity is not None and report is not None:
            differing = differences(identity_of(dcmread(BytesIO(report.part10))), identity, rules)
        if differing:
            visit = set(differing) <= {"accession number", "sex"}
            found.append((destination, uid, VoidReason.WITHDRAWN if visit else VoidReason.WRONG_PATIENT))
    return found


def _standing(connection: sa.Connection, series_instance_uid: str) -> dict[str, str]:
    """Return the last report of a series that each destination may hold, by destination."""
    query = (
        sa.select(deliveries.c.destination, deliveries.c.report_sop_instance_uid)
        .where(
            deliveries.c.series_instance_uid == series_instance_uid,
            deliveries.c.report_sop_instance_uid.is_not(None),
        )
        .order_by(deliveries.c.revision)
    )
    return {row.destination: row.report_sop_instance_uid for row in connection.execute(query)}


def _add(
    database: Database,
    connection: sa.Connection,
    series_instance_uid: str,
    destination: str,
    report_sop_instance_uid: str,
    reason: VoidReason,
    at: float,
) -> None:
    connection.execute(
        database.insert_or_ignore(
            retractions,
            series_instance_uid=series_instance_uid,
            destination=destination,
            report_sop_instance_uid=report_sop_instance_uid,
            reason=reason,
            state=DeliveryState.WAITING,
            attempts=0,
            not_before=at,
            created_at=at,
        )
    )


def due(connection: sa.Connection, now: float) -> list[RetractionRow]:
    """Return the retractions to be sent now, oldest first."""
    where = (retractions.c.state == DeliveryState.WAITING, retractions.c.not_before <= now)
    return [_row(row) for row in connection.execute(sa.select(*_ROW).where(*where).order_by(retractions.c.id))]


def unfinished(connection: sa.Connection) -> list[RetractionRow]:
    """Return what still stands at a destination and must not, oldest first."""
    where = retractions.c.state.in_((DeliveryState.WAITING, *HELD))
    return [_row(row) for row in connection.execute(sa.select(*_ROW).where(where).order_by(retractions.c.id))]


def of_series(connection: sa.Connection, series_instance_uid: str) -> list[RetractionRow]:
    """Return the retractions of a series' reports, oldest first."""
    where = retractions.c.series_instance_uid == series_instance_uid
    return [_row(row) for row in connection.execute(sa.select(*_ROW).where(where).order_by(retractions.c.id))]


def update(connection: sa.Connection, retraction_id: int, **values: object) -> None:
    """Update columns of a retraction."""
    connection.execute(sa.update(retractions).where(retractions.c.id == retraction_id).values(**values))


def retry(connection: sa.Connection, series_instance_uids: tuple[str, ...], *, now: float) -> int:
    """Try again what was parked, of these series or of all; return how many."""
    statement = sa.update(retractions).where(retractions.c.state == DeliveryState.PARKED)
    if series_instance_uids:
        statement = statement.where(retractions.c.series_instance_uid.in_(series_instance_uids))
    again = {"state": DeliveryState.WAITING, "not_before": now, "created_at": now, "message": None}
    return int(connection.execute(statement.values(**again)).rowcount)


def last_instance_number(connection: sa.Connection, sr_series_instance_uid: str) -> int:
    """Return the highest Instance Number of reports and void reports in a series of reports; 0 for none."""
    numbers = [
        connection.execute(
            sa.select(sa.func.max(table.c.instance_number)).where(
                table.c.sr_series_instance_uid == sr_series_instance_uid
            )
        ).scalar_one_or_none()
        for table in (reports, retractions)
    ]
    return max(int(number or 0) for number in numbers)


def is_own(connection: sa.Connection, series_instance_uid: str) -> bool:
    """Return whether a series UID belongs to void reports or retraction notes of this node."""
    query = sa.select(sa.literal(1)).where(retractions.c.sr_series_instance_uid == series_instance_uid)
    return connection.execute(query.limit(1)).first() is not None
