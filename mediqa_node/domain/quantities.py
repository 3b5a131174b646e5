"""The catalogue of measured quantities: what each name means, in which unit, by which method.

A name never changes its meaning. Where the same pixels would give another value, the version of the method is raised;
exports, baselines and reports keep the version with every value.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mediqa_node.domain.measures import Limit, Measure, Method, Validity

Adverse = Literal["high", "low", ""]
Statistic = Literal["median", "mean", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One quantity that can be measured.

    Attributes:
        title: for people, at most 40 characters.
        unit: UCUM.
        definition: one sentence that a physicist can check.
        statistic: what stands for a stack of slices: `median`, `mean`, or "" where it is not one of the slices.
        adverse: which tail of its usual values means worse images; "" for neither (a size, a dose).
        places: decimals shown to people.
    """

    name: str
    title: str
    unit: str
    definition: str
    method: Method
    statistic: Statistic = ""
    adverse: Adverse = ""
    places: int = 1

    def measured(
        self,
        value: float,
        *,
        n: int,
        uncertainty: float | None = None,
        spread: float | None = None,
        limit: Limit | None = None,
        detail: str = "",
    ) -> Measure:
        """Return a measure that is valid, or limited if there is a limit."""
        return Measure(
            name=self.name,
            value=value,
            unit=self.unit,
            uncertainty=uncertainty,
            spread=spread,
            n=n,
            method=self.method,
            validity=Validity.VALID if limit is None else Validity.LIMITED,
            limit=limit,
            detail=detail,
        )

    def not_measurable(self, limit: Limit, detail: str = "", *, n: int = 0) -> Measure:
        """Return a measure without a value, with the reason."""
        return Measure(
            name=self.name,
            value=None,
            unit=self.unit,
            uncertainty=None,
            spread=None,
            n=n,
            method=self.method,
            validity=Validity.NOT_MEASURABLE,
            limit=limit,
            detail=detail,
        )


HOUNSFIELD = "[hnsf'U]"
PIXELS = "{pixels}"
SLICES = "{slices}"
SHOWN_UNITS = {HOUNSFIELD: "HU", "/mm": "1/mm", "1": "", PIXELS: "px", SLICES: "slices"}
"""Units as people write them, where they differ from UCUM."""

# ── CT ───────────────────────────────────────────────────────────────────────

CT_NOISE = Quantity(
    name="ct.noise.soft",
    title="noise in soft tissue",
    unit=HOUNSFIELD,
    definition="median over slices of the mode of local standard deviations over 10 x 10 mm in soft tissue, 0 to 170 "
    "HU (heads: 0 to 80 HU), where the smoothed image is level",
    method=Method(name="mode of local SD", version=1, citation="Christianson et al. 2015, doi 10.2214/AJR.14.13613"),
    statistic="median",
    adverse="high",
)
CT_PEAK_FREQUENCY = Quantity(
    name="ct.noise.peak_frequency",
    title="peak frequency of noise",
    unit="/mm",
    definition="frequency at which the radial noise power spectrum of homogeneous regions of 20 x 20 mm is largest",
    method=Method(name="radial NPS of patches", version=1, citation="ICRU 87, 2012"),
    places=2,
)
CT_DW = Quantity(
    name="ct.dw",
    title="water-equivalent diameter",
    unit="mm",
    definition="mean over slices of 2 sqrt((mean HU / 1000 + 1) area / pi) of the patient, without table and clothes",
    method=Method(name="water-equivalent diameter", version=1, citation="AAPM Report 220, 2014, doi 10.37206/146"),
    statistic="mean",
    places=0,
)
CT_LATERAL = Quantity(
    name="ct.lateral",
    title="lateral width",
    unit="mm",
    definition="mean over slices of the width of the patient from left to right",
    method=Method(name="extent of the patient", version=1, citation="AAPM Report 204, 2011"),
    statistic="mean",
    places=0,
)
CT_AP = Quantity(
    name="ct.ap",
    title="anteroposterior thickness",
    unit="mm",
    definition="mean over slices of the thickness of the patient from front to back",
    method=CT_LATERAL.method,
    statistic="mean",
    places=0,
)
CT_TRUNCATION = Quantity(
    name="ct.truncation",
    title="truncated outline",
    unit="1",
    definition="mean over slices of the share of the patient's outline that the field of view cuts",
    method=Method(name="outline at the field of view", version=1, citation="AAPM Report 220, 2014, doi 10.37206/146"),
    statistic="mean",
    adverse="high",
    places=2,
)
CT_SSDE = Quantity(
    name="ct.ssde",
    title="size-specific dose estimate",
    unit="mGy",
    definition="CTDIvol x the conversion factor of its phantom, for bodies, at the water-equivalent diameter",
    method=Method(name="SSDE", version=1, citation="AAPM Reports 204, 2011, and 220, 2014"),
)
CT_SHARPNESS = Quantity(
    name="ct.sharpness",
    title="sharpness of the skin edge (f50)",
    unit="/mm",
    definition="frequency at which the modulation transfer of the skin-air edge falls to one half, in-plane, where it "
    "is steepest; of high contrast, not of soft tissue under iterative reconstruction",
    method=Method(name="MTF of the skin edge", version=1, citation="Sanders et al. 2016, doi 10.1118/1.4961984"),
    statistic="median",
    adverse="low",
    places=2,
)
CT_FIGURE_OF_MERIT = Quantity(
    name="ct.figure_of_merit",
    title="figure of merit",
    unit="[hnsf'U]-2.mGy-1.mm-1",
    definition="1 / (noise squared x SSDE x slice thickness), within one class of size, kernel and reconstruction",
    method=Method(name="noise at dose and thickness", version=1, citation="Brooks & Di Chiro, Med Phys 1976"),
    adverse="low",
    places=6,
)

