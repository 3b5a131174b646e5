"""Choices of the recipe, made by ridge regression on frozen features over left-out development sources.

A network for every option would take hours. Sources are divided into five folds, an MR-like source in the fold of its
CT. Each fold is predicted by a regression on the others, and judged by order alone: whether the copies of an image that
one factor degraded are ordered by its severity. A merit by the label could not choose between labels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mediqa_node.reader_study.statistics import srcc
from training.data.store import Sample
from training.data.tokens import Tokens
from training.evaluate.metrics import within
from training.evaluate.retention import order_within
from training.evaluate.visible import severities_of
from training.simulate.degraded import FACTORS
from training.simulate.mr import RESOLUTION_LABEL, quality_under
from training.simulate.mr_from_ct import PREFIX, fold_of

FOLDS = 5
_FEWEST = 3
"""Sources of a modality without which nothing is left out."""
_PENALTY = 1000.0
_LABELS = ("coarseness", "resolution")
"""Of the resolution of MR. Of both, pairs of copies are compared that both labels call worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merit:
    """How well one option orders the copies of left-out images.

    Attributes:
        option: what was chosen from.
        order: concordant less discordant pairs, by factor, on real images.
        mean: over the factors; None: no pairs.
        pooled, within: SRCC with the label of this option, over all images and inside one; they compare nothing but
            options of the same label. None: undefined.
    """

    modality: str
    option: str
    order: Mapping[str, float]
    mean: float | None
    pooled: float | None
    within: float | None

    def as_json(self) -> dict[str, object]:
        """Return the merit as plain values, rounded."""
        rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}
        return {**rounded, "order": {factor: round(value, 3) for factor, value in self.order.items()}}


def features_of(data: Tokens) -> np.ndarray:
    """Return the pooled tokens of samples, (n, 4 T): mean and deviation over the grid, of whole views and of crops."""
    return np.array([features_of_sample(data, place) for place in range(len(data))], dtype=np.float32)


def features_of_sample(data: Tokens, place: int) -> np.ndarray:
    """Return the pooled tokens of one sample, (4 T,)."""
    views = data.views(place)
    first = np.diff(data.slice_of(place), prepend=-1) > 0
    crops = views[~first] if (~first).any() else views[first]
    return np.concatenate([part for one in (views[first], crops) for part in _pooled(one)])


def _pooled(views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return views.mean(axis=(0, 1)), views.std(axis=1).mean(axis=0)


def folds_of(samples: Sequence[Sample]) -> np.ndarray:
    """Return the fold of every sample, (n,): sources of a modality are dealt in turn, in the order of their names."""
    modality = {fold_of(sample.source): sample.modality for sample in samples[::-1]}
    for sample in samples:
        if sample.source == fold_of(sample.source):
            modality[sample.source] = sample.modality
    fold: dict[str, int] = {}
    for of in sorted(set(modality.values())):
        for number, name in enumerate(sorted(name for name in modality if modality[name] == of)):
            fold[name] = number % FOLDS
    return np.array([fold[fold_of(sample.source)] for sample in samples])


def left_out(features: np.ndarray, label: np.ndarray, samples: Sequence[Sample], fold: np.ndarray) -> np.ndarray:
    """Return predictions for every fold by a ridge regression on the others, every source with the same weight."""
    predicted = np.full(len(label), np.nan)
    for number in np.unique(fold):
        out = fold == number
        sources = [sample.source for sample, kept in zip(samples, ~out, strict=True) if kept]
        predicted[out] = ridge(features[~out], label[~out], sources)(features[out])
    return predicted


def ridge(x: np.ndarray, y: np.ndarray, sources: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Fit a ridge regression on standardised features, (n, k) to (n,), in which every source has the same weight."""
    _, index, counts = np.unique(np.array(sources), return_inverse=True, return_counts=True)
    weight = len(sources) / (len(counts) * counts[index])
    mean, sd = x.mean(axis=0), x.std(axis=0) + 1e-3
    z = np.clip((x - mean) / sd, -5, 5).astype(np.float64)
    centre = np.average(y, weights=weight)
    root = np.sqrt(weight)[:, None]
    a = z * root
    coefficients = np.linalg.solve(a.T @ a + _PENALTY * np.eye(z.shape[1]), a.T @ ((y - centre) * root[:, 0]))
    return lambda other: np.asarray(np.clip((other - mean) / sd, -5, 5) @ coefficients + centre)


# ── the options ──────────────────────────────────────────────────────────────────


def merits(data: Tokens) -> Iterator[Merit]:
    """Yield the merits of all options on the training samples of a store."""
    trained = data.subset(lambda sample: sample.split == "train")
    for modality in FACTORS:
        mine = trained.subset(lambda sample, of=modality: sample.modality == of)  # type: ignore[misc]
        if len({fold_of(sample.source) for sample in mine.samples}) >= _FEWEST:
            yield from _merits(features_of(mine), mine.samples, modality)


def _merits(features: np.ndarray, samples: Sequence[Sample], modality: str) -> Iterator[Merit]:
    quarter = features.shape[1] // 4
    views = {
        "whole view and crop": features,
        "whole view": features[:, : 2 * quarter],
        "crop": features[:, 2 * quarter :],
    }
    for name, part in views.items():
        yield _merit(part, samples, modality, name)
    if modality != "MR":
        return
    for label in _LABELS:
        yield _merit(features, samples, modality, f"label of resolution: {label}", label, _by_both_labels)
    real = np.array([not sample.source.startswith(PREFIX) for sample in samples])
    yield _merit(
        features[real], [one for one, kept in zip(samples, real, strict=True) if kept], modality, "no MR from CT"
    )


def _merit(
    features: np.ndarray,
    samples: Sequence[Sample],
    modality: str,
    option: str,
    label: str = RESOLUTION_LABEL,
    severities: Callable[[Sample, str], Sequence[float]] = severities_of,
) -> Merit:
    quality = np.array([_quality(sample, label) for sample in samples])
    predicted = left_out(features, quality, samples, folds_of(samples))
    real = np.array([not sample.source.startswith(PREFIX) for sample in samples])
    of_real = [one for one, kept in zip(samples, real, strict=True) if kept]
    found = order_within(predicted[real], of_real, modality, severities)
    order = {factor: float(np.mean(pairs)) for factor, pairs in found.items()}
    return Merit(
        modality=modality,
        option=option,
        order=order,
        mean=float(np.mean(list(order.values()))) if order else None,
        pooled=srcc(predicted[real], quality[real]),
        within=within(predicted[real], quality[real], [one.base for one in of_real]),
    )


def _by_both_labels(sample: Sample, _factor: str) -> Sequence[float]:
    """Return how bad both labels call a copy: a pair that one of them calls equal favours the other."""
    return [1.0 - quality_under(label, sample.severities) for label in _LABELS]


def _quality(sample: Sample, label: str) -> float:
    return quality_under(label, sample.severities) if sample.modality == "MR" else sample.labels["quality"]
