"""Local statistics and a support vector machine: a strong baseline without a network.

As in BRISQUE (Mittal, Moorthy and Bovik 2012, doi 10.1109/TIP.2012.2214050), on the numbers of
`image.measure.quality_statistics`: the regressor that is also fused with the network (`training.fit.regressors`), its
cost and width chosen by leaving each source out once.
"""

from collections.abc import Sequence

import numpy as np

from mediqa_node.model.statistics_regressor import StatisticsRegressor
from training.fit.regressors import Fit, choose, fit_regressor

_TRIED_AT_MOST = 500
"""Rows that cost and width are chosen on: a machine costs the square of them, for every source and every choice."""
_USUAL = (1.0, 0.3)
"""Cost and width where one source alone leaves nothing to choose by."""


def fit_svr(statistics: np.ndarray, label: np.ndarray, sources: Sequence[str], *, seed: int = 0) -> StatisticsRegressor:
    """Return a regressor of one modality: statistics (m, k) to (m,), in the label's unit.

    Args:
        statistics: (n, k); label: (n,); sources: n names.
    """
    of = np.asarray(sources, dtype=str)
    some = np.random.default_rng(seed).permutation(len(label))[:_TRIED_AT_MOST]
    cost, share = _USUAL
    if len(np.unique(of[some])) > 1:
        cost, share, _ = choose(_fit(statistics[some], label[some], of[some]))
    return fit_regressor(_fit(statistics, label, of), cost, share)


def _fit(statistics: np.ndarray, label: np.ndarray, source: np.ndarray) -> Fit:
    return Fit(statistics=statistics, label=label, source=source, group=source)
