"""Noise of soft tissue in one CT slice: the most frequent local standard deviation.

Method: the mean and the unbiased standard deviation of a window of 10 x 10 mm around every second pixel of every second
row. Windows count whose mean, which is the smoothed image, lies in the range of soft tissue (0 to 170 HU; in heads
0 to 80 HU, which leaves out the skull), whose middle lies inside the patient, and whose mean hardly changes across the
window: where the slope alone would make up a quarter of the variance, tissue and not noise was measured. The noise is
the mode of their standard deviations: bins of 0.1 HU, smoothed over 15 % of the mode; uniform tissue, wherever it
lies, makes the mode, and everything else the tail.

Sources: Christianson et al., "Automated technique to measure noise in clinical CT examinations", AJR 2015 (mode of the
histogram of local standard deviations in soft tissue); Ahmad et al. 2021 (the same without heterogeneous tissue).
Assumptions: Hounsfield units; at least one organ or muscle some 20 mm wide; noise that varies little within 10 mm.
What breaks it: texture of tissue that is as strong as the noise (fatty muscle, brain at low noise) raises it; noise of
long correlation (strong iterative reconstruction, thick slices) is in part taken for the mean of the window.
"""

import numpy as np

from mediqa_node.image.measure.ct.patient import Pixel

WINDOW_MM = 10.0
SOFT_HU = (0.0, 170.0)
BRAIN_HU = (0.0, 80.0)
BIN_HU = 0.1
LARGEST_HU = 200.0
FEWEST_WINDOWS = 200
_SMOOTHED_OVER = 0.15
_SLOPE_SHARE = 0.25
_STEP_PX = 2


def soft_noise(
    image_hu: np.ndarray, patient: np.ndarray, pixel_mm: Pixel, *, soft_hu: tuple[float, float] = SOFT_HU
) -> float | None:
    """Return the noise of soft tissue in a slice, HU; None for fewer than 200 windows of soft tissue.

    Args:
        image_hu: (rows, columns), full resolution.
        patient: mask of the patient, the same shape.
        pixel_mm: between rows, between columns.
        soft_hu: range of the window's mean.
    """
    place = _box(patient)
    size = tuple(max(3, round(WINDOW_MM / step)) for step in pixel_mm)
    image = image_hu[place]
    if any(length < 2 * width for length, width in zip(image.shape, size, strict=True)):
        return None
    mean, variance = local_moments(image, size)
    inside = patient[place][size[0] // 2 :: _STEP_PX, size[1] // 2 :: _STEP_PX][: mean.shape[0], : mean.shape[1]]
    soft = inside & (mean > soft_hu[0]) & (mean < soft_hu[1]) & (variance > 0)
    soft &= _slope_variance(mean, size) < _SLOPE_SHARE * variance
    deviations = np.sqrt(variance[soft])
    return mode(deviations) if len(deviations) >= FEWEST_WINDOWS else None


def local_moments(image: np.ndarray, size: tuple[int, ...], step: int = _STEP_PX) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and unbiased variance of every window that fits into the image, at every `step`-th place.

    Sums of columns, then of rows, in double precision: a running sum in single precision would lose the variance.
    """
    values = image.astype(np.float64)
    count = size[0] * size[1]
    total = _window_sums(values, size, step)
    squares = _window_sums(values * values, size, step)
    mean = total / count
    variance = (squares - total * mean) / (count - 1)
    return mean, np.maximum(variance, 0.0)


def _window_sums(values: np.ndarray, size: tuple[int, ...], step: int) -> np.ndarray:
    down = np.zeros((values.shape[0] + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=down[1:])
    rows = down[size[0] :: step] - down[: -size[0] : step]
    right = np.zeros((rows.shape[0], rows.shape[1] + 1))
    np.cumsum(rows, axis=1, out=right[:, 1:])
    return np.asarray(right[:, size[1] :: step] - right[:, : -size[1] : step])


def _slope_variance(mean: np.ndarray, size: tuple[int, ...], step: int = _STEP_PX) -> np.ndarray:
    """Return the variance that the slope of the smoothed image gives a window: s² L² / 12 for a slope s over length L.

    The slope is that between windows half a window to either side, whose means share no pixel.
    """
    result = np.zeros_like(mean)
    for axis, width in enumerate(size):
        reach = max(1, round(width / 2 / step))
        forward = np.roll(mean, -reach, axis) - np.roll(mean, reach, axis)
        result += (forward * width / (2 * reach * step)) ** 2 / 12
    return result


def mode(deviations: np.ndarray) -> float:
    """Return the mode of positive values below 200 HU from their smoothed histogram.

    >>> round(mode(np.concatenate([np.linspace(9, 11, 500), np.linspace(0, 60, 500)])))
    10
    """
    bins = np.minimum(deviations / BIN_HU, LARGEST_HU / BIN_HU).astype(np.intp)
    counts = np.bincount(bins, minlength=int(LARGEST_HU / BIN_HU) + 1)[: int(LARGEST_HU / BIN_HU)].astype(np.float64)
    found = float(np.median(deviations))
    for _ in range(3):
        width = 2 * round(_SMOOTHED_OVER * found / BIN_HU / 2) + 1
        kernel = np.bartlett(2 * width + 1)
        found = (int(np.argmax(np.convolve(counts, kernel / kernel.sum(), mode="same"))) + 0.5) * BIN_HU
    return found


def _box(patient: np.ndarray) -> tuple[slice, slice]:
    """Return the slices of the box around a mask; empty ones for an empty mask."""
    rows, columns = np.flatnonzero(patient.any(axis=1)), np.flatnonzero(patient.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
