"""An estimate of noise: what one line of arithmetic knows of an image's quality.

It looks for what a smooth image cannot have, and is in the unit of the image. The score is the noise's negative
logarithm, larger being better.
"""

import numpy as np
from scipy import ndimage

_MASK = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
_GAIN = 6.0
"""Root of the sum of squares of the mask: noise comes out so many times larger."""
_FEWEST = 50
_FLOOR = 1e-6


def immerkaer(image: np.ndarray, inside: np.ndarray | None = None) -> float:
    """Return the noise by the mean response to a mask that is blind to planes and edges.

    Immerkaer, "Fast noise variance estimation", 1996 (doi 10.1006/cviu.1996.0060): sqrt(pi / 2) / 6 * mean |I * N|.

    Args:
        image: (rows, columns).
        inside: the body; what surrounds it is padding or air. None: everywhere.
    """
    response = np.abs(ndimage.convolve(np.asarray(image, dtype=np.float64), _MASK, mode="reflect"))
    return float(np.sqrt(np.pi / 2) / _GAIN * response[_body(inside, image.shape)].mean())


def score(noise: float) -> float:
    """Return -log(noise), finite for an image without any."""
    return float(-np.log(noise + _FLOOR))


def _body(inside: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return inside if inside is not None and inside.sum() >= _FEWEST else np.ones(shape[:2], dtype=bool)
