"""Decide whether a picture is a photograph of a fundus, and how much of its field can be judged.

Red less blue separates a retina from any ground that is black, gray, white or blue, and from white reflections: what is
left is the field, in which the circle of the camera is looked for (`op.field`), also in a picture that was stretched. A
picture without a circle may be cropped inside the field, or so dark that little of the border is left: then every
pixel that is lit must have the colours of a retina, and nearly no rough texture. A screen is recognised by what
surrounds the circle: text and windows.

What this cannot tell from a fundus: something else that is round and orange or red on an even ground, such as an
orange or a tomato, and a smooth orange or brown surface that fills the picture, such as wood, or skin that is dark or
in warm light. Most of them lie outside the training range, which is a test of its own. A photograph without colours
(red-free, angiography), or with more than about three quarters under reflections, is not recognised.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mediqa_node.domain.series import ReasonCode
from mediqa_node.image.foreground import brightest
from mediqa_node.image.measure.op.field import Field, box_reduced, find_field
from mediqa_node.image.measure.op.photograph import READABLE, READABLE_SHARE

DARK = 40.0
"""Of 255: the ground of most photographs is darker."""
NO_FIELD = "no field in the colours of a retina"
"""What a refusal of anything else says."""
LEAST_READABLE = 0.4
"""Share of the field that must be neither dark nor covered: with less, the photograph is not judged."""

_EDGE_PX = 224
"""Longer edge of the picture that is looked at, up to twice as much: about that of a network's input."""
_SMALLEST_PX = 16
_SMOOTHING_PX = 0.7
_LEAST_RED = 6.0
"""Red less blue, of 255: a picture without more of it has no colours of a retina."""
_FULL_RED, _MOST_GAIN = 120.0, 16.0
"""A dark picture is brightened, at most so far, until red less blue reaches this."""
_LEAST_RADIUS, _LARGEST_RADIUS, _LEAST_INSIDE = 0.3, 0.75, 0.5
"""A field has a radius between these shares of the shorter and longer edge; so much of its circle is in the picture."""
_PART, _MOST = 0.4, 0.6
"""Shares of the border that lie on the circle: part of it where half is dark; most of it makes a circle sure."""
_STRETCHES = tuple(1.07**k for step in range(1, 6) for k in (step, -step))
_BUSY, _MOST_BUSY = 24.0, 0.08
"""Difference between neighbours, of 255, that an even ground has in at most this share of its pixels."""
_COLOURED = 30.0
"""Of 255, after brightening: a red that is darker has no colour to speak of."""
_EXPLAINED, _MOST_COVERED_CROP = 0.95, 0.3
"""Without a circle, a picture is at least so far dark, coloured or a reflection; reflections are at most so much."""
_BRIGHT, _WHITE = 128.0, 0.8
"""A reflection is bright, and its blue at least this share of its red."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleField:
    """How much of the field of a fundus photograph can be seen.

    Attributes:
        lit: share that is bright enough to be read, reflections not included, 0..1.
        covered: share under reflections, 0..1.
    """

    lit: float
    covered: float


def too_little_visible(lit: float, covered: float) -> tuple[ReasonCode, str] | None:
    """Return why a field cannot be judged, by what hides most of it; None if enough is visible.

    >>> too_little_visible(0.34, 0.02)
    (<ReasonCode.FIELD_TOO_DARK: 'field_too_dark'>, 'only 34 % of the field is lit')
    """
    if lit >= LEAST_READABLE:
        return None
    if covered > 1.0 - lit - covered:
        return ReasonCode.FIELD_COVERED, f"{covered:.0%} of the field is under reflections".replace("%", " %")
    return ReasonCode.FIELD_TOO_DARK, f"only {lit:.0%} of the field is lit".replace("%", " %")


def visible_field(rgb: np.ndarray) -> VisibleField | None:
    """Return how much of its field a fundus photograph shows; None if the picture is no such photograph.

    Args:
        rgb: (rows, columns, 3), 0..255.
    """
    small = box_reduced(rgb, max(1, max(rgb.shape[:2]) // _EDGE_PX))
    if min(small.shape[:2]) < _SMALLEST_PX:
        return None
    small = ndimage.gaussian_filter(small, (_SMOOTHING_PX, _SMOOTHING_PX, 0))
    peak = float(np.percentile(_redness(small), 99.5))
    if peak < _LEAST_RED:
        return None
    gain = min(max(1.0, _FULL_RED / peak), _MOST_GAIN)
    found = _circle(small * gain)
    if found is None:
        return _judged(small, np.ones(small.shape[:2], dtype=bool), gain, is_surely_round=False, is_cropped=True)
    shown, field, is_sure = found
    inside = field.mask(shown.shape[:2], share=0.97)
    return _judged(shown / gain, inside, gain, is_surely_round=is_sure, is_cropped=False)


def looks_like_fundus(rgb: np.ndarray) -> bool:
    """Whether a picture is a colour photograph of a fundus, however dark or covered its field is."""
    return visible_field(rgb) is not None


def _redness(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(rgb[..., 0] - rgb[..., 2], 0.0, 255.0))


# ── the circle ───────────────────────────────────────────────────────────────


def _circle(rgb: np.ndarray) -> tuple[np.ndarray, Field, bool] | None:
    """Return the picture, stretched so that its field is round, the field, and whether it is surely round."""
    field = _field_on_even_ground(rgb, _PART)
    if field is not None:
        return rgb, field, field.agreement >= _MOST
    best: tuple[np.ndarray, Field, bool] | None = None
    for factor in _STRETCHES:
        shown = ndimage.zoom(rgb, (1, factor, 1) if factor < 1 else (1 / factor, 1, 1), order=1)
        field = _field_on_even_ground(shown, _MOST)
        if field is not None and (best is None or field.agreement > best[1].agreement):
            best = shown, field, False
    return best


def _field_on_even_ground(rgb: np.ndarray, agreement: float) -> Field | None:
    field = find_field(_redness(rgb), least_agreement=agreement, largest_radius=_LARGEST_RADIUS)
    shape = rgb.shape[:2]
    if field is None or field.radius < _LEAST_RADIUS * min(shape) or field.inside_image < _LEAST_INSIDE:
        return None
    ground = ~field.mask(shape, share=1.06)
    busy = _contrast(brightest(rgb))[ground] > _BUSY
    return None if busy.size and busy.mean() > _MOST_BUSY else field


def _contrast(values: np.ndarray) -> np.ndarray:
    """Return the range of 3 x 3 neighbours."""
    return np.asarray(ndimage.maximum_filter(values, 3) - ndimage.minimum_filter(values, 3))


# ── its colours and its light ────────────────────────────────────────────────


def _judged(
    rgb: np.ndarray, inside: np.ndarray, gain: float, *, is_surely_round: bool, is_cropped: bool
) -> VisibleField | None:
    red, green, blue = (rgb[..., channel] for channel in range(3))
    covered = inside & (red >= _BRIGHT) & (blue >= _WHITE * red)
    coloured = inside & ~covered & (red * gain >= _COLOURED)
    if not _has_colours_of_retina(rgb * gain, coloured, strictly=not is_surely_round):
        return None
    if is_cropped:
        dark = brightest(rgb) * gain < _COLOURED
        if (dark | coloured | covered).mean() < _EXPLAINED or covered.mean() > _MOST_COVERED_CROP:
            return None
    readable = inside & ~covered & (green >= READABLE)
    level = READABLE_SHARE * float(np.median(green[readable])) if readable.any() else 0.0
    area = float(inside.sum())
    return VisibleField(lit=float((readable & (green >= level)).sum()) / area, covered=float(covered.sum()) / area)


def _has_colours_of_retina(rgb: np.ndarray, where: np.ndarray, *, strictly: bool) -> bool:
    """Whether red > green > blue; strictly: nearly everywhere, red well above blue, and without rough texture."""
    if where.sum() < 20:
        return False
    red, green, blue = (rgb[..., channel][where] for channel in range(3))
    ordered = float(((red >= green - 1) & (green >= blue - 2)).mean())
    red_over_blue = np.log((red + 2) / (blue + 2))
    if not strictly:
        return ordered >= 0.8 and float(np.median(red_over_blue)) >= 0.3
    body = ndimage.binary_erosion(where, iterations=2)
    rough = (_contrast(rgb[..., 0]) / (rgb[..., 0] + 10))[body if body.any() else where]
    return (
        ordered >= 0.9
        and float(np.median(red_over_blue)) >= 0.7
        and float(np.percentile(red_over_blue, 5)) >= 0.35
        and float(np.percentile(rough, 90)) <= 0.2
    )
