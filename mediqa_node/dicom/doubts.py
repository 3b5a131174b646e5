"""Find header values that contradict each other or the images, of series that are scored all the same.

Each has a flag that stands in the report and in `mediqa-node show`; docs/physics.md lists them with what is refused.
"""

from collections.abc import Iterator, Sequence

from pydicom import Dataset

from mediqa_node.dicom.header import MAX_FRAMES, FrameHeader, number, text
from mediqa_node.dicom.plausible import rescales
from mediqa_node.dicom.report.header import TAKEN
from mediqa_node.dicom.stacks.planes import Plane, geometry
from mediqa_node.dicom.stored_frames import uses_unstored_bits
from mediqa_node.dicom.values import holds_misread, is_loosely_written
from mediqa_node.domain.errors import UnreadableElement
from mediqa_node.domain.images import Stack
from mediqa_node.domain.technique import HeaderDoubt
from mediqa_node.domain.uid import is_canonical_uid

COARSE_PX = 64
_SPACING_MM = (1e-2, 25.0)
_SPACING_RATIO = 4.0
"""Pixels of patients are not longer than that by their width."""
_SPACING_TOLERANCE = 0.01
_RESCALE = ("RescaleSlope", "RescaleIntercept")
_CT_SLOPES = (0.1, 10.0)
_CT_BITS = 12
_AIR_HU = -900.0
_FARTHEST_MM = 10_000.0


def stack_doubts(
    frames: Sequence[FrameHeader], planes: Sequence[Plane], stack: Stack, modality: str
) -> tuple[HeaderDoubt, ...]:
    """Return the doubts about the images of a stack.

    Args:
        frames, planes: of the stack, in the same order.
        modality: CT, MR or OP, by the SOP class.
    """
    found = set(_of_stack(stack, frames, planes, modality))
    seen: set[int] = set()
    for frame, plane in zip(frames, planes, strict=True):
        if id(frame.dataset) not in seen:
            seen.add(id(frame.dataset))
            found.update(_of_instance(frame.dataset, modality))
        if modality != "OP":
            found.update(_of_frame(frame, plane, modality))
    return tuple(doubt for doubt in HeaderDoubt if doubt in found)


def text_doubts(headers: Sequence[Dataset]) -> tuple[HeaderDoubt, ...]:
    """Return the doubts about the text that a report copies: from the first image by SOP Instance UID."""
    source = min(headers, key=lambda ds: text(ds, "SOPInstanceUID"))
    return (HeaderDoubt.MISREAD_TEXT,) if holds_misread(source, TAKEN) else ()


def doubts_outside(others: Sequence[FrameHeader]) -> tuple[HeaderDoubt, ...]:
    """Return the doubts about CT or MR images without usable geometry, where the primary stack has it."""
    found: set[HeaderDoubt] = set()
    for frame in others:
        if geometry(frame) == (None, None):
            found.add(HeaderDoubt.MISSING_GEOMETRY)
            found.update([HeaderDoubt.ORIENTATION] if _is_located(frame) else [])
    return tuple(doubt for doubt in HeaderDoubt if doubt in found)


def _is_located(frame: FrameHeader) -> bool:
    located = (("ImageOrientationPatient", 6), ("ImagePositionPatient", 3))
    return all(frame.exact_or_none(key, count) for key, count in located)


def _of_stack(
    stack: Stack, frames: Sequence[FrameHeader], planes: Sequence[Plane], modality: str
) -> Iterator[HeaderDoubt]:
    if 0 < min(stack.rows, stack.columns) < COARSE_PX:
        yield HeaderDoubt.COARSE_MATRIX
    if modality == "OP":
        return
    of_places = (HeaderDoubt.MISSING_GEOMETRY, HeaderDoubt.DUPLICATE_POSITION, HeaderDoubt.ORIENTATION)
    yield from (doubt for doubt in of_places if doubt in stack.flags)
    if modality == "CT" and len({_scale(frame) for frame in frames}) > 1:
        yield HeaderDoubt.RESCALE_VARIES
    for axis in (0, 1):
        spacings = [plane.spacing_mm[axis] for plane in planes if plane.spacing_mm[axis] > 0]
        if spacings and max(spacings) - min(spacings) > _SPACING_TOLERANCE * min(spacings):
            yield HeaderDoubt.PIXEL_SPACING_VARIES


