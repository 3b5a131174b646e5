"""Flatten the headers of a series into planes: one record per image or frame, of classic and enhanced objects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from mediqa_node.dicom.header import MAX_FRAMES, FrameHeader, integer, text
from mediqa_node.dicom.image_types import fine_frames
from mediqa_node.dicom.modality import modality_of
from mediqa_node.dicom.stacks.geometry import slice_normal
from mediqa_node.dicom.technique.diffusion import b_value
from mediqa_node.domain.errors import InconsistentGeometry
from mediqa_node.domain.images import FrameRef

_GE_COMPONENT = ("M", "P", "R", "I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One image plane with all attributes that decide its stack.

    Attributes:
        orientation: Image Orientation (0020,0037), checked, or None.
        origin_mm: Image Position (0020,0032), LPS, or None. Both are given or neither.
        spacing_mm: Pixel Spacing (0028,0030): between rows, between columns; 0.0 if absent.
        dimensions: Dimension Index Values (0020,9157) of an enhanced object.
        tilt_deg: Gantry/Detector Tilt (0018,1120).
        seniority: acquisition time, acquisition number, instance number, frame: orders planes at the same position,
            earliest first.
    """

    ref: FrameRef
    rows: int
    columns: int
    orientation: tuple[float, ...] | None
    origin_mm: tuple[float, ...] | None
    spacing_mm: tuple[float, float]
    echo_time_ms: float | None
    echo_number: int | None
    temporal_position: int | None
    b_value: float | None
    acquisition_number: int | None
    image_type: tuple[str, ...]
    cardiac_phase_percent: float | None = None
    trigger_time_ms: float | None = None
    inversion_time_ms: float | None = None
    tube_voltage_kv: float | None = None
    kernel: str = ""
    station: str = ""
    thickness_mm: float | None = None
    stack_id: str = ""
    in_stack_position: int | None = None
    slice_location_mm: float | None = None
    time_offset_s: float | None = None
    flip_angle_deg: float | None = None
    repetition_time_ms: float | None = None
    dimensions: tuple[float, ...] = ()
    frame_of_reference: str = ""
    tilt_deg: float
    seniority: tuple[str, int, int, int]


Parts = list[tuple[Any, list[Plane]]]
"""The parts that a rule splits planes into: the distinguishing value and the planes of each."""


def planes(headers: Sequence[Dataset]) -> list[Plane]:
    """Return the planes of a series, in an order that does not depend on the order of `headers`.

    Frames of an enhanced object that are no slices, such as localizers or projections, are none (`fine_frames`).
    """
    return in_order(plane for index, header in enumerate(headers) for plane in planes_of(header, index))


def planes_of(header: Dataset, index: int) -> list[Plane]:
    """Return the planes of one header, which is that of an index in its series."""
    return [_plane(frame, index) for frame in fine_frames(header)]


def in_order(found: Iterable[Plane]) -> list[Plane]:
    """Return planes of all headers of a series in an order that does not depend on the order of headers."""
    return sorted(found, key=lambda plane: (plane.ref.sop_instance_uid, plane.ref.frame_number or 0, plane.seniority))


