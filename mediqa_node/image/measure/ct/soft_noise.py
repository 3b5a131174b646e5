"""Noise of soft tissue in one CT slice: the most frequent local standard deviation.

Method: the mean and the unbiased standard deviation of a window of 10 x 10 mm around every second pixel of every second
row. Windows count whose mean, which is the smoothed image, lies in the range of soft tissue (0 to 170 HU; in heads
0 to 80 HU, which leaves out the skull), whose middle lies inside the patient, and whose mean hardly changes across the
window: where the slope alone would make up a quarter of the variance, tissue and not noise was measured. The noise is
the mode of their standard deviations: bins of 0.1 HU, smoothed over 15 % of the mode; uniform tissue, wherever it
lies, makes the mode, and everything else the tail.

Sources: Christianson et al., "Automated technique to measure noise in clinical CT examinations", AJR 2015 (doi
10.2214/AJR.14.13613); Ahmad et al., Med Phys 2021 (heads, doi 10.1002/mp.15133); Kuo et al., Phys Med Biol 2024
(without high gradients, doi 10.1088/1361-6560/ad3883). Range of heads, bins and the limit of slopes are ours.
Assumptions: Hounsfield units; at least one organ or muscle some 20 mm wide; noise that varies little within 10 mm.
What breaks it: texture of tissue that is as strong as the noise (fatty muscle, brain at low noise) raises it; noise of
long correlation (strong iterative reconstruction, thick slices) is in part taken for the mean of the window.
"""

import numpy as np

from mediqa_node.image.measure.ct.windows import STEP_PX, Windows

BIN_HU = 0.1
LARGEST_HU = 1000.0
FEWEST_WINDOWS = 200
_SMOOTHED_OVER = 0.15
_SLOPE_SHARE = 0.25


def soft_noise(windows: Windows) -> float | None:
    """Return the noise of soft tissue in a slice, HU; None for fewer than 200 windows of soft tissue."""
    level = windows.soft & (_slope_variance(windows) < _SLOPE_SHARE * windows.variance)
    deviations = np.sqrt(windows.variance[level])
    deviations = deviations[deviations < LARGEST_HU]
    return mode(deviations) if len(deviations) >= FEWEST_WINDOWS else None


def _slope_variance(windows: Windows) -> np.ndarray:
    """Return the variance that the slope of the smoothed image gives a window: s² L² / 12 for a slope s over length L.

    The slope is that between windows half a window to either side, whose means share no pixel.
    """
    mean = windows.mean
    result = np.zeros_like(mean)
    for axis, width in enumerate(windows.size):
        reach = max(1, round(width / 2 / STEP_PX))
        ahead = np.roll(mean, -reach, axis)
        ahead -= np.roll(mean, reach, axis)
        ahead *= width / (2 * reach * STEP_PX)
        result += ahead * ahead / 12
    return result


def mode(deviations: np.ndarray) -> float:
    """Return the mode of positive values below 1000 HU from their smoothed histogram.

    >>> round(mode(np.concatenate([np.linspace(9, 11, 500), np.linspace(0, 60, 500)])))
    10
    """
    counts = np.bincount((deviations / BIN_HU).astype(np.intp)).astype(np.float64)
    found = float(np.median(deviations))
    for _ in range(3):
        half = max(1, round(_SMOOTHED_OVER * found / BIN_HU))
        smooth = np.convolve(counts, np.bartlett(2 * half + 1), mode="same")
        found = _top(smooth, at=int(np.argmax(smooth)), reach=half) * BIN_HU
    return found


def _top(smooth: np.ndarray, *, at: int, reach: int) -> float:
    """Return where the parabola through a histogram near its largest bin is largest, in bins."""
    reach = max(1, min(reach, at, len(smooth) - 1 - at))
    offsets = np.arange(-reach, reach + 1)
    near = smooth[max(at - reach, 0) : at + reach + 1]
    if len(near) < len(offsets):
        return at + 0.5
    bend, slope, _ = np.polyfit(offsets, near, 2)
    shift = float(np.clip(-slope / (2 * bend), -reach, reach)) if bend < 0 else 0.0
    return at + 0.5 + shift
