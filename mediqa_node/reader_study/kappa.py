"""Weighted kappa: agreement of two sets of ratings on one ordinal scale, beyond chance.

Quadratic weights after J. Cohen, Psychological Bulletin 1968; 70:213-220: a difference of two points counts four times
as much as one of one point. For pairs of readers, and for a reader's two readings of the same cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np


def weighted_kappa(one: Sequence[float], other: Sequence[float]) -> float:
    """Return quadratic weighted kappa of paired ratings, shape (n,) each; NaN where all ratings are equal or n < 2.

    >>> weighted_kappa([1, 2, 3, 4], [1, 2, 3, 4])
    1.0
    >>> round(weighted_kappa([1, 1, 2, 2], [2, 2, 1, 1]), 6)
    -1.0
    """
    x, y = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if len(x) < 2:
        return nan
    by_chance = float(((x[:, None] - y[None]) ** 2).mean())
    return 1 - float(((x - y) ** 2).mean()) / by_chance if by_chance > 0 else nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """A reader's first and second readings of the same cases.

    Attributes:
        same: share of cases with the same rating twice; NaN without any.
        kappa: quadratic weighted.
    """

    n: int
    same: float
    kappa: float


def repeated(cases: Sequence[Sequence[float]]) -> Repeats:
    """Return how far a reader agrees with themselves.

    Args:
        cases: ratings of each case that was read more than once; the first two count.
    """
    pairs = [(given[0], given[1]) for given in cases if len(given) > 1]
    if not pairs:
        return Repeats(n=0, same=nan, kappa=nan)
    first, second = zip(*pairs, strict=True)
    same = float(np.mean([a == b for a, b in pairs]))
    return Repeats(n=len(pairs), same=same, kappa=weighted_kappa(first, second))