def _plane(frame: FrameHeader, index: int) -> Plane:
    header = frame.dataset
    orientation, origin = geometry(frame)
    spacing = frame.exact_or_none("PixelSpacing", 2)
    return Plane(
        ref=FrameRef(
            sop_class_uid=text(header, "SOPClassUID"),
            sop_instance_uid=text(header, "SOPInstanceUID"),
            frame_number=frame.frame_number,
            instance_index=index,
        ),
        rows=integer(header, "Rows") or 0,
        columns=integer(header, "Columns") or 0,
        orientation=orientation,
        origin_mm=origin,
        spacing_mm=(spacing[0], spacing[1]) if spacing else (0.0, 0.0),
        echo_time_ms=_echo_time_ms(frame),
        echo_number=frame.integer("EchoNumbers"),
        temporal_position=_first_integer(frame, "TemporalPositionIndex", "TemporalPositionIdentifier"),
        b_value=b_value(frame),
        acquisition_number=_acquisition_number(frame),
        image_type=_image_type(frame),
        cardiac_phase_percent=frame.number("NominalPercentageOfCardiacPhase", signed=True),
        trigger_time_ms=_first_number(frame, "NominalCardiacTriggerDelayTime", "TriggerTime"),
        inversion_time_ms=_first_number(frame, "InversionTimes", "InversionTime"),
        tube_voltage_kv=frame.number("KVP"),
        kernel=frame.text("ConvolutionKernel"),
        station=text(header, "StationName"),
        thickness_mm=frame.number("SliceThickness"),
        stack_id=frame.text("StackID"),
        in_stack_position=frame.integer("InStackPositionNumber"),
        slice_location_mm=frame.number("SliceLocation", signed=True),
        time_offset_s=frame.number("TemporalPositionTimeOffset", signed=True),
        flip_angle_deg=frame.number("FlipAngle"),
        repetition_time_ms=frame.number("RepetitionTime"),
        dimensions=frame.numbers("DimensionIndexValues", signed=True),
        frame_of_reference=text(header, "FrameOfReferenceUID"),
        tilt_deg=frame.number("GantryDetectorTilt", signed=True) or 0.0,
        seniority=_seniority(frame),
    )


def geometry(frame: FrameHeader) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return orientation and origin, or (None, None) if either is missing, unreadable or contradicts C.7.6.2."""
    orientation = frame.exact_or_none("ImageOrientationPatient", 6)
    origin = frame.exact_or_none("ImagePositionPatient", 3)
    if orientation is None or origin is None:
        return None, None
    try:
        slice_normal(orientation)
    except InconsistentGeometry:
        return None, None
    return orientation, origin


def _echo_time_ms(frame: FrameHeader) -> float | None:
    """Return Effective Echo Time (0018,9082) or Echo Time (0018,0081), ms."""
    effective = frame.number("EffectiveEchoTime", signed=True)
    return frame.number("EchoTime", signed=True) if effective is None else effective


def _acquisition_number(frame: FrameHeader) -> int | None:
    """Return Frame Acquisition Number (0020,9156) or Acquisition Number (0020,0012)."""
    return _first_integer(frame, "FrameAcquisitionNumber", "AcquisitionNumber")


def _first_integer(frame: FrameHeader, *keys: str) -> int | None:
    return next((found for key in keys if (found := frame.integer(key)) is not None), None)


def _first_number(frame: FrameHeader, *keys: str) -> float | None:
    return next((found for key in keys if (found := frame.number(key, signed=True)) is not None), None)


def _image_type(frame: FrameHeader) -> tuple[str, ...]:
    """Return the words of Frame Type (0008,9007) or Image Type, with the complex component if there is one.

    Components: Complex Image Component (0008,9208), or GE's (0043,xx2F): 0 magnitude, 1 phase, 2 real,
    3 imaginary.
    """
    kind = (frame.codes("FrameType") or frame.codes("ImageType")) + frame.codes("ComplexImageComponent")
    if modality_of(frame.dataset) == "CT":
        return kind
    ge = next((int(x) for x in frame.private_numbers(0x0043, "GEMS_PARM_01", 0x2F)), -1)
    return kind + (_GE_COMPONENT[ge : ge + 1] if ge >= 0 else ())


def _seniority(frame: FrameHeader) -> tuple[str, int, int, int]:
    header = frame.dataset
    time = frame.text("FrameAcquisitionDateTime") or frame.text("AcquisitionDateTime")
    time = time or frame.text("AcquisitionDate") + frame.text("AcquisitionTime")
    acquisition = _acquisition_number(frame) or 0
    if text(header, "ConcatenationUID"):
        return time, acquisition, 0, _frames_before(header) + (frame.frame_number or 0)
    return time, acquisition, integer(header, "InstanceNumber") or 0, frame.frame_number or 0


def _frames_before(header: Dataset) -> int:
    """Return Concatenation Frame Offset Number (0020,9228), or an estimate from In-concatenation Number (0020,9162)."""
    offset = integer(header, "ConcatenationFrameOffsetNumber")
    part = integer(header, "InConcatenationNumber") or 0
    return part * MAX_FRAMES if offset is None else offset
