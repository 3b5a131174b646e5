"""Fit the regressors on statistics, and choose their share on left-out sources.

All choices are made on development sources: each is left out once, and a fit on the others is evaluated on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mediqa_node.model.card import Fusion
from mediqa_node.model.statistics_regressor import StatisticsRegressor, standardised
from mediqa_node.reader_study.statistics import srcc

GRID = tuple((c, share) for c in (0.3, 1.0, 3.0, 10.0) for share in (0.1, 0.3, 1.0))
"""Cost of an error, and the width of the kernel: gamma = share / number of statistics."""
_TUBE = 0.1
"""Errors below a tenth of the label's deviation cost nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Statistics and labels of n slices.

    Attributes:
        statistics: (n, k); label, source and group: (n,).
        factor: of the degradation, `mixed` or `clean`, (n,); None: not used.
    """

    statistics: np.ndarray
    label: np.ndarray
    source: np.ndarray
    group: np.ndarray
    factor: np.ndarray | None = None

    def where(self, keep: np.ndarray) -> "Fit":
        """Return the selected slices."""
        return Fit(
            statistics=self.statistics[keep],
            label=self.label[keep],
            source=self.source[keep],
            group=self.group[keep],
            factor=None if self.factor is None else self.factor[keep],
        )


def fit_regressor(data: Fit, cost: float, share: float) -> StatisticsRegressor:
    """Fit a support vector machine; every source has the same weight."""
    from sklearn.svm import SVR

    mean, spread = data.statistics.mean(axis=0), data.statistics.std(axis=0) + 1e-6
    z = standardised(data.statistics, mean, spread)
    deviation = float(data.label.std()) or 1.0
    gamma = share / z.shape[1]
    sources, counts = np.unique(data.source, return_counts=True)
    each = dict(zip(sources, counts, strict=True))
    weight = np.array([len(data.label) / (len(sources) * each[one]) for one in data.source])
    machine = SVR(C=cost, gamma=gamma, epsilon=_TUBE)
    machine.fit(z, (data.label - data.label.mean()) / deviation, sample_weight=weight)
    return StatisticsRegressor(
        mean=mean,
        spread=spread,
        support=machine.support_vectors_,
        coefficients=machine.dual_coef_[0] * deviation,
        intercept=float(machine.intercept_[0]) * deviation + float(data.label.mean()),
        gamma=gamma,
    )


def added(one: StatisticsRegressor, weight: float, other: StatisticsRegressor) -> StatisticsRegressor:
    """Return the regressor `one + weight * other`; both must have the same kernel."""
    same = (
        one.gamma == other.gamma and np.array_equal(one.mean, other.mean) and np.array_equal(one.spread, other.spread)
    )
    if not same:
        raise ValueError("regressors of other samples or kernels do not add up to one")
    return replace(
        one,
        support=np.concatenate([one.support, other.support]),
        coefficients=np.concatenate([one.coefficients, weight * other.coefficients]),
        intercept=one.intercept + weight * other.intercept,
    )


def left_out(data: Fit, cost: float, share: float, folds: int | None = None) -> np.ndarray:
    """Return out-of-source predictions, (n,): for every slice from a regressor fitted without its source.

    Args:
        folds: number of groups of sources that are left out together; None: each alone.
    """
    predicted = np.full(len(data.label), np.nan)
    sources = np.unique(data.source)
    groups = min(folds or len(sources), len(sources))
    for first in range(groups):
        out = np.isin(data.source, sources[first::groups])  # dealt in turn: neighbours by name are of one region
        predicted[out] = fit_regressor(data.where(~out), cost, share)(data.statistics[out])
    return predicted


def choose(data: Fit, folds: int | None = None) -> tuple[float, float, np.ndarray]:
    """Return cost, width and left-out predictions of the best of `GRID` by `merit`; `folds` as for `left_out`."""
    best: tuple[float, tuple[float, float], np.ndarray] | None = None
    for cost, share in GRID:
        predicted = left_out(data, cost, share, folds)
        value = merit(predicted, data)
        if best is None or value > best[0]:
            best = value, (cost, share), predicted
    assert best is not None
    return *best[1], best[2]


def merit(predicted: np.ndarray, data: Fit) -> float:
    """Return the mean of pooled SRCC, SRCC within sources, and agreement with single factors."""
    within = [srcc(predicted[data.source == one], data.label[data.source == one]) for one in np.unique(data.source)]
    known_within = [value for value in within if value is not None]
    parts = [srcc(predicted, data.label), float(np.mean(known_within)) if known_within else None]
    if data.factor is not None:
        parts.append(_one_factor(predicted, data.label, data.group, data.factor))
    known = [value for value in parts if value is not None]
    return float(np.mean(known)) if known else 0.0


def _one_factor(predicted: np.ndarray, truth: np.ndarray, group: np.ndarray, factor: np.ndarray) -> float | None:
    """Return concordant minus discordant pairs, as a share, among copies degraded by a single factor.

    A pair is two copies of one image with the same factor, or a copy and the image itself. All factors have equal
    weight.
    """
    found = []
    for name in np.unique(factor[~np.isin(factor, ("mixed", "clean"))]):
        mine = np.isin(factor, (name, "clean"))
        x, y, of = predicted[mine], truth[mine], group[mine]
        first, second = np.triu_indices(len(x), 1)
        pair = (of[first] == of[second]) & (y[first] != y[second])
        order = np.sign(x[first] - x[second]) * np.sign(y[first] - y[second])
        if pair.any():
            found.append(float(order[pair].mean()))
    return float(np.mean(found)) if found else None


def fuse(
    network: np.ndarray, statistics: np.ndarray, data: Fit, shares: Sequence[float]
) -> tuple[Fusion, Mapping[float, float]]:
    """Choose the share of the statistics in the fusion with a network, on predictions for left-out sources.

    Both are mapped to the label's scale by least squares, then mixed; returns the mixture and the merit of each.
    """
    a, b = (_onto(predicted, data.label) for predicted in (network, statistics))
    merits = {}
    for share in shares:
        merits[share] = merit(share * np.polyval(b, statistics) + (1 - share) * np.polyval(a, network), data)
    share = max(merits, key=lambda one: merits[one])
    fusion = Fusion(
        offset=float((1 - share) * a[1] + share * b[1]),
        network=float((1 - share) * a[0]),
        statistics=float(share * b[0]),
    )
    return fusion, merits


def _onto(predicted: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Return slope and offset that map predictions to labels; slope 0 if they are negatively correlated."""
    slope, offset = np.polyfit(predicted, label, 1)
    return (float(slope), float(offset)) if slope > 0 else (0.0, float(label.mean()))
