"""Noise of soft tissue in one CT slice: the most frequent local standard deviation.

Method: the mean of a window of 10 x 10 mm around every second pixel of every second row, and the unbiased standard
deviation of its pixels about a fitted plane. Windows count whose mean, which is the smoothed image, lies in the range
of soft tissue (0 to 170 HU; in heads 0 to 80 HU, which leaves out the skull), whose middle lies inside the patient,
and that hold noise and little else: a plane explains less than a quarter of their variance, and the rest is no larger
a multiple of fine detail than noise makes it. Edges and texture of several pixels add to the deviation, but hardly to
fine detail. The lowest multiples are those of noise alone, and their scatter tells how far noise reaches: windows
count up to q10 (q10 / q2)^2.3, but not beyond 2.2 q10, where q2 and q10 are the 2nd and 10th percentiles of the
multiples. For noise alone, whose multiples are about lognormal, that is half a standard deviation above the median.
The noise is the mode of the deviations: bins of 0.1 HU, smoothed over 15 % of the mode; uniform tissue, wherever it
lies, makes the mode, and what is left of structure the tail.

Sources: Christianson et al., "Automated technique to measure noise in clinical CT examinations", AJR 2015 (doi
10.2214/AJR.14.13613); Ahmad et al., Med Phys 2021 (heads, doi 10.1002/mp.15133); Kuo et al., Phys Med Biol 2024
(without high gradients, doi 10.1088/1361-6560/ad3883). Planes, fine detail, the range of heads and the bins are ours.
Assumptions: Hounsfield units; at least one organ or muscle some 20 mm wide; noise that varies little within 10 mm.
What breaks it: texture of tissue that is as strong as the noise (fatty muscle, brain at low noise) raises it; noise
of long correlation (strong iterative reconstruction, thick slices) is in part taken for the plane of the window, and
it reads some 5 % low even against the deviation over the same window.
"""

import numpy as np

from mediqa_node.image.measure.ct.windows import Windows

BIN_HU = 0.1
LARGEST_HU = 1000.0
FEWEST_WINDOWS = 200
_SMOOTHED_OVER = 0.15
_PLANE_SHARE = 0.25
_LOWEST, _LOW = 0.02, 0.1
"""Quantiles of the multiples of fine detail, of windows that are taken for noise alone."""
_REACH, _FARTHEST = 2.3, 2.2


def soft_noise(windows: Windows) -> float | None:
    """Return the noise of soft tissue in a slice, HU; None for fewer than 200 windows of soft tissue."""
    level = windows.soft & (windows.variance - windows.flat < _PLANE_SHARE * windows.variance) & (windows.fine > 0)
    if np.count_nonzero(level) < FEWEST_WINDOWS:
        return None
    variance = windows.flat[level]
    multiple = variance / windows.fine[level]
    lowest, low = np.quantile(multiple, (_LOWEST, _LOW))
    deviations = np.sqrt(variance[multiple <= low * min((low / lowest) ** _REACH, _FARTHEST)])
    deviations = deviations[deviations < LARGEST_HU]
    if len(deviations) < FEWEST_WINDOWS // 2:
        return None
    freedom = windows.size[0] * windows.size[1] - 3
    # the mode of the deviations of few pixels is below their own: that of a chi distribution
    return mode(deviations) * float(np.sqrt(freedom / (freedom - 1)))


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
