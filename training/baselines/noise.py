"""A baseline score: the negative logarithm of the noise of an image, larger being better."""

import numpy as np

_FLOOR = 1e-6


def score(noise: float) -> float:
    """Return -log(noise), which stays finite without noise."""
    return float(-np.log(noise + _FLOOR))