def _pads_tissue(frame: FrameHeader) -> bool:
    """Whether Pixel Padding Range Limit (0028,0121) takes in more than air, in HU."""
    ends = [number(frame.dataset, key, signed=True) for key in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    slope, intercept, _ = _scale(frame)
    if None in ends or slope is None or intercept is None:
        return False
    return max(end for end in ends if end is not None) * slope + intercept > _AIR_HU


def _scale(frame: FrameHeader) -> tuple[float | None, ...]:
    slope, intercept = (frame.number(key, signed=True) for key in _RESCALE)
    return slope, intercept, number(frame.dataset, "PixelRepresentation", signed=True)


def _of_instance(ds: Dataset, modality: str) -> Iterator[HeaderDoubt]:
    if (stated := text(ds, "Modality").upper()) != modality and (modality != "OP" or stated in ("CT", "MR")):
        yield HeaderDoubt.MODALITY
    if (number(ds, "NumberOfFrames") or 1) > MAX_FRAMES:
        yield HeaderDoubt.NUMBER_OF_FRAMES
    given = (text(ds, key) for key in ("FrameOfReferenceUID", "IrradiationEventUID"))
    if any(uid and not is_canonical_uid(uid) for uid in given):
        yield HeaderDoubt.MALFORMED_UID
    stored, high = number(ds, "BitsStored"), number(ds, "HighBit", signed=True)
    if stored is not None and high is not None and high != stored - 1:
        yield HeaderDoubt.HIGH_BIT
    if modality == "CT" and stored is not None and stored < _CT_BITS:
        yield HeaderDoubt.FEW_BITS
    if uses_unstored_bits(ds):
        yield HeaderDoubt.UNSTORED_BITS


def _of_frame(frame: FrameHeader, plane: Plane, modality: str) -> Iterator[HeaderDoubt]:
    if modality == "CT" and rescales(frame.dataset):
        yield from _of_rescale(frame)
        if _pads_tissue(frame):
            yield HeaderDoubt.PADDING_RANGE
    try:
        spacing = frame.exact("PixelSpacing", 2)
    except UnreadableElement:
        yield HeaderDoubt.PIXEL_SPACING
    else:
        if spacing is None:
            yield HeaderDoubt.PIXEL_SPACING_MISSING
        elif not _SPACING_MM[0] <= min(spacing) <= max(spacing) <= min(_SPACING_MM[1], _SPACING_RATIO * min(spacing)):
            yield HeaderDoubt.PIXEL_SPACING
    if plane.origin_mm is not None and max(map(abs, plane.origin_mm)) > _FARTHEST_MM:
        yield HeaderDoubt.POSITION
    if plane.orientation is None and _is_located(frame):
        yield HeaderDoubt.ORIENTATION


def _of_rescale(frame: FrameHeader) -> Iterator[HeaderDoubt]:
    slope, intercept, sign = _scale(frame)
    if any(is_loosely_written(frame.holder(key), key) for key in _RESCALE):
        yield HeaderDoubt.RESCALE_FORMAT
    if slope is None or intercept is None:
        yield HeaderDoubt.RESCALE_MISSING if sign == 0 else HeaderDoubt.RESCALE_MISSING_SIGNED
    elif intercept > 0 or (intercept == 0 and sign == 0) or not _CT_SLOPES[0] <= slope <= _CT_SLOPES[1]:
        yield HeaderDoubt.RESCALE_UNUSUAL
