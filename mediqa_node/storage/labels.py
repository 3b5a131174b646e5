"""Harvested labels as the pages show them: counts, values and exclusions, from the entries of the worklist."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import sqlalchemy as sa

from mediqa_node.domain.series import InstanceStatus, SeriesState
from mediqa_node.domain.worklist import Entry
from mediqa_node.storage import worklist as entries
from mediqa_node.storage.tables import instances
from mediqa_node.storage.workbench_tables import worklist


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFilter:
    """Which labels are shown; empty: all.

    Attributes:
        state: `eligible`, `excluded`, or "" for both.
        reason: a code of exclusion.
    """

    modality: str = ""
    scanner: str = ""
    state: str = ""
    reason: str = ""


def _conditions(wanted: LabelFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if wanted.modality:
        found.append(worklist.c.modality == wanted.modality)
    if wanted.scanner:
        found.append(worklist.c.scanner == wanted.scanner)
    if wanted.state:
        found.append(worklist.c.eligible.is_(wanted.state == "eligible"))
    if wanted.reason:
        padded = sa.literal(" ") + worklist.c.exclusions + sa.literal(" ")
        found.append(padded.contains(f" {wanted.reason} ", autoescape=True))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """How many series of a modality and scanner have a label, and how many of these are fit for training."""

    modality: str
    scanner: str
    n: int
    n_eligible: int
    low: float | None
    high: float | None


def groups(connection: sa.Connection, wanted: LabelFilter) -> list[Group]:
    """Return the counts by modality and scanner, with the range of the eligible values."""
    eligible = worklist.c.eligible
    value = sa.case((eligible, worklist.c.recorded))
    query = (
        sa.select(
            worklist.c.modality,
            worklist.c.scanner,
            sa.func.count().label("n"),
            sa.func.count().filter(eligible).label("n_eligible"),
            sa.func.min(value).label("low"),
            sa.func.max(value).label("high"),
        )
        .where(*_conditions(wanted))
        .group_by(worklist.c.modality, worklist.c.scanner)
        .order_by(worklist.c.modality, worklist.c.scanner)
    )
    return [Group(**row._mapping) for row in connection.execute(query)]


def reasons(connection: sa.Connection, wanted: LabelFilter) -> list[tuple[str, int]]:
    """Return each code of exclusion with the number of series, the most frequent first."""
    query = (
        sa.select(worklist.c.exclusions, sa.func.count().label("n"))
        .where(*_conditions(wanted), worklist.c.eligible.is_(False), worklist.c.exclusions != "")
        .group_by(worklist.c.exclusions)
    )
    found: Counter[str] = Counter()
    for row in connection.execute(query):
        for code in row.exclusions.split():
            found[code] += row.n
    return found.most_common()


def values(connection: sa.Connection, wanted: LabelFilter, modality: str) -> list[float]:
    """Return the eligible label values of a modality, in order."""
    query = sa.select(worklist.c.recorded).where(
        *_conditions(wanted), worklist.c.modality == modality, worklist.c.eligible, worklist.c.recorded.is_not(None)
    )
    return sorted(connection.execute(query).scalars())


def page(connection: sa.Connection, wanted: LabelFilter, *, at_most: int, before: int | None = None) -> list[Entry]:
    """Return the entries behind the counts, the newest first."""
    query = sa.select(worklist).where(*_conditions(wanted)).order_by(worklist.c.id.desc()).limit(at_most)
    if before is not None:
        query = query.where(worklist.c.id < before)
    return [entries.entry_of(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exportable:
    """A series that an export would look at, and whose it is.

    Attributes:
        names: of the scanner: station, calling AE title, and model with and without its maker.
        day: of the acquisition, else of the reception in UTC.
    """

    modality: str
    scanner: str
    names: tuple[str, ...]
    day: date
    patient_id: str
    issuer: str
    study: str


def exportable(connection: sa.Connection, *, modalities: Sequence[str], eligible: bool) -> list[Exportable]:
    """Return the series that an export of these would look at."""
    first = (
        sa.select(sa.func.min(instances.c.id).label("id"))
        .where(instances.c.status == InstanceStatus.CURRENT, instances.c.purged_at.is_(None))
        .group_by(instances.c.series_instance_uid)
        .subquery()
    )
    query = (
        sa.select(
            *(worklist.c[name] for name in ("modality", "scanner", "model", "sender", "acquired", "received_at")),
            worklist.c.study_instance_uid,
            instances.c.identity,
        )
        .join(instances, instances.c.series_instance_uid == worklist.c.series_instance_uid)
        .join(first, first.c.id == instances.c.id)
        .where(worklist.c.state.not_in((SeriesState.RECEIVING, SeriesState.READY)))
    )
    query = query.where(worklist.c.eligible if eligible else worklist.c.score.is_not(None))
    if modalities:
        query = query.where(worklist.c.modality.in_(modalities))
    return [
        Exportable(
            modality=row.modality,
            scanner=row.scanner,
            names=(row.scanner, row.sender, *_from_each_word(row.model)),
            day=_day(row.acquired) or datetime.fromtimestamp(row.received_at, UTC).date(),
            patient_id=(row.identity or {}).get("patient_id", ""),
            issuer=(row.identity or {}).get("issuer", ""),
            study=row.study_instance_uid,
        )
        for row in connection.execute(query)
    ]


def _from_each_word(model: str) -> list[str]:
    """Return maker and model, and the same without the first words: the maker may have several.

    >>> _from_each_word("GE MEDICAL SYSTEMS Discovery")[-1]
    'Discovery'
    """
    words = model.split(" ")
    return [" ".join(words[at:]) for at in range(len(words))]


def _day(acquired: str) -> date | None:
    try:
        return date.fromisoformat(acquired[:10])
    except ValueError:
        return None
