"""Estimates of noise from one image: Immerkaer, "Fast noise variance estimation", 1996 (doi 10.1006/cviu.1996.0060).

The kernel does not respond to planes or to edges along an axis: only noise and fine detail remain.
"""

import numpy as np

_KERNEL = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
_GAIN = 6.0
"""Root of the sum of squares of the kernel: noise comes out so many times larger."""
_FEWEST_PIXELS = 50
_PERCENTILE, _OF_A_NORMAL = 30, 0.3853
"""A percentile low enough that details do not count, and its value for a normal distribution of deviation 1."""


def immerkaer(image: np.ndarray, inside: np.ndarray | None = None) -> float:
    """Return the standard deviation of the noise from the mean response: sqrt(pi / 2) / 6 * mean |I * N|.

    Args:
        image: (rows, columns).
        inside: mask of the body, to leave out padding and air. None, or fewer than 50 pixels: the whole image.

    >>> ramp = np.indices((64, 64)).sum(axis=0)
    >>> round(immerkaer(ramp + np.random.default_rng(0).normal(0, 5, (64, 64))))
    5
    """
    from scipy import ndimage  # would cost the courier 0.1 s and 20 MB

    response = np.abs(ndimage.convolve(np.asarray(image, dtype=np.float64), _KERNEL, mode="reflect"))
    everywhere = inside is None or inside.sum() < _FEWEST_PIXELS
    return float(np.sqrt(np.pi / 2) / _GAIN * (response if everywhere else response[inside]).mean())


def immerkaer_robust(image: np.ndarray, inside: np.ndarray) -> float:
    """Return the standard deviation of the noise from a low percentile of the response, which details barely affect.

    Args:
        image: (rows, columns).
        inside: mask of the body.
    """
    from scipy import ndimage

    response = np.abs(ndimage.convolve(image, _KERNEL))[inside]
    return float(np.percentile(response, _PERCENTILE) / (_OF_A_NORMAL * _GAIN))


def immerkaer_response(image: np.ndarray) -> np.ndarray:
    """Return a quarter of the kernel response, in the image's own precision; borders wrap around."""
    rows = image - (np.roll(image, 1, 0) + np.roll(image, -1, 0)) / 2
    return np.asarray(rows - (np.roll(rows, 1, 1) + np.roll(rows, -1, 1)) / 2)
