"""Images in physical units to network input. The node and the training use this one function.

The paper resizes to 224 x 224 and says nothing of shape. Here the slice is padded to a square first: a
stretched body has wrong texture and wrong noise, and both are what is judged. Resampling is bicubic
with the filter widened by the reduction (anti-aliased), after the intensities have been mapped to 0..1.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mediqa_node.assess.foreground import body_pixels
from mediqa_node.domain.assessment import IntensityRule, PreprocessSpec

FULL_SCALE = 255.0


def preprocess(images: Sequence[np.ndarray], spec: PreprocessSpec, *, modality: str, image_type: str) -> np.ndarray:
    """Return network input for the salient slices of one stack.

    Args:
        images: of `dicom.pixels.to_image`: (rows, columns) in HU or rescaled signal, or
            (rows, columns, 3) RGB 0..255. Sizes may differ.
        spec: from the checkpoint's card.
        modality: CT, MR or OP; with `image_type` it chooses the intensity rule. Colour, and gray of
            modality OP, is divided by 255 and needs no rule.

    Returns:
        float32, (n, 3, size, size), 0..1, finite; gray repeated in all three channels.

    Raises:
        KeyError: the spec has no rule for this modality.
        ValueError: no images, or a rule of unknown kind.
    """
    if not images:
        raise ValueError("no images to preprocess")
    clean = [np.nan_to_num(np.asarray(image, dtype=np.float32)) for image in images]
    photographic = modality == "OP" or clean[0].ndim == 3
    low, high = (0.0, FULL_SCALE) if photographic else intensity_range(clean, spec.rule_for(modality, image_type))
    return np.stack([_network_input(image, low, high, spec.size_px) for image in clean])


def intensity_range(images: Sequence[np.ndarray], rule: IntensityRule) -> tuple[float, float]:
    """Return the values that become 0 and 1: the window itself, or percentiles inside the body of all images."""
    if rule.kind == "window":
        return rule.low, rule.high
    if rule.kind != "percentile":
        raise ValueError(f"intensity rule of unknown kind {rule.kind!r}; known: window, percentile")
    low, high = np.percentile(body_pixels(images), [rule.low, rule.high])
    return float(low), float(high)


def _network_input(image: np.ndarray, low: float, high: float, size_px: int) -> np.ndarray:
    """Return (3, size, size), 0..1."""
    channels = np.moveaxis(image, -1, 0) if image.ndim == 3 else image[np.newaxis]
    resized = np.stack([_resized(_padded_to_square(_scaled(one, low, high)), size_px) for one in channels])
    return np.broadcast_to(resized, (3, size_px, size_px)).astype(np.float32)


def _scaled(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high to 0..1 and clip; where the range is empty, everything is 0."""
    if not high > low:
        return np.zeros(image.shape, dtype=np.float32)
    return np.clip((image.astype(np.float64) - low) / (high - low), 0.0, 1.0).astype(np.float32)


def _padded_to_square(image: np.ndarray) -> np.ndarray:
    """Centre the image on a black square; an odd remainder goes below or to the right."""
    edge = max(image.shape)
    top, left = ((edge - size) // 2 for size in image.shape)
    square = np.zeros((edge, edge), dtype=np.float32)
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    return square


def _resized(square: np.ndarray, size_px: int) -> np.ndarray:
    resized = Image.fromarray(square, mode="F").resize((size_px, size_px), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, dtype=np.float32), 0.0, 1.0)
