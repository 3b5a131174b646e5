"""Find the acquired part of k-space along each axis of a stack from the spectrum of its magnitude images.

Method: the power spectra of the slices, under a Hann window against leakage from the border, are averaged. Along each
axis the median over low frequencies of the other axis (0.02 to 0.15 cycles a pixel, where anatomy keeps the level
high) gives the power of every line. Where acquisition ends, the power falls more steeply than anatomy does: the edge
is the steepest fall, if it exceeds the fall before it by 0.35 decades. A fall over few lines is the end of the
acquisition; a slow one is a filter (Hann, Fermi), which ends where the fall does.

Source: zero-filling and its sinc interpolation, Bernstein, Fain and Riederer 2001 (J Magn Reson Imaging 14:270).

Assumptions: outside of the acquired part the complex image is zero. The magnitude does not keep this exactly: it
squares the signal where that crosses zero, in air and at edges, so that power 1 to 2 decades below remains. Partial
Fourier leaves one side of k-space; the magnitude of it fills both, with a step but no end inside.

Breaks where: images were interpolated otherwise than by zero-filling (linear, splines, correction of distortion), which
fades slowly; where nothing exceeds the noise of rounding; where a fine pattern ends of itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy import fft

_OTHER_AXIS = (0.02, 0.15)
"""Cycles per pixel along the other axis over which the median is taken."""
_INNERMOST = 0.06
"""No edge is looked for below: cycles per pixel."""
_STEPS = ((0.02, 0.75), (0.05, 0.35))
"""For an end and for a filter: half the length over which a fall is measured, in cycles per pixel, and the share of it
by which the power may fall further after its end, to a floor. Anatomy goes on falling."""
_ENOUGH = 0.6
_EXCESS = 0.35
_SHARP = 0.045
"""A fall over at most this many cycles per pixel, and three lines, is an end and not a filter."""
_GENTLE = 0.25
"""The fall ends where it is this share of its steepest part."""
_FLAT = 0.2
"""Decades by which a plateau of noise may fall over the outer fifth of k-space."""
_SAME = 0.03


class Edge(Enum):
    """How the spectrum ends along an axis."""

    SHARP = "ends"
    FADED = "fades"
    NONE = "fills k-space"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Support:
    """The acquired part of k-space along one axis.

    Attributes:
        share: of the frequencies up to Nyquist, 0..1.
        stated: the same from the header's acquired matrix; None if unknown.
    """

    share: float
    edge: Edge
    stated: float | None = None


def spectrum(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean power spectrum of images (rows, columns), folded: (rows // 2 + 1, columns // 2 + 1)."""
    rows, columns = images[0].shape
    window = np.outer(np.hanning(rows + 2)[1:-1], np.hanning(columns + 2)[1:-1]).astype(np.float32)
    total = np.zeros((rows, columns // 2 + 1))
    for image in images:
        power = np.abs(fft.rfft2((image - image.mean()) * window)) ** 2
        total += power / max(float(power.sum()), 1e-30)
    half = rows // 2
    folded = total[: half + 1].copy()
    folded[1:] = (folded[1:] + total[: -half - 1 : -1]) / 2
    return folded / len(images)


def support(folded: np.ndarray, axis: int, size: int, acquired: int | None) -> Support:
    """Return the acquired part along an axis.

    Args:
        folded: of `spectrum`.
        size: pixels along the axis.
        acquired: samples along the axis by the header; None if unknown.
    """
    stated = None if acquired is None else min(1.0, acquired / size)
    power = line_power(folded, axis)
    fall = _steepest(power, size)
    if fall is None:
        return Support(1.0, _without_edge(power, stated), stated)
    sharp = fall.end - fall.start <= max(_SHARP * size, 3)
    share = min(1.0, 2 * (fall.middle if sharp else fall.end) / size)
    return Support(share, Edge.SHARP if sharp else Edge.FADED, stated)


def line_power(folded: np.ndarray, axis: int) -> np.ndarray:
    """Return the logarithm to base 10 of the power of every line along an axis."""
    other = folded.shape[1 - axis] - 1
    low, high = max(1, round(_OTHER_AXIS[0] * 2 * other)), max(3, round(_OTHER_AXIS[1] * 2 * other))
    lines = folded[:, low : high + 1] if axis == 0 else folded[low : high + 1].T
    return np.asarray(np.log10(np.median(lines, axis=1) + 1e-30))


@dataclass(frozen=True, slots=True)
class _Fall:
    """A fall of the power of lines: where it starts, is half way and ends, in lines, and how it exceeds anatomy's."""

    start: int
    middle: int
    end: int
    excess: float


def _steepest(power: np.ndarray, size: int) -> _Fall | None:
    """Return the fall that most exceeds the one before it and ends at a floor; a sharp one before a slow one."""
    sharp, slow = (_steepest_over(power, size, scale, tail) for scale, tail in _STEPS)
    if sharp is None or slow is None:
        return sharp or slow
    return sharp if sharp.excess > _ENOUGH * slow.excess else slow


def _steepest_over(power: np.ndarray, size: int, scale: float, most: float) -> _Fall | None:
    step = max(2, round(scale * size))
    padded = np.concatenate([power, np.full(step, power[-2:].mean())])
    falls = padded[: -2 * step] - padded[2 * step :]  # falls[i]: from line i to line i + 2 step
    floor = padded[len(power) - max(2, step // 2) :].mean()
    best, least = None, _EXCESS
    for line in range(max(step + 1, round(_INNERMOST * size)), len(power) - 1):
        before = falls[max(0, line - 4 * step) : max(1, line - 2 * step)]
        excess = float(falls[line - step]) - max(float(np.median(before)), 0.0)
        if excess <= least:
            continue
        fall = _extent(padded, line, step, len(power), excess)
        if padded[fall.end] - floor <= most * (padded[fall.start] - padded[fall.end]):
            best, least = fall, excess
    return best


def _extent(padded: np.ndarray, line: int, step: int, lines: int, excess: float) -> _Fall:
    """Return the fall around a line; it reaches as far as the slope exceeds a quarter of the steepest."""
    limit = _GENTLE * float(padded[line - step] - padded[line + step]) / 2
    local = padded[:-step] - padded[step:]  # over the next `step` lines
    start, end = line, line
    while start > step and local[start - step] > limit:
        start -= 1
    while end < lines - 1 and local[end] > limit:
        end += 1
    level = (padded[line - step] + padded[line + step]) / 2
    above = [i for i in range(line - step, line + step + 1) if i < lines and padded[i] >= level]
    return _Fall(start, max(above, default=line), end, excess)


def _without_edge(power: np.ndarray, stated: float | None) -> Edge:
    fifth = max(3, len(power) // 5)
    outer = power[-fifth:]
    flat = float(outer[: fifth // 2].mean() - outer[fifth // 2 :].mean()) < _FLAT
    if stated is None:
        return Edge.NONE if flat else Edge.UNKNOWN
    return Edge.NONE if stated > 1 - _SAME else Edge.UNKNOWN
