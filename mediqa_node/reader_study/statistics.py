"""Correlation and the bootstrap, shared by reader studies, gates and tables.

Images of one patient, or copies of one image, are not independent evidence, so intervals come from a bootstrap over
groups. Where these come from several sources, sources are drawn first, then the groups of each. A resample gives every
value a weight, the number of times that its group was drawn, so that one weighted formula serves the value and its
resamples. An undefined result is None, never NaN or 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

FEWEST_GROUPS = 3
"""Groups below which there is no interval."""
RESAMPLES = 1000
_COVERS = (2.5, 97.5)
_AT_ONCE = 1 << 22
"""Weights held in memory at once."""

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Predicted (n,), truth (n,), weights (r, n) → (r,), NaN where undefined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value with its 95 % interval (percentiles of a bootstrap over groups).

    Attributes:
        value: None where undefined.
        low, high: None without a value, or with fewer than FEWEST_GROUPS groups.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Return `0.931 [0.902, 0.955]`, `0.931`, or a dash."""
        if self.value is None:
            return "–"
        return f"{self.value:.3f}" + ("" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]")


def srcc(predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return Spearman's rank correlation of (n,) and (n,), ties at their mean rank; None where it is undefined.

    >>> srcc([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    >>> srcc([1, 1, 1], [1, 2, 3]) is None
    True
    """
    return value_of(weighted_srcc, predicted, truth)


def plcc(predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return Pearson's correlation of the raw values; None where it is undefined."""
    return value_of(weighted_plcc, predicted, truth)


def rmse(predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return the root mean square error in the unit of the truth; None for no values or non-finite ones."""
    return value_of(weighted_rmse, predicted, truth)


def value_of(metric: Metric, predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return a metric of (n,) and (n,) with equal weights; None where it is undefined."""
    x, y = pair(predicted, truth)
    if not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    found = float(metric(x, y, np.ones((1, len(x))))[0])
    return found if np.isfinite(found) else None


# ── weighted formulas ────────────────────────────────────────────────────────


def weighted_srcc(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """See Metric."""
    return _correlation(_ranks(x, weights), _ranks(y, weights), weights)


def weighted_plcc(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """See Metric."""
    return _correlation(x[None], y[None], weights)


def weighted_rmse(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """See Metric."""
    return np.asarray(np.sqrt(weights @ (x - y) ** 2 / weights.sum(axis=1)))


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean rank of every value that occurs `weights` times, (r, n)."""
    _, level, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts) - 1
    above = np.cumsum(weights[:, np.argsort(values, kind="stable")], axis=1)[:, ends]
    below = np.concatenate([np.zeros((len(weights), 1)), above[:, :-1]], axis=1)
    return np.asarray(((below + above + 1) / 2)[:, level])


def _correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    share = weights / weights.sum(axis=1, keepdims=True)
    dx, dy = (v - (share * v).sum(axis=1, keepdims=True) for v in (x, y))
    xy, xx, yy = ((share * product).sum(axis=1) for product in (dx * dy, dx * dx, dy * dy))
    power = np.sqrt(xx * yy)
    nothing = power <= 1e-12 * np.maximum(np.abs(x).max() * np.abs(y).max(), 1e-300)
    return np.asarray(np.where(nothing, np.nan, xy / np.where(nothing, 1.0, power)))


# ── resampling ───────────────────────────────────────────────────────────────


def interval(
    metric: Metric,
    x: np.ndarray,
    y: np.ndarray,
    of: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    source: np.ndarray | None = None,
) -> Interval:
    """Return a metric with its interval.

    Args:
        x, y: (n,) each.
        of: index of the group of each value, (n,), from `numbered`.
        seed: the same seed and groups give the same resamples.
        source: index of the source of each group, (groups,); None: one source.
    """
    value = value_of(metric, x, y)
    if value is None or (n_groups := int(of.max()) + 1) < FEWEST_GROUPS:
        return Interval(value=value)
    drawn = draws(n_groups, seed, resamples, source)
    step = max(1, _AT_ONCE // len(x))
    return between(value, np.concatenate([metric(x, y, drawn[i : i + step][:, of]) for i in range(0, resamples, step)]))


def draws(n_groups: int, seed: int, resamples: int = RESAMPLES, source: np.ndarray | None = None) -> np.ndarray:
    """Return how often each group is drawn in every resample, (resamples, groups), float64.

    Args:
        source: index of the source of each group, (groups,): sources are drawn, then as many groups as each drawn one
            has; None: one source.

    >>> draws(3, seed=0, resamples=100).sum(axis=1).max()
    np.float64(3.0)
    """
    random = np.random.default_rng(seed)
    source = np.zeros(n_groups, dtype=np.intp) if source is None else source
    n_sources = int(source.max()) + 1
    times = random.multinomial(n_sources, np.full(n_sources, 1 / n_sources), size=resamples)
    found = np.empty((resamples, n_groups))
    for one in range(n_sources):
        mine = np.flatnonzero(source == one)
        found[:, mine] = random.multinomial(times[:, one] * len(mine), np.full(len(mine), 1 / len(mine)))
    return found


def between(value: float, resampled: np.ndarray) -> Interval:
    """Return a value with the percentiles of its resamples, (r,), ignoring those that are not finite."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return Interval(value=value)
    low, high = np.percentile(finite, _COVERS)
    return Interval(value=value, low=float(low), high=float(high))


def pair(predicted: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 (n,); ValueError if their lengths differ."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (predicted, truth))
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"predicted {x.shape} and truth {y.shape} must be two rows of equal length")
    return x, y


def numbered(groups: Sequence[str], n: int) -> tuple[np.ndarray, int]:
    """Return the group index of each value, (n,), and the number of groups."""
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} images")
    names, number = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return number, len(names)
