"""Measure the smooth variation of the signal inside the body: the bias field of coils and transmission.

Method: the image is averaged over about 32 x 32 blocks; a polynomial of the second degree is fitted to the differences
of its logarithm between neighbouring blocks of the body, each weighted by the inverse square of its residual, but no
residual less than the median (20 rounds). Anatomy has few and large differences, the field many small ones: the
gradients left are made sparse (Zheng, Grossman, Awate and Gee, MICCAI 2009). The value is the interquartile range of
the field, the exponential of the polynomial, over the body, over its median.

Assumptions: most of the body's area is far from the borders of tissues, and tissues are not themselves shaded.

Breaks where: the field is steeper than a second degree (surface coils close by); one tissue lies around another
and blurs into it (subcutaneous fat, muscle), which reads as a radial field; the signal comes close to the noise.
"""

import numpy as np
from scipy import ndimage

_BLOCKS = 32
_FEWEST_BLOCKS = 4
_FEWEST_PAIRS = 60
_ROUNDS = 20
_MARGIN = 0.015
"""Of the longer edge: the body's border, which holds a part of the air, is left out."""
_LEAST = 1e-6


def nonuniformity(image: np.ndarray, body: np.ndarray) -> float | None:
    """Return the interquartile range of the field over its median; None where the body is too small.

    Args:
        image, body: (rows, columns), the latter bool.
    """
    edge = max(1, round(min(image.shape) / _BLOCKS))
    rows, columns = (size // edge for size in image.shape)
    if min(rows, columns) < _FEWEST_BLOCKS:
        return None
    margin = max(1, round(_MARGIN * max(image.shape)))
    core = ndimage.minimum_filter(body, 2 * margin + 1, mode="nearest")
    inside = _averaged(core, edge, rows, columns) > 0.99
    level = _averaged(np.maximum(image, 0.0), edge, rows, columns)
    logarithm = np.log(np.maximum(level, _LEAST * max(float(level.max()), 1e-30)))
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    terms = np.stack([y, x, y * y, x * y, x * x])
    system, target = (np.concatenate(both) for both in zip(*_differences(terms, logarithm, inside), strict=True))
    if len(target) < _FEWEST_PAIRS:
        return None
    everywhere = _averaged(body, edge, rows, columns) > 0.5
    field = np.exp(np.tensordot(_fitted(system, target), terms[:, everywhere], 1))
    low, middle, high = np.percentile(field, (25, 50, 75))
    return float((high - low) / middle)


def _averaged(values: np.ndarray, edge: int, rows: int, columns: int) -> np.ndarray:
    cut = values[: rows * edge, : columns * edge].astype(np.float64)
    return np.asarray(cut.reshape(rows, edge, columns, edge).mean(axis=(1, 3)))


def _differences(terms: np.ndarray, level: np.ndarray, inside: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for rows and for columns the differences between neighbours of terms (n, 5) and of the level (n,)."""
    found = []
    for axis in (0, 1):
        pairs = np.logical_and(*_neighbours(inside, axis))
        of_terms = np.stack([np.subtract(*_neighbours(term, axis))[pairs] for term in terms], axis=1)
        found.append((of_terms, np.subtract(*_neighbours(level, axis))[pairs]))
    return found


def _neighbours(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return (values[1:], values[:-1]) if axis == 0 else (values[:, 1:], values[:, :-1])


def _fitted(system: np.ndarray, target: np.ndarray) -> np.ndarray:
    weight = np.ones(len(target))
    solution = np.zeros(system.shape[1])
    for _ in range(_ROUNDS):
        weighted = (system * weight[:, None]).T
        solution = np.linalg.lstsq(weighted @ system, weighted @ target, rcond=None)[0]
        residual = np.abs(target - system @ solution)
        weight = np.maximum(residual, max(float(np.median(residual)), 1e-9)) ** -2
    return np.asarray(solution)
