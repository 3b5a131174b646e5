"""Which copies of an image can be told apart, and whether a score orders them."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from training.data.store import Sample

VISIBLE = {"CT": 0.01, "MR": 0.05, "OP": 0.05}
"""Copies that differ by less look the same: of the quality of CT, whose severities saturate, of the severity else."""


def severity_of(sample: Sample, factor: str) -> float:
    """Return how far one factor degraded a copy, in the units of `VISIBLE`."""
    return 1.0 - sample.labels["quality"] if sample.modality == "CT" else sample.severities[factor]


def severities_of(sample: Sample, factor: str) -> tuple[float, ...]:
    """Return `severity_of`, as `order_of_pairs` takes it."""
    return (severity_of(sample, factor),)


def visible(levels: Sequence[tuple[float, float]], apart: float) -> list[tuple[float, float]]:
    """Return the levels (severity, score) in order of severity, without those too near to the last one kept.

    >>> visible([(0.5, 1.0), (0.1, 2.0), (0.12, 3.0)], 0.05)
    [(0.1, 2.0), (0.5, 1.0)]
    """
    kept: list[tuple[float, float]] = []
    for level in sorted(levels):
        if not kept or level[0] - kept[-1][0] >= apart:
            kept.append(level)
    return kept


def order_of_pairs(levels: Sequence[tuple[Sequence[float], float]], apart: float) -> Iterator[float]:
    """Yield 1 for every pair of levels of which the worse scores lower, -1 if it scores higher, 0 if the same.

    Args:
        levels: (severities, score); worse is what all severities call so.

    >>> list(order_of_pairs([((0.1,), 2.0), ((0.5,), 1.0), ((0.12,), 3.0)], 0.05))
    [1.0, 1.0]
    """
    for one, other in combinations(levels, 2):
        worse = np.subtract(other[0], one[0])
        if (np.abs(worse) >= apart).all() and len(set(np.sign(worse))) == 1:
            yield float(np.sign(worse[0]) * np.sign(one[1] - other[1]))
