"""The factor that converts CTDIvol to the dose of a patient of a given size (size-specific dose estimate, SSDE).

Body: f = a exp(-b Dw), Dw in cm; AAPM Report 204 (2011), appendix A, for CTDIvol in the phantom of 32 cm (a = 3.704369,
b = 0.03671937; tabulated from 8 to 45 cm) and of 16 cm (a = 1.874799, b = 0.03871313; 6 to 55 cm). AAPM Report 220
(2014) puts the water-equivalent diameter in the place of the effective diameter.

Heads: factors of the body overstate the dose of a head, by up to 12 % of the usual sizes. AAPM Report 293 (2019) has
their own; its constants could not be checked against two independent sources, so heads have no factor here.

Accuracy: Report 204 states 20 % at most; a standard uncertainty of 10 % is taken for it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mediqa_node.domain.measures import Limit

STANDARD_UNCERTAINTY = 0.10
"""Of a factor, relative, k = 1."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One exponential fit: scale, decay per cm, and the range of sizes that was tabulated, cm."""

    scale: float
    per_cm: float
    smallest_cm: float
    largest_cm: float


BODY: Mapping[int, Fit] = {
    32: Fit(3.704369, 0.03671937, 8.0, 45.0),
    16: Fit(1.874799, 0.03871313, 6.0, 55.0),
}
"""Fits of AAPM Report 204 by the phantom's diameter, cm."""


def size_factor(dw_mm: float, phantom_cm: int | None, body_part: str | None) -> float | Limit:
    """Return SSDE over CTDIvol, or why there is no factor.

    Args:
        dw_mm: water-equivalent diameter.
        phantom_cm: 16 or 32, the IEC phantom that CTDIvol refers to; None for any other phantom, or none.
        body_part: `head`, `body`, or None if unknown. CTDIvol of bodies is stated in either phantom, that of heads
            in the smaller, so that the larger one is taken for a body.

    >>> round(size_factor(300.0, 32, "body"), 3)
    1.231
    """
    fit = BODY.get(phantom_cm or 0)
    if fit is None:
        return Limit.PHANTOM_UNKNOWN
    if body_part == "head":
        return Limit.NO_HEAD_FACTORS
    if body_part is None and phantom_cm == 16:
        return Limit.BODY_OR_HEAD
    if not fit.smallest_cm <= dw_mm / 10 <= fit.largest_cm:
        return Limit.SIZE_OUT_OF_RANGE
    return fit.scale * math.exp(-fit.per_cm * dw_mm / 10)


def relative_uncertainty(phantom_cm: int, dw_uncertainty_mm: float) -> float:
    """Return the relative standard uncertainty of a factor: that of the report, and what that of Dw makes of it."""
    return math.hypot(STANDARD_UNCERTAINTY, BODY[phantom_cm].per_cm * dw_uncertainty_mm / 10)
