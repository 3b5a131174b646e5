"""Physical acquisition parameters as read from a series: the labels of training stage 1.

Every raw candidate is kept with the chosen value, so that a physicist can defend, or overrule, each
label.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class HeaderDoubt(StrEnum):
    """A flag for header values that contradict each other or the images; the series is scored all the same."""

    RESCALE_MISSING = "rescale_missing"
    RESCALE_MISSING_SIGNED = "rescale_missing_signed"
    RESCALE_UNUSUAL = "rescale_unusual"
    RESCALE_FORMAT = "rescale_format"
    RESCALE_VARIES = "rescale_varies"
    HIGH_BIT = "high_bit"
    FEW_BITS = "few_bits"
    UNSTORED_BITS = "unstored_bits"
    PADDING_RANGE = "padding_range"
    PIXEL_SPACING = "pixel_spacing"
    PIXEL_SPACING_MISSING = "pixel_spacing_missing"
    PIXEL_SPACING_VARIES = "pixel_spacing_varies"
    COARSE_MATRIX = "coarse_matrix"
    NUMBER_OF_FRAMES = "number_of_frames"
    POSITION = "position"
    ORIENTATION = "orientation"
    MISSING_GEOMETRY = "missing_geometry"
    DUPLICATE_POSITION = "duplicate_position"
    MODALITY = "modality"
    COLOUR_MODEL = "colour_model"
    MALFORMED_UID = "malformed_uid"
    MISREAD_TEXT = "misread_text"
    REFUSED_IMAGES = "refused_images"


DOUBTS: Mapping[HeaderDoubt, str] = {
    HeaderDoubt.RESCALE_MISSING: "Rescale Slope or Intercept is missing, unsigned values count as HU",
    HeaderDoubt.RESCALE_MISSING_SIGNED: "Rescale Slope or Intercept is missing, stored values count as HU",
    HeaderDoubt.RESCALE_UNUSUAL: "Rescale Slope or Intercept is unlike that of any CT",
    HeaderDoubt.RESCALE_FORMAT: "Rescale Slope or Intercept is written in a way that other software may misread",
    HeaderDoubt.RESCALE_VARIES: "Rescale Slope, Intercept or the sign of pixels differ between slices of CT",
    HeaderDoubt.HIGH_BIT: "High Bit is not Bits Stored - 1",
    HeaderDoubt.FEW_BITS: "fewer than 12 bits are stored in CT",
    HeaderDoubt.UNSTORED_BITS: "values use bits above Bits Stored, which are cut",
    HeaderDoubt.PADDING_RANGE: "Pixel Padding Range Limit takes tissue for padding",
    HeaderDoubt.PIXEL_SPACING: "Pixel Spacing is not two plausible numbers",
    HeaderDoubt.PIXEL_SPACING_MISSING: "Pixel Spacing is missing",
    HeaderDoubt.PIXEL_SPACING_VARIES: "Pixel Spacing differs between slices",
    HeaderDoubt.COARSE_MATRIX: "fewer than 64 rows or columns",
    HeaderDoubt.NUMBER_OF_FRAMES: "Number of Frames is not possible",
    HeaderDoubt.POSITION: "Image Position is more than 10 m from the origin",
    HeaderDoubt.ORIENTATION: "Image Orientation is not two perpendicular unit vectors, or not that of the positions",
    HeaderDoubt.MISSING_GEOMETRY: "images without usable position or orientation are scored one by one",
    HeaderDoubt.DUPLICATE_POSITION: "of images at the same position only the first is scored",
    HeaderDoubt.MODALITY: "Modality does not fit the SOP class, which decides",
    HeaderDoubt.MALFORMED_UID: "Frame of Reference or Irradiation Event UID is malformed and left out",
    HeaderDoubt.MISREAD_TEXT: "text of patient or study is not in Specific Character Set and left out",
    HeaderDoubt.COLOUR_MODEL: "the codestream does not confirm the colour model, or its markers contradict each other",
    HeaderDoubt.REFUSED_IMAGES: "some images are refused on their own, such as a localizer, and left out",
}
"""Every doubt in words, as reports and commands show it; ASCII."""

SPOILING = frozenset({
    HeaderDoubt.RESCALE_MISSING, HeaderDoubt.RESCALE_UNUSUAL, HeaderDoubt.RESCALE_FORMAT, HeaderDoubt.RESCALE_VARIES,
    HeaderDoubt.HIGH_BIT, HeaderDoubt.FEW_BITS, HeaderDoubt.UNSTORED_BITS, HeaderDoubt.PADDING_RANGE,
    HeaderDoubt.PIXEL_SPACING, HeaderDoubt.PIXEL_SPACING_VARIES, HeaderDoubt.POSITION, HeaderDoubt.ORIENTATION,
    HeaderDoubt.MODALITY,
})  # fmt: skip
"""Doubts with which a label is not used for training."""


def doubts_in(flags: Iterable[str]) -> tuple[HeaderDoubt, ...]:
    """Return the header doubts among flags, in the order of `HeaderDoubt`.

    >>> [doubt.value for doubt in doubts_in(["gap", "high_bit", "unit_gauss"])]
    ['high_bit']
    """
    given = set(flags)
    return tuple(doubt for doubt in HeaderDoubt if doubt in given)


REPAIRED = frozenset({"field_vs_freq_mismatch", "unit_gauss", "unit_kilogauss", "unit_millitesla"})
"""Flags of a field strength whose recorded value or unit was corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Why a series, or part of it, is not used for stage 1.

    Attributes:
        code: `localizer`, `derived`, `secondary_capture`, `too_few_slices`, ...
        detail: the tag and value behind it.
        scorable: False if a quality score would have no meaning (a localizer, a screen, a map); True if it
            only makes a poor training label.
    """

    code: str
    detail: str
    scorable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTechnique:
    """Technique of one image or frame.

    Attributes:
        z_mm: position along the slice normal, or None.
        tube_charge_mas: effective tube charge in mAs, or None.
        field_strength_t: flux density in tesla, or None.
        source: rule that chose the value (`label_source`).
        candidates: every raw value found, by DICOM keyword, before any rule.
    """

    sop_instance_uid: str
    frame_number: int | None
    z_mm: float | None
    tube_current_ma: float | None
    tube_charge_mas: float | None
    field_strength_t: float | None
    ctdi_vol_mgy: float | None
    source: str | None
    candidates: Mapping[str, float | str]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """The harvested parameters of a series.

    Attributes:
        label_name: `mas` (CT), `tesla` (MR) or None.
        tube_charge_mas: median effective tube charge over valid slices, mAs.
        field_strength_t: nominal field strength, tesla.
        source: where the label came from: `exposure`, `ma_rot_pitch`, `rdsr`, `tesla_tag`, ...
        mas_definition: `effective`, `per_rotation`, `slice_scaled` or `unknown`.
        statistics: n, n_valid, median, mean, hmean, min, max, p5, p95, cv, central_mean.
        covariates: what else physics needs (kVp, pitch, kernel, TE, TR, voxel volume, ...).
        eligible: fit for stage-1 training.
    """

    label_name: str | None
    tube_charge_mas: float | None
    field_strength_t: float | None
    source: str | None
    mas_definition: str | None = None
    flags: tuple[str, ...] = ()
    eligible: bool = False
    exclusions: tuple[Exclusion, ...] = ()
    statistics: Mapping[str, float] = field(default_factory=dict)
    covariates: Mapping[str, float | str | None] = field(default_factory=dict)
    frames: tuple[FrameTechnique, ...] = ()

    @property
    def refusal(self) -> Exclusion | None:
        """The first exclusion that rules out a score, or None."""
        return next((exclusion for exclusion in self.exclusions if not exclusion.scorable), None)
