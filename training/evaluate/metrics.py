"""Agreement between a score and the truth: SRCC, PLCC, RMSE and others, and why one is undefined.

A metric that is undefined, for a constant or fewer than ten images, is None with a reason. SRCC and KRCC are tie-aware
(mean ranks; tau-b). PLCC uses the raw score; `plcc_logistic4` is computed after the monotone logistic of four
parameters that the Video Quality Experts Group fits (VQEG FR-TV phase I, 2000), fitted on the same images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from mediqa_node.reader_study.statistics import (
    FEWEST_GROUPS,
    RESAMPLES,
    Interval,
    between,
    draws,
    interval,
    numbered,
    pair,
    plcc,
    srcc,
    weighted_plcc,
    weighted_rmse,
    weighted_srcc,
)

FEWEST = 10
"""Images below which no agreement is computed."""
FEWEST_WITHIN = 3
"""Images of a group below which its ranking is not computed."""
FEW_LEVELS = 3
"""Levels of the truth up to which AUROC is computed as well as SRCC, which ties then cap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The agreement of a score on some images.

    Attributes:
        n, groups: number of images, and of patients or base images.
        srcc, plcc, rmse: with intervals; RMSE in the unit of the truth.
        within: mean SRCC inside a group, over the groups that have one; see `within`.
        krcc: Kendall's tau-b.
        plcc_logistic4: PLCC after the 4-parameter logistic.
        auroc: probability of ranking a better above a worse level, mean over pairs of levels (Hand and Till 2001, doi
            10.1023/A:1010920819831); None with more than FEW_LEVELS levels.
        srcc_cap: the largest SRCC that a score without ties can reach, because the truth has ties.
        sd: of the truth: the RMSE of always predicting its mean.
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


def undefined(predicted: ArrayLike, truth: ArrayLike, *, fewest: int = FEWEST) -> str | None:
    """Return why no agreement can be computed, or None."""
    x, y = pair(predicted, truth)
    if len(x) < fewest:
        return f"{len(x)} image{'s' * (len(x) != 1)}; at least {fewest} are needed"
    if wrong := int((~np.isfinite(x)).sum()):
        return f"{wrong} of {len(x)} predictions are not finite"
    if wrong := int((~np.isfinite(y)).sum()):
        return f"{wrong} of {len(y)} labels are not finite"
    if np.ptp(y) == 0:
        return f"all {len(y)} labels are {y[0]:g}"
    return f"all {len(x)} predictions are {x[0]:g}" if np.ptp(x) == 0 else None


