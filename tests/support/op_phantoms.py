"""Synthetic fundus photographs of known field, light, focus and vessels, and images with drawn text."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from mediqa_node.image.measure.stack_source import StackSource, coarse

COLOURS = np.array([1.55, 1.0, 0.35], dtype=np.float32)
"""Of red, green and blue over green in a retina."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fundus:
    """A photograph to render; lengths are shares of the field's diameter.

    Attributes:
        shape: rows and columns.
        centre: of the field, pixels; the middle of the image by default.
        green: level of the retina, 0..255.
        depth: of every vessel in its middle, over the level beside it.
        widths: of the vessels, thinnest and widest.
        vessels: number of vessels; each crosses the field along a circle.
        disc: whether there is an optic disc.
        blur: standard deviation of the defocus.
        tilt: light at the right border of the field is 1 + tilt, at the left 1 - tilt.
        clipped: share of the field, a strip at its right, that is white.
        noise: standard deviation, 0..255.
        veil: level of light added to the field, 0..255.
    """

    shape: tuple[int, int] = (1000, 1200)
    diameter_px: float = 900.0
    centre: tuple[float, float] | None = None
    green: float = 90.0
    depth: float = 0.3
    widths: tuple[float, float] = (0.006, 0.015)
    vessels: int = 14
    disc: bool = True
    blur: float = 0.0
    tilt: float = 0.0
    clipped: float = 0.0
    noise: float = 0.0
    veil: float = 0.0
    seed: int = 1


def render(phantom: Fundus) -> np.ndarray:
    """Return the photograph, (rows, columns, 3) float32, 0..255."""
    y, x = _places(phantom)
    distance = np.hypot(y, x)
    light = phantom.green * (1 + 2 * phantom.tilt * x) * _vessels(phantom, y, x)
    if phantom.disc:
        light = light * (1 + 0.7 * _inside(np.hypot(y, x - 0.3), 0.065, phantom))
    light = light + phantom.veil
    if phantom.blur > 0:
        light = ndimage.gaussian_filter(light, phantom.blur * phantom.diameter_px, truncate=4.0)
    rgb = light[..., None] * COLOURS
    if phantom.clipped > 0:
        rgb[x >= _strip(phantom.clipped)] = 300.0
    rgb *= _inside(distance, 0.5, phantom)[..., None]
    if phantom.noise > 0:
        rgb = rgb + phantom.noise * np.random.default_rng(phantom.seed).standard_normal(rgb.shape)
    return np.round(rgb.clip(0, 255)).astype(np.float32)


def tilt_unevenness(tilt: float) -> float:
    """Return the interquartile range over the median of the light of a tilted phantom, in the whole circle."""
    y, x = np.mgrid[-0.5:0.5:400j, -0.5:0.5:400j]
    light = (1 + 2 * tilt * x)[np.hypot(y, x) <= 0.47]
    low, middle, high = np.percentile(light, (25, 50, 75))
    return float((high - low) / middle)


def share_inside(phantom: Fundus) -> float:
    """Return which share of the field's circle lies inside the image."""
    y, x = _places(phantom)
    return float((np.hypot(y, x) <= 0.5).sum() / (np.pi * (phantom.diameter_px / 2) ** 2))


def source_of(*images: np.ndarray, **facts: object) -> StackSource:
    """Return a stack of images that are in memory."""
    facts.setdefault("spacing_mm", (0.0, 0.0))
    return StackSource(
        count=len(images), image_at=lambda at: images[at], coarse_at=lambda at: coarse(images[at]), **facts
    )  # type: ignore[arg-type]


def with_text(
    image: np.ndarray,
    text: str,
    *,
    size_px: int,
    place: tuple[int, int],
    value: float,
    smooth: bool = False,
) -> np.ndarray:
    """Return a gray image with text in PIL's default font; `place` is row and column of its corner."""
    canvas = Image.new("L", image.shape[1::-1])
    draw = ImageDraw.Draw(canvas)
    draw.fontmode = "L" if smooth else "1"
    draw.text(place[::-1], text, fill=255, font=ImageFont.load_default(size_px))
    share = np.asarray(canvas, dtype=np.float32) / 255.0
    return np.asarray(image * (1 - share) + value * share, dtype=np.float32)


def _places(phantom: Fundus) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of each pixel from the centre, in diameters."""
    rows, columns = phantom.shape
    row, column = phantom.centre or ((rows - 1) / 2, (columns - 1) / 2)
    y = (np.arange(rows, dtype=np.float32)[:, None] - np.float32(row)) / np.float32(phantom.diameter_px)
    x = (np.arange(columns, dtype=np.float32)[None] - np.float32(column)) / np.float32(phantom.diameter_px)
    return np.broadcast_arrays(y, x)


def _inside(distance: np.ndarray, radius: float, phantom: Fundus) -> np.ndarray:
    """Return the share of each pixel inside a circle, by its distance from the border."""
    return np.asarray(((radius - distance) * phantom.diameter_px + 0.5).clip(0, 1), dtype=np.float32)


def _vessels(phantom: Fundus, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the transmission of all vessels: circles through the field, with the profile of a cylinder."""
    random = np.random.default_rng(phantom.seed)
    through = np.ones(y.shape, dtype=np.float32)
    for width in np.linspace(*phantom.widths, phantom.vessels):
        angle, bend, off = random.uniform(0, 2 * np.pi), random.uniform(0.6, 2.0), random.uniform(-0.35, 0.35)
        row, column = ((bend + off) * part for part in (np.sin(angle), np.cos(angle)))
        away = np.abs(np.hypot(y - np.float32(row), x - np.float32(column)) - np.float32(bend)) / np.float32(width / 2)
        profile = np.sqrt((1 - away**2).clip(0, 1))
        np.minimum(through, 1 - np.float32(phantom.depth) * profile, out=through)
    return through


def _strip(share: float) -> float:
    """Return the column, in diameters, beyond which this share of a circle lies."""
    columns = np.linspace(-0.5, 0.5, 2001)
    chords = np.sqrt(0.25 - columns**2)
    beyond = 1 - np.cumsum(chords) / chords.sum()
    return float(np.interp(-share, -beyond, columns))
