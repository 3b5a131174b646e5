"""Thresholds on the score from readers' ratings: at which score does their mean rating reach a limit?

The mean rating as a function of the score is estimated by centered isotonic regression (A. P. Oron and N. Flournoy,
Statistics in Biopharmaceutical Research 2017; 9:258-267): pooled adjacent violators, each pool at its mean score,
straight lines between them. Nothing is assumed but that a higher score means better images, and the threshold of the
lower limit can never exceed that of the upper one. Intervals are percentiles of a bootstrap over patients.

Sensitivity and specificity on the series that a threshold was fitted on flatter it. They are therefore also estimated
on the series that a resample left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.reader_study import statistics

FEWEST_SERIES = 20
"""Rated and scored series below which no threshold is fitted."""
RESAMPLES = 1000
_SEED = 11
_PLACES = 4


class NotFitted(ValueError):
    """There is no threshold; the message says why and what to do."""


class OutOfReach(NotFitted):
    """No score stands for a limit: fitted mean ratings go from `low` to `high`, all 0 worst to 1 best."""

    def __init__(self, limit: float, low: float, high: float) -> None:
        super().__init__(
            f"no score stands for a mean rating of {limit:.2f}; fitted ones go from {low:.2f} to {high:.2f}"
        )
        self.limit, self.low, self.high = limit, low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many of how many; `held_out` is the share among series that the threshold was not fitted on, or None."""

    hits: int
    of: int
    held_out: float | None

    @property
    def value(self) -> float | None:
        """The share, 0..1; None of none."""
        return self.hits / self.of if self.of else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A threshold on the score.

    Attributes:
        rating: the limit on the mean rating, 0..1.
        score: at which the mean rating reaches it, 0..1, with its 95 % interval.
        sensitivity: of the series rated below the limit, those that score below the threshold.
        specificity: of all others, those that do not.
    """

    rating: float
    score: float
    low: float
    high: float
    sensitivity: Share
    specificity: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Mean rating by score, and a threshold for each of two limits.

    Attributes:
        curve: score and fitted mean rating, both 0..1, rising.
        srcc: rank correlation of score and mean rating, with its interval.
        look, repeat: thresholds; that of `repeat` is the lower one.
    """

    n: int
    curve: tuple[tuple[float, float], ...]
    srcc: statistics.Interval
    look: Threshold
    repeat: Threshold


def fit(scores: np.ndarray, ratings: np.ndarray, patients: Sequence[str], *, look: float, repeat: float) -> Fit:
    """Return the thresholds of two limits on the mean rating.

    Args:
        scores: of the network, shape (n,), 0..1.
        ratings: mean over the readers of each series, shape (n,), 0..1, higher is better.
        patients: patient of each series; two series of one patient are not independent.
        look, repeat: limits on the mean rating, 0..1: below `look` somebody should look, below `repeat` repeat.

    Raises:
        NotFitted: too few series, limits in the wrong order or outside the fitted ratings, or scores that do not
            follow the ratings.
    """
    n = len(scores)
    if n < FEWEST_SERIES:
        raise NotFitted(f"{n} series are rated and scored here; a calibration needs {FEWEST_SERIES} or more")
    if not repeat < look:
        raise NotFitted("the limit for “repeat” has to be worse than the one for “look”")
    of, n_patients = statistics.numbered(patients, n)
    srcc = statistics.interval(statistics.weighted_srcc, scores, ratings, of, seed=_SEED, resamples=RESAMPLES)
    if srcc.value is None or (srcc.low if srcc.low is not None else srcc.value) <= 0:
        raise NotFitted(
            f"the score does not follow the ratings here (rank correlation {srcc}): no threshold on it would mean "
            f"what the readers mean"
        )
    counts = statistics.draws(n_patients, _SEED, RESAMPLES)[:, of]
    curves = [rising(scores, ratings, row) for row in counts]
    x, y = rising(scores, ratings, np.ones(n))
    return Fit(
        n=n,
        curve=tuple((round(float(a), 5), round(float(b), 5)) for a, b in zip(x, y, strict=True)),
        srcc=srcc,
        look=_threshold(look, scores, ratings, (x, y), counts, curves),
        repeat=_threshold(repeat, scores, ratings, (x, y), counts, curves),
    )


def rising(scores: np.ndarray, ratings: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centered isotonic regression: strictly rising scores and mean ratings, shape (pools,) each.

    Args:
        scores, ratings: shape (n,).
        weights: shape (n,), at least one positive; those of weight 0 do not count.

    >>> x, y = rising(np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 1.0]), np.ones(3))
    >>> x.tolist(), y.tolist()
    ([0.0, 1.5], [0.0, 1.5])
    """
    from scipy.optimize import isotonic_regression

    used = weights > 0
    level, place = np.unique(scores[used], return_inverse=True)
    weight = np.bincount(place, weights[used])
    mean = np.bincount(place, weights[used] * ratings[used]) / weight
    found = isotonic_regression(mean, weights=weight)
    starts = found.blocks[:-1]
    pooled = np.add.reduceat(weight, starts)
    x = np.add.reduceat(weight * level, starts) / pooled
    y = np.add.reduceat(weight * mean, starts) / pooled
    keep = np.concatenate([[True], np.diff(y) > 0])  # rounding may leave two equal pools
    return x[keep], y[keep]


Curve = tuple[np.ndarray, np.ndarray]


def _threshold(
    limit: float, scores: np.ndarray, ratings: np.ndarray, curve: Curve, counts: np.ndarray, curves: Sequence[Curve]
) -> Threshold:
    x, y = curve
    if not y[0] < limit <= y[-1]:
        raise OutOfReach(limit, float(y[0]), float(y[-1]))
    at = round(float(np.interp(limit, y, x)), _PLACES)
    resampled = np.array([np.interp(limit, b, a) for a, b in curves])  # beyond the ends: the lowest, highest score
    low, high = np.percentile(resampled, (2.5, 97.5))
    is_poor, flagged = ratings < limit, scores < at
    left_out = counts == 0
    flags = scores[None] < resampled[:, None]
    return Threshold(
        rating=limit,
        score=at,
        low=round(float(low), _PLACES),
        high=round(float(high), _PLACES),
        sensitivity=_share(flagged[is_poor], (flags & left_out)[:, is_poor].sum(), left_out[:, is_poor].sum()),
        specificity=_share(~flagged[~is_poor], (~flags & left_out)[:, ~is_poor].sum(), left_out[:, ~is_poor].sum()),
    )


def _share(hits: np.ndarray, held_hits: int, held_of: int) -> Share:
    held = float(held_hits / held_of) if held_of else None
    return Share(hits=int(hits.sum()), of=len(hits), held_out=held)
