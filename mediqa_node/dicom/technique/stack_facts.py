"""What the header of a stack states that its measures depend on: dose, body part, direction of phase encoding, filters.

PS3.3 C.8.2.1 (CT Image), C.8.15.3 (Enhanced CT), C.8.3.1 (MR Image), C.8.13.5 (Enhanced MR functional groups).
"""

import re

import numpy as np

from mediqa_node.dicom.header import FrameHeader
from mediqa_node.dicom.stacks.geometry import slice_normal
from mediqa_node.domain.errors import InconsistentGeometry
from mediqa_node.domain.images import Stack
from mediqa_node.domain.measure_facts import CtDose, CtFacts, MrFacts
from mediqa_node.domain.technique import HeaderDoubt, Technique

_BODY = frozenset({"neck", "chest", "heart", "abdomen", "pelvis", "breast", "spine"})
_HEAD = frozenset({"head", "brain"})
_AXIAL = 0.9396
"""Cosine of 20 degrees between the slices' normal and the patient's long axis."""
_NOT_HU = frozenset({
    HeaderDoubt.RESCALE_MISSING, HeaderDoubt.RESCALE_MISSING_SIGNED, HeaderDoubt.RESCALE_UNUSUAL,
    HeaderDoubt.RESCALE_VARIES, HeaderDoubt.HIGH_BIT, HeaderDoubt.UNSTORED_BITS, HeaderDoubt.PADDING_RANGE,
})  # fmt: skip
_PHANTOMS_CM = (16.0, 32.0)
_NORMALISED = re.compile(r"(^|[^A-Z])(NORM|SCIC|PURE|CLEAR|SYNERGY|PSN|BFC|N3|N4)($|[^A-Z])")
_FILTERED = re.compile(r"(^|[^A-Z])(DIS2D|DIS3D|FIL|FILTERED|MFSPLIT|DENOISED|AIR|DLR|INTERPOLATED)($|[^A-Z])")


def body_part(region: str) -> str | None:
    """Return `head` or `body`; None for extremities and where it is unknown."""
    return "head" if region in _HEAD else "body" if region in _BODY else None


def ct_facts(stack: Stack, technique: Technique, region: str) -> CtFacts:
    """Return what the measures of a CT stack depend on.

    Args:
        region: of the stack's prompt.
    """
    flags = {*technique.flags, *stack.flags}
    energies = any(exclusion.code == "multi_energy" for exclusion in technique.exclusions)
    return CtFacts(
        dose=ct_dose(technique),
        body_part=body_part(region),
        axial=_is_axial(stack),
        turned=stack.orientation is not None and abs(stack.orientation[1]) > abs(stack.orientation[0]),
        is_hu=not (energies or flags & _NOT_HU),
    )


def ct_dose(technique: Technique) -> CtDose:
    """Return CTDIvol (0018,9345), the mean over the images that state it, and its phantom."""
    values = [frame.ctdi_vol_mgy for frame in technique.frames if frame.ctdi_vol_mgy is not None]
    of_series, phantom_cm = (technique.covariates.get(name) for name in ("ctdi_vol_mgy", "ctdi_phantom_cm"))
    one = of_series if isinstance(of_series, float) else None
    return CtDose(
        ctdi_vol_mgy=float(np.mean(values)) if values else one,
        phantom_cm=int(phantom_cm) if isinstance(phantom_cm, float) and phantom_cm in _PHANTOMS_CM else None,
    )


def mr_facts(header: FrameHeader) -> MrFacts:
    """Return what the measures of an MR stack depend on, from the header of one of its images."""
    direction = next(iter(header.codes("InPlanePhaseEncodingDirection")), "")
    phase_axis = {"COL": 0, "COLUMN": 0, "ROW": 1}.get(direction)
    kinds = (*header.codes("ImageType")[2:], *header.codes("FrameType")[2:])
    words = " ".join((*kinds, *header.codes("ScanOptions"), header.text("FilterType")))
    component = next(iter(header.codes("ComplexImageComponent")), "MAGNITUDE")
    kind = next(iter(header.codes("MRAcquisitionType")), "")
    return MrFacts(
        phase_axis=phase_axis,
        acquired_matrix=_acquired_matrix(header, phase_axis),
        is_3d={"3D": True, "2D": False}.get(kind),
        normalised=_NORMALISED.search(words.upper()) is not None,
        magnitude=component in ("MAGNITUDE", "MIXED") and not {"P", "R", "I"} & set(kinds[:2]),
        filtered=_FILTERED.search(words.upper()) is not None,
    )


def _acquired_matrix(header: FrameHeader, phase_axis: int | None) -> tuple[int, int] | None:
    """Return the samples along a column and along a row of the image.

    Acquisition Matrix (0018,1310) is frequency rows, frequency columns, phase rows, phase columns, of which two are 0.
    Enhanced objects have MR Acquisition Frequency Encoding Steps (0018,9058) and Phase Encoding Steps (0018,9231).
    """
    given = header.exact_or_none("AcquisitionMatrix", 4)
    if given is not None:
        rows, columns = max(given[0], given[2]), max(given[1], given[3])
        return (int(rows), int(columns)) if min(rows, columns) > 0 else None
    frequency = header.integer("MRAcquisitionFrequencyEncodingSteps")
    phase = header.integer("MRAcquisitionPhaseEncodingStepsInPlane")
    if not frequency or not phase or phase_axis is None:
        return None
    return (phase, frequency) if phase_axis == 0 else (frequency, phase)


def _is_axial(stack: Stack) -> bool:
    if stack.orientation is None:
        return False
    try:
        return abs(float(slice_normal(stack.orientation)[2])) >= _AXIAL
    except InconsistentGeometry:
        return False
