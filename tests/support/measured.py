"""Measured stacks as values, without pixels."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.images import FrameRef
from mediqa_node.domain.measures import Limit, Measure, MeasuredStack
from mediqa_node.domain.quantities import CT_DW, CT_FIGURE_OF_MERIT, CT_NOISE, CT_SHARPNESS, CT_SSDE
from mediqa_node.domain.series import SeriesState
from mediqa_node.storage.database import Connection
from mediqa_node.storage.tables import series
from support.factories import CT_IMAGE, SERIES_UID, STUDY_UID


def frame(index: int) -> FrameRef:
    """Return a slice of the series of `factories.ct_volume`."""
    return FrameRef(
        sop_class_uid=CT_IMAGE, sop_instance_uid=f"{SERIES_UID}.{index}", frame_number=None, instance_index=index - 1
    )


def measures(noise_hu: float = 12.0, dw_mm: float = 290.0) -> tuple[Measure, ...]:
    """Return a valid noise and size, a limited sharpness and a dose that is not measurable."""
    return (
        CT_NOISE.measured(noise_hu, n=16, uncertainty=0.4, spread=2.1),
        CT_DW.measured(dw_mm, n=20, uncertainty=1.5, spread=20.0),
        CT_SSDE.not_measurable(Limit.PHANTOM_UNKNOWN),
        CT_SHARPNESS.measured(0.5, n=16, uncertainty=0.02, spread=0.1, limit=Limit.CENSORED, detail="Nyquist 0.5 / mm"),
        CT_FIGURE_OF_MERIT.measured(0.0002, n=1),
    )


def measured_stack(**changes: Any) -> MeasuredStack:
    """Return the measures of the series of `factories.ct_volume`; `changes` by field name."""
    plain = MeasuredStack(
        series_instance_uid=SERIES_UID,
        study_instance_uid=STUDY_UID,
        modality="CT",
        scanner="CT_ROOM_3",
        protocol="Chest routine",
        stack="all images",
        size_class="Dw 280-320 mm",
        measures=measures(),
        frames=tuple(frame(index) for index in (2, 5, 8)),
        body_part="body",
        kernel="B31f",
        recon_class="fbp",
        thickness_mm=5.0,
        ctdi_vol_mgy=8.5,
        ctdi_phantom_cm=32.0,
        acquired="2026-11-20 10:15:00",
    )
    return replace(plain, **changes)


def index_series(
    connection: Connection, measured: MeasuredStack, *, generation: int = 1, reason_code: str | None = None
) -> None:
    """Enter the series of measures into the index, or move it to another generation of its content."""
    here = series.c.series_instance_uid == measured.series_instance_uid
    connection.execute(sa.delete(series).where(here))
    connection.execute(
        sa.insert(series).values(
            series_instance_uid=measured.series_instance_uid,
            study_instance_uid=measured.study_instance_uid,
            modality=measured.modality,
            state=SeriesState.ASSESSED,
            reason_code=reason_code,
            calling_ae_title="CT",
            association_id="a",
            n_associations=1,
            longest_gap_s=0.0,
            opened_at=0.0,
            last_instance_at=0.0,
            n_instances=1,
            generation=generation,
            revision=1,
            state_at=0.0,
        )
    )
