"""Viridis (van der Walt and Smith, CC0): its lightness rises evenly, also for colour-blind readers and in gray."""

import numpy as np

_ANCHORS = (
    0x440154, 0x482475, 0x414487, 0x355F8D, 0x2A788E, 0x21918C, 0x22A884, 0x44BF70, 0x7AD151, 0xBDDF26, 0xFDE725,
)  # fmt: skip
_RGB = np.array([[anchor >> shift & 0xFF for shift in (16, 8, 0)] for anchor in _ANCHORS], dtype=np.float64)


def coloured(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return RGB 0..255, float64 (..., 3), of values between low (violet) and high (yellow); NaN is black."""
    place = np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), 0.0, 1.0) * (len(_RGB) - 1)
    known = np.nan_to_num(place)
    channels = [np.interp(known, np.arange(len(_RGB)), _RGB[:, channel]) for channel in range(3)]
    return np.where(np.isnan(place)[..., None], 0.0, np.stack(channels, axis=-1))
