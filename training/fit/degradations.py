"""Degraded copies of an image, so that the training range includes poor images of patients.

A training range learnt only from good images refuses noisy or blurred patient images, which are the ones that most need
a score. Of 17 MR stacks none was refused, but all were with 10 % noise added. These copies only widen the limits: they
do not simulate a scanner, and nothing is trained on them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.image.preprocess import FULL_SCALE, intensity_range

_LARGEST_PX = 560
"""Larger images are reduced before they are made worse: the network is shown 224 pixels of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """One degradation, in units of the network input.

    Attributes:
        blur_px: standard deviation of a Gaussian, in pixels of the network input.
        noise: standard deviation, as a fraction of the window; added as two components (Rice) to MR.
        gain: of all values; photographs.
    """

    blur_px: float = 0.0
    noise: float = 0.0
    gain: float = 1.0


_NOISE = (Degradation(noise=0.03), Degradation(noise=0.06), Degradation(noise=0.1))
_BLUR = (Degradation(blur_px=0.7), Degradation(blur_px=1.5))
DEGRADATIONS = {
    "CT": (*_NOISE, *_BLUR),
    "MR": (*_NOISE, *_BLUR),
    "OP": (*_NOISE[:2], *_BLUR, Degradation(blur_px=3.0), Degradation(gain=0.6)),
}


def worse_copies(
    images: Sequence[np.ndarray], spec: PreprocessSpec, *, modality: str, image_type: str, random: np.random.Generator
) -> Iterator[list[np.ndarray]]:
    """Yield a copy of the slices of one stack for each degradation, in the same units.

    Args:
        images: input of `image.preprocess`.
        random: generator of the noise.
    """
    sampled = modality in spec.sampled
    clean = [np.asarray(image, dtype=np.float32) for image in images]
    if not sampled:
        clean = [_reduced(image) for image in clean]
    low, high = 0.0, FULL_SCALE
    if modality != "OP":
        low, high = intensity_range(clean, spec.rule_for(modality, image_type))
    for how in DEGRADATIONS[modality]:
        noise = how.noise * (high - low)
        yield [
            _degraded(image, how, noise if sampled else noise * max(1.0, _scale(image, spec)), modality, spec, random)
            for image in clean
        ]


def _scale(image: np.ndarray, spec: PreprocessSpec) -> float:
    """Return the pixels of an image that become one of the network input, along an edge."""
    return float(max(image.shape[:2]) / spec.size_px)


def _degraded(
    image: np.ndarray,
    how: Degradation,
    noise_sd: float,
    modality: str,
    spec: PreprocessSpec,
    random: np.random.Generator,
) -> np.ndarray:
    """Return a degraded image; averaging the pixels that become one reduces the noise, which `noise_sd` allows for."""
    worse = image.astype(np.float64) * how.gain
    if how.blur_px:
        sd_px = how.blur_px * _scale(image, spec)
        worse = gaussian_filter(worse, sd_px, mode="nearest", radius=math.ceil(3 * sd_px), axes=(0, 1))
    if how.noise:
        noise = random.normal(0.0, noise_sd, (2, *worse.shape))
        worse = np.hypot(worse + noise[0], noise[1]) if modality == "MR" else worse + noise[0]
    return (np.clip(worse, 0.0, FULL_SCALE) if modality == "OP" else worse).astype(np.float32)


def _reduced(image: np.ndarray) -> np.ndarray:
    """Return block means, so that no edge is longer than `_LARGEST_PX`."""
    edge = -(-max(image.shape[:2]) // _LARGEST_PX)
    if edge == 1:
        return image
    rows, columns = (size // edge for size in image.shape[:2])
    blocks = image[: rows * edge, : columns * edge].reshape(rows, edge, columns, edge, *image.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3)))
