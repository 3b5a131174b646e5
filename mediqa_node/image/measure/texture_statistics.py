"""Measure noise, detail and direction of a gray slice, its k-space lines and the surrounding air."""

from itertools import pairwise

import numpy as np
from scipy import fft, ndimage

from mediqa_node.image.measure.noise import immerkaer_response

_LEVELS = 4
_EPSILON = np.float32(1e-3)
_BANDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.501)
_CENTRE = 0.06
"""Frequencies in cycles per pixel below which a line counts as the centre of k-space."""


def texture_statistics(gray: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Measure details at four scales, each half the previous one, inside a mask of the body.

    Details are the response of Immerkaer's kernel (`noise`): low percentiles are noise, high ones structure.
    """
    found: dict[str, float] = {}
    level, mask = gray, inside
    for scale in range(_LEVELS):
        detail = immerkaer_response(level)
        size = np.abs(detail[mask])
        p20, p50, p95 = (_log(value) for value in np.percentile(size, (20, 50, 95)))
        found |= {f"noise_{scale}": p20, f"detail_{scale}": p50, f"edges_{scale}": p95}
        if scale < 3:
            found |= _directions(level, mask, scale)
        if scale < 2:
            found[f"peaked_{scale}"] = _log(float((size**2).mean())) - 2 * _log(float(size.mean()))
            found |= {f"coherence_{scale}": _coherence(detail, mask)}
        level, mask = _halved(level), _halved(mask.astype(np.float32)) > 0.6
        if mask.sum() < 30:
            mask = np.ones_like(mask)
    return found


def line_statistics(gray: np.ndarray) -> dict[str, float]:
    """Measure the k-space lines along both axes; return the lower and the higher value, not which axis has it.

    A zero-filled matrix has empty outer lines, skipped lines leave a comb of period 2 or 3, and a ghost shows as a
    repeat in the autocorrelation.
    """
    rows, columns = gray.shape
    window = (np.hanning(rows)[:, None] * np.hanning(columns)[None]).astype(np.float32)
    power = np.abs(fft.fft2((gray - gray.mean()) * window)) ** 2
    both = [_of_lines(power.sum(axis=1 - axis)) for axis in (0, 1)]
    found: dict[str, float] = {}
    for name in both[0]:
        pair = sorted(one[name] for one in both)
        found |= {f"{name}_low": pair[0], f"{name}_high": pair[1]}
    return found


def air_statistics(gray: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Measure the air around a body: its level, its evenness and its ghost ratio.

    Ghosts follow the phase axis, so the ratio compares the signal next to the body along one axis with that along the
    other (NEMA MS 1 and the ACR's ghosting test).
    """
    solid = ndimage.binary_dilation(_halved(inside.astype(np.float32)) > 0.3, iterations=3)
    half = _halved(gray)
    air = ~solid
    # pixels of exactly one value are padding, not air
    air &= half > half.min()
    body = float(half[solid].mean()) if solid.any() else 1.0
    names = ("air_level", "air_spread", "air_lumps", "air_beside", "air_corner", "air_top")
    if air.sum() < 100:
        return dict.fromkeys((*names, "has_air"), 0.0)
    values = half[air] - half[air].min()
    smooth = ndimage.uniform_filter(np.where(air, half - half[air].min(), 0.0), 5)
    weight = ndimage.uniform_filter(air.astype(np.float32), 5)
    lumps = (smooth / np.maximum(weight, 1e-3))[air & (weight > 0.5)]
    along = [solid.any(axis=axis, keepdims=True) & air for axis in (0, 1)]
    only = [along[0] & ~along[1], along[1] & ~along[0]]
    levels = [float(half[mask].mean() - half[air].min()) if mask.sum() > 30 else 0.0 for mask in only]
    corner = air & ~along[0] & ~along[1]
    floor = float(half[corner].mean() - half[air].min()) if corner.sum() > 30 else min(levels)
    mean = float(values.mean())
    return {
        "air_level": _log(mean / max(abs(body), 1e-3)),
        "air_spread": _log(float(values.std()) / max(mean, 1e-4)),
        "air_lumps": _log(float(lumps.std()) / max(mean, 1e-4)) if lumps.size else 0.0,
        "air_beside": abs(_log(levels[0]) - _log(levels[1])) if min(levels) > 0 else 0.0,
        "air_corner": _log(max(levels)) - _log(floor),
        "air_top": _log(float(np.percentile(values, 99)) / max(abs(body), 1e-3)),
        "has_air": 1.0,
    }


def _of_lines(line_power: np.ndarray) -> dict[str, float]:
    """Measure the power of lines along one axis, (n,), frequency 0 first."""
    size = len(line_power)
    frequency = np.abs(np.fft.fftfreq(size))
    log_power = np.log(line_power + 1e-9 * line_power.max() + 1e-12)
    total = float(log_power[(frequency > 0.005) & (frequency < 0.05)].mean()) if size > 40 else float(log_power.max())
    found = {}
    for low, high in pairwise(_BANDS):
        band = (frequency >= low) & (frequency < high)
        found[f"band_{high:.2f}"] = float(log_power[band].mean()) - total if band.any() else 0.0
    outer = frequency > _CENTRE
    line = np.arange(size)
    signed = np.where(line <= size // 2, line, line - size)
    trend = ndimage.uniform_filter1d(log_power, 9, mode="wrap")
    rest = log_power - trend
    for period in (2, 3):
        means = [float(rest[outer & (signed % period == phase)].mean()) for phase in range(period)]
        found[f"comb_{period}"] = max(means) - min(means)
    found["rough_lines"] = _log(float(rest[outer].std()))
    steps = np.abs(np.diff(ndimage.uniform_filter1d(log_power, 3, mode="wrap")))
    found["steepest"] = _log(float(steps[_CENTRE * size <= line[:-1]][: size // 2].max(initial=1e-3)))
    correlation = np.real(np.fft.ifft(line_power * (frequency > _CENTRE)))
    correlation = np.abs(correlation / max(correlation[0], 1e-9))
    far = slice(max(4, size // 16), size // 2 + 1)
    found["repeats"] = _log(float(correlation[far].max()))
    return found


def _directions(level: np.ndarray, mask: np.ndarray, scale: int) -> dict[str, float]:
    """Return the log median of second differences along the stronger axis, and its excess over the other axis."""
    both = [
        _log(float(np.percentile(np.abs(np.diff(level, 2, axis=axis))[inner], 60)))
        for axis, inner in ((0, mask[1:-1]), (1, mask[:, 1:-1]))
    ]
    return {f"curvature_{scale}": max(both), f"anisotropy_{scale}": abs(both[0] - both[1])}


def _coherence(detail: np.ndarray, mask: np.ndarray) -> float:
    """Return how far details share one direction, 0..1: streaks and edges do, noise does not."""
    half = _halved(detail)
    down, across = np.gradient(half)
    xx, yy, xy = (ndimage.uniform_filter(part, 5) for part in (across * across, down * down, across * down))
    strength = xx + yy
    apart = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    inner = _halved(mask.astype(np.float32)) > 0.6
    inner = inner if inner.any() else np.ones_like(inner)
    return float(np.mean(apart[inner] / (strength[inner] + 1e-9)))


def _halved(image: np.ndarray) -> np.ndarray:
    """Return the mean of 2 x 2 pixels; an odd last row or column is left out."""
    rows, columns = (size // 2 * 2 for size in image.shape)
    blocks = image[:rows, :columns]
    return np.asarray((blocks[::2, ::2] + blocks[1::2, ::2] + blocks[::2, 1::2] + blocks[1::2, 1::2]) / 4)


def _log(value: float) -> float:
    return float(np.log(max(float(value), 0.0) + _EPSILON))
