"""Convert images in physical units to network input; the node and training share this function.

The paper resizes to 224 x 224 without mentioning the aspect ratio. Here the slice is padded to a square first: a
stretched body has wrong texture and wrong noise, and the score depends on both. Resampling is bicubic
with the filter widened by the reduction (anti-aliased), after the intensities have been mapped to 0..1. That removes
noise, the more the larger the slice is, which the network cannot know; so `PreprocessSpec.sampled` takes single pixels.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mediqa_node.domain.preprocessing import IntensityRule, NetworkInput, PreprocessSpec, View
from mediqa_node.image.foreground import body_pixels
from mediqa_node.image.released import released_resize
from mediqa_node.image.views import native_crops, shown, whole_view

FULL_SCALE = 255.0


def preprocess(images: Sequence[np.ndarray], spec: PreprocessSpec, *, modality: str, image_type: str) -> NetworkInput:
    """Return network input for the salient slices of one stack.

    Args:
        images: returned by `dicom.pixels.to_image`: (rows, columns) in HU or rescaled signal, or
            (rows, columns, 3) RGB 0..255; as stored where `spec.reads_stored_values`. Sizes may differ.
        spec: from the checkpoint's card.
        modality: CT, MR or OP; with `image_type` it chooses the intensity rule. Colour images, and gray ones of
            modality OP, are divided by 255 and need no rule.

    Returns:
        for each slice its whole view, then its crops; gray repeated in all three channels; in
        `spec.output_range`.

    Raises:
        KeyError: the spec has no rule for this modality.
        ValueError: no images, or a rule of unknown kind.
    """
    if not images:
        raise ValueError("no images to preprocess")
    if spec.reads_stored_values:
        return _as_released(images, spec)
    clean = [np.nan_to_num(np.asarray(image, dtype=np.float32)) for image in images]
    photographic = modality == "OP" or clean[0].ndim == 3
    low, high = (0.0, FULL_SCALE) if photographic else intensity_range(clean, spec.rule_for(modality, image_type))
    resampling = Image.Resampling.NEAREST if modality in spec.sampled else Image.Resampling.BICUBIC
    views: list[View] = []
    shots: list[np.ndarray] = []
    for index, image in enumerate(clean):
        crops = native_crops(image, index, modality=modality, size_px=_crop_px(image, spec), count=spec.native_crops)
        of_slice = [whole_view(image.shape, index, square=True), *crops]
        scaled = _scaled(image, low, high)
        shots += [_network_image(shown(scaled, view), spec, resampling) for view in of_slice]
        views += of_slice
    return NetworkInput(images=np.stack(shots), views=tuple(views), window=(low, high), slices=tuple(clean))


def _as_released(images: Sequence[np.ndarray], spec: PreprocessSpec) -> NetworkInput:
    shots = [_three_channels(released_resize(image, spec.size_px), spec) for image in images]
    views = tuple(whole_view(image.shape, index, square=False) for index, image in enumerate(images))
    return NetworkInput(images=np.stack(shots), views=views)


def _crop_px(image: np.ndarray, spec: PreprocessSpec) -> int:
    """Return the edge of a native crop, scaled up for an image larger than `native_at_most_px`."""
    if spec.native_at_most_px is None:
        return spec.size_px
    return int(max(spec.size_px, round(spec.size_px * max(image.shape[:2]) / spec.native_at_most_px)))


def intensity_range(images: Sequence[np.ndarray], rule: IntensityRule) -> tuple[float, float]:
    """Return the values that become 0 and 1: a fixed window, or percentiles inside the body over all images."""
    if rule.kind == "window":
        return rule.low, rule.high
    if rule.kind != "percentile":
        raise ValueError(f"intensity rule of unknown kind {rule.kind!r}; known: window, percentile")
    low, high = np.percentile(body_pixels(images), [rule.low, rule.high])
    return float(low), float(high)


def _network_image(pixels: np.ndarray, spec: PreprocessSpec, resampling: Image.Resampling) -> np.ndarray:
    """Return (3, size, size) of a square (edge, edge[, 3]) in 0..1."""
    channels = [pixels] if pixels.ndim == 2 else list(np.moveaxis(pixels, -1, 0))
    resized = [_resized(one, spec.size_px, resampling) for one in channels]
    return _three_channels(resized[0] if pixels.ndim == 2 else np.stack(resized, -1), spec)


def _three_channels(image: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """Convert (size, size[, 3]) to (3, size, size), in the channel order and range that the weights expect."""
    channels = np.moveaxis(image, -1, 0) if image.ndim == 3 else image[np.newaxis]
    if spec.colour_order == "bgr":
        channels = channels[::-1]
    low, high = spec.output_range
    placed = channels if (low, high) == (0, 1) else channels * (high - low) + low
    return np.broadcast_to(placed, (3, *placed.shape[1:])).astype(np.float32)


def _scaled(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high to 0..1 and clip; an empty range gives 0 everywhere."""
    if not high > low:
        return np.zeros(image.shape, dtype=np.float32)
    scaled = image.astype(np.float64)  # in place: a photograph has tens of millions of values
    scaled -= low
    scaled /= high - low
    return np.clip(scaled, 0.0, 1.0, out=scaled).astype(np.float32)


def _resized(square: np.ndarray, size_px: int, resampling: Image.Resampling) -> np.ndarray:
    if square.shape == (size_px, size_px):
        return square
    resized = Image.fromarray(square, mode="F").resize((size_px, size_px), resampling)
    return np.clip(np.asarray(resized, dtype=np.float32), 0.0, 1.0)
