"""Measure light, haze, blocking and sharpness of a fundus photograph."""

import numpy as np
from PIL import Image
from scipy import ndimage

_REFERENCE_PX = 384
_BLOCK = 8
"""Edge of the blocks of JPEG (ITU-T T.81)."""


def photograph_statistics(rgb: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Measure a photograph, float32 (rows, columns, 3), 0..1, inside its lit field."""
    return _light(rgb, inside) | _blocks(rgb, inside) | _sharpness(rgb[..., 1], inside)


def _light(rgb: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    step = max(1, max(inside.shape) // 192)
    small, mask = rgb[::step, ::step], inside[::step, ::step]
    y, x = np.nonzero(mask)
    colours = small[mask]
    gray = np.log(colours.mean(axis=1) + 0.02)
    plane = np.stack([y / len(mask) - 0.5, x / mask.shape[1] - 0.5, np.ones(len(y))], axis=1)
    slope, *_ = np.linalg.lstsq(plane, gray, rcond=None)
    rest = gray - plane @ slope
    dark = colours.min(axis=1)
    p1, p99 = np.percentile(colours.mean(axis=1), (1, 99))
    saturation = (colours.max(axis=1) - dark) / (colours.max(axis=1) + 0.02)
    red, green, blue = (_log(value) for value in colours.mean(axis=0))
    return {
        "light": float(gray.mean()),
        "light_slope": _log(float(np.hypot(slope[0], slope[1]))),
        "light_spread": _log(float(gray.std())),
        "light_rest": _log(float(rest.std())),
        "dark_channel": _log(float(dark.mean())),
        "dark_channel_low": _log(float(np.percentile(dark, 5))),
        "contrast": _log(float(p99 - p1)),
        "green_spread": _log(float(colours[:, 1].std())),
        "saturation": float(saturation.mean()),
        "red_over_green": red - green,
        "green_over_blue": green - blue,
    }


def _blocks(rgb: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Return how much steps across 8-pixel block borders exceed those elsewhere, in lightness and in colour."""
    luma = rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    found: dict[str, float] = {}
    for name, plane in (("luma", luma), ("chroma", rgb[..., 2] - luma)):
        excess = []
        for axis in (0, 1):
            step = np.abs(np.diff(plane, axis=axis))
            both = inside[1:] & inside[:-1] if axis == 0 else inside[:, 1:] & inside[:, :-1]
            sums = (step * both).sum(axis=1 - axis) / np.maximum(both.sum(axis=1 - axis), 1)
            counted = both.any(axis=1 - axis)
            phases = [
                _log(float(sums[phase::_BLOCK][counted[phase::_BLOCK]].mean())) if counted[phase::_BLOCK].any() else 0.0
                for phase in range(_BLOCK)
            ]
            excess.append(phases[_BLOCK - 1] - float(np.mean(phases[: _BLOCK - 1])))
        found |= {f"blocks_{name}_low": min(excess), f"blocks_{name}_high": max(excess)}
    bend = np.abs(np.diff(luma, 2, axis=1))[inside[:, 1:-1]]
    found["flat_share"] = float((bend < 0.6 / 255.0).mean())
    found["flat_colour"] = float((np.abs(np.diff(rgb[..., 2] - luma, axis=1))[inside[:, 1:]] < 0.6 / 255.0).mean())
    return found


def _sharpness(green: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Measure edges and how much a known blur weakens them, at one size for all cameras."""
    scale = _REFERENCE_PX / max(green.shape)
    size = (max(8, round(green.shape[1] * scale)), max(8, round(green.shape[0] * scale)))
    small = np.asarray(Image.fromarray(np.ascontiguousarray(green), mode="F").resize(size, Image.Resampling.BICUBIC))
    mask = np.asarray(Image.fromarray(inside).resize(size, Image.Resampling.NEAREST))
    mask = ndimage.binary_erosion(mask, iterations=8)
    mask = mask if mask.sum() > 200 else np.ones_like(mask)
    contrast = float(small[mask].std()) + 0.01
    found: dict[str, float] = {}
    previous = small
    for sd_px in (0.7, 1.4, 2.8, 5.6):
        blurred = ndimage.gaussian_filter(small, sd_px, truncate=3.0)
        band = np.abs(previous - blurred)[mask]
        found[f"band_{sd_px}"] = _log(float(band.mean()) / contrast)
        found[f"band_top_{sd_px}"] = _log(float(np.percentile(band, 97)) / contrast)
        previous = blurred
    found["reblur"] = found["band_0.7"] - found["band_1.4"]
    found["reblur_wide"] = found["band_1.4"] - found["band_2.8"]
    found["log_edge"] = float(np.log(max(green.shape)))
    return found


def _log(value: float) -> float:
    return float(np.log(max(value, 0.0) + 1e-4))
