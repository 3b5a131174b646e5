"""Local statistics and a support vector machine: how quality was told before networks, and hard to beat.

As in BRISQUE (Mittal, Moorthy and Bovik 2012, doi 10.1109/TIP.2012.2214050): handcrafted numbers of the image, here
those of `assess.quality_statistics`, and epsilon-SVR with a Gaussian kernel on top. Width, penalty and tube are
chosen by cross-validation over groups, so that copies of one image never judge each other.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

_GRID = {"svr__C": [1.0, 10.0, 100.0], "svr__gamma": [0.01, 0.03, 0.1]}
_FOLDS = 4
_TRIED_AT_MOST = 600
"""Rows that the grid is searched on: an SVR costs the square of them."""


def fit_svr(features: np.ndarray, target: np.ndarray, groups: Sequence[str], *, seed: int = 0) -> Pipeline:
    """Return a fitted regressor; `predict` maps (m, k) to (m,).

    Args:
        features: (n, k), of one modality.
        target: (n,), learnt in standard units and predicted in its own.
        groups: n keys, of patient or base image.
    """
    names = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    spread = float(target.std()) or 1.0
    grid = {key: value if key != "svr__C" else [c * spread for c in value] for key, value in _GRID.items()}
    model = make_pipeline(StandardScaler(), SVR(epsilon=0.05 * spread))
    folds = min(_FOLDS, int(names.max()) + 1)
    if folds < 2:
        return model.set_params(svr__C=10.0 * spread, svr__gamma=0.03).fit(features, target)
    some = np.random.default_rng(seed).permutation(len(target))[:_TRIED_AT_MOST]
    folds = min(folds, len(np.unique(names[some])))
    search = GridSearchCV(model, grid, cv=GroupKFold(folds), scoring="neg_mean_squared_error", refit=False)
    search.fit(features[some], target[some], groups=names[some])
    return model.set_params(**search.best_params_).fit(features, target)
