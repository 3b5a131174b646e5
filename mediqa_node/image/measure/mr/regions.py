"""Separate the body from the air in a magnitude image, and the air by how it lies to the body.

Method: the image is smoothed over 3 x 3 pixels; the body is what exceeds the larger of a fifth of the typical signal
and Otsu's threshold of the logarithm, which lies above the noise. Its parts of at least a twentieth of the largest
are kept, with their holes. The air is everything farther from it than a margin for ringing and chemical shift.

Breaks where: the signal at the far side of a surface coil falls below a fifth of the typical signal; ghosts are
stronger than that; lungs or bowel open to the border. Tissue that is missed counts as air and raises ghosts.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mediqa_node.image.foreground import body_pixels, otsu_threshold

_OF_SIGNAL = 0.2
_SMALLEST_PART = 0.05
_FEWEST_PX = 60
_MARGIN = 0.03
"""Of the longer edge: air nearer to the body is not counted."""
_FLAT_PX = 3


@dataclass(frozen=True, slots=True)
class Regions:
    """Where the body and the air of one slice lie, and where 3 x 3 pixels have one value; (rows, columns), bool."""

    body: np.ndarray
    air: np.ndarray
    flat: np.ndarray


def regions(image: np.ndarray) -> Regions | None:
    """Return the body and the air of a slice (rows, columns); None where no body of 60 pixels stands out."""
    smooth = ndimage.uniform_filter(np.maximum(image, 0.0), 3, mode="nearest")
    level = _threshold(smooth)
    mask = smooth > level
    body = np.asarray(ndimage.binary_fill_holes(_large_parts(ndimage.binary_opening(mask, iterations=1))))
    if body.sum() < _FEWEST_PX:
        return None
    margin = max(2, round(_MARGIN * max(image.shape)))
    near = ndimage.maximum_filter(body | _large_parts(mask), 2 * margin + 1, mode="constant")
    return Regions(body=body, air=~near, flat=_flat(image))


def _threshold(smooth: np.ndarray) -> float:
    bright = smooth[smooth > otsu_threshold(smooth)]
    typical = float(np.median(bright)) if bright.size else 0.0
    return max(_OF_SIGNAL * typical, float(body_pixels([smooth]).min()) if typical > 0 else np.inf)


def _large_parts(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask)
    if count == 0:
        return np.zeros_like(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= _SMALLEST_PART * sizes.max())[parts] & mask)


def _flat(image: np.ndarray) -> np.ndarray:
    """Return where all of 3 x 3 pixels have one value: masked or blanked, never noise."""
    highest = ndimage.maximum_filter(image, _FLAT_PX, mode="nearest")
    lowest = ndimage.minimum_filter(image, _FLAT_PX, mode="nearest")
    return np.asarray(highest == lowest)
