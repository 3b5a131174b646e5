"""Flatten the headers of a series into planes: one record per image or frame, classic and enhanced alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from mediqa_node.dicom.functional_groups import (
    MAX_FRAMES,
    FrameView,
    frame_count,
    integer,
    number,
    numbers,
    value_of,
    words,
)
from mediqa_node.dicom.stacks.geometry import slice_normal
from mediqa_node.dicom.technique.diffusion import b_value, private_value
from mediqa_node.domain.errors import InconsistentGeometry
from mediqa_node.domain.images import FrameRef

_GE_COMPONENT = ("M", "P", "R", "I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One image plane and everything that decides which stack it belongs to.

    Attributes:
        orientation: Image Orientation (0020,0037), checked, or None.
        origin_mm: Image Position (0020,0032), LPS, or None. Both are given or neither.
        spacing_mm: Pixel Spacing (0028,0030): between rows, between columns; 0.0 where absent.
        tilt_deg: Gantry/Detector Tilt (0018,1120).
        seniority: acquisition time, acquisition number, instance number, frame: which of two planes at
            the same position was first.
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
    tilt_deg: float
    seniority: tuple[str, int, int, int]


def planes(headers: Sequence[Dataset]) -> list[Plane]:
    """Return every plane of a series, in an order that does not depend on the order of `headers`."""
    found = [plane for index, header in enumerate(headers) for plane in _planes_of(header, index)]
    return sorted(found, key=lambda plane: (plane.ref.sop_instance_uid, plane.ref.frame_number or 0, plane.seniority))


def _planes_of(header: Dataset, index: int) -> Iterator[Plane]:
    count = frame_count(header)
    for frame_number in (None,) if count is None else range(1, count + 1):
        yield _plane(FrameView(header, frame_number), index)


def _plane(frame: FrameView, index: int) -> Plane:
    header = frame.header
    orientation, origin = _geometry(frame)
    spacing = numbers(frame.value("PixelMeasuresSequence", "PixelSpacing"), 2)
    return Plane(
        ref=FrameRef(
            sop_class_uid=str(value_of(header, "SOPClassUID") or ""),
            sop_instance_uid=str(value_of(header, "SOPInstanceUID") or ""),
            frame_number=frame.frame_number,
            instance_index=index,
        ),
        rows=integer(value_of(header, "Rows")) or 0,
        columns=integer(value_of(header, "Columns")) or 0,
        orientation=orientation,
        origin_mm=origin,
        spacing_mm=(spacing[0], spacing[1]) if spacing else (0.0, 0.0),
        echo_time_ms=_echo_time_ms(frame),
        echo_number=integer(value_of(header, "EchoNumbers")),
        temporal_position=_temporal_position(frame),
        b_value=b_value(frame),
        acquisition_number=_acquisition_number(frame),
        image_type=_image_type(frame),
        tilt_deg=number(frame.value("CTAcquisitionDetailsSequence", "GantryDetectorTilt")) or 0.0,
        seniority=_seniority(frame),
    )


def _geometry(frame: FrameView) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return orientation and origin, or (None, None) where either is missing or contradicts C.7.6.2."""
    orientation = numbers(frame.value("PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    origin = numbers(frame.value("PlanePositionSequence", "ImagePositionPatient"), 3)
    if orientation is None or origin is None:
        return None, None
    try:
        slice_normal(orientation)
    except InconsistentGeometry:
        return None, None
    return orientation, origin


def _echo_time_ms(frame: FrameView) -> float | None:
    """Return Effective Echo Time (0018,9082) or Echo Time (0018,0081), ms."""
    effective = number(frame.value("MREchoSequence", "EffectiveEchoTime"))
    return number(frame.value("MREchoSequence", "EchoTime")) if effective is None else effective


def _temporal_position(frame: FrameView) -> int | None:
    """Return Temporal Position Index (0020,9128) or Identifier (0020,0100)."""
    position = integer(frame.value("FrameContentSequence", "TemporalPositionIndex"))
    return integer(value_of(frame.header, "TemporalPositionIdentifier")) if position is None else position


def _acquisition_number(frame: FrameView) -> int | None:
    """Return Frame Acquisition Number (0020,9156) or Acquisition Number (0020,0012)."""
    found = integer(frame.value("FrameContentSequence", "FrameAcquisitionNumber"))
    return integer(value_of(frame.header, "AcquisitionNumber")) if found is None else found


def _image_type(frame: FrameView) -> tuple[str, ...]:
    """Return the words of Frame Type (0008,9007) or Image Type, with the complex component if it is stated.

    Components: Complex Image Component (0008,9208), or GE's (0043,xx2F): 0 magnitude, 1 phase, 2 real,
    3 imaginary.
    """
    is_ct = value_of(frame.header, "Modality") == "CT"
    group = "CTImageFrameTypeSequence" if is_ct else "MRImageFrameTypeSequence"
    kind = words(frame.value(group, "FrameType")) or words(value_of(frame.header, "ImageType"))
    component = words(frame.value(group, "ComplexImageComponent"))
    ge = None if is_ct else integer(private_value(frame.header, "GEMS_PARM_01", 0x0043, 0x2F))
    return kind + component + (_GE_COMPONENT[ge : ge + 1] if ge is not None and ge >= 0 else ())


def _seniority(frame: FrameView) -> tuple[str, int, int, int]:
    header = frame.header
    time = frame.value("FrameContentSequence", "FrameAcquisitionDateTime") or value_of(header, "AcquisitionTime")
    acquisition = _acquisition_number(frame) or 0
    if value_of(header, "ConcatenationUID"):
        return str(time or ""), acquisition, 0, _frames_before(header) + (frame.frame_number or 0)
    return str(time or ""), acquisition, integer(value_of(header, "InstanceNumber")) or 0, frame.frame_number or 0


def _frames_before(header: Dataset) -> int:
    """Return Concatenation Frame Offset Number (0020,9228), or what In-concatenation Number (0020,9162) implies."""
    offset = integer(value_of(header, "ConcatenationFrameOffsetNumber"))
    part = integer(value_of(header, "InConcatenationNumber")) or 0
    return part * MAX_FRAMES if offset is None else offset
