"""The training range of a checkpoint: a stack outside of these limits is not scored, unless the site wants a flag.

Outside of the limits a score is meaningless but looks like any other. Two tests measure how far the statistics of a
slice are from those of the training images (`slice_statistics`). Each is a Mahalanobis distance divided by the distance
that patients of a held-out source reach. A simple rule catches images of something else entirely: too few pixels inside
the window. A photograph that shows no fundus, or too little of one, is refused in any case (`image.fundus`).

There are few sources: a dozen collections, not thousands of patients. So every source has the same weight, correlations
are halved, and the limit is measured on sources that are held out in turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.range_position import RangePosition, RangeTest
from mediqa_node.domain.series import ReasonCode
from mediqa_node.image.fundus import NO_FIELD, too_little_visible
from mediqa_node.image.measure.slice_statistics import LOCAL, VERSION, SliceStatistics, window_names

FEWEST_SOURCES = 3
SHRINKAGE = 0.5
"""How far covariances are shrunk towards 0: 0.5 to 0.9 give the same answers; below 0.5, patients are refused."""
_LEAST_VARIANCE = 1e-4
"""Floor of each statistic: without variance in the training images, rounding would become a distance."""
_PERCENTILE = 0.975
"""Share of held-out sources that each of the two tests passes: 95 % for both."""
_ROOM = 0.5
"""A stack may have half the share inside the window that the lowest training stack has."""
_LEAST_SHARE = 0.001
"""Share inside the window that counts for less, so that the distance of a black image is finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipsoid:
    """The region of the training images in a space of k statistics.

    Attributes:
        names: of the statistics.
        mean: (k,).
        precision: the inverse of the shrunk covariance, (k, k).
        limit: the largest distance of a slice that is inside.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    limit: float

    def ratios(self, statistics: np.ndarray) -> np.ndarray:
        """Return the distance of each slice over the limit, (n, k) to (n,): above 1 is outside."""
        return _distances(statistics, np.array(self.mean), np.array(self.precision)) / self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRange:
    """The limits of one modality (see module).

    Attributes:
        version: of the statistics (`slice_statistics.VERSION`).
        fingerprint: of the preprocessing that the statistics were measured on; the limits hold for no other.
        sources: number of sources in the fit.
        window, local: the two tests.
        inside_at_least: share of a slice's pixels inside the window, 0..1.
        round_field: whether every slice must be a photograph of a fundus that shows enough of its field.
    """

    version: int
    fingerprint: str
    sources: int
    window: Ellipsoid
    local: Ellipsoid
    inside_at_least: float
    round_field: bool

    def position(self, stack: SliceStatistics) -> RangePosition:
        """Return where a stack lies: the median over the slices decides, so that one slice with metal does not.

        Raises:
            NotScorable: with `round_field`: no photograph of a fundus, or one that shows too little of it.
        """
        if self.round_field:
            _require_field(stack)
        ratios = self.ratios(stack)
        larger = np.max(list(ratios.values()), axis=0)
        test = max(ratios, key=lambda one: float(np.median(ratios[one])))
        distance, n_outside = float(np.median(larger)), int((larger > 1).sum())
        inside = float(np.median(stack.inside))
        if inside < self.inside_at_least:
            test, distance = RangeTest.INSIDE_WINDOW, self.inside_at_least / max(inside, _LEAST_SHARE)
            n_outside = int((stack.inside < self.inside_at_least).sum())
        return RangePosition(
            test=test,
            times_limit=distance,
            n_outside=n_outside,
            n_slices=len(larger),
            share_inside=inside,
            share_expected=self.inside_at_least,
        )

    def outside(self, stack: SliceStatistics) -> str | None:
        """Return why a node does not score a stack unless it flags what is outside; None if it scores it."""
        try:
            found = self.position(stack)
        except NotScorable as refusal:
            return str(refusal)
        return found.details() if found.is_outside else None

    def ratios(self, stack: SliceStatistics) -> dict[RangeTest, np.ndarray]:
        """Return the distances of the slices over the limit, (n,), by test."""
        return {RangeTest.WINDOW: self.window.ratios(stack.window), RangeTest.LOCAL: self.local.ratios(stack.local)}


def _require_field(stack: SliceStatistics) -> None:
    if not np.median(stack.round_field) > 0:
        raise NotScorable(ReasonCode.NOT_A_FUNDUS_PHOTOGRAPH, NO_FIELD)
    lit, covered = (float(np.median(share[stack.round_field])) for share in (stack.lit, stack.covered))
    if (refusal := too_little_visible(lit, covered)) is not None:
        raise NotScorable(*refusal)


def fit_training_range(
    sources: Mapping[str, Sequence[SliceStatistics]], *, modality: str, fingerprint: str
) -> TrainingRange:
    """Return the limits of one modality, fitted to training stacks.

    Args:
        sources: stacks by source; related stacks (one patient, one scanner's collection) form one source.
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
    """Return mean (k,) and precision (k, k) of slices, (n, k) for each source; every source has the same weight."""
    mean = np.mean([slices.mean(axis=0) for slices in sources], axis=0)
    covariance = np.mean([(slices - mean).T @ (slices - mean) / len(slices) for slices in sources], axis=0)
    variance = np.diag(np.maximum(np.diag(covariance), _LEAST_VARIANCE))
    apart = covariance - np.diag(np.diag(covariance))
    precision = np.linalg.inv((1 - SHRINKAGE) * apart + variance)
    return mean, (precision + precision.T) / 2


def _distances(slices: np.ndarray, mean: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return Mahalanobis distances divided by the root of k, (n, k) to (n,)."""
    apart = slices - mean
    return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", apart, precision, apart) / len(mean)))


def _limit(sources: Sequence[np.ndarray]) -> float:
    """Return a high percentile of the distance of a held-out source: the larger of two estimates.

    Empirical: over the slices of all sources, each held out in turn, with the same weight for every source. Modelled:
        the upper prediction bound of a log-normal distribution of the sources' medians, which is wide for few sources.
    """
    from scipy.special import stdtrit as student  # only training needs it

    held_out = [_distances(one, *_spread([*sources[:i], *sources[i + 1 :]])) for i, one in enumerate(sources)]
    distances = np.concatenate(held_out)
    weights = np.concatenate([np.full(len(one), 1 / len(one)) for one in held_out])
    order = np.argsort(distances)
    reached = np.cumsum(weights[order]) / len(held_out)
    counted = float(distances[order][np.searchsorted(reached, _PERCENTILE)])
    logs = np.log([max(float(np.median(one)), 1e-6) for one in held_out])
    spread = float(logs.std(ddof=1)) * np.sqrt(1 + 1 / len(logs))
    modelled = float(np.exp(logs.mean() + student(len(logs) - 1, _PERCENTILE) * spread))
    return max(counted, modelled)
