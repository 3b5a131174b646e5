"""Which slices of a stack are scored (paper section 2.2).

Empty slices at both ends are left out; the rest is divided into seven equal regions, and the middle slice of each is
taken: region i of n slices is [floor(i n / 7), floor((i + 1) n / 7)), its middle floor(|R| / 2). A stack of 2 to 6
relevant slices gives each slice once.

The search runs inward from each end and stops at the first slice with content, so that few frames are decoded in
addition to the scored ones.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.image.foreground import body_fraction, otsu_threshold

BODY_FRACTION = 0.02
MR_FRACTION_OF_MIDDLE = 0.15
WANTED = 7


def salient_indices(count: int, wanted: int = WANTED) -> tuple[int, ...]:
    """Return the middle of each of `wanted` equal regions of `count` slices; every slice once if there are fewer.

    >>> salient_indices(100)
    (7, 21, 35, 49, 64, 78, 92)
    >>> salient_indices(3)
    (0, 1, 2)
    """
    if count <= wanted:
        return tuple(range(count))
    bounds = [index * count // wanted for index in range(wanted + 1)]
    return tuple(start + (stop - start) // 2 for start, stop in pairwise(bounds))


def salient_slices(
    count: int, image_at: Callable[[int], np.ndarray], *, modality: str, wanted: int = WANTED
) -> tuple[int, ...]:
    """Return the indices to score, ascending, of a stack of `count` slices.

    Args:
        image_at: returns a slice as `dicom.pixels.to_image` does; may raise UndecodablePixels.
        modality: CT, MR, or anything else, where every slice is relevant.
    """
    start, stop = relevant_range(count, image_at, modality=modality)
    return tuple(start + index for index in salient_indices(stop - start, wanted))


def relevant_range(count: int, image_at: Callable[[int], np.ndarray], *, modality: str) -> tuple[int, int]:
    """Return [start, stop) of the slices between the first and the last with content.

    CT: body, smoothed over 8 x 8 pixels so that a table or a blanket does not count, above -300 HU on at
    least 2 % of the slice. MR: at least 15 % of the middle slice's foreground, which is all that exceeds its Otsu
    threshold. A slice that cannot be decoded counts as content, so that a fault never moves the range silently. If no
    slice has content, all are kept.
    """
    has_content = _rule(count, image_at, modality)
    start = next((index for index in range(count) if has_content(index)), None)
    if start is None:
        return 0, count
    last = next(index for index in range(count - 1, start - 1, -1) if index == start or has_content(index))
    return start, last + 1


def _rule(count: int, image_at: Callable[[int], np.ndarray], modality: str) -> Callable[[int], bool]:
    if modality == "CT":
        return lambda index: _decided(index, image_at, lambda image: body_fraction(image) >= BODY_FRACTION)
    if modality != "MR" or count < 3:
        return lambda _: True
    try:
        middle = image_at(count // 2)
    except UndecodablePixels:
        return lambda _: True
    threshold = otsu_threshold(middle)
    wanted = MR_FRACTION_OF_MIDDLE * float((middle > threshold).mean())
    return lambda index: _decided(index, image_at, lambda image: float((image > threshold).mean()) >= wanted)


def _decided(index: int, image_at: Callable[[int], np.ndarray], rule: Callable[[np.ndarray], bool]) -> bool:
    try:
        return rule(image_at(index))
    except UndecodablePixels:
        return True
