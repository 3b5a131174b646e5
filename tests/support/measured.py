"""Measured stacks as values, without pixels."""

from dataclasses import replace
from typing import Any

from mediqa_node.domain.images import FrameRef
from mediqa_node.domain.measures import Limit, Measure, MeasuredStack
from mediqa_node.domain.quantities import CT_DW, CT_FIGURE_OF_MERIT, CT_NOISE, CT_SHARPNESS, CT_SSDE
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
