"""Measure the contrast of vessels in a fundus photograph.

Method: dark lines of the flattened green channel are found by the largest second derivative across them, over three
widths (second derivatives of Gaussians, in place of the matched filters of Chaudhuri et al. 1989, doi
10.1109/42.34715).
What is brighter than the background is set to it first, so that the optic disc and bright lesions have no dark borders.
Vessels are the 6 % of the field with the strongest response, in connected pieces of at least 8 % of the diameter. On
their middle lines the depth is the level beside the vessel less that on it, over the level beside it; the contrast is
the median depth. Lines are chosen by rank, so that the choice does not depend on the contrast, and the depth is linear.

Assumptions: vessels are darker than the retina (not so in angiograms); about as much of each retina is vessel; these
are vessels of the first orders, wider than 0.5 % of the diameter, whose depth moderate defocus leaves as it is.
What breaks it: dark lines that are no vessels (choroid, folds, lashes, rows of haemorrhages, a dark rim of the disc);
defocus and veiling light both lower it. Phantoms read 6 % low in focus (median over the profile and pixels), 14 % at a
blur of 0.2 % of the diameter, 30 % at 0.4 %. Noise has dark lines too, but no long ones: where less than 40 % of the
strongest pixels belong to long pieces, the contrast is not measurable.
"""

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from mediqa_node.image.measure.op.photograph import DIAMETER_PX, Photograph

WIDTHS = (0.0025, 0.004, 0.006)
"""Standard deviations of the Gaussians, shares of the diameter."""
_SHARE = 0.06
_LENGTH = 0.08
_BESIDE = 0.02
_LEAST_LONG = 0.4
_USUAL = 4.5
"""Of the median deviation, as 3 SD: what differs more is no retina beside a vessel."""
_LEAST_LINE_PX = 200


def line_response(flat: np.ndarray) -> np.ndarray:
    """Return how strongly each pixel lies on a dark line, (rows, columns) float32."""
    dark = np.zeros_like(flat)
    for share in WIDTHS:
        sd_px = share * DIAMETER_PX
        smooth = ndimage.gaussian_filter(flat, sd_px, truncate=3.0)
        across = np.zeros_like(smooth)
        along = np.zeros_like(smooth)
        mixed = np.zeros_like(smooth)
        across[1:-1] = smooth[2:] - 2 * smooth[1:-1] + smooth[:-2]
        along[:, 1:-1] = smooth[:, 2:] - 2 * smooth[:, 1:-1] + smooth[:, :-2]
        mixed[1:-1, 1:-1] = (smooth[2:, 2:] - smooth[2:, :-2] - smooth[:-2, 2:] + smooth[:-2, :-2]) / 4
        middle = (across + along) / 2
        apart = np.hypot((across - along) / 2, mixed)
        dark = np.maximum(dark, sd_px**2 * (middle + apart))
    return dark


def vessel_mask(photograph: Photograph) -> np.ndarray | None:
    """Return the pixels of vessels, (rows, columns) bool; None where too few of the lines are long."""
    dark = line_response(np.minimum(photograph.flat, 0.0))
    inside = photograph.inside
    if inside.sum() < _LEAST_LINE_PX:
        return None
    level = float(np.percentile(dark[inside], 100 * (1 - _SHARE)))
    strong = inside & (dark >= max(level, 1e-6))
    pieces, count = ndimage.label(strong, structure=np.ones((3, 3)))
    if count == 0:
        return None
    extents = [max(part.stop - part.start for part in box) for box in ndimage.find_objects(pieces)]
    long_ones = np.array([False] + [extent >= _LENGTH * DIAMETER_PX for extent in extents])
    mask = np.asarray(long_ones[pieces])
    return mask if mask.sum() >= _LEAST_LONG * strong.sum() else None


def vessel_contrast(photograph: Photograph) -> float | None:
    """Return the median depth of vessels over the level beside them; None if there are too few."""
    mask = vessel_mask(photograph)
    if mask is None:
        return None
    lines = skeletonize(mask)
    if lines.sum() < _LEAST_LINE_PX:
        return None
    flat = photograph.flat
    level = 1.0 + flat
    usual = np.abs(flat) <= _USUAL * float(np.median(np.abs(flat[photograph.inside])))
    free = (photograph.inside & usual & ~ndimage.binary_dilation(mask, iterations=3)).astype(np.float32)
    sd_px = _BESIDE * DIAMETER_PX
    weight = ndimage.gaussian_filter(free, sd_px, truncate=2.0)
    beside = ndimage.gaussian_filter(free * level, sd_px, truncate=2.0)
    known = lines & (weight > 0.05)
    if known.sum() < _LEAST_LINE_PX:
        return None
    beside = beside[known] / weight[known]
    on = ndimage.gaussian_filter(level, 1.0, truncate=2.0)[known]
    return float(np.median(1.0 - on / beside))