# ── MR ───────────────────────────────────────────────────────────────────────

MR_SNR = Quantity(
    name="mr.snr",
    title="signal to noise",
    unit="1",
    definition="median over slices of the median signal of the body over the standard deviation of the noise of the "
    "real part of a pixel: of air if that is the noise of one coil, else of the acquired part of k-space",
    method=Method(
        name="air or finest details, Rician", version=1, citation="Koay & Basser 2006, doi 10.1016/j.jmr.2006.01.016"
    ),
    statistic="median",
    adverse="low",
)
MR_GHOST = Quantity(
    name="mr.ghost_ratio",
    title="ghost ratio",
    unit="1",
    definition="root of the power of the air beside the body along phase encoding less that of the air beyond its "
    "extent along readout, over the body's median signal; medians over the air",
    method=Method(name="power of the air", version=1, citation="after the ACR MRI Quality Control Manual 2015"),
    statistic="median",
    adverse="high",
    places=3,
)
MR_SUPPORT_ROWS = Quantity(
    name="mr.support.rows",
    title="acquired part of k-space, rows",
    unit="1",
    definition="share of the spatial frequencies along a column of pixels that was acquired, by the spectrum of the "
    "images; below 1 they are filled with zeros",
    method=Method(name="end of the spectrum", version=1, citation="Bernstein et al. 2001, doi 10.1002/jmri.1183"),
    places=2,
)
MR_SUPPORT_COLUMNS = Quantity(
    name="mr.support.columns",
    title="acquired part of k-space, columns",
    unit="1",
    definition="share of the spatial frequencies along a row of pixels that was acquired, by the spectrum of the "
    "images; below 1 they are filled with zeros",
    method=MR_SUPPORT_ROWS.method,
    places=2,
)
MR_NONUNIFORMITY = Quantity(
    name="mr.nonuniformity",
    title="nonuniformity of the signal",
    unit="1",
    definition="median over slices of the interquartile range of the smooth bias field inside the body over its median",
    method=Method(name="sparse gradients, second degree", version=1, citation="Zheng et al. 2009, MICCAI"),
    statistic="median",
    adverse="high",
    places=2,
)

# ── fundus photographs ───────────────────────────────────────────────────────

