"""Find the acquired part of k-space along each axis of a stack from the spectrum of its magnitude images.

Method: the power spectra of the slices, under a Hann window against leakage from the border, are averaged. Along each
axis the median over low frequencies of the other axis (0.02 to 0.15 cycles a pixel, where anatomy keeps the level
high) gives the power of every line. Where acquisition ends, the power falls more steeply than anatomy does and then
stays at a floor. A fall of nine tenths of a decade over a few lines is the end of acquisition; a slower one is a
filter (Hann, Fermi) or an interpolation, which ends where the fall does.

Source: zero-filling and windows of k-space, Bernstein, Fain and Riederer 2001 (doi 10.1002/jmri.1183).

Assumptions: outside of the acquired part the complex image is zero. The magnitude does not keep this exactly: it is
not linear where the signal crosses zero, in air and at edges, so that power 1 to 2 decades below remains. Partial
Fourier leaves one side of k-space; the magnitude of it fills both, with a step of about half a decade inside.

Breaks where: images were interpolated otherwise than by zero-filling (linear, splines, correction of distortion), which
fades slowly; where the noise of rounding exceeds that of the scanner; where a fine pattern ends of itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy import fft

_OTHER_AXIS = (0.02, 0.15)
"""Cycles per pixel along the other axis over which the median is taken."""
_INNERMOST = 0.12
"""No end is looked for below, cycles per pixel: anatomy fades into noise there, and nobody fills up four times."""
_GENTLE = 0.25
"""A fall reaches as far as its slope exceeds that before it by this share of the most."""
_RISE = 0.12
"""Decades by which the power may rise again after a fall: interference of edges makes lobes that do."""
_SHARP = 0.6
"""Share of a fall that lies within three lines where acquisition ends; of a window it is less, above 100 lines."""
_CONTRADICTED = 0.1
"""An end so far from the header's acquired matrix is rather a filter or an interpolation."""
_WINDOW_LINES = 1.0
"""The window widens what was acquired by a line."""
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

    @property
    def compared(self) -> str:
        """Return in words what the header says; "" without an acquired matrix."""
        return "" if self.stated is None else f"the acquired matrix is {self.stated:.2f} of the image's"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What a fall must be like: an end of acquisition, or a filter.

    Attributes:
        step: half the length over which it is measured, cycles per pixel.
        excess: decades by which it must exceed the fall before it.
        drop: decades from its start to its end.
        tail: share of the drop by which the power may fall further, to the floor; anatomy goes on falling.
    """

    step: float
    excess: float
    drop: float
    tail: float


_END = _Kind(step=0.02, excess=0.5, drop=0.9, tail=1.2)
_FILTER = _Kind(step=0.05, excess=0.45, drop=0.8, tail=0.5)


@dataclass(frozen=True, slots=True)
class _Fall:
    """A fall of the power of lines.

    Attributes:
        start, middle, end: in lines.
        drop: decades.
        sharp: share that lies within three lines.
    """

    start: int
    middle: float
    end: int
    drop: float
    sharp: float


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
    fall = _steepest(power, size, _END) or _steepest(power, size, _FILTER)
    if fall is not None and fall.sharp >= _SHARP:
        share = min(1.0, 2 * (fall.middle - _WINDOW_LINES) / size)
        agrees = stated is None or abs(share - stated) <= _CONTRADICTED
        return Support(share, Edge.SHARP if agrees else Edge.FADED, stated)
    if fall is not None:
        return Support(min(1.0, 2 * fall.end / size), Edge.FADED, stated)
    return Support(1.0, _without_end(power, stated), stated)


def line_power(folded: np.ndarray, axis: int) -> np.ndarray:
    """Return the logarithm to base 10 of the power of every line along an axis."""
    other = folded.shape[1 - axis] - 1
    low, high = max(1, round(_OTHER_AXIS[0] * 2 * other)), max(3, round(_OTHER_AXIS[1] * 2 * other))
    lines = folded[:, low : high + 1] if axis == 0 else folded[low : high + 1].T
    return np.asarray(np.log10(np.median(lines, axis=1) + 1e-30))


def _steepest(power: np.ndarray, size: int, kind: _Kind) -> _Fall | None:
    """Return the fall of a kind that most exceeds the one before it."""
    step, lines = max(2, round(kind.step * size)), len(power)
    padded = np.concatenate([power, np.full(step, power[-2:].mean())])
    falls = padded[: -2 * step] - padded[2 * step :]  # falls[i]: from line i to line i + 2 step
    floor = float(padded[lines - max(2, step // 2) :].mean())
    best, least = None, kind.excess
    for line in range(max(step + 1, round(_INNERMOST * size)), lines - 1):
        before = max(float(np.median(falls[max(0, line - 4 * step) : max(1, line - 2 * step)])), 0.0)
        excess = float(falls[line - step]) - before
        if excess <= least:
            continue
        fall = _extent(padded, line, step, lines, before)
        tail = float(padded[fall.end]) - floor
        if fall.drop < kind.drop or tail > kind.tail * fall.drop or _rise(power, fall.end) > _RISE:
            continue
        best, least = fall, excess
    return best


def _extent(padded: np.ndarray, line: int, step: int, lines: int, before: float) -> _Fall:
    """Return the fall around a line; slopes are per 2 steps, `before` that of the lines before it."""
    steepest = float(padded[line - step] - padded[line + step])
    half = max(1, step // 2)
    local = (padded[:-half] - padded[half:]) * 2 * step / half
    start, end = line, line
    while start > half and local[start - half] > before + _GENTLE * (steepest - before):
        start -= 1
    while end < lines - 1 and local[end] > _GENTLE * steepest:
        end += 1
    level = (padded[line - step] + padded[line + step]) / 2
    last = max((i for i in range(line - step, line + step) if padded[i] >= level), default=line)
    beyond = float(padded[last] - padded[last + 1])
    middle = last + float(np.clip((padded[last] - level) / beyond, 0, 1)) if beyond > 0 else float(last)
    within = max(float(padded[i - 1] - padded[i + 2]) for i in range(max(1, line - step), line + step - 1))
    middle = min(middle, float(end))
    return _Fall(start, middle, end, float(padded[start] - padded[end]), within / steepest)


def _rise(power: np.ndarray, end: int) -> float:
    smooth = np.convolve(power[min(end, len(power) - 4) :], np.ones(3) / 3, "valid")
    return float(smooth.max() - smooth[0])


def _without_end(power: np.ndarray, stated: float | None) -> Edge:
    """Tell whether k-space is full where nothing ends: noise fills it to the last line, or the header says so."""
    fifth = max(4, len(power) // 5)
    outer = power[-fifth:]
    flat = abs(float(outer[: fifth // 2].mean() - outer[fifth // 2 :].mean())) < _FLAT
    full = flat if stated is None else stated > 1 - _SAME
    return Edge.NONE if full else Edge.UNKNOWN
