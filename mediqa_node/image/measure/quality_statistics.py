"""Statistics of a slice that add to the network's score: noise, detail, k-space lines, air, light and blocks.

Handcrafted numbers and a network fail differently. A regressor on these statistics is the baseline that a network has
to beat, and is fused with it where the combination is more robust (`model.statistics_regressor`). All are measured on
the slice at its native resolution, in units that do not depend on a display window: HU / 100 for CT, the stack's own
window for MR, 0..1 for photographs. The order of the vector is `names(modality)`; `VERSION` changes with any of these
statistics.
"""

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image

from mediqa_node.image.foreground import BODY_HU, brightest, otsu_threshold
from mediqa_node.image.fundus import DARK
from mediqa_node.image.measure.photograph_statistics import photograph_statistics
from mediqa_node.image.measure.texture_statistics import air_statistics, line_statistics, texture_statistics

VERSION = 1
LARGEST_PX = 768
"""Longer edges are reduced to this before anything is measured: photographs have 600 to 4300."""
_FEWEST = 200


def quality_statistics(image: np.ndarray, *, modality: str, window: tuple[float, float]) -> dict[str, float]:
    """Measure one slice.

    Args:
        image: returned by `dicom.pixels.to_image`: (rows, columns) in HU or signal, or (rows, columns, 3) RGB 0..255.
        modality: CT, MR or OP.
        window: the values that the network sees as 0 and 1; for MR the scale of the signal.

    Returns:
        finite numbers by name, in the order of `names(modality)`.
    """
    if modality == "OP":
        rgb = _reduced(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)) / np.float32(255.0)
        inside = _enough(brightest(rgb) > DARK / 255.0)
        found = texture_statistics(rgb[..., 1], inside) | photograph_statistics(rgb, inside)
    else:
        gray = _reduced(image if image.ndim == 2 else image.mean(axis=2))
        inside = _enough(_body(gray, modality))
        scaled = gray / np.float32(100.0) if modality == "CT" else _in_window(gray, window)
        found = texture_statistics(scaled, inside) | line_statistics(scaled) | air_statistics(scaled, inside)
        found |= {
            "body_level": float(np.log(abs(float(scaled[inside].mean())) + 0.01)),
            "body_spread": float(np.log(float(scaled[inside].std()) + 0.01)),
            "log_edge": float(np.log(max(gray.shape))),
        }
        if modality == "CT":
            found["log_window"] = float(np.log(window[1] - window[0]))
    return {name: value if math.isfinite(value) else 0.0 for name, value in found.items()}


def as_vector(statistics: Mapping[str, float]) -> np.ndarray:
    """Return the numbers in their order, float64 (k,)."""
    return np.array(list(statistics.values()), dtype=np.float64)


def names(modality: str) -> tuple[str, ...]:
    """Return the names of the statistics of a modality, in order."""
    blank = np.zeros((64, 64, 3) if modality == "OP" else (64, 64), dtype=np.float32)
    return tuple(quality_statistics(blank, modality=modality, window=(0.0, 1.0)))


def _in_window(gray: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    low, high = window
    return np.asarray(np.clip((gray - low) / max(high - low, 1e-6), -1.0, 4.0), dtype=np.float32)


def _body(gray: np.ndarray, modality: str) -> np.ndarray:
    if modality == "CT":
        return gray > BODY_HU
    return np.asarray(gray > otsu_threshold(gray[::2, ::2]) / 2)


def _enough(mask: np.ndarray) -> np.ndarray:
    return mask if mask.sum() >= _FEWEST else np.ones_like(mask)


def _reduced(image: np.ndarray) -> np.ndarray:
    """Return float32 with a longer edge of at most `LARGEST_PX` pixels."""
    edge = max(image.shape[:2])
    clean = np.nan_to_num(np.asarray(image, dtype=np.float32))
    if edge <= LARGEST_PX:
        return clean
    height, width = (max(1, round(LARGEST_PX * size / edge)) for size in image.shape[:2])
    parts = [clean] if clean.ndim == 2 else list(np.moveaxis(clean, -1, 0))
    small = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(part), mode="F").resize((width, height), Image.Resampling.BICUBIC)
        )
        for part in parts
    ]
    return small[0] if clean.ndim == 2 else np.stack(small, axis=-1)
