"""The noise of an image as a baseline score: its negative logarithm, larger being better."""

import numpy as np

_FLOOR = 1e-6


def score(noise: float) -> float:
    """Return -log(noise), finite for an image without any."""
    return float(-np.log(noise + _FLOOR))
