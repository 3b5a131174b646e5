"""Measure how a fundus photograph is lit: readable part of the field, unevenness, and clipped pixels.

Coverage: share of the field's circle that lies inside the image and whose green channel, smoothed over half a per cent
of the diameter, has at least a fifth of the field's median and 10 of 255.

Illumination: interquartile range of the background (see `op.photograph`) inside the field over its median. It is 0 for
even light. The darker macula and the nerve fibre layer are part of it: an evenly lit retina is not at 0.

Clipped: share of the field in which one of the colours has reached the upper end of its range, 254 or more of 255,
counted on single pixels of the original, not on means. The lower end is part of the coverage: blue is near 0 in most
healthy retinas.

What breaks them: cameras that compress highlights clip below 254, which is not counted; a black lesion or a wide
haemorrhage counts as unreadable; a lens reflex is bright and counts as readable.
"""

import numpy as np

from mediqa_node.image.foreground import brightest
from mediqa_node.image.measure.op.photograph import Photograph

_UPPER_END = 254.0


def coverage(photograph: Photograph) -> float:
    """Return the share of the circle that is inside the image and readable."""
    return min(1.0, float(photograph.readable.sum()) / (np.pi * photograph.circle.radius**2))


def unevenness(photograph: Photograph) -> float:
    """Return the interquartile range of the background over its median."""
    low, middle, high = np.percentile(photograph.background[photograph.lit], (25, 50, 75))
    return float((high - low) / middle)


def clipped(photograph: Photograph) -> float:
    """Return the share of the field with a colour at the upper end of its range."""
    colours = photograph.colours
    mask = photograph.field.scaled(1.0 / photograph.step).mask(colours.shape)
    return float((brightest(colours) >= _UPPER_END)[mask].mean()) if mask.any() else 0.0
