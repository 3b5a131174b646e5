"""The input of measures: slices on demand, so that a stack of any length needs the memory of a few slices."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.recall import Recall, fresh

SliceGetter = Callable[[int], np.ndarray]
"""Returns a slice by its index in the stack; raises UndecodablePixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSource:
    """A stack of slices to measure.

    Attributes:
        count: slices, in order of position.
        image_at: a slice in the units of `dicom.pixels.to_image`: (rows, columns) float32 HU or signal, or
            (rows, columns, 3) float32 RGB 0..255.
        coarse_at: `coarse` of the same slice: cheap where it is taken before pixels are rescaled.
        spacing_mm: between rows, between columns; 0.0 where the header has none that can be true.
        thickness_mm: Slice Thickness (0018,0050), None if missing.
        step: of `coarse`.
        most_coarse: slices that are looked at, at most: a long stack, or one that is slow to decode, must not hold up
            its report.
        positions_mm: along the normal, ascending, (count,); empty where there is no geometry.
        recall: what is known of single slices already.
        name_at: what names a slice and its pixels beyond this stack, for `recall`.
    """

    count: int
    image_at: SliceGetter
    coarse_at: SliceGetter
    spacing_mm: tuple[float, float]
    thickness_mm: float | None = None
    positions_mm: tuple[float, ...] = ()
    step: int = 4
    most_coarse: int = 512
    recall: Recall = fresh
    name_at: Callable[[int], Hashable] = int

    def coarse_indices(self, full: Iterable[int] = ()) -> tuple[int, ...]:
        """Return the slices to look at coarsely: all, or evenly spaced ones, and those of `full`."""
        return tuple(sorted({*evenly(self.count, self.most_coarse), *full}))


def coarse_step(rows: int, columns: int) -> int:
    """Return how many pixels a coarse one stands for along each axis: 4, or fewer where an image has few.

    A coarse image keeps 96 pixels or more along the shorter axis, if the image has them.
    """
    return max(1, min(4, min(rows, columns) // 96))


def coarse(image: np.ndarray, step: int = 4) -> np.ndarray:
    """Return the pixel in the middle of each block of `step` x `step` pixels that fits into an image.

    The blocks have the image's area but for fewer than `step` rows and columns, and lie where the image lies.
    """
    rows, columns = (size // step * step for size in image.shape[:2])
    return image[step // 2 : rows : step, step // 2 : columns : step]


def fine(mask: np.ndarray, shape: tuple[int, ...], step: int = 4) -> np.ndarray:
    """Return a mask of the pixels of an image of this shape from that of its coarse pixels, else False."""
    blocks = np.repeat(np.repeat(mask, step, axis=0), step, axis=1)[: shape[0], : shape[1]]
    result = np.zeros(shape, dtype=bool)
    result[: blocks.shape[0], : blocks.shape[1]] = blocks
    return result


def evenly(count: int, at_most: int) -> tuple[int, ...]:
    """Return at most `at_most` evenly spaced indices of `count`, each from the middle of its part.

    >>> evenly(100, 4), evenly(3, 16)
    ((12, 37, 62, 87), (0, 1, 2))
    """
    if count <= at_most:
        return tuple(range(count))
    return tuple((2 * part + 1) * count // (2 * at_most) for part in range(at_most))
