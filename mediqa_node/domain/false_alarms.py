"""How many alarms a control chart raises while nothing has changed.

The run length of rule 1 and EWMA together is that of a Markov chain over the EWMA (Brook & Evans 1972, doi
10.1093/biomet/59.3.539; Lucas & Saccucci 1990, doi 10.1080/00401706.1990.10484583). Limits from few points are
themselves uncertain and raise more: the mean over that uncertainty is used, with the variance of the mean moving range
of overlapping pairs (Cryer & Ryan 1990, doi 10.1080/00224065.1990.11979239).
"""

import math
from collections.abc import Iterable
from functools import cache

import numpy as np

from mediqa_node.domain.control_chart import EWMA_LIMIT, LAMBDA, SIGMAS

_STATES = 51
_NODES = 7
_SIZES = (20, 25, 30, 40, 60, 80, 120, 200, 400, 1000)
"""Sizes of a baseline that the rate is computed for; one in between counts as the next smaller."""


def run_length(*, sigmas: float = SIGMAS, ewma_limit: float = EWMA_LIMIT, shift: float = 0.0, spread: float = 1.0,
               states: int = 201) -> float:  # fmt: skip
    """Return the mean number of points until rule 1 or the EWMA alarms.

    Args:
        sigmas: limit of rule 1; infinite: without it.
        ewma_limit: L of the EWMA.
        shift, spread: mean and standard deviation of the standardised values: 0 and 1 where nothing has changed.

    >>> round(run_length(sigmas=math.inf), -1)
    500.0
    """
    half = ewma_limit * math.sqrt(LAMBDA / (2 - LAMBDA))
    edges = np.linspace(-half, half, states + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    needed = (edges[None, :] - (1 - LAMBDA) * middle[:, None]) / LAMBDA
    below = _normal((np.clip(needed, -sigmas, sigmas) - shift) / spread)
    stays = np.diff(below, axis=1)
    lengths = np.linalg.solve(np.eye(states) - stays, np.ones(states))
    return float(lengths[states // 2])


def _normal(z: np.ndarray) -> np.ndarray:
    """Return the normal distribution function, by Abramowitz & Stegun 7.1.26, within 2e-7."""
    x = np.abs(z) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * x)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    upper = 0.5 * poly * np.exp(-(x**2))
    below: np.ndarray = np.where(z > 0, 1 - upper, upper)
    return below


@cache
def _rate(n: int) -> float:
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    error = math.sqrt(0.8264 * n - 1.082) / (n - 1)
    total = 0.0
    for i, w in zip(nodes, weights, strict=True):
        for j, v in zip(nodes, weights, strict=True):
            estimated = max(0.2, 1 + error * j)
            length = run_length(shift=i / math.sqrt(n) / estimated, spread=1 / estimated, states=_STATES)
            total += float(w * v) / length
    return total


def rate(n_baseline: int) -> float:
    """Return the expected number of false alarms for each point, with limits from so many points.

    >>> 1 / rate(1000) > 200 > 1 / rate(20)
    True
    """
    return _rate(max(size for size in _SIZES if size <= max(n_baseline, _SIZES[0])))


def expected(judged: Iterable[tuple[int, int]]) -> float:
    """Return the expected number of false alarms.

    Args:
        judged: number of judged points, and points that their limits rest on, for each stratum.
    """
    return sum(n * rate(n_baseline) for n, n_baseline in judged)
