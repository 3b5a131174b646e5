"""Choices of the recipe, made by ridge regression on frozen features over left-out development sources.

A network for every option would take hours. Sources are divided into five folds, an MR-like source in the fold of its
CT. Each fold is predicted by a regression on the others, and judged by order alone: whether the copies of an image that
one factor degraded are ordered by its severity. A merit by the label could not choose between labels.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from training.data.store import Sample
from training.data.tokens import Tokens
from training.simulate.degraded import FACTORS
from training.simulate.mr_from_ct import fold_of

FOLDS = 5
VISIBLE = 0.05
"""Two copies whose severities differ by less are no pair: nobody sees the difference."""
_PENALTY = 100.0


def features_of(data: Tokens) -> np.ndarray:
    """Return the pooled tokens of samples, (n, 4 T): mean and deviation over the grid, of whole views and of crops."""
    found = []
    for place in range(len(data)):
        views = data.views(place)
        slice_of = data.slice_of(place)
        first = np.diff(slice_of, prepend=-1) > 0
        crops = views[~first] if (~first).any() else views[first]
        found.append(np.concatenate([part for one in (views[first], crops) for part in _pooled(one)]))
    return np.array(found, dtype=np.float32)


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
        predicted[out] = _ridge(features[~out], label[~out], _weights(samples, ~out))(features[out])
    return predicted


def _weights(samples: Sequence[Sample], keep: np.ndarray) -> np.ndarray:
    sources = np.array([sample.source for sample in samples])[keep]
    _, index, counts = np.unique(sources, return_inverse=True, return_counts=True)
    return np.asarray(len(sources) / (len(counts) * counts[index]))


def _ridge(x: np.ndarray, y: np.ndarray, weight: np.ndarray):  # type: ignore[no-untyped-def]
    mean, sd = x.mean(axis=0), x.std(axis=0) + 1e-3
    z = np.clip((x - mean) / sd, -5, 5).astype(np.float64)
    centre = np.average(y, weights=weight)
    root = np.sqrt(weight)[:, None]
    a = z * root
    coefficients = np.linalg.solve(a.T @ a + _PENALTY * np.eye(z.shape[1]), a.T @ ((y - centre) * root[:, 0]))
    return lambda other: np.clip((other - mean) / sd, -5, 5) @ coefficients + centre


def order_within(predicted: np.ndarray, samples: Sequence[Sample], modality: str) -> Mapping[str, float]:
    """Return for each factor the concordant less the discordant pairs of copies of one image, as a share.

    Pairs are copies that this factor alone degraded, or the image itself, whose severities differ visibly.
    """
    found = {}
    for factor in FACTORS[modality]:
        by_base: dict[str, list[tuple[float, float]]] = {}
        for value, sample in zip(predicted, samples, strict=True):
            if sample.modality == modality and sample.factor in (factor, "clean"):
                by_base.setdefault(sample.base, []).append((sample.severities[factor], float(value)))
        order = [
            np.sign(b[1] - a[1])
            for pairs in by_base.values()
            for i, a in enumerate(pairs)
            for b in pairs[:i] + pairs[i + 1 :]
            if a[0] - b[0] > VISIBLE
        ]
        if order:
            found[factor] = float(np.mean(order))
    return found
