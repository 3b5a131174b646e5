"""The views of a slice that the network gets: the whole slice, and crops at native resolution.

Reducing a slice to the network's input hides blur, blocking and fine noise. Crops keep these but miss what spreads over
the whole slice. Each crop covers as much as possible of the body that earlier crops do not show.
"""

import numpy as np

from mediqa_node.domain.preprocessing import View
from mediqa_node.image.foreground import BODY_HU, brightest, otsu_threshold
from mediqa_node.image.fundus import DARK

_STEPS = 8
"""Places are multiples of an eighth of a crop."""
_WORTH = 0.1
"""A crop that shows less new body than this share of its area is left out, unless it is the first."""


def whole_view(shape: tuple[int, ...], slice_index: int, *, square: bool) -> View:
    """Return the view of a whole slice: the slice itself, or the smallest square with the slice centred in it."""
    rows, columns = shape[:2]
    if not square:
        return View(slice_index=slice_index, top=0, left=0, height=rows, width=columns)
    edge = max(rows, columns)
    top, left = (-((edge - size) // 2) for size in (rows, columns))
    return View(slice_index=slice_index, top=top, left=left, height=edge, width=edge)


def native_crops(image: np.ndarray, slice_index: int, *, modality: str, size_px: int, count: int) -> list[View]:
    """Return 1 to `count` square views of `size_px` pixels at native resolution; none for a count of 0.

    Args:
        image: (rows, columns) in HU or signal, or (rows, columns, 3) RGB.
    """
    if not count:
        return []
    mask = _body(image, modality)
    tops, lefts = (_places(size, size_px, size_px // _STEPS) for size in mask.shape)
    crops: list[View] = []
    for _ in range(count):
        new = _sums(mask, tops, lefts, size_px)
        best = np.unravel_index(int(np.argmax(new)), new.shape)
        if crops and new[best] < _WORTH * size_px**2:
            break
        top, left = int(tops[best[0]]), int(lefts[best[1]])
        crops.append(View(slice_index=slice_index, top=top, left=left, height=size_px, width=size_px))
        mask[max(0, top) : top + size_px, max(0, left) : left + size_px] = False
    return crops


def shown(image: np.ndarray, view: View) -> np.ndarray:
    """Return the pixels of a view, (height, width, ...); pixels beyond the slice are 0."""
    rows, columns = image.shape[:2]
    out = np.zeros((view.height, view.width, *image.shape[2:]), dtype=image.dtype)
    top, left = max(0, view.top), max(0, view.left)
    bottom, right = min(rows, view.top + view.height), min(columns, view.left + view.width)
    out[top - view.top : bottom - view.top, left - view.left : right - view.left] = image[top:bottom, left:right]
    return out


def _body(image: np.ndarray, modality: str) -> np.ndarray:
    gray = brightest(image)
    if modality == "CT":
        return gray > BODY_HU
    if modality == "OP":
        return gray > DARK
    return gray > otsu_threshold(gray) / 2


def _places(size: int, crop: int, step: int) -> np.ndarray:
    """Return the first rows (or columns) of crops along an edge; along a short edge, one centred crop."""
    if size <= crop:
        return np.array([-((crop - size) // 2)])
    return np.unique(np.append(np.arange(0, size - crop, step), size - crop))


def _sums(mask: np.ndarray, tops: np.ndarray, lefts: np.ndarray, crop: int) -> np.ndarray:
    """Return the number of mask pixels inside each crop, (tops, lefts), from a summed-area table."""
    table = np.pad(mask.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32), ((1, 0), (1, 0)))
    y0, x0 = np.maximum(tops, 0)[:, None], np.maximum(lefts, 0)[None]
    y1 = np.minimum(tops + crop, mask.shape[0])[:, None]
    x1 = np.minimum(lefts + crop, mask.shape[1])[None]
    return np.asarray(table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0])
