"""How well a score agrees with the truth: SRCC, PLCC, RMSE and the rest, with what may be said of each.

Images of one patient, or copies of one image, are no independent evidence: intervals come from a bootstrap over
groups. A resample is a weight for every image, how often its group was drawn, so that one weighted formula serves
the value and its thousand resamples. What is undefined – a constant, fewer than ten images – is None with its
reason, never NaN and never 0.

SRCC and KRCC are tie-aware (mean ranks; tau-b). PLCC is of the raw score; `plcc_logistic4` is after the monotone
logistic of four parameters that the Video Quality Experts Group fits (VQEG FR-TV phase I, 2000), fitted on the very
images that it is told of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

FEWEST = 10
"""Images below which no agreement is told."""
FEWEST_GROUPS = 3
"""Groups below which there is no interval."""
FEWEST_WITHIN = 3
"""Images of a group below which its own ranking says nothing."""
FEW_LEVELS = 3
"""Levels of the truth up to which AUROC is told beside SRCC, which ties then cap."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What a score is worth on some images.

    Attributes:
        n, groups: images, and patients or base images that they come from.
        srcc, plcc, rmse: with intervals; RMSE in the unit of the truth.
        within: mean SRCC inside a group, over the groups that have one; see `within`.
        krcc: Kendall's tau-b.
        plcc_logistic4: PLCC after the 4-parameter logistic.
        auroc: chance to tell a better from a worse level, mean over pairs of levels (Hand and Till 2001, doi
            10.1023/A:1010920819831); None with more than FEW_LEVELS levels.
        srcc_cap: the largest SRCC that a score without ties can reach, because the truth has ties.
        sd: of the truth: the RMSE of always saying its mean.
        undefined: why values are None.
    """

    n: int
    groups: int
    srcc: Interval
    plcc: Interval
    rmse: Interval
    within: Interval
    krcc: float | None
    plcc_logistic4: float | None
    auroc: float | None
    srcc_cap: float | None
    sd: float | None
    undefined: str | None = None


def srcc(predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return Spearman's rank correlation, (n,) and (n,); None where it is undefined: `undefined` says why."""
    return _value(_srcc, predicted, truth)


