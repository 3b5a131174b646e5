"""Draw a slice in the network's window, plain and with its score map overlaid: colour is the score, opacity the weight.

Maps are smoothed only here and only for display, because patch edges would hide the anatomy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from mediqa_node.image.maps.native import NativeMap, resampled
from mediqa_node.image.maps.palette import coloured

_OPACITY = (0.25, 0.7)
"""Of the lowest and the highest patch weight: colour and anatomy stay visible everywhere."""
_BLACK = 40.0
"""Level of black under the map: on black every colour is dark, and dark colours mean poor quality."""
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_DISPLAY_PERCENT = (0.5, 99.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedSlice:
    """One scored slice with its map and scores.

    Attributes:
        image: returned by `dicom.pixels.to_image`: (rows, columns) or (rows, columns, 3).
        window: the values shown black and white; None: percentiles of this image.
        map: of this slice, (rows, columns).
        quality: 0..1, or None if the card has no quality map.
        weight: of the slice in Q; None where all slices count the same.
        aspect: height of a pixel over its width.
        background: mask of air around the body (`foreground.background`), which is left uncoloured; None: no mask.
    """

    image: np.ndarray = field(compare=False)
    window: tuple[float, float] | None
    map: NativeMap
    quality: float | None
    raw: float
    weight: float | None
    aspect: float = 1.0
    background: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The values at the ends of the palette and the patch weight drawn most opaque; the same for a whole series."""

    low: float
    high: float
    label: str
    most_weight: float


def scale_of(slices: Sequence[ExplainedSlice]) -> Scale:
    """Return 0..1 for quality, or the observed range of raw scores, which are unbounded."""
    weights = [float(np.nanmax(part.map.weights, initial=0.0)) for part in slices]
    most_weight = max(weights) or 1.0
    if all(part.map.quality is not None for part in slices):
        return Scale(low=0.0, high=1.0, label="quality", most_weight=most_weight)
    found = np.concatenate([part.map.shown[np.isfinite(part.map.shown)] for part in slices])
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    return Scale(low=low, high=high if high > low else low + 1.0, label="raw score", most_weight=most_weight)


def grey(part: ExplainedSlice) -> np.ndarray:
    """Return a slice as RGB, uint8, (rows, columns, 3), in the window of the network's input."""
    image = np.nan_to_num(part.image)
    if image.ndim == 3:
        return np.asarray(np.clip(image, 0, 255).astype(np.uint8))
    low, high = part.window or (float(value) for value in np.percentile(image, _DISPLAY_PERCENT))
    levels = np.clip((image - low) / (high - low if high > low else 1.0), 0, 1) * 255
    return np.repeat(np.round(levels).astype(np.uint8)[..., None], 3, axis=-1)


def plain(part: ExplainedSlice, edge_px: int) -> Image.Image:
    """Return a slice without its map, the longer edge scaled to `edge_px`."""
    return _fitted(grey(part), edge_px, part.aspect)


def overlaid(part: ExplainedSlice, scale: Scale, edge_px: int) -> Image.Image:
    """Return a slice with its map overlaid, the longer edge scaled to `edge_px`; uncovered pixels and air stay gray."""
    shown = np.asarray(plain(part, edge_px))
    values, weights = smoothed(resampled(part.map, (shown.shape[0], shown.shape[1])))
    low, high = _OPACITY
    opacity = low + (high - low) * np.clip(np.nan_to_num(weights) / scale.most_weight, 0, 1)
    opacity = (opacity * np.isfinite(values) * ~_resized_mask(part.background, shown.shape[:2]))[..., None]
    under = _BLACK + (shown @ _LUMINANCE)[..., None] * (255 - _BLACK) / 255
    mixed = under * (1 - opacity) + coloured(values, scale.low, scale.high) * opacity
    return Image.fromarray(np.round(mixed).astype(np.uint8))


def _resized_mask(mask: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    if mask is None:
        return np.zeros(shape, dtype=bool)
    return np.asarray(Image.fromarray(mask).resize((shape[1], shape[0]), Image.Resampling.NEAREST), dtype=bool)


def smoothed(native: NativeMap) -> tuple[np.ndarray, np.ndarray]:
    """Return values and weights interpolated linearly between the centres of patches; NaN stays NaN.

    A moving mean over one patch does this, because values are constant within patches. Values are averaged with their
    weights, as in a score.
    """
    from scipy.ndimage import uniform_filter  # would cost the courier, which rarely draws, 0.2 s and 30 MB

    window = [max(1, round(edge)) for edge in native.patch_px]
    known = np.isfinite(native.shown)
    weights = np.where(known, np.maximum(native.weights, 1e-6), 0.0)
    cover, total, weighted = (
        uniform_filter(values.astype(np.float64), window, mode="constant")
        for values in (known, weights, weights * np.where(known, native.shown, 0.0))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, weighted / total, np.nan), np.where(known, total / cover, np.nan)


def _fitted(rgb: np.ndarray, edge_px: int, aspect: float) -> Image.Image:
    """Return a picture with a longer edge of `edge_px`; a pixel is `aspect` times as tall as it is wide."""
    height, width = rgb.shape[0] * aspect, float(rgb.shape[1])
    factor = edge_px / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    larger = size[0] >= rgb.shape[1]
    return Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC if larger else Image.Resampling.LANCZOS)