def agreement(
    predicted: ArrayLike,
    truth: ArrayLike,
    groups: Sequence[str],
    *,
    sources: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Agreement:
    """Return the agreement of a score with the truth; larger must mean the same for both.

    Args:
        predicted, truth: (n,) each.
        groups: n keys, of the patient or of the base image of copies.
        sources: n keys; intervals are by resampling sources, then groups. None: groups alone.
        seed: the same seed and groups give the same resamples.
    """
    x, y = pair(predicted, truth)
    of, n_groups = numbered(groups, len(x))
    drawn: dict[str, Any] = {"seed": seed, "resamples": resamples, "source": _source_of_groups(of, sources, len(x))}
    why = undefined(x, y)
    nothing = Interval(value=None)
    if why is not None:
        return Agreement(
            n=len(x), groups=n_groups, srcc=nothing, plcc=nothing, within=nothing,
            rmse=interval(weighted_rmse, x, y, of, **drawn) if len(x) >= FEWEST else nothing,
            krcc=None, plcc_logistic4=None, auroc=None, srcc_cap=None, sd=None, undefined=why,
        )  # fmt: skip
    return Agreement(
        n=len(x),
        groups=n_groups,
        srcc=interval(weighted_srcc, x, y, of, **drawn),
        plcc=interval(weighted_plcc, x, y, of, **drawn),
        rmse=interval(weighted_rmse, x, y, of, **drawn),
        within=_within_interval(x, y, of, **drawn),
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
    sources: Sequence[str] | None = None,
    metric: str = "srcc",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return `metric` of `a` minus that of `b`, on the same images and resamples.

    Args:
        a, b, truth: (n,) each.
        groups, sources: n keys, as in `agreement`.
        metric: `srcc`, `plcc` or `rmse`.
    """
    of_metric = {"srcc": weighted_srcc, "plcc": weighted_plcc, "rmse": weighted_rmse}[metric]
    (first, y), (second, _) = pair(a, truth), pair(b, truth)
    if undefined(first, y) or undefined(second, y):
        return Interval(value=None)

    def apart(_: np.ndarray, same: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.asarray(of_metric(first, same, weights) - of_metric(second, same, weights))

    of = numbered(groups, len(y))[0]
    source = _source_of_groups(of, sources, len(y))
    return interval(apart, first, y, of, seed=seed, resamples=resamples, source=source)


def within(predicted: ArrayLike, truth: ArrayLike, groups: Sequence[str]) -> float | None:
    """Return the mean SRCC inside a group: does the score rank copies of one image, or series of one patient?

    Groups of fewer than FEWEST_WITHIN images or of one label have no ranking and are left out; a group with constant
    predictions counts as 0. None if no group is left.
    """
    x, y = pair(predicted, truth)
    found = _by_group(x, y, numbered(groups, len(x))[0])
    return float(np.nanmean(found)) if np.isfinite(found).any() else None


def mean_of(values: ArrayLike, groups: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return the mean over images, (n,); for hits (0 or 1) it is the accuracy."""
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return Interval(value=None)

    def mean(x: np.ndarray, _: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ x / weights.sum(axis=1))

    return interval(mean, found, found, numbered(groups, len(found))[0], seed=seed, resamples=resamples)


def plcc_logistic4(predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return PLCC after (a - b) / (1 + exp(-(x - c) / |d|)) + b, fitted by least squares; None if the fit fails."""
    x, y = pair(predicted, truth)
    if undefined(x, y) is not None:
        return None
    start = (y.max(), y.min(), float(np.median(x)), float(x.std()))
    found = optimize.least_squares(lambda parameters: _logistic4(x, *parameters) - y, start, max_nfev=1000)
    return plcc(_logistic4(x, *found.x), y) if found.success else None


def auroc(predicted: ArrayLike, truth: ArrayLike) -> float | None:
    """Return the mean over pairs of levels of the chance that the better of two images scores higher.

    None with one level, or with more than FEW_LEVELS.
    """
    x, y = pair(predicted, truth)
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


def _logistic4(x: np.ndarray, a: float, b: float, c: float, d: float) -> np.ndarray:
    return np.asarray((a - b) / (1 + np.exp(np.clip(-(x - c) / (abs(d) + 1e-12), -700, 700))) + b)


def _source_of_groups(of: np.ndarray, sources: Sequence[str] | None, n: int) -> np.ndarray | None:
    """Return the index of the source of each group, (groups,)."""
    if sources is None or not n:
        return None
    found = np.zeros(int(of.max()) + 1, dtype=np.intp)
    found[of] = numbered(sources, n)[0]
    return found


def _within_interval(
    x: np.ndarray, y: np.ndarray, of: np.ndarray, *, seed: int, resamples: int, source: np.ndarray | None
) -> Interval:
    each = _by_group(x, y, of)
    has = np.isfinite(each)
    if not has.any():
        return Interval(value=None)
    value = float(each[has].mean())
    if has.sum() < FEWEST_GROUPS:
        return Interval(value=value)
    left = None if source is None else np.unique(source[has], return_inverse=True)[1]
    drawn = draws(int(has.sum()), seed, resamples, left)
    return between(value, drawn @ each[has] / drawn.sum(axis=1))


def _by_group(x: np.ndarray, y: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return the SRCC of every group, (groups,); NaN without a ranking."""
    found = np.full(int(of.max()) + 1 if len(of) else 0, np.nan)
    for group in range(len(found)):
        here = of == group
        if here.sum() >= FEWEST_WITHIN and np.ptp(y[here]) > 0:
            found[group] = srcc(x[here], y[here]) or 0.0
    return found
