"""The site's calibrations: made, approved by another person, replaced or withdrawn; none is ever deleted."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.assessment import Calibration
from mediqa_node.storage.database import take_table
from mediqa_node.storage.reading_tables import calibrations

CONFIGURATION, STUDY = "configuration", "study"
_ACTIVE = sa.and_(calibrations.c.approved_at.is_not(None), calibrations.c.withdrawn_at.is_(None))
_OF_CALIBRATION = tuple(Calibration.__dataclass_fields__)
_SCOPE = ("modality", "station_name", "protocol_name", "weights_sha256", "card_sha256", "fingerprint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A calibration with its history. `calibration.approved_by` is "" until somebody approved it.

    Attributes:
        basis: points and fit behind the thresholds; {} for one of the configuration.
    """

    number: int
    calibration: Calibration
    source: str
    study_id: int | None
    basis: Mapping[str, Any]
    made_at: float
    made_by: str
    approved_at: float | None
    approved_role: str
    withdrawn_at: float | None
    withdrawn_by: str | None
    withdrawn_why: str

    @property
    def is_active(self) -> bool:
        """Whether verdicts may rest on it."""
        return self.approved_at is not None and self.withdrawn_at is None

    @property
    def waits(self) -> bool:
        """Whether somebody has to approve it."""
        return self.approved_at is None and self.withdrawn_at is None


def _record(row: sa.Row[*tuple[Any, ...]]) -> Record:
    values = {name: getattr(row, name) for name in _OF_CALIBRATION} | {"approved_by": row.approved_by or ""}
    own = [name for name in Record.__dataclass_fields__ if name != "calibration"]
    return Record(calibration=Calibration(**values), **{name: getattr(row, name) for name in own})


def every(connection: sa.Connection) -> list[Record]:
    """Return all calibrations, the newest first."""
    return [_record(row) for row in connection.execute(sa.select(calibrations).order_by(calibrations.c.number.desc()))]


def find(connection: sa.Connection, number: int) -> Record | None:
    """Return a calibration by its number in addresses, or None."""
    row = connection.execute(sa.select(calibrations).where(calibrations.c.number == number)).one_or_none()
    return _record(row) if row is not None else None


def active(connection: sa.Connection) -> tuple[Calibration, ...]:
    """Return the calibrations that verdicts may rest on: approved, and not withdrawn."""
    query = sa.select(calibrations).where(_ACTIVE).order_by(calibrations.c.number)
    return tuple(_record(row).calibration for row in connection.execute(query))


def are_kept(connection: sa.Connection) -> bool:
    """Return whether this database has calibrations: one of an earlier version has no such table yet."""
    return bool(sa.inspect(connection).has_table(calibrations.name))


def add(
    connection: sa.Connection, *, by: str, at: float, study_id: int, basis: Mapping[str, Any], **values: Any
) -> int:
    """Keep a calibration that waits for its approval; return its number."""
    take_table(connection, calibrations)
    known = set(connection.execute(sa.select(calibrations.c.id)).scalars())
    name = next(f"cal-{n}" for n in range(1, len(known) + 2) if f"cal-{n}" not in known)
    values |= {"id": name, "study_id": study_id, "basis": dict(basis), "made_at": at, "made_by": by, "source": STUDY}
    values |= {"approved_role": "", "approved_on": "", "withdrawn_why": ""}
    made = connection.execute(sa.insert(calibrations).values(**values).returning(calibrations.c.number))
    return int(made.scalar_one())


def approve(connection: sa.Connection, record: Record, *, by: str, role: str, at: float) -> bool:
    """Let verdicts rest on a calibration from now on, in place of an earlier one of the same scope and checkpoint.

    Returns:
        False if it was approved or withdrawn meanwhile.
    """
    take_table(connection, calibrations)
    own = calibrations.c.number == record.number
    waits = sa.and_(own, calibrations.c.approved_at.is_(None), calibrations.c.withdrawn_at.is_(None))
    today = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
    values = {"approved_at": at, "approved_by": by, "approved_role": role, "approved_on": today}
    if not connection.execute(sa.update(calibrations).where(waits).values(**values)).rowcount:
        return False
    same = [calibrations.c[name] == getattr(record.calibration, name) for name in _SCOPE]
    replaced = sa.update(calibrations).where(*same, ~own, _ACTIVE)
    why = f"replaced by {record.calibration.id}"
    connection.execute(replaced.values(withdrawn_at=at, withdrawn_by=by, withdrawn_why=why))
    return True


def withdraw(connection: sa.Connection, number: int, *, by: str, at: float, why: str) -> bool:
    """Let no more verdicts rest on a calibration; return whether it stood until now."""
    here = sa.and_(calibrations.c.number == number, calibrations.c.withdrawn_at.is_(None))
    values = {"withdrawn_at": at, "withdrawn_by": by, "withdrawn_why": why[:200]}
    return bool(connection.execute(sa.update(calibrations).where(here).values(**values)).rowcount)


def import_once(
    connection: sa.Connection, configured: Iterable[Calibration], *, at: float
) -> tuple[list[str], list[str]]:
    """Take calibrations of the configuration over, each id once, approved by whom the configuration names.

    Returns:
        ids that were taken over, and ids that the database had before, which keep what it has.
    """
    take_table(connection, calibrations)
    known = set(connection.execute(sa.select(calibrations.c.id)).scalars())
    new, kept = [], []
    for one in configured:
        if one.id in known:
            kept.append(one.id)
            continue
        values = asdict(one) | {"source": CONFIGURATION, "basis": {}, "withdrawn_why": "", "approved_role": ""}
        approved_at = _day(one.approved_on, at)
        values |= {"made_at": at, "made_by": one.approved_by, "approved_at": approved_at}
        connection.execute(sa.insert(calibrations).values(**values))
        known.add(one.id)
        new.append(one.id)
    return new, kept


def _day(written: str, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(written).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return otherwise
