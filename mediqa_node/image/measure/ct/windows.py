"""Mean and standard deviation of small windows of soft tissue: what noise and its spectrum are measured on.

Windows of 10 x 10 mm around every second pixel of every second row. Sums of pairs of rows, then of columns, are shared
by windows that overlap, which is ten times as fast as two filters. Values count from 50 HU, so that sums of squares
keep their digits in single precision where tissue is soft.
"""

from dataclasses import dataclass

import numpy as np

from mediqa_node.image.measure.ct.patient import Pixel

WINDOW_MM = 10.0
STEP_PX = 2
SOFT_HU = (0.0, 170.0)
BRAIN_HU = (0.0, 80.0)
"""Leaves out the skull, and windows that it reaches into."""
_PEDESTAL_HU = 50.0
_SMALLEST_PX = 3


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of a slice.

    Attributes:
        mean, variance: of each window, unbiased, (rows, columns), HU and HU².
        flat: its variance about a fitted plane, unbiased, HU².
        fine: mean square of its fine detail, HU²: the response of the kernel of Immerkaer (`measure.noise`), which
            structure of several pixels hardly adds to.
        soft: which windows are soft tissue: their middle in the patient, their mean in its range.
        size: of a window, rows and columns in pixels.
        corner: pixel of the first window's corner; the next ones begin `STEP_PX` pixels further.
    """

    mean: np.ndarray
    variance: np.ndarray
    flat: np.ndarray
    fine: np.ndarray
    soft: np.ndarray
    size: tuple[int, int]
    corner: tuple[int, int]


def soft_windows(
    image_hu: np.ndarray, patient: np.ndarray, pixel_mm: Pixel, soft_hu: tuple[float, float] = SOFT_HU
) -> Windows | None:
    """Return the windows of the box around the patient, None where not two of them fit into it.

    Args:
        image_hu: (rows, columns), full resolution.
        patient: mask of the patient, the same shape.
        pixel_mm: between rows, between columns.
        soft_hu: range of the window's mean.
    """
    rows, columns = np.flatnonzero(patient.any(axis=1)), np.flatnonzero(patient.any(axis=0))
    height, width = (max(_SMALLEST_PX, round(WINDOW_MM / step)) for step in pixel_mm)
    if not len(rows) or np.ptp(rows) + 1 < 2 * height or np.ptp(columns) + 1 < 2 * width:
        return None
    place = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    values = image_hu[place].astype(np.float32) - np.float32(_PEDESTAL_HU)
    count = height * width
    total, squares = window_sums(values, (height, width)), window_sums(values * values, (height, width))
    mean = total / count
    about_mean = np.maximum(squares - total * mean, 0.0)
    about_plane = np.maximum(about_mean - _plane(values, total, (height, width)), 0.0)
    mean += _PEDESTAL_HU
    middles = patient[place][height // 2 :: STEP_PX, width // 2 :: STEP_PX][: mean.shape[0], : mean.shape[1]]
    soft = middles & (mean > soft_hu[0]) & (mean < soft_hu[1]) & (about_plane > 0)
    return Windows(
        mean=mean,
        variance=about_mean / (count - 1),
        flat=about_plane / (count - 3),
        fine=window_sums(_detail(values), (height, width)) / count,
        soft=soft,
        size=(height, width),
        corner=(int(rows[0]), int(columns[0])),
    )


def _plane(values: np.ndarray, total: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the sum of squares that a plane explains in each window beyond its mean."""
    explained = np.zeros_like(total)
    for axis, (length, across) in enumerate((size, size[::-1])):
        place = np.arange(values.shape[axis], dtype=np.float32) - np.float32(values.shape[axis] / 2)
        middle = STEP_PX * np.arange(total.shape[axis], dtype=np.float32) + place[0] + np.float32((length - 1) / 2)
        along = [slice(None), None] if axis == 0 else [None, slice(None)]
        moment = window_sums(values * place[tuple(along)], size) - middle[tuple(along)] * total
        explained += moment * moment / (across * length * (length**2 - 1) / 12)
    return explained


def _detail(values: np.ndarray) -> np.ndarray:
    """Return the square of the second difference along both axes over 36: white noise keeps its variance."""
    detail = np.zeros_like(values)
    detail[1:-1, 1:-1] = np.diff(np.diff(values, 2, axis=0), 2, axis=1)
    detail *= detail
    detail /= 36
    return detail


def window_sums(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the sum of every window that fits into an image, at every second pixel of every second row.

    >>> window_sums(np.ones((5, 6), dtype=np.float32), (3, 4)).tolist()
    [[12.0, 12.0], [12.0, 12.0]]
    """
    return _sums_down(np.ascontiguousarray(_sums_down(values, size[0]).T), size[1]).T


def _sums_down(values: np.ndarray, length: int) -> np.ndarray:
    """Return sums of `length` rows that begin at every second row."""
    count = (len(values) - length) // STEP_PX + 1
    pairs = values[:-1:STEP_PX] + values[1::STEP_PX]
    result = pairs[:count].copy()
    for shift in range(1, length // STEP_PX):
        result += pairs[shift : shift + count]
    if length % STEP_PX:
        last = length - 1
        result += values[last : last + STEP_PX * (count - 1) + 1 : STEP_PX]
    return np.asarray(result)
