"""The series that a self-check may compare, and its results as recorded."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from mediqa_node.domain.images import Stack
from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.range_position import OUTSIDE_RANGE
from mediqa_node.domain.self_check import Figures, PairKind, SelfCheck
from mediqa_node.domain.series import InstanceStatus, ReasonCode, SeriesState
from mediqa_node.domain.technique import Technique
from mediqa_node.storage.correction_tables import retractions
from mediqa_node.storage.tables import (
    OPEN_COPIES,
    assessments,
    instances,
    metadata,
    rejected_instances,
    series,
    techniques,
)

self_checks = sa.Table(
    "self_checks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("checked_at", sa.Float, nullable=False),
    sa.Column("software_version", sa.String(32), nullable=False),
    sa.Column("checkpoint_name", sa.String(128), nullable=False),
    sa.Column("weights_sha256", sa.String(64), nullable=False),
    sa.Column("card_sha256", sa.String(64), nullable=False),
    sa.Column("figures", sa.JSON, nullable=False, comment="domain.self_check.Figures, counts only"),
)

_ENDED_WELL = (SeriesState.ASSESSED, SeriesState.DELIVERED, SeriesState.CONFIRMED)
_IN_DOUBT = (ReasonCode.IDENTITY, ReasonCode.NO_PATIENT_ID, ReasonCode.REJECTED, ReasonCode.CORRECTED_COPY)
_COUNTS = ("n", "n_expected", "n_ties")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparable:
    """A series with a score of the active checkpoint."""

    series_instance_uid: str
    study_instance_uid: str
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredStack:
    """The primary stack of a scored series.

    Attributes:
        path: of the instance with its first image, relative to the spool; None if it is no longer kept.
    """

    stack: Stack
    n_stacks: int
    path: str | None


# ── what may be compared ─────────────────────────────────────────────────────


def studies(connection: sa.Connection, weights: Weights, *, since: float = 0.0) -> list[str]:
    """Return the studies in which two series or more are scored with these weights, in order of UID.

    The card of each is left to `comparable`, which opens far fewer assessments.

    A study is left out as a whole if the identity of its patient is in doubt, images of it were rejected, or a report
    was taken back.

    Args:
        since: series whose last image was received at or after this, seconds since 1970.
    """
    several = (
        sa.select(series.c.study_instance_uid)
        .join(assessments, _latest())
        .where(*_scored(weights, since))
        .group_by(series.c.study_instance_uid)
        .having(sa.func.count() > 1)
    )
    found = set(connection.execute(several).scalars())
    return sorted(found - _studies_in_doubt(connection))


def comparable(
    connection: sa.Connection, study_instance_uids: Sequence[str], weights: Weights, *, since: float = 0.0
) -> list[Comparable]:
    """Return the series of these studies that may be compared, by study and UID.

    Each has the score of its latest revision, by this checkpoint, and its images are those that were scored.
    """
    columns = (series.c.series_instance_uid, series.c.study_instance_uid, assessments.c.quality)
    card = assessments.c.assessment[("checkpoint", "card_sha256")].as_string()
    query = (
        sa.select(*columns)
        .join(assessments, _latest())
        .where(
            series.c.study_instance_uid.in_(list(study_instance_uids)),
            *_scored(weights, since),
            card == weights.card_sha256,
        )
    )
    rows = connection.execute(query.order_by(series.c.study_instance_uid, series.c.series_instance_uid))
    return [Comparable(**row._mapping) for row in rows]


def _latest() -> sa.ColumnElement[bool]:
    return sa.and_(
        assessments.c.series_instance_uid == series.c.series_instance_uid,
        assessments.c.revision == series.c.revision,
        assessments.c.generation == series.c.generation,
    )


def _scored(weights: Weights, since: float) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        assessments.c.trained,
        assessments.c.weights_sha256 == weights.sha256,
        assessments.c.verdict != OUTSIDE_RANGE,
        series.c.state.in_(_ENDED_WELL),
        series.c.last_instance_at >= since,
    )


def _studies_in_doubt(connection: sa.Connection) -> set[str]:
    """Return the studies whose patient is in doubt, with rejected images, or with a report that was taken back."""
    withheld = sa.and_(series.c.state == SeriesState.WITHHELD, series.c.reason_code == ReasonCode.DELIVERY)
    study = series.c.study_instance_uid
    back = sa.select(study).join(retractions, retractions.c.series_instance_uid == series.c.series_instance_uid)
    named = instances.c.sop_instance_uid.in_(sa.select(rejected_instances.c.sop_instance_uid))
    copies = sa.select(instances.c.study_instance_uid)
    queries = (
        sa.select(study).where(sa.or_(series.c.reason_code.in_(_IN_DOUBT), withheld)),
        back,
        copies.where(named, instances.c.status == InstanceStatus.REJECTED),
        copies.where(sa.text(OPEN_COPIES)),
        copies.where(instances.c.status == InstanceStatus.CANDIDATE),
    )
    return {uid for query in queries for uid in connection.execute(query.distinct()).scalars()}


def techniques_of(
    connection: sa.Connection, study_instance_uids: Sequence[str]
) -> dict[str, list[tuple[str, Technique]]]:
    """Return UID and harvested parameters, without frames, of every series of these studies, by study."""
    query = (
        sa.select(series.c.study_instance_uid, series.c.series_instance_uid, techniques.c.technique)
        .join(techniques, techniques.c.series_instance_uid == series.c.series_instance_uid)
        .where(series.c.study_instance_uid.in_(list(study_instance_uids)))
    )
    found: dict[str, list[tuple[str, Technique]]] = {}
    for row in connection.execute(query):
        technique = _adapter(Technique).validate_python(row.technique)
        found.setdefault(row.study_instance_uid, []).append((row.series_instance_uid, technique))
    return found


def scored_stacks(connection: sa.Connection, series_instance_uids: Sequence[str]) -> dict[str, ScoredStack]:
    """Return the primary stack of the latest assessment of each series, and where its first image is kept."""
    stack = assessments.c.assessment[("primary", "stack")].label("stack")
    n_stacks = assessments.c.assessment["n_stacks"].label("n_stacks")
    query = (
        sa.select(series.c.series_instance_uid, stack, n_stacks)
        .join(assessments, _latest())
        .where(series.c.series_instance_uid.in_(list(series_instance_uids)))
    )
    rows = {
        row.series_instance_uid: (_adapter(Stack).validate_python(row.stack), int(row.n_stacks))
        for row in connection.execute(query)
    }
    first = [found.frames[0].sop_instance_uid for found, _ in rows.values()]
    kept = sa.select(instances.c.sop_instance_uid, instances.c.path).where(
        instances.c.sop_instance_uid.in_(first),
        instances.c.status == InstanceStatus.CURRENT,
        instances.c.purged_at.is_(None),
    )
    paths = {row.sop_instance_uid: row.path for row in connection.execute(kept)}
    return {
        uid: ScoredStack(stack=found, n_stacks=n, path=paths.get(found.frames[0].sop_instance_uid))
        for uid, (found, n) in rows.items()
    }


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


# ── results ──────────────────────────────────────────────────────────────────


def save(connection: sa.Connection, check: SelfCheck) -> None:
    """Record a check in place of the one before."""
    connection.execute(sa.delete(self_checks))
    connection.execute(
        sa.insert(self_checks).values(
            checked_at=check.checked_at,
            software_version=check.software_version,
            checkpoint_name=check.weights.name,
            weights_sha256=check.weights.sha256,
            card_sha256=check.weights.card_sha256,
            figures=[dataclasses.asdict(one) for one in check.figures],
        )
    )


def last(connection: sa.Connection) -> SelfCheck | None:
    """Return the last check, or None; kinds of pairs that this version does not know are left out."""
    row = connection.execute(sa.select(self_checks).order_by(self_checks.c.id.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    known = [one for one in row.figures if one["kind"] in set(PairKind)]
    return SelfCheck(
        checked_at=row.checked_at,
        software_version=row.software_version,
        weights=Weights(name=row.checkpoint_name, sha256=row.weights_sha256, card_sha256=row.card_sha256),
        figures=tuple(Figures(kind=PairKind(one["kind"]), **{name: one[name] for name in _COUNTS}) for one in known),
    )
