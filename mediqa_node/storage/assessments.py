"""Harvested parameters and assessments."""

import dataclasses
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from mediqa_node.domain.assessment import Assessment, Calibration
from mediqa_node.domain.scoring import PatchMaps
from mediqa_node.domain.technique import Technique
from mediqa_node.image.maps.patches import packed, unpacked
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import (
    acquisitions,
    assessments,
    frame_techniques,
    instances,
    patch_maps,
    techniques,
)


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def save_technique(connection: sa.Connection, series_instance_uid: str, technique: Technique) -> None:
    """Replace the harvested parameters of a series: one row for the series, one per frame."""
    for table in (techniques, frame_techniques):
        connection.execute(sa.delete(table).where(table.c.series_instance_uid == series_instance_uid))
    value = technique.tube_charge_mas if technique.label_name == "mas" else technique.field_strength_t
    connection.execute(
        sa.insert(techniques).values(
            series_instance_uid=series_instance_uid,
            label_name=technique.label_name,
            label_value=value if technique.label_name else None,
            source=technique.source,
            eligible=technique.eligible,
            exclusions=[exclusion.code for exclusion in technique.exclusions],
            flags=list(technique.flags),
            technique=_adapter(Technique).dump_python(dataclasses.replace(technique, frames=()), mode="json"),
            harvested_at=time.time(),
        )
    )
    if technique.frames:
        rows = [
            {
                **{name: getattr(frame, name) for name in _FRAME_COLUMNS},
                "series_instance_uid": series_instance_uid,
                "candidates": dict(frame.candidates),
                "flags": list(frame.flags),
            }
            for frame in technique.frames
        ]
        connection.execute(sa.insert(frame_techniques), rows)


_FRAME_COLUMNS = (
    "sop_instance_uid",
    "frame_number",
    "z_mm",
    "tube_current_ma",
    "tube_charge_mas",
    "field_strength_t",
    "ctdi_vol_mgy",
    "source",
)


def load_technique(connection: sa.Connection, series_instance_uid: str) -> Technique | None:
    """Return the harvested parameters of a series, without its frames, or None."""
    stored = connection.execute(
        sa.select(techniques.c.technique).where(techniques.c.series_instance_uid == series_instance_uid)
    ).scalar_one_or_none()
    return _adapter(Technique).validate_python(stored) if stored is not None else None


def claim_acquisition(
    database: Database, connection: sa.Connection, acquisition_key: str, series_instance_uid: str
) -> str:
    """Return the series that is scored for an acquisition: this one if none was chosen before."""
    connection.execute(
        database.insert_or_ignore(
            acquisitions, acquisition_key=acquisition_key, series_instance_uid=series_instance_uid
        )
    )
    return str(
        connection.execute(
            sa.select(acquisitions.c.series_instance_uid).where(acquisitions.c.acquisition_key == acquisition_key)
        ).scalar_one()
    )


def scored_of_acquisition(connection: sa.Connection, acquisition_key: str) -> str | None:
    """Return the series that is scored for an acquisition, or None."""
    query = sa.select(acquisitions.c.series_instance_uid).where(acquisitions.c.acquisition_key == acquisition_key)
    return connection.execute(query).scalar_one_or_none()


def save_assessment(connection: sa.Connection, assessment: Assessment, *, generation: int) -> None:
    """Keep the assessment of a series at its revision."""
    slim = dataclasses.replace(
        assessment,
        technique=dataclasses.replace(assessment.technique, frames=()),
        primary=dataclasses.replace(assessment.primary, maps=None),
        others=tuple(dataclasses.replace(other, maps=None) for other in assessment.others),
    )
    connection.execute(
        sa.insert(assessments).values(
            series_instance_uid=assessment.series_instance_uid,
            revision=assessment.revision,
            generation=generation,
            quality=assessment.quality,
            verdict=assessment.verdict,
            weights_sha256=assessment.checkpoint.sha256,
            trained=assessment.checkpoint.trained,
            assessment=_adapter(Assessment).dump_python(slim, mode="json"),
            assessed_at=assessment.assessed_at.timestamp(),
        )
    )
    save_maps(connection, assessment)


def save_maps(connection: sa.Connection, assessment: Assessment) -> None:
    """Keep the patch maps of the primary stack, if there are any."""
    maps = assessment.primary.maps
    if maps is not None:
        where = {"series_instance_uid": assessment.series_instance_uid, "revision": assessment.revision}
        connection.execute(sa.insert(patch_maps).values(**where, npz=packed(maps)))


def load_maps(connection: sa.Connection, series_instance_uid: str, revision: int) -> PatchMaps | None:
    """Return the patch maps of a revision's primary stack, or None."""
    query = sa.select(patch_maps.c.npz).where(
        patch_maps.c.series_instance_uid == series_instance_uid, patch_maps.c.revision == revision
    )
    npz = connection.execute(query).scalar_one_or_none()
    return unpacked(npz) if npz is not None else None


def forget_maps(connection: sa.Connection) -> int:
    """Delete the patch maps of series whose images were deleted after retention; return how many."""
    of_series = sa.select(instances.c.id).where(instances.c.series_instance_uid == patch_maps.c.series_instance_uid)
    kept = of_series.where(instances.c.purged_at.is_(None)).exists()
    purged = of_series.where(instances.c.purged_at.is_not(None)).exists()
    return int(connection.execute(sa.delete(patch_maps).where(purged, ~kept)).rowcount)


def load_assessment(connection: sa.Connection, series_instance_uid: str, revision: int) -> Assessment | None:
    """Return the assessment of a series at a revision, or None."""
    stored = connection.execute(
        sa.select(assessments.c.assessment).where(
            assessments.c.series_instance_uid == series_instance_uid, assessments.c.revision == revision
        )
    ).scalar_one_or_none()
    return _adapter(Assessment).validate_python(stored) if stored is not None else None


def assessed_generation(connection: sa.Connection, series_instance_uid: str, revision: int) -> int | None:
    """Return the generation of the content that a revision assessed, or None."""
    return connection.execute(
        sa.select(assessments.c.generation).where(
            assessments.c.series_instance_uid == series_instance_uid, assessments.c.revision == revision
        )
    ).scalar_one_or_none()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The latest score of a series, and the calibration that its verdict rests on."""

    quality: float
    verdict: str
    trained: bool
    calibration: Calibration | None


def scored(connection: sa.Connection, series_instance_uids: Sequence[str]) -> dict[str, Scored]:
    """Return the latest score of each series that has one."""
    calibration = assessments.c.assessment["calibration"].label("calibration")
    columns = (assessments.c.quality, assessments.c.verdict, assessments.c.trained, calibration)
    query = (
        sa.select(assessments.c.series_instance_uid, *columns)
        .where(assessments.c.series_instance_uid.in_(list(series_instance_uids)))
        .order_by(assessments.c.revision)
    )
    return {
        row.series_instance_uid: Scored(
            quality=row.quality,
            verdict=row.verdict,
            trained=row.trained,
            calibration=Calibration(**row.calibration) if row.calibration else None,
        )
        for row in connection.execute(query)
    }
