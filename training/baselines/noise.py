"""Estimates of noise: what one line of arithmetic knows of an image's quality.

Both look for what a smooth image cannot have; both are in the unit of the image. The score is the noise's negative
logarithm, larger being better.
"""

import numpy as np
from scipy import ndimage

_MASK = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
_GAIN = 6.0
"""Root of the sum of squares of the mask: noise comes out so many times larger."""
_MAD_TO_SD = 0.6745
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


def diagonal_mad(image: np.ndarray, inside: np.ndarray | None = None) -> float:
    """Return the noise by the median of the finest diagonal detail, median |HH| / 0.6745.

    Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994 (doi 10.1093/biomet/81.3.425), with
    the Haar wavelet: robust against edges, which are rare.
    """
    even = np.asarray(image, dtype=np.float64)[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    detail = (even[::2, ::2] - even[::2, 1::2] - even[1::2, ::2] + even[1::2, 1::2]) / 2
    here = _body(inside, image.shape)[::2, ::2][: detail.shape[0], : detail.shape[1]]
    return float(np.median(np.abs(detail[here])) / _MAD_TO_SD)


def score(noise: float) -> float:
    """Return -log(noise), finite for an image without any."""
    return float(-np.log(noise + _FLOOR))


def _body(inside: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return inside if inside is not None and inside.sum() >= _FEWEST else np.ones(shape[:2], dtype=bool)
