"""The circle in which a CT scanner reconstructs, where the image shows it.

Beyond the circle scanners write one constant, which the pixels inside of it, noisy air or patient, do not have.
"""

from functools import lru_cache

import numpy as np

_FROM = 0.9
"""Of half the image: no scanner's field is a smaller circle of it."""
_CONSTANT = 0.98
_RING_PX = 3.0
_NOISY = 0.7
_FEWEST_PX = 48
"""Of a coarse slice: with fewer, a ring of three pixels reaches from noisy air into a body."""


def field_radius(image_hu: np.ndarray) -> float | None:
    """Return the radius in pixels of the circle beyond which a slice is constant, None if there is no such circle.

    Air that is itself constant to the last unit hides the circle.
    """
    constant = image_hu == image_hu[0, 0]
    if min(image_hu.shape) < _FEWEST_PX or not constant[[0, 0, -1, -1], [0, -1, 0, -1]].all():
        return None
    distance = distance_px(image_hu.shape)
    half = min(image_hu.shape) / 2
    radii = range(int(_FROM * half), int(half) + 2)  # every fourth pixel of an image is not quite centred
    radius = next((r for r in radii if constant[distance > r].mean() >= _CONSTANT), None)
    if radius is None:
        return None
    ring = (distance < radius - 1) & (distance > radius - 1 - _RING_PX)
    return float(radius) if constant[ring].mean() < _NOISY else None


@lru_cache(maxsize=4)
def distance_px(shape: tuple[int, ...]) -> np.ndarray:
    """Return the distance of every pixel from the middle of an image, in pixels; not to be written to."""
    y, x = (np.abs(np.arange(size) - (size - 1) / 2) for size in shape)
    return np.asarray(np.hypot(y[:, None], x[None, :]))


@lru_cache(maxsize=4)
def is_beside(shape: tuple[int, ...]) -> np.ndarray:
    """Return which pixels lie further to the side than up or down from the middle of an image; not to be written to."""
    y, x = (np.abs(np.arange(size) - (size - 1) / 2) for size in shape)
    return np.asarray(x[None, :] > y[:, None])