OP_FIELD_DIAMETER = Quantity(
    name="op.field_diameter",
    title="diameter of the field",
    unit=PIXELS,
    definition="diameter of the circle fitted to the border of the illuminated field",
    method=Method(name="circle of the field", version=1, citation="Kasa 1976, doi 10.1109/TIM.1976.6312298"),
    statistic="median",
    places=0,
)
OP_FIELD_COVERAGE = Quantity(
    name="op.field_coverage",
    title="illuminated part of the field",
    unit="1",
    definition="share of the field's circle that lies inside the image and is bright enough to be read",
    method=OP_FIELD_DIAMETER.method,
    statistic="median",
    adverse="low",
    places=2,
)
OP_FOCUS = Quantity(
    name="op.focus",
    title="focus",
    unit="1",
    definition="energy of the green channel at the scale of fine vessels over that of all structure above background",
    method=Method(
        name="energy of fine vessels", version=1, citation="Moscaritolo et al. 2009, doi 10.1109/TMI.2009.2019755"
    ),
    statistic="median",
    adverse="low",
    places=3,
)
OP_ILLUMINATION = Quantity(
    name="op.illumination",
    title="unevenness of illumination",
    unit="1",
    definition="interquartile range of the smoothed green channel, without vessels and optic disc, over its median",
    method=Method(
        name="smoothed green channel", version=1, citation="Foracchia et al., Med Image Anal 9, 179-190, 2005"
    ),
    statistic="median",
    adverse="high",
    places=2,
)
OP_CLIPPED = Quantity(
    name="op.clipped",
    title="clipped pixels",
    unit="1",
    definition="share of the field in which a colour has reached the upper end of its range",
    method=Method(name="values at the end of the range", version=1, citation="DICOM PS3.3 C.7.6.3.1"),
    statistic="median",
    adverse="high",
    places=3,
)
OP_VESSEL_CONTRAST = Quantity(
    name="op.vessel_contrast",
    title="contrast of vessels",
    unit="1",
    definition="median of the depth of vessels in the green channel over the level of their surroundings",
    method=Method(name="depth of vessels", version=1, citation="Chaudhuri et al. 1989, doi 10.1109/42.34715"),
    statistic="median",
    adverse="low",
    places=3,
)

# ── any modality ─────────────────────────────────────────────────────────────

MISSING_SLICES = Quantity(
    name="stack.missing_slices",
    title="missing slices",
    unit=SLICES,
    definition="slices that are missing between the first and the last position, at the stack's median step",
    method=Method(name="positions", version=1, citation="DICOM PS3.3 C.7.6.2.1.1"),
    adverse="high",
    places=0,
)
REPEATED_SLICES = Quantity(
    name="stack.repeated_slices",
    title="repeated slices",
    unit=SLICES,
    definition="slices whose pixels are those of a neighbour",
    method=Method(name="equal pixels", version=1, citation="DICOM PS3.3 C.7.6.3"),
    adverse="high",
    places=0,
)
SPACING_TO_THICKNESS = Quantity(
    name="stack.spacing_to_thickness",
    title="slice spacing to thickness",
    unit="1",
    definition="median step between slices over Slice Thickness (0018,0050); above 1 tissue is not imaged",
    method=MISSING_SLICES.method,
    places=2,
)
BURNED_IN_TEXT = Quantity(
    name="stack.burned_in_text",
    title="slices with suspected text",
    unit=SLICES,
    definition="measured slices that hold what looks like characters drawn into the pixels",
    method=Method(name="isolated strokes of one value", version=1, citation="DICOM PS3.3 C.7.6.1.1.6"),
    adverse="high",
    places=0,
)

CT_QUANTITIES = (
    CT_NOISE, CT_PEAK_FREQUENCY, CT_DW, CT_LATERAL, CT_AP, CT_TRUNCATION, CT_SSDE, CT_SHARPNESS, CT_FIGURE_OF_MERIT,
)  # fmt: skip
MR_QUANTITIES = (MR_SNR, MR_GHOST, MR_SUPPORT_ROWS, MR_SUPPORT_COLUMNS, MR_NONUNIFORMITY)
OP_QUANTITIES = (OP_FIELD_DIAMETER, OP_FIELD_COVERAGE, OP_FOCUS, OP_ILLUMINATION, OP_CLIPPED, OP_VESSEL_CONTRAST)
STACK_QUANTITIES = (MISSING_SLICES, REPEATED_SLICES, SPACING_TO_THICKNESS, BURNED_IN_TEXT)

QUANTITIES = {one.name: one for one in (*CT_QUANTITIES, *MR_QUANTITIES, *OP_QUANTITIES, *STACK_QUANTITIES)}
"""Every quantity by name, in the order of reports and tables."""


def in_order(measures: Iterable[Measure]) -> tuple[Measure, ...]:
    """Return measures in the order of the catalogue; names that it does not know come last."""
    places = {name: place for place, name in enumerate(QUANTITIES)}
    return tuple(sorted(measures, key=lambda one: places.get(one.name, len(places))))


def decimals(quantity: Quantity | None, uncertainty: float | None) -> int:
    """Return how many decimals of a value are shown: two digits of its uncertainty, else those of the quantity.

    >>> decimals(CT_DW, 0.23), decimals(CT_DW, 3.9), decimals(CT_NOISE, None)
    (2, 1, 1)
    """
    if uncertainty is not None and uncertainty > 0:
        return min(9, max(0, 1 - math.floor(math.log10(uncertainty))))
    return quantity.places if quantity is not None else 3
