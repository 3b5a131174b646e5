"""What has been found out about one series, gathered for the worklist and its page."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.baseline import Group, StandsOut, Usual, usual_of, what_stands_out
from mediqa_node.domain.measures import MeasuredStack
from mediqa_node.domain.series import ReasonCode, SeriesState
from mediqa_node.domain.technique import Technique
from mediqa_node.storage import assessments, baselines, measures
from mediqa_node.storage.index import SeriesRow
from mediqa_node.storage.tables import assessments as assessments_table
from mediqa_node.storage.tables import frame_techniques, techniques
from mediqa_node.storage.workbench_tables import worklist

_HAVE_A_SCORE = (
    SeriesState.RECEIVING,
    SeriesState.READY,
    SeriesState.ASSESSED,
    SeriesState.DELIVERED,
    SeriesState.CONFIRMED,
    SeriesState.WITHHELD,
)
_EARLIER = 40
_FRAMES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is known of a series.

    Attributes:
        assessment: the last one, as long as it says something about the series as it is; else None.
        usual: usual values of its measures by name.
    """

    assessment: Assessment | None
    technique: Technique | None
    measured: MeasuredStack | None
    usual: Mapping[str, Usual]
    stands_out: tuple[StandsOut, ...]


def of_series(connection: sa.Connection, row: SeriesRow) -> Findings:
    """Return what is known of a series."""
    measured = measures.load(connection, row.series_instance_uid, row.generation)
    usual = usual_of(measured, baselines.active_usual(connection, Group.of(measured))) if measured else {}
    return Findings(
        assessment=_assessment(connection, row),
        technique=assessments.load_technique(connection, row.series_instance_uid),
        measured=measured,
        usual=usual,
        stands_out=what_stands_out(measured.measures, usual) if measured else (),
    )


def _assessment(connection: sa.Connection, row: SeriesRow) -> Assessment | None:
    by_delivery = row.reason is not None and row.reason.code is ReasonCode.DELIVERY
    if not row.revision or not (row.state in _HAVE_A_SCORE or (row.state is SeriesState.PARKED and by_delivery)):
        return None
    return assessments.load_assessment(connection, row.series_instance_uid, row.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One assessment of a series."""

    revision: int
    quality: float
    verdict: str
    weights_sha256: str
    assessed_at: float


def revisions(connection: sa.Connection, series_instance_uid: str) -> list[Revision]:
    """Return the assessments of a series, oldest first."""
    columns = [assessments_table.c[name] for name in Revision.__dataclass_fields__]
    query = sa.select(*columns).where(assessments_table.c.series_instance_uid == series_instance_uid)
    rows = connection.execute(query.order_by(assessments_table.c.revision))
    return [Revision(**row._mapping) for row in rows]


def covariates(technique: Technique) -> dict[str, object]:
    """Return what is known of an acquisition, the labels among it."""
    labels = {"mas": technique.tube_charge_mas, "tesla": technique.field_strength_t}
    return {**technique.covariates, **{name: value for name, value in labels.items() if value is not None}}


def earlier_covariates(
    connection: sa.Connection, *, scanner: str, protocol: str, modality: str, before: int
) -> list[dict[str, object]]:
    """Return the covariates of the series of a scanner and protocol before an entry of the worklist, the last first."""
    query = (
        sa.select(techniques.c.technique)
        .join(worklist, worklist.c.series_instance_uid == techniques.c.series_instance_uid)
        .where(
            worklist.c.scanner == scanner,
            worklist.c.protocol == protocol,
            worklist.c.modality == modality,
            worklist.c.id < before,
        )
        .order_by(worklist.c.id.desc())
        .limit(_EARLIER)
    )
    found = []
    for stored in connection.execute(query).scalars():
        labels = {"mas": stored.get("tube_charge_mas"), "tesla": stored.get("field_strength_t")}
        found.append({**stored.get("covariates", {}), **labels})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A header value from which a label could have been taken, over the frames of a series."""

    name: str
    values: str


def candidates(connection: sa.Connection, series_instance_uid: str) -> list[Candidate]:
    """Return every header value that was found for the label of a series, before any rule."""
    query = (
        sa.select(frame_techniques.c.candidates)
        .where(frame_techniques.c.series_instance_uid == series_instance_uid)
        .order_by(frame_techniques.c.id)
        .limit(_FRAMES)
    )
    found: dict[str, list[Any]] = {}
    for stored in connection.execute(query).scalars():
        for name, value in stored.items():
            found.setdefault(name, []).append(value)
    return [Candidate(name=name, values=_span(values)) for name, values in sorted(found.items())]


def _span(values: list[Any]) -> str:
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        low, high = min(numbers), max(numbers)
        return f"{low:.6g}" if low == high else f"{low:.6g}–{high:.6g}"
    return ", ".join(sorted({str(value) for value in values})[:4])
