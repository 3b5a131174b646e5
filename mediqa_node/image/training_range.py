"""What a checkpoint was trained on, as limits that a stack has to keep before anything is said of it.

A score of what lies outside means nothing, and looks like any other. Two tests measure how far the statistics of
a slice lie from those of the training images (`slice_statistics`): each a Mahalanobis distance, over the distance
at which a patient of a source that was not learnt from still is found. Two plain rules catch what is not an image
of the kind at all: too little inside the window, and for photographs of the fundus no round field.

Sources are few: a dozen collections, not thousands of patients. So every source weighs alike, correlations are
believed by half only, and the limit is measured on sources that were held out, one after the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.image.measure.slice_statistics import LOCAL, VERSION, SliceStatistics, window_names

FEWEST_SOURCES = 3
SHRINKAGE = 0.5
"""How far covariances are drawn towards none: 0.5 to 0.9 give the same answers; below, patients are refused."""
_LEAST_VARIANCE = 1e-4
"""Of any statistic: one that no training image varies in would turn every further digit into a distance."""
_PERCENTILE = 0.975
"""Of held-out sources that each of the two tests lets pass: 95 % for both."""
_ROOM = 0.5
"""A stack may have half as much inside the window as the training stack that had least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipsoid:
    """Where the training images lie in one vector of statistics, k of them.

    Attributes:
        names: what the statistics are.
        mean: (k,).
        precision: the inverse of the shrunk covariance, (k, k).
        limit: the distance up to which a slice counts as like the training images.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    limit: float

    def ratios(self, statistics: np.ndarray) -> np.ndarray:
        """Return the distance of each slice, (n, k) to (n,), in limits: above 1 is outside."""
        return _distances(statistics, np.array(self.mean), np.array(self.precision)) / self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRange:
    """The limits of one modality; see module.

    Attributes:
        version: of the statistics (`slice_statistics.VERSION`).
        fingerprint: of the preprocessing that they were taken with: another shows another picture.
        sources: how many sources it was learnt from.
        window, local: the two tests.
        inside_at_least: share of a slice's pixels inside the window, 0..1.
        round_field: whether every slice must show a bright round field on dark ground.
    """

    version: int
    fingerprint: str
    sources: int
    window: Ellipsoid
    local: Ellipsoid
    inside_at_least: float
    round_field: bool

    def verdict(self, stack: SliceStatistics) -> str | None:
        """Return None if a stack lies within, else which test it fails and by how much.

        The median over the slices decides: one slice with metal in it refuses no patient.
        """
        inside = float(np.median(stack.inside))
        if inside < self.inside_at_least:
            return f"{inside:.1%} of the pixels inside the window, at least {self.inside_at_least:.1%} expected"
        if self.round_field and not np.median(stack.round_field) > 0:
            return "no bright round field on dark ground, as every photograph of the fundus has"
        ratios = self.ratios(stack)
        larger = np.max(list(ratios.values()), axis=0)
        by = float(np.median(larger))
        if by <= 1:
            return None
        name = max(ratios, key=lambda test: float(np.median(ratios[test])))
        return f"{name} statistics {by:.3g} times the limit, outside on {(larger > 1).sum()} of {len(larger)} slices"

    def ratios(self, stack: SliceStatistics) -> dict[str, np.ndarray]:
        """Return the distances of the slices in limits, (n,), by test."""
        return {"window": self.window.ratios(stack.window), "local": self.local.ratios(stack.local)}


def fit_training_range(
    sources: Mapping[str, Sequence[SliceStatistics]], *, modality: str, fingerprint: str
) -> TrainingRange:
    """Learn the limits of one modality.

    Args:
        sources: stacks by source; what may not be parted (one patient, one scanner's collection) is one source.
        modality: CT, MR or OP.
        fingerprint: of the preprocessing.

    Raises:
        ValueError: fewer than three sources, or one without a stack.
    """
    if len(sources) < FEWEST_SOURCES or not all(sources.values()):
        raise ValueError(f"{len(sources)} sources of {modality}; at least {FEWEST_SOURCES} with images are needed")
    stacks = [stack for source in sources.values() for stack in source]
    window = [np.concatenate([stack.window for stack in source]) for source in sources.values()]
    local = [np.concatenate([stack.local for stack in source]) for source in sources.values()]
    return TrainingRange(
        version=VERSION,
        fingerprint=fingerprint,
        sources=len(sources),
        window=_ellipsoid(window_names(modality), window),
        local=_ellipsoid(LOCAL, local),
        inside_at_least=_ROOM * min(float(np.median(stack.inside)) for stack in stacks),
        round_field=modality == "OP",
    )


def _ellipsoid(names: tuple[str, ...], sources: Sequence[np.ndarray]) -> Ellipsoid:
    mean, precision = _spread(sources)
    return Ellipsoid(
        names=names,
        mean=tuple(mean.tolist()),
        precision=tuple(tuple(row) for row in precision.tolist()),
        limit=_limit(sources),
    )


def _spread(sources: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (k,) and precision (k, k) of slices, (n, k) for each source; every source weighs alike."""
    mean = np.mean([slices.mean(axis=0) for slices in sources], axis=0)
    covariance = np.mean([(slices - mean).T @ (slices - mean) / len(slices) for slices in sources], axis=0)
    variance = np.diag(np.maximum(np.diag(covariance), _LEAST_VARIANCE))
    apart = covariance - np.diag(np.diag(covariance))
    precision = np.linalg.inv((1 - SHRINKAGE) * apart + variance)
    return mean, (precision + precision.T) / 2


def _distances(slices: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return Mahalanobis distances, (n, k) to (n,), over the root of k."""
    apart = slices - mean
    return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", apart, precision, apart) / len(mean)))


def _limit(sources: Sequence[np.ndarray]) -> float:
    """Return a high percentile of the distance of a source that was not learnt from; the larger of two estimates.

    Counted: of the slices of all sources, each held out in turn, every source weighing alike. Reckoned: that of
    a log-normal distribution of the sources' medians, with the room that so few of them leave (prediction bound).
    """
    from scipy.special import stdtrit as student  # quantiles of Student's t; only training asks for them

    held_out = [_distances(one, *_spread([*sources[:i], *sources[i + 1 :]])) for i, one in enumerate(sources)]
    distances = np.concatenate(held_out)
    weights = np.concatenate([np.full(len(one), 1 / len(one)) for one in held_out])
    order = np.argsort(distances)
    reached = np.cumsum(weights[order]) / len(held_out)
    counted = float(distances[order][np.searchsorted(reached, _PERCENTILE)])
    logs = np.log([max(float(np.median(one)), 1e-6) for one in held_out])
    spread = float(logs.std(ddof=1)) * np.sqrt(1 + 1 / len(logs))
    reckoned = float(np.exp(logs.mean() + student(len(logs) - 1, _PERCENTILE) * spread))
    return max(counted, reckoned)
