"""Suspect text that was drawn into the pixels of an image.

Method: a program that draws text sets pixels to one value, mostly the largest of the image. Connected groups of pixels
at that value that are as small, thin and sharp as characters, at least three of them side by side on one line, are
taken for text.

Assumptions: text is brighter than all or has the largest value of the image, and is 5 to 80 pixels high.
What breaks it: text in a value that other pixels exceed, dark text, hand-written characters, and connected script are
not seen. 0 means that none was found, not that there is none (PS3.15 E.1.1 asks for a person's check).
"""

from itertools import pairwise

import numpy as np
from scipy import ndimage

_HEIGHT_PX = (5, 80)
_MOST_SHARE = 0.05
_LEAST_PX = 15
_CHARACTERS = 3
_STEP = 0.2
_TOLERANCE = 0.03
"""Of the range, for colour, which is mostly compressed with loss."""


def holds_text(image: np.ndarray) -> bool:
    """Whether characters are suspected in an image, (rows, columns) or (rows, columns, 3)."""
    gray = image.min(axis=-1) if image.ndim == 3 else image
    if min(gray.shape) < 16:
        return False
    top = float(gray.max())
    extent = top - float(np.percentile(gray[::4, ::4], 1))
    if extent <= 0:
        return False
    strokes = gray >= top - (_TOLERANCE * extent if image.ndim == 3 else 0.0)
    if not _LEAST_PX <= strokes.sum() <= _MOST_SHARE * strokes.size:
        return False
    return _on_one_line(_characters(gray, strokes, top - _STEP * extent))


def _characters(gray: np.ndarray, strokes: np.ndarray, below: float) -> list[tuple[int, int, int, int]]:
    """Return top, bottom, left and right of the groups that may be characters."""
    labels, count = ndimage.label(strokes, structure=np.ones((3, 3)))
    if count > 5000:
        return []
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        height, width = (part.stop - part.start for part in box)
        if not _HEIGHT_PX[0] <= height <= _HEIGHT_PX[1] or width > 2 * height:
            continue
        around = tuple(slice(max(0, part.start - 2), part.stop + 2) for part in box)
        own = labels[around] == number
        ring = ndimage.binary_dilation(own, iterations=2) & ~ndimage.binary_dilation(own)
        thin = ndimage.distance_transform_edt(np.pad(own, 1)).max() <= max(1.5, 0.2 * height)
        if thin and ring.any() and float(np.median(gray[around][ring])) < below:
            found.append((box[0].start, box[0].stop, box[1].start, box[1].stop))
    return found


def _on_one_line(boxes: list[tuple[int, int, int, int]]) -> bool:
    """Whether three boxes of similar height stand side by side."""
    for top, bottom, *_ in boxes:
        height = bottom - top
        line = sorted(
            (left, right)
            for other_top, other_bottom, left, right in boxes
            if abs(other_bottom - bottom) <= 0.25 * height and 0.6 * height <= other_bottom - other_top <= 1.6 * height
        )
        run = 1
        for (_, right), (left, _) in pairwise(line):
            run = run + 1 if 0 <= left - right <= 1.5 * height else 1
            if run >= _CHARACTERS:
                return True
    return False
