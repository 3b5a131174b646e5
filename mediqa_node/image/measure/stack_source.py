"""The input of measures: slices on demand, so that a stack of any length needs the memory of a few slices."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

SliceGetter = Callable[[int], np.ndarray]
"""Returns a slice by its index in the stack; raises UndecodablePixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CtDose:
    """What CTDIvol (0018,9345) of a series is, and in which phantom.

    Attributes:
        ctdi_vol_mgy: mean over the stack, mGy; None if neither images nor a dose report state it.
        phantom_cm: 16 or 32, by code; None for any other phantom, or none.
    """

    ctdi_vol_mgy: float | None = None
    phantom_cm: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSource:
    """A stack of slices to measure.

    Attributes:
        count: slices, in order of position.
        image_at: a slice in the units of `dicom.pixels.to_image`: (rows, columns) float32 HU or signal, or
            (rows, columns, 3) float32 RGB 0..255.
        coarse_at: the same slice, every fourth row and column of it: cheap.
        spacing_mm: between rows, between columns; 0.0 where the header has none that can be true.
        thickness_mm: Slice Thickness (0018,0050), None if missing.
        positions_mm: along the normal, ascending, (count,); empty where there is no geometry.
    """

    count: int
    image_at: SliceGetter
    coarse_at: SliceGetter
    spacing_mm: tuple[float, float]
    thickness_mm: float | None = None
    positions_mm: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CtFacts:
    """What the header of a CT stack states that its measures depend on.

    Attributes:
        body_part: `head`, `body`, or None if unknown.
        axial: whether the slices lie across the patient, within 20 degrees, so that sizes are those of the patient.
        is_hu: False where it is doubtful that values are Hounsfield units.
    """

    dose: CtDose = field(default_factory=CtDose)
    body_part: str | None = None
    axial: bool = True
    is_hu: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MrFacts:
    """What the header of an MR stack states that its measures depend on.

    Attributes:
        phase_axis: 0 where phase encoding runs along a column of pixels (In-plane Phase Encoding Direction (0018,1312)
            COL), 1 where it runs along a row (ROW), None if unknown.
        acquired_matrix: samples acquired along axis 0 (a column) and axis 1 (a row) of the image, from Acquisition
            Matrix (0018,1310); None if unknown.
        is_3d: MR Acquisition Type (0018,0023) is 3D; None if unknown.
        normalised: Image Type or the vendor's text names a correction of coil sensitivity (NORM, SCIC, PURE, CLEAR).
        filtered: Image Type or the vendor's text names a filter, distortion correction or interpolation (DIS2D, FIL).
        magnitude: False for phase, real or imaginary images.
    """

    phase_axis: int | None = None
    acquired_matrix: tuple[int, int] | None = None
    is_3d: bool | None = None
    normalised: bool = False
    filtered: bool = False
    magnitude: bool = True


def evenly(count: int, at_most: int) -> tuple[int, ...]:
    """Return at most `at_most` evenly spaced indices of `count`, each from the middle of its part.

    >>> evenly(100, 4), evenly(3, 16)
    ((12, 37, 62, 87), (0, 1, 2))
    """
    if count <= at_most:
        return tuple(range(count))
    return tuple((2 * part + 1) * count // (2 * at_most) for part in range(at_most))
