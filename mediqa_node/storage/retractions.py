"""Reports that stand at a destination and must not: what takes each of them back, and whether it was taken."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.identity import EXACT, Identity, IdentityRules, differences
from mediqa_node.domain.retraction import VoidReason
from mediqa_node.domain.series import HELD, DeliveryState, parse_state
from mediqa_node.storage import outbox
from mediqa_node.storage.correction_tables import retractions
from mediqa_node.storage.database import Database
from mediqa_node.storage.outbox import ReportRow
from mediqa_node.storage.tables import reports


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
    database: Database,
    connection: sa.Connection,
    series_instance_uid: str,
    reason: VoidReason,
    *,
    at: float,
    at_destinations: Collection[str] | None = None,
) -> int:
    """Ask for the last report of a series at each destination that may hold one to be taken back; return how many.

    Args:
        at_destinations: only from these.
    """
    standing = outbox.standing(connection, series_instance_uid)
    wanted = standing if at_destinations is None else standing.keys() & at_destinations
    for destination in sorted(wanted):
        _add(database, connection, destination, standing[destination], reason, at)
    return len(wanted)


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
    for destination, report, reason in found:
        _add(database, connection, destination, report, reason, at)
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
    return any((destination, report.sop_instance_uid) not in known for destination, report, _ in found)


def _naming_others(
    connection: sa.Connection, series_instance_uid: str, identity: Identity | None, rules: IdentityRules
) -> list[tuple[str, ReportRow, VoidReason]]:
    """Return the last reports that name another, with their destinations, and why they are taken back."""
    from pydicom import dcmread  # late: most of what imports this module reads no DICOM

    from mediqa_node.dicom.identity import identity_of

    found = []
    for destination, report in sorted(outbox.standing(connection, series_instance_uid).items()):
        differing: tuple[str, ...] = ("patient ID",)
        if identity is not None:
            differing = differences(identity_of(dcmread(BytesIO(report.part10))), identity, rules)
        if differing:
            visit = set(differing) <= {"accession number", "sex"}
            found.append((destination, report, VoidReason.WITHDRAWN if visit else VoidReason.WRONG_PATIENT))
    return found


def _add(
    database: Database,
    connection: sa.Connection,
    destination: str,
    report: ReportRow,
    reason: VoidReason,
    at: float,
) -> None:
    """Ask for a report to be taken back.

    The Instance Number of a void report is kept free, so that a later revision in the same series stays the last.
    """
    asked: dict[str, object] = {
        "reason": reason,
        "state": DeliveryState.WAITING,
        "attempts": 0,
        "not_before": at,
        "created_at": at,
        "sr_series_instance_uid": report.sr_series_instance_uid,
        "instance_number": _void_number(connection, report, reason),
    }
    where = {"destination": destination, "report_sop_instance_uid": report.sop_instance_uid}
    _ask_again(connection, destination, report, reason, asked)
    new = database.insert_or_ignore(retractions, series_instance_uid=report.series_instance_uid, **where, **asked)
    connection.execute(new)


def add_note(
    database: Database, connection: sa.Connection, voided: RetractionRow, sop_instance_uid: str, *, message: str
) -> None:
    """Ask for the companions of a report that is void to be taken back by a note, unless that was done before.

    Args:
        sop_instance_uid: of the last of them, which stands for all.
    """
    connection.execute(
        database.insert_or_ignore(
            retractions,
            series_instance_uid=voided.series_instance_uid,
            destination=voided.destination,
            report_sop_instance_uid=sop_instance_uid,
            reason=voided.reason,
            state=DeliveryState.WAITING,
            message=message,
            attempts=0,
            not_before=voided.not_before,
            created_at=voided.created_at,
        )
    )


def _ask_again(
    connection: sa.Connection, destination: str, report: ReportRow, reason: VoidReason, asked: Mapping[str, object]
) -> None:
    """Have a report taken back once more if it is void for less: quality, and now it is another patient's."""
    lesser = [other for other in VoidReason if reason.outweighs(other)]
    statement = sa.update(retractions).where(
        retractions.c.report_sop_instance_uid == report.sop_instance_uid,
        retractions.c.destination == destination,
        retractions.c.reason.in_(lesser),
    )
    forgotten = dict.fromkeys(("message", "status", "done_at", "sop_instance_uid", "part10"))
    connection.execute(statement.values(**asked, **forgotten))


def _void_number(connection: sa.Connection, report: ReportRow, reason: VoidReason) -> int:
    """Return the Instance Number of the void report that takes a report back: the same for every destination."""
    query = sa.select(retractions.c.instance_number).where(
        retractions.c.report_sop_instance_uid == report.sop_instance_uid,
        retractions.c.sr_series_instance_uid == report.sr_series_instance_uid,
        retractions.c.reason == reason,
    )
    known = connection.execute(query.limit(1)).scalar_one_or_none()
    return int(known or last_instance_number(connection, report.sr_series_instance_uid) + 1)


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


def parked_of(connection: sa.Connection, series_instance_uid: str) -> list[RetractionRow]:
    """Return the retractions of a series' reports that are not tried any more, oldest first."""
    return [row for row in of_series(connection, series_instance_uid) if row.state in HELD]


def removed_by_hand(connection: sa.Connection, rows: Sequence[RetractionRow], *, by: str, at: float) -> None:
    """Note that somebody has removed these reports where they stood: nothing has to be sent for them any more."""
    for row in rows:
        update(connection, row.id, state=DeliveryState.SENT, message=f"removed by hand, says {by}", done_at=at)


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