def plcc(predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return Pearson's correlation of the raw values; None where it is undefined."""
    return _value(_plcc, predicted, truth)


def rmse(predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return the root mean square error in the unit of the truth; None of nothing or of what is not finite."""
    return _value(_rmse, predicted, truth)


def undefined(predicted: ArrayLike, truth: ArrayLike, *, fewest: int = FEWEST) -> str | None:
    """Return why no agreement can be told of these, or None."""
    x, y = _pair(predicted, truth)
    if len(x) < fewest:
        return f"{len(x)} images; fewer than {fewest} say nothing"
    if wrong := int((~np.isfinite(x)).sum()):
        return f"{wrong} of {len(x)} predictions are not finite"
    if wrong := int((~np.isfinite(y)).sum()):
        return f"{wrong} of {len(y)} labels are not finite"
    if np.ptp(y) == 0:
        return f"all {len(y)} labels are {y[0]:g}"
    return f"all {len(x)} predictions are {x[0]:g}" if np.ptp(x) == 0 else None


def agreement(
    predicted: ArrayLike, truth: ArrayLike, groups: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES
) -> Agreement:
    """Return how a score agrees with the truth, larger meaning the same of both.

    Args:
        predicted, truth: (n,) each.
        groups: n keys, of the patient or of the image that copies were made of.
        seed: the same seed and groups give the same resamples.
    """
    x, y = _pair(predicted, truth)
    of, n_groups = _numbered(groups, len(x))
    why = undefined(x, y)
    nothing = Interval(value=None)
    if why is not None:
        return Agreement(
            n=len(x), groups=n_groups, srcc=nothing, plcc=nothing, within=nothing,
            rmse=_interval(_rmse, x, y, of, seed, resamples) if len(x) >= FEWEST else nothing,
            krcc=None, plcc_logistic4=None, auroc=None, srcc_cap=None, sd=None, undefined=why,
        )  # fmt: skip
    return Agreement(
        n=len(x),
        groups=n_groups,
        srcc=_interval(_srcc, x, y, of, seed, resamples),
        plcc=_interval(_plcc, x, y, of, seed, resamples),
        rmse=_interval(_rmse, x, y, of, seed, resamples),
        within=_within_interval(x, y, of, seed, resamples),
        krcc=float(stats.kendalltau(x, y).statistic),
        plcc_logistic4=plcc_logistic4(x, y),
        auroc=auroc(x, y),
        srcc_cap=srcc_cap(y),
        sd=float(y.std()),
    )


def difference(
    a: ArrayLike,
    b: ArrayLike,
    truth: ArrayLike,
    groups: Sequence[str],
    *,
    metric: str = "srcc",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return `metric` of `a` less that of `b`, both on the same images and the same resamples.

    Args:
        a, b, truth: (n,) each.
        groups: n keys, as in `agreement`.
        metric: `srcc`, `plcc` or `rmse`.
    """
    of_metric = {"srcc": _srcc, "plcc": _plcc, "rmse": _rmse}[metric]
    (first, y), (second, _) = _pair(a, truth), _pair(b, truth)
    if undefined(first, y) or undefined(second, y):
        return Interval(value=None)

    def apart(_: np.ndarray, same: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.asarray(of_metric(first, same, weights) - of_metric(second, same, weights))

    return _interval(apart, first, y, _numbered(groups, len(y))[0], seed, resamples)


def within(predicted: ArrayLike, truth: ArrayLike, groups: Sequence[str]) -> float | None:
    """Return the mean SRCC inside a group: does the score rank copies of one image, or series of one patient?

    Groups of fewer than FEWEST_WITHIN images or of one label have no ranking and are left out; one whose
    predictions are all alike counts as 0. None without any group left.
    """
    x, y = _pair(predicted, truth)
    found = _by_group(x, y, _numbered(groups, len(x))[0])
    return float(np.nanmean(found)) if np.isfinite(found).any() else None


def mean_of(values: ArrayLike, groups: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return the mean of a value for every image, (n,): of hits (0 or 1) it is the accuracy."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return Interval(value=None)

    def mean(x: np.ndarray, _: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ x / weights.sum(axis=1))

    return _interval(mean, found, found, _numbered(groups, len(found))[0], seed, resamples)


def plcc_logistic4(predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return PLCC after (a - b) / (1 + exp(-(x - c) / |d|)) + b, fitted by least squares; None if it does not fit."""
    x, y = _pair(predicted, truth)
    if undefined(x, y) is not None:
        return None
    start = (y.max(), y.min(), float(np.median(x)), float(x.std()))
    found = optimize.least_squares(lambda parameters: _logistic4(x, *parameters) - y, start, max_nfev=1000)
    return plcc(_logistic4(x, *found.x), y) if found.success else None


def auroc(predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return the mean over pairs of levels of the chance that the better of two images scores higher.

    None with one level, or with more than FEW_LEVELS.
    """
    x, y = _pair(predicted, truth)
    levels = np.unique(y)
    if not 2 <= len(levels) <= FEW_LEVELS:
        return None
    chances = []
    for i, worse in enumerate(levels):
        for better in levels[i + 1 :]:
            high, low = x[y == better], x[y == worse]
            chances.append(stats.mannwhitneyu(high, low).statistic / (len(high) * len(low)))
    return float(np.mean(chances))


def srcc_cap(truth: ArrayLike) -> float | None:
    """Return the largest SRCC that a score without ties can have with this truth: 0.866 for two equal halves."""
    _, counts = np.unique(np.asarray(truth, dtype=np.float64), return_counts=True)
    n = float(counts.sum())
    if len(counts) < 2:
        return None
    return float(np.sqrt(1 - (counts.astype(np.float64) ** 3 - counts).sum() / (n**3 - n)))


# ── weighted formulas ────────────────────────────────────────────────────────


def _srcc(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _correlation(_ranks(x, weights), _ranks(y, weights), weights)


def _plcc(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _correlation(x[None], y[None], weights)


def _rmse(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(weights @ (x - y) ** 2 / weights.sum(axis=1)))


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean rank of every value where it stands `weights` times, (r, n)."""
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


def _logistic4(x: np.ndarray, a: float, b: float, c: float, d: float) -> np.ndarray:
    return np.asarray((a - b) / (1 + np.exp(np.clip(-(x - c) / (abs(d) + 1e-12), -700, 700))) + b)


# ── resampling ───────────────────────────────────────────────────────────────


def _value(metric: Metric, predicted: ArrayLike, truth: ArrayLike) -> float | None:
    x, y = _pair(predicted, truth)
    if not len(x) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    found = float(metric(x, y, np.ones((1, len(x))))[0])
    return found if np.isfinite(found) else None


def _interval(metric: Metric, x: np.ndarray, y: np.ndarray, of: np.ndarray, seed: int, resamples: int) -> Interval:
    n_groups = int(of.max()) + 1
    value = _value(metric, x, y)
    if value is None or n_groups < FEWEST_GROUPS:
        return Interval(value=value)
    drawn = _draws(n_groups, seed, resamples)
    step = max(1, _AT_ONCE // len(x))
    found = np.concatenate([metric(x, y, drawn[i : i + step][:, of]) for i in range(0, resamples, step)])
    return _between(value, found)


def _within_interval(x: np.ndarray, y: np.ndarray, of: np.ndarray, seed: int, resamples: int) -> Interval:
    each = _by_group(x, y, of)
    has = np.isfinite(each)
    if not has.any():
        return Interval(value=None)
    value = float(each[has].mean())
    if has.sum() < FEWEST_GROUPS:
        return Interval(value=value)
    drawn = _draws(int(has.sum()), seed, resamples)
    return _between(value, drawn @ each[has] / drawn.sum(axis=1))


def _draws(n_groups: int, seed: int, resamples: int) -> np.ndarray:
    """Return how often each group is drawn in every resample, (r, groups), float64."""
    even = np.full(n_groups, 1 / n_groups)
    return np.random.default_rng(seed).multinomial(n_groups, even, size=resamples).astype(np.float64)


def _between(value: float, resampled: np.ndarray) -> Interval:
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return Interval(value=value)
    low, high = np.percentile(finite, _COVERS)
    return Interval(value=value, low=float(low), high=float(high))


def _by_group(x: np.ndarray, y: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return the SRCC of every group, (groups,); NaN where it has no ranking."""
    found = np.full(int(of.max()) + 1 if len(of) else 0, np.nan)
    for group in range(len(found)):
        here = of == group
        if here.sum() >= FEWEST_WITHIN and np.ptp(y[here]) > 0:
            found[group] = srcc(x[here], y[here]) or 0.0
    return found


def _pair(predicted: ArrayLike, truth: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(values, dtype=np.float64) for values in (predicted, truth))
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"predicted {x.shape} and truth {y.shape} must be two rows of equal length")
    return x, y


def _numbered(groups: Sequence[str], n: int) -> tuple[np.ndarray, int]:
    """Return the number of each image's group, (n,), and how many groups there are."""
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} images")
    names, number = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return number, len(names)
