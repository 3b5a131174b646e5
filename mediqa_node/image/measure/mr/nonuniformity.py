"""Measure the smooth variation of the signal inside the body: the bias field of coils and transmission.

Method: the logarithm of the image is averaged over blocks; a polynomial of the second degree is fitted to its
differences between neighbouring blocks of the body, by least absolute deviations (weights anew in each of 10 rounds).
Anatomy has few and large differences, the field many small ones (Zheng, Grossman, Awate and Gee 2009, MICCAI: sparse
gradients). The value is the interquartile range of the exponential of the polynomial over the body, over its median.

Assumptions: most of the body's area is far from borders of tissues, and tissues are not themselves shaded.

Breaks where: the field is steeper than a second degree (surface coils close by); one tissue lies outside of
another all around (subcutaneous fat against muscle blurs into a radial field); the signal comes close to the noise.
"""

import numpy as np

_BLOCKS = 48
_FEWEST = 30
_ROUNDS = 10


def nonuniformity(image: np.ndarray, body: np.ndarray) -> float | None:
    """Return the interquartile range of the bias field over its median; None where the body is too small."""
    edge = max(1, min(image.shape) // _BLOCKS)
    rows, columns = (size // edge for size in image.shape)
    if min(rows, columns) < 4:
        return None
    blocks, share = (_averaged(values, edge, rows, columns) for values in (np.where(body, image, 0.0), body))
    inside = share > 0.99
    level = np.log(np.maximum(blocks, 1e-6 * max(float(blocks.max()), 1e-30)))
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    terms = np.stack([y, x, y * y, x * y, x * x])
    steps, values = [], []
    for one, two in (((slice(1, None),), (slice(None, -1),)), ((..., slice(1, None)), (..., slice(None, -1)))):
        pairs = inside[one] & inside[two]
        steps.append((terms[(slice(None), *one)] - terms[(slice(None), *two)])[:, pairs])
        values.append((level[one] - level[two])[pairs])
    system, target = np.concatenate(steps, axis=1).T, np.concatenate(values)
    if len(target) < _FEWEST:
        return None
    field = np.exp(np.tensordot(_least_absolute(system, target), terms[:, inside], 1))
    low, middle, high = np.percentile(field, (25, 50, 75))
    return float((high - low) / middle)


def _averaged(values: np.ndarray, edge: int, rows: int, columns: int) -> np.ndarray:
    cut = values[: rows * edge, : columns * edge].astype(np.float64)
    return np.asarray(cut.reshape(rows, edge, columns, edge).mean(axis=(1, 3)))


def _least_absolute(system: np.ndarray, target: np.ndarray) -> np.ndarray:
    weight = np.ones(len(target))
    scale = 0.1 * float(np.median(np.abs(target))) + 1e-9
    solution = np.zeros(system.shape[1])
    for _ in range(_ROUNDS):
        weighted = system * weight[:, None]
        solution = np.linalg.lstsq(weighted.T @ system, weighted.T @ target, rcond=None)[0]
        weight = 1 / np.maximum(np.abs(target - system @ solution), scale)
    return np.asarray(solution)
