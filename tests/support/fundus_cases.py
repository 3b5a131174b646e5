"""Difficult photographs of a fundus, made from a real one: half dark, on another ground, cropped, under reflections.

Places and lengths are shares of the radius of the field, measured from its centre.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from mediqa_node.image.measure.op.field import find_field

Rgb = np.ndarray
"""(rows, columns, 3) float32, 0..255."""


@dataclass(frozen=True)
class Eye:
    """A photograph with its field.

    Attributes:
        y, x: places of the pixels, (rows, columns).
    """

    rgb: Rgb
    y: np.ndarray
    x: np.ndarray
    radius: float

    @property
    def inside(self) -> np.ndarray:
        """Weight of the field, 1 inside and 0 on the ground, (rows, columns, 1)."""
        return np.clip((1 - np.hypot(self.y, self.x)) * self.radius + 2, 0, 1)[..., None]


def eye_of(picture: Image.Image, edge_px: int = 640) -> Eye:
    """Return a photograph, its longer edge reduced to so many pixels."""
    picture.thumbnail((edge_px, edge_px), Image.Resampling.BOX)
    rgb = np.asarray(picture.convert("RGB"), dtype=np.float32)
    field = find_field(rgb.max(axis=-1))
    assert field is not None
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]].astype(np.float32)
    return Eye(rgb, (y - field.row) / field.radius, (x - field.column) / field.radius, field.radius)


def shaded(eye: Eye, at: float, *, soft: float = 0.0, left: float = 0.0, degrees: float = 0.0) -> Rgb:
    """Darken what lies farther than `at` in a direction, over a border `soft` wide, to a share `left` of its light."""
    angle = np.deg2rad(degrees)
    beyond = (eye.x * np.cos(angle) + eye.y * np.sin(angle) - at) / max(soft, 1e-3)
    return eye.rgb * (1 - np.clip(beyond + 0.5, 0, 1) * (1 - left))[..., None]


def vignetted(eye: Eye) -> Rgb:
    """Darken the border of the field."""
    return eye.rgb * np.clip(1.15 - eye.x**2 - eye.y**2, 0.02, 1)[..., None]


def grounded(eye: Eye, colour: tuple[int, int, int], rgb: Rgb | None = None) -> Rgb:
    """Replace the ground by a colour."""
    return (eye.rgb if rgb is None else rgb) * eye.inside + (1 - eye.inside) * np.array(colour, dtype=np.float32)


def cropped(eye: Eye, share: float, *, right: float = 0.0, rgb: Rgb | None = None) -> Rgb:
    """Cut out a square whose corners lie at a share of the radius."""
    half = share / np.sqrt(2)
    rows, columns = np.abs(eye.y[:, 0]) <= half, np.abs(eye.x[0] - right) <= half
    return (eye.rgb if rgb is None else rgb)[rows][:, columns]


def glaring(eye: Eye, *spots: tuple[float, float, float], soft: float = 0.1, rgb: Rgb | None = None) -> Rgb:
    """Add white spots at (y, x) of a radius."""
    image = eye.rgb if rgb is None else rgb
    for y, x, radius in spots:
        weight = np.clip((radius - np.hypot(eye.y - y, eye.x - x)) / soft + 0.5, 0, 1)[..., None] * eye.inside
        image = image * (1 - weight) + 255 * weight
    return image


def ringed(eye: Eye) -> Rgb:
    """Add the bright rings that the lens of a smartphone adapter reflects."""
    image = eye.rgb
    for y, x, radius, width, strength in (
        (0.1, -0.2, 0.45, 0.05, 0.6), (-0.3, 0.3, 0.25, 0.04, 0.7),
        (0.35, 0.3, 0.15, 0.15, 0.8), (0, 0, 0.7, 0.06, 0.35),
    ):  # fmt: skip
        near = 1 - np.abs(np.hypot(eye.y - y, eye.x - x) - radius) / width
        weight = np.clip(near, 0, 1)[..., None] * strength * eye.inside
        image = image * (1 - weight) + np.array([245, 245, 255]) * weight
    return image


def hazy(eye: Eye, share: float) -> Rgb:
    """Cover the field with a whitish veil."""
    return np.where(eye.inside > 0.5, eye.rgb * (1 - share) + share * np.array([170, 165, 160]), eye.rgb)


def turned(rgb: Rgb, degrees: float, ground: int = 0) -> Rgb:
    """Rotate an image and its frame."""
    picture = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
    return np.asarray(picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(ground,) * 3))


def stretched(rgb: Rgb, factor: float) -> Rgb:
    """Make an image wider."""
    picture = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
    return np.asarray(picture.resize((round(rgb.shape[1] * factor), rgb.shape[0])))


def noisy(eye: Eye) -> Rgb:
    """Add noise as of a high ISO setting."""
    return eye.rgb + np.random.default_rng(0).normal(0, 25, eye.rgb.shape)


SCORED, DARK, COVERED, NONE = "scored", "field_too_dark", "field_covered", "not_a_fundus_photograph"
GRAY, WHITE = (128, 128, 128), (255, 255, 255)

CASES: Mapping[str, tuple[str, Callable[[Eye], Rgb]]] = {
    "as it is": (SCORED, lambda eye: eye.rgb),
    "a fifth dark, hard edge": (SCORED, lambda eye: shaded(eye, 0.5)),
    "half dark, hard edge": (SCORED, lambda eye: shaded(eye, 0)),
    "half dark, soft edge": (SCORED, lambda eye: shaded(eye, 0, soft=0.6, left=0.02)),
    "left half dark": (SCORED, lambda eye: shaded(eye, 0, degrees=180)),
    "upper half dark": (SCORED, lambda eye: shaded(eye, 0, degrees=-90)),
    "half at a third of its light": (SCORED, lambda eye: shaded(eye, 0, soft=0.1, left=0.3)),
    "half at a seventh of its light": (SCORED, lambda eye: shaded(eye, 0, soft=0.3, left=0.15, degrees=45)),
    "two thirds dark, hard edge": (DARK, lambda eye: shaded(eye, -0.25)),
    "four fifths dark, hard edge": (DARK, lambda eye: shaded(eye, -0.5)),
    "four fifths dark, soft edge": (DARK, lambda eye: shaded(eye, -0.5, soft=0.6, left=0.02)),
    "dark border": (SCORED, vignetted),
    "dark gray ground": (SCORED, lambda eye: grounded(eye, (60, 60, 60))),
    "gray ground": (SCORED, lambda eye: grounded(eye, GRAY)),
    "light gray ground": (SCORED, lambda eye: grounded(eye, (190, 190, 190))),
    "white ground": (SCORED, lambda eye: grounded(eye, WHITE)),
    "blue ground": (SCORED, lambda eye: grounded(eye, (60, 90, 170))),
    "half dark, gray ground": (SCORED, lambda eye: grounded(eye, GRAY, shaded(eye, 0, soft=0.2))),
    "half dark, white ground": (SCORED, lambda eye: grounded(eye, WHITE, shaded(eye, 0, soft=0.2))),
    "half the light, gray ground": (SCORED, lambda eye: grounded(eye, GRAY, 0.5 * eye.rgb)),
    "cropped at the border": (SCORED, lambda eye: cropped(eye, 0.98)),
    "cropped": (SCORED, lambda eye: cropped(eye, 0.7)),
    "cropped to a detail": (SCORED, lambda eye: cropped(eye, 0.4, right=0.3)),
    "cropped, half dark": (SCORED, lambda eye: cropped(eye, 0.9, rgb=shaded(eye, 0, soft=0.3, left=0.02))),
    "cropped, a third of the light": (SCORED, lambda eye: np.round(cropped(eye, 0.9) * 0.3)),
    "cropped, a spot": (SCORED, lambda eye: cropped(eye, 0.9, rgb=glaring(eye, (0, 0, 0.2)))),
    "half the light": (SCORED, lambda eye: np.round(eye.rgb * 0.5)),
    "a third of the light": (SCORED, lambda eye: np.round(eye.rgb * 0.3)),
    "a tenth of the light": (DARK, lambda eye: np.round(eye.rgb * 0.1)),
    "overexposed": (SCORED, lambda eye: eye.rgb * 1.6),
    "a spot in the centre": (SCORED, lambda eye: glaring(eye, (0, 0, 0.3))),
    "a soft spot in the centre": (SCORED, lambda eye: glaring(eye, (0, 0, 0.4), soft=0.5)),
    "a spot at the border": (SCORED, lambda eye: glaring(eye, (0, 0.9, 0.35))),
    "two spots": (SCORED, lambda eye: glaring(eye, (-0.3, -0.3, 0.25), (0.3, 0.3, 0.25))),
    "three spots": (SCORED, lambda eye: glaring(eye, (-0.3, -0.3, 0.3), (0.3, 0.3, 0.3), (-0.4, 0.4, 0.25))),
    "two thirds under a reflection": (COVERED, lambda eye: glaring(eye, (0, 0.1, 0.8))),
    "rings of a smartphone's lens": (SCORED, ringed),
    "haze": (SCORED, lambda eye: hazy(eye, 0.4)),
    "turned": (SCORED, lambda eye: turned(eye.rgb, 30)),
    "turned, white ground": (SCORED, lambda eye: turned(grounded(eye, WHITE), 45, 255)),
    "wider": (SCORED, lambda eye: stretched(eye.rgb, 1.15)),
    "much wider": (SCORED, lambda eye: stretched(eye.rgb, 1.4)),
    "narrower": (SCORED, lambda eye: stretched(eye.rgb, 0.75)),
    "out of focus": (SCORED, lambda eye: ndimage.gaussian_filter(eye.rgb, (12, 12, 0))),
    "noisy": (SCORED, noisy),
    "without colours": (NONE, lambda eye: eye.rgb.mean(axis=-1, keepdims=True).repeat(3, axis=-1)),
    "nearly all under a reflection": (NONE, lambda eye: glaring(eye, (0, 0, 0.95))),
}
"""What a photograph is made into, by name, and its outcome before any score: `scored` reaches it."""
