"""Fewer points that look the same: a long series as the range and the median of equal parts of its time."""

from dataclasses import dataclass

import numpy as np

MOST_POINTS = 2000
_PARTS = 600


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Envelope:
    """Parts of a series that hold a point, in order; arrays have the shape (parts,).

    Attributes:
        at: middle of the points' times.
        low, median, high: of their values.
        last: index of the last point in each part.
        n: points in each.
    """

    at: np.ndarray
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray
    last: np.ndarray
    n: np.ndarray


def envelope(at: np.ndarray, value: np.ndarray, *, parts: int = _PARTS) -> Envelope:
    """Return the envelope of points in the order of time, none of them NaN.

    Args:
        parts: equal parts of the time between first and last point.
    """
    span = max(float(at[-1] - at[0]), 1e-9)
    part = np.minimum(((at - at[0]) / span * parts).astype(int), parts - 1)
    _, start, count = np.unique(part, return_index=True, return_counts=True)
    end = start + count
    groups = [value[a:b] for a, b in zip(start, end, strict=True)]
    return Envelope(
        at=(at[start] + at[end - 1]) / 2,
        low=np.minimum.reduceat(value, start),
        median=np.array([np.median(one) for one in groups]),
        high=np.maximum.reduceat(value, start),
        last=end - 1,
        n=count,
    )
