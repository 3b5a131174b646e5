"""The circle in which a CT scanner reconstructs, where the image shows it.

Beyond the circle scanners write one constant, which the pixels inside of it, noisy air or patient, do not have.
"""

from functools import lru_cache

import numpy as np

_FROM = 0.9
"""Of half the image: no scanner's field is a smaller circle of it."""
_CONSTANT = 0.98
_RING_PX = 3
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
    rings, size = _rings(image_hu.shape)
    filled = np.bincount(rings, weights=constant.ravel(), minlength=len(size))
    beyond = np.cumsum(filled[::-1])[::-1] / np.cumsum(size[::-1])[::-1]
    half = min(image_hu.shape) / 2
    radii = range(int(_FROM * half), int(half) + 2)  # every fourth pixel of an image is not quite centred
    radius = next((r for r in radii if r < len(beyond) and beyond[r] >= _CONSTANT), None)
    if radius is None or radius <= _RING_PX + 1:
        return None
    ring = slice(radius - 1 - _RING_PX, radius - 1)
    return float(radius) if filled[ring].sum() < _NOISY * size[ring].sum() else None


@lru_cache(maxsize=4)
def _rings(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole distance of every pixel from the middle, flat, and how many pixels are at each."""
    rings = distance_px(shape).astype(np.intp).ravel()
    return rings, np.maximum(np.bincount(rings), 1)


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
