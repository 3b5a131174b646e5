"""A physical quantity measured on the pixels of a series: value, unit, uncertainty, method, and whether it holds.

A measure needs no training and no labels. It states what was measured and how, so that a physicist can trace it; where
it cannot be measured, it states why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from mediqa_node.domain.images import FrameRef


class Validity(StrEnum):
    """Whether a measure may be relied on."""

    VALID = "valid"
    LIMITED = "limited"
    NOT_MEASURABLE = "not measurable"


class Limit(StrEnum):
    """Why a measure is limited or not measurable; `LIMITS` has the words."""

    # any modality
    UNDECODABLE = "undecodable"
    NO_SPACING = "no_spacing"
    DOUBTFUL_PIXELS = "doubtful_pixels"
    SMALL_IMAGE = "small_image"
    FEW_SLICES = "few_slices"
    NO_POSITIONS = "no_positions"
    NO_THICKNESS = "no_thickness"
    UNEVEN_STEPS = "uneven_steps"
    UNSUITABLE = "unsuitable"
    FAILED = "failed"
    UNCERTAIN = "uncertain"
    # CT
    NO_BODY = "no_body"
    NO_SOFT_TISSUE = "no_soft_tissue"
    TRUNCATED = "truncated"
    FEW_PATCHES = "few_patches"
    NO_EDGE = "no_edge"
    CENSORED = "censored"
    NO_DOSE = "no_dose"
    PHANTOM_UNKNOWN = "phantom_unknown"
    SIZE_OUT_OF_RANGE = "size_out_of_range"
    BODY_OR_HEAD = "body_or_head"
    NOT_ACROSS = "not_across"
    NO_HEAD_FACTORS = "no_head_factors"
    TEXTURE = "texture"
    PART_MISSING = "part_missing"
    # MR
    UNKNOWN_SUPPORT = "unknown_support"
    NO_AIR = "no_air"
    MASKED_AIR = "masked_air"
    MANY_COILS = "many_coils"
    FILTERED = "filtered"
    NORMALISED = "normalised"
    NO_PHASE_DIRECTION = "no_phase_direction"
    LOW_SIGNAL = "low_signal"
    FINE_ANATOMY = "fine_anatomy"
    STRAY_TISSUE = "stray_tissue"
    # fundus
    NO_FIELD = "no_field"
    NO_VESSELS = "no_vessels"
    NO_COLOUR = "no_colour"
    FIELD_CUT = "field_cut"
    NOISY = "noisy"


LIMITS: Mapping[Limit, str] = {
    Limit.UNDECODABLE: "no slice could be decoded",
    Limit.NO_SPACING: "Pixel Spacing (0028,0030) is missing or cannot be true",
    Limit.DOUBTFUL_PIXELS: "the header leaves open what the pixel values mean",
    Limit.SMALL_IMAGE: "the images have too few pixels",
    Limit.FEW_SLICES: "too few slices",
    Limit.NO_POSITIONS: "Image Position (0020,0032) is missing",
    Limit.NO_THICKNESS: "Slice Thickness (0018,0050) is missing",
    Limit.UNEVEN_STEPS: "the steps between slices are not those of one stack",
    Limit.UNSUITABLE: "the method does not hold for images of this kind",
    Limit.FAILED: "the measurement failed; the log of the node has the error",
    Limit.UNCERTAIN: "its uncertainty exceeds a tenth of it",
    Limit.NOT_ACROSS: "the slices do not lie across the patient",
    Limit.NO_BODY: "no body was found in the images",
    Limit.NO_SOFT_TISSUE: "too little soft tissue",
    Limit.TRUNCATED: "part of the body lies outside of the field of view",
    Limit.FEW_PATCHES: "too few homogeneous regions",
    Limit.NO_EDGE: "too little of the skin borders on air",
    Limit.CENSORED: "at least as sharp as the pixels can show",
    Limit.NO_DOSE: "neither the images nor a dose report state CTDIvol",
    Limit.PHANTOM_UNKNOWN: "CTDIvol refers to no stated phantom of 16 or 32 cm",
    Limit.SIZE_OUT_OF_RANGE: "the size is outside of the range of the published conversion factors",
    Limit.BODY_OR_HEAD: "neither the region nor the phantom tells whether factors for heads or for bodies apply",
    Limit.NO_HEAD_FACTORS: "the conversion factors for bodies do not hold for heads, whose own are not included",
    Limit.TEXTURE: "the texture of tissue hides the spectrum of the noise",
    Limit.PART_MISSING: "a quantity that it is calculated from is missing or limited",
    Limit.UNKNOWN_SUPPORT: "the acquired part of k-space cannot be told from the images",
    Limit.NO_AIR: "too little air around the body",
    Limit.MASKED_AIR: "the air around the body was masked or cut to zero",
    Limit.MANY_COILS: "the noise of the air is not that of a single coil",
    Limit.FILTERED: "the images were filtered or interpolated",
    Limit.NORMALISED: "the signal was corrected for the sensitivity of the coils, so that noise varies in space",
    Limit.NO_PHASE_DIRECTION: "In-plane Phase Encoding Direction (0018,1312) is missing",
    Limit.LOW_SIGNAL: "the signal hardly exceeds the noise",
    Limit.STRAY_TISSUE: "tissue or strong ghosts lie in what was taken for air",
    Limit.FINE_ANATOMY: "fine anatomy or smoothing takes part in the estimate of the noise: it is off either way",
    Limit.NO_FIELD: "no field of a fundus photograph was found",
    Limit.NO_VESSELS: "too few vessels were found",
    Limit.NO_COLOUR: "the image has no colour",
    Limit.FIELD_CUT: "the border of the image cuts the field",
    Limit.NOISY: "noise counts as fine structure",
}
"""Every limit in words, as reports and commands show it; ASCII."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a quantity is measured.

    Attributes:
        version: raised whenever the same pixels give another value; values of two versions are never compared.
        citation: publication that the method follows.
    """

    name: str
    version: int
    citation: str

    def __str__(self) -> str:
        return f"{self.name}, version {self.version} ({self.citation})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One physical quantity of a stack of images.

    Attributes:
        name: a name of `domain.quantities`, such as `ct.noise.soft`.
        value: None exactly where it is not measurable.
        unit: UCUM, such as `[hnsf'U]`, `mm`, `/mm`, `mGy`, `1`.
        uncertainty: standard uncertainty (k = 1) of `value`, in the same unit; None for a count or a single slice.
        spread: interquartile range over slices: anatomy and modulation, not error; None for less than two slices.
        n: slices that were measured.
        limit: why it is limited or not measurable; None exactly where it is valid.
        detail: numbers that belong to the limit, for people; "" without any.
    """

    name: str
    value: float | None
    unit: str
    uncertainty: float | None
    spread: float | None
    n: int
    method: Method
    validity: Validity = Validity.VALID
    limit: Limit | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) != (self.validity is Validity.NOT_MEASURABLE):
            raise ValueError(f"{self.name}: {self.validity} with the value {self.value}")
        if (self.limit is None) != (self.validity is Validity.VALID):
            raise ValueError(f"{self.name}: {self.validity} with the reason {self.limit}")

    @property
    def reason(self) -> str:
        """Return in words why it is limited or not measurable; "" where it is valid."""
        if self.limit is None:
            return ""
        return LIMITS[self.limit] + (f" ({self.detail})" if self.detail else "")

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON, without the name."""
        return {
            **{name: getattr(self, name) for name in ("value", "unit", "uncertainty", "spread", "n")},
            "validity": str(self.validity),
            "reason": self.reason or None,
            "reason_code": None if self.limit is None else str(self.limit),
            "method": {"name": self.method.name, "version": self.method.version, "citation": self.method.citation},
        }


def by_name(measures: Iterable[Measure]) -> dict[str, dict[str, object]]:
    """Return measures by name as plain values for JSON."""
    return {one.name: one.as_dict() for one in measures}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStack:
    """The measures of a series' primary stack, and what decides with which others they may be compared.

    Attributes:
        frames: the slices that were measured at full resolution, at most 16.
        modality: CT, MR or OP.
        scanner: Station Name (0008,1010), else Manufacturer's Model Name (0008,1090); "" if neither is there.
        protocol: Protocol Name (0018,1030), else Series Description (0008,103E).
        stack: label of the stack within its series: echo, b-value, phase.
        size_class: band of the patient's size; "" where there is no size.
        body_part: `head`, `body`, or None if it is neither or unknown.
        kernel: Convolution Kernel (0018,1210); "" without one.
        recon_class: `fbp`, `hybrid_ir`, `mbir`, `dlr`, `unknown`; "" for other modalities than CT.
        ctdi_vol_mgy, ctdi_phantom_cm: of images or dose report; None if not stated.
        acquired: date and time of acquisition as recorded, `2026-11-20 10:15:00`; "" if it is not.
    """

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    scanner: str
    protocol: str
    stack: str
    size_class: str
    measures: tuple[Measure, ...]
    frames: tuple[FrameRef, ...] = ()
    body_part: str | None = None
    kernel: str = ""
    recon_class: str = ""
    thickness_mm: float | None = None
    ctdi_vol_mgy: float | None = None
    ctdi_phantom_cm: float | None = None
    acquired: str = ""

    def measure(self, name: str) -> Measure | None:
        """Return a measure by name, or None if it was not asked for."""
        return next((one for one in self.measures if one.name == name), None)


SIZE_BAND_MM = 40


def size_class(dw: Measure | None) -> str:
    """Return the band of 40 mm that a water-equivalent diameter is in; "" for none, or one that is limited."""
    if dw is None or dw.value is None or dw.validity is not Validity.VALID:
        return ""
    low = int(dw.value // SIZE_BAND_MM) * SIZE_BAND_MM
    return f"Dw {low}-{low + SIZE_BAND_MM} mm"
