"""Suspect text that was drawn into the pixels of an image.

Method: a program that draws text sets strokes to one value, mostly the largest of the image. Groups of connected pixels
down to 60 % of the range that hold this value are taken for characters if they are 5 to 80 pixels high and thin for
their height, if a quarter of them is in the upper tenth of the range, and if they end sharply: within one pixel the
image falls by 45 % of its range. At least three side by side on one line are taken for text; a group that is wide for
its height counts as two, since small letters touch.

Assumptions: text is the brightest of the image; what else is as bright (bone, metal, fat near a coil) ends less
sharply, or is no row of thin groups.
What breaks it: dark text, text in a value that many other pixels exceed, text that is hardly brighter than what it is
drawn on, text of one or two characters such as L and R, script, and letters lower than about 8 pixels with smoothed
strokes are not seen. Rulers and colour bars with numbers are seen. 0 means that none was found, not that there is none.
"""

from itertools import pairwise

import numpy as np
from scipy import ndimage

_HEIGHT_PX = (5, 80)
_HEIGHT_SHARE = 0.04
_WIDEST = 6.0
_LEAST_PX = 6
_MOST_SHARE = 0.1
_MOST_GROUPS = 20_000
_MOST_CHARACTERS = 500
"""More are a pattern; and their lines would take too long to find."""
_CHARACTERS = 3
_TOLERANCE = 0.1
_FOLLOWED = 0.4
_DROP = 0.45
"""Of the range, down from the largest value: of strokes, of their smoothed borders, of what lies beside them."""
_LEAST_STRONG = 0.25
_EDGE_PX = 1500

Box = tuple[int, int, int, int]
"""Top, bottom, left and right."""


def holds_text(image: np.ndarray) -> bool:
    """Whether characters are suspected in an image, (rows, columns) or (rows, columns, 3)."""
    if min(image.shape[:2]) < 16:
        return False
    if image.ndim == 2:
        return _bright_text(image)
    step = max(1, max(image.shape[:2]) // _EDGE_PX)
    red, green, blue = (image[::step, ::step, colour] for colour in range(3))
    return _bright_text(np.minimum(np.minimum(red, green), blue))


def _bright_text(gray: np.ndarray) -> bool:
    """Whether there are characters at the largest value."""
    top = float(gray.max())
    extent = top - float(np.percentile(gray[::4, ::4], 1))
    strokes = gray >= top - _TOLERANCE * extent
    if extent <= 0 or not _LEAST_PX <= np.count_nonzero(strokes) <= _MOST_SHARE * strokes.size:
        return False
    followed = gray >= top - _FOLLOWED * extent
    return _on_one_line(_characters(gray, strokes, followed, _DROP * extent))


def _characters(gray: np.ndarray, strokes: np.ndarray, followed: np.ndarray, drop: float) -> list[Box]:
    """Return the groups of followed pixels that may be characters."""
    labels, count = ndimage.label(followed, structure=np.ones((3, 3)))
    strong = np.bincount(labels[strokes], minlength=count + 1)
    if count > _MOST_GROUPS:
        return []
    highest = max(_HEIGHT_PX[1], _HEIGHT_SHARE * gray.shape[0])
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if not strong[number] or not _HEIGHT_PX[0] <= height <= highest or width > _WIDEST * height:
            continue
        own = labels[rows, columns] == number
        if strong[number] < _LEAST_STRONG * own.sum():
            continue
        thin = ndimage.distance_transform_edt(np.pad(own, 1)).max() <= max(2.0, 0.2 * height)
        beside = gray[rows, max(0, columns.start - 2) : columns.stop + 2]
        if thin and float(np.median(np.abs(np.diff(beside, axis=1)).max(axis=1))) >= drop:
            found.append((rows.start, rows.stop, columns.start, columns.stop))
    return found if len(found) <= _MOST_CHARACTERS else []


def _on_one_line(boxes: list[Box]) -> bool:
    """Whether three boxes of similar height stand side by side; a box that is wide for its height counts as two."""
    for top, bottom, *_ in boxes:
        height = bottom - top
        line = sorted(
            (left, right)
            for other_top, other_bottom, left, right in boxes
            if abs(other_bottom - bottom) <= 0.25 * height and 0.6 * height <= other_bottom - other_top <= 1.6 * height
        )
        run = 0
        for (left, right), (following, _) in pairwise([*line, (1 << 30, 0)]):
            run += 2 if right - left > 1.5 * height else 1
            if run >= _CHARACTERS:
                return True
            if not 0 <= following - right <= 1.5 * height:
                run = 0
    return False
