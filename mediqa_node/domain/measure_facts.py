"""What a header states that measures of the pixels depend on: dose, body part, phase encoding, filters."""

from dataclasses import dataclass, field


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
class CtFacts:
    """What the header of a CT stack states that its measures depend on.

    Attributes:
        body_part: `head`, `body`, or None if it is neither or unknown.
        axial: whether the slices lie across the patient, within 20 degrees, so that sizes are those of the patient.
        turned: whether a row of the image runs from front to back of the patient, who lies on a side or was turned.
        is_hu: False where it is doubtful that values are Hounsfield units.
    """

    dose: CtDose = field(default_factory=CtDose)
    body_part: str | None = None
    axial: bool = True
    turned: bool = False
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
        magnitude: False for phase, real or imaginary images.
        filtered: Image Type or the vendor's text names a filter, distortion correction or interpolation (DIS2D, FIL).
    """

    phase_axis: int | None = None
    acquired_matrix: tuple[int, int] | None = None
    is_3d: bool | None = None
    normalised: bool = False
    filtered: bool = False
    magnitude: bool = True
