"""Harvested labels as the pages show them: counts, values and exclusions, from the entries of the worklist."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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
    """A series that an export would look at, and whose it is."""

    modality: str
    scanner: str
    patient_id: str
    issuer: str
    study: str


def exportable(
    connection: sa.Connection, *, modalities: Sequence[str], scanners: Sequence[str], eligible: bool
) -> list[Exportable]:
    """Return the series that an export of these would look at.

    Args:
        scanners: patterns with `*` and `?`, for station, model or calling AE title; empty: all.
    """
    first = (
        sa.select(sa.func.min(instances.c.id).label("id"))
        .where(instances.c.status == InstanceStatus.CURRENT, instances.c.purged_at.is_(None))
        .group_by(instances.c.series_instance_uid)
        .subquery()
    )
    query = (
        sa.select(worklist.c.modality, worklist.c.scanner, worklist.c.study_instance_uid, instances.c.identity)
        .join(instances, instances.c.series_instance_uid == worklist.c.series_instance_uid)
        .join(first, first.c.id == instances.c.id)
        .where(worklist.c.state.not_in((SeriesState.RECEIVING, SeriesState.READY)))
    )
    query = query.where(worklist.c.eligible if eligible else worklist.c.score.is_not(None))
    if modalities:
        query = query.where(worklist.c.modality.in_(modalities))
    if scanners:
        query = query.where(sa.or_(*(_like(pattern) for pattern in scanners)))
    return [
        Exportable(
            modality=row.modality,
            scanner=row.scanner,
            patient_id=(row.identity or {}).get("patient_id", ""),
            issuer=(row.identity or {}).get("issuer", ""),
            study=row.study_instance_uid,
        )
        for row in connection.execute(query)
    ]


def _like(pattern: str) -> sa.ColumnElement[bool]:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%").replace("?", "_")
    return sa.or_(*(worklist.c[name].ilike(escaped, escape="\\") for name in ("scanner", "model", "sender")))
