"""Prepare a fundus photograph for its measures: one size of the field for all cameras, without uneven light.

Method: blocks of pixels are averaged until the longer edge has 1000 to 2000 pixels; the field's circle is found; the
green channel, in which blood absorbs most against its surroundings, is resampled so that the field has a diameter of
600 pixels. The background is the green channel smoothed over 4 % of the diameter inside the field, without pixels that
differ from their surroundings by more than one local standard deviation (vessels, the optic disc, lesions), after
Foracchia et al., Med Image Anal 2005. All lengths are shares of the diameter, so that no measure depends on the number
of pixels.

Assumptions: the diameter of the field in the retina is that of the camera's other photographs; two cameras with fields
of 30 and 45 degrees show the same vessel at different shares, and their values differ.
What breaks it: see `op.field`; what is wider than about 10 % of the diameter becomes background.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from scipy import ndimage

from mediqa_node.image.foreground import brightest
from mediqa_node.image.measure.op.field import Field, box_reduced, find_field

DIAMETER_PX = 600
"""Diameter of the field after resampling."""
_EDGE_PX = 1000
_BACKGROUND = 0.04
_COARSE = 4
_MARGIN_PX = 4
_ROUNDS = 2
READABLE = 10.0
"""Of 255: darker retina shows nothing."""
READABLE_SHARE = 0.2
"""Of the field's median: darker retina shows nothing."""
_LIT = 2.0
"""Of 255: what is darker is no retina but a mask."""
_LIT_SHARE = 0.03
_LEAST_SHARE = 0.02
_RIM = 0.03
"""Of the diameter: what is nearer to the border of the field, or of what can be read, is not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """A photograph at the common size.

    Attributes:
        field: circle in the pixels of the original.
        circle: the same circle in `green`.
        green: (rows, columns) float32, 0..255.
        readable: bright enough to be read, inside the circle; (rows, columns) bool.
        inside: the same, 3 % of the diameter away from the border of the circle and from what cannot be read.
        lit: darker retina too, 3 % of the diameter away from the border of the circle and of masks.
        background: of green, float32, without vessels and optic disc; positive.
        step: `colours` holds every how many rows and columns of the original.
        colours: single pixels of the original, not averaged: (rows, columns, channels), 0..255.
        coloured: False for a gray photograph.
    """

    field: Field
    circle: Field
    green: np.ndarray
    readable: np.ndarray
    inside: np.ndarray
    lit: np.ndarray
    background: np.ndarray
    step: int
    colours: np.ndarray
    coloured: bool

    @property
    def flat(self) -> np.ndarray:
        """Return green over its background less one, 0 where nothing can be read, float32."""
        return np.where(self.readable, self.green / self.background - 1.0, 0.0).astype(np.float32)


def prepare(image: np.ndarray) -> Photograph | None:
    """Return a photograph at the common size; None without a field.

    Args:
        image: (rows, columns, 3) RGB or (rows, columns) gray, 0..255.
    """
    step = max(1, max(image.shape[:2]) // _EDGE_PX)
    colours = image[::step, ::step]
    coloured = image.ndim == 3 and bool((brightest(colours) + brightest(-colours) > 2.0).mean() > 0.01)
    reduced = box_reduced(image, step)
    found = find_field(brightest(reduced))
    if found is None:
        return None
    green, around = _cropped(reduced[..., 1] if reduced.ndim == 3 else reduced, found)
    scale = DIAMETER_PX / (2 * found.radius)
    size = [max(8, round(length * scale)) for length in green.shape]
    resized = np.asarray(
        Image.fromarray(np.ascontiguousarray(green)).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    )
    circle = around.scaled(scale)
    in_circle = circle.mask(resized.shape)
    smooth = ndimage.gaussian_filter(resized, DIAMETER_PX * 0.005, truncate=2.5)
    if not in_circle.any():
        return None
    median = float(np.median(smooth[in_circle]))
    readable = in_circle & (smooth >= max(READABLE, READABLE_SHARE * median))
    lit = in_circle & (smooth >= max(_LIT, _LIT_SHARE * median))
    inside = _shrunk(readable)
    if inside.sum() < _LEAST_SHARE * np.pi * circle.radius**2:
        return None
    return Photograph(
        field=found.scaled(step),
        circle=circle,
        green=resized,
        readable=readable,
        inside=inside,
        lit=_shrunk(lit),
        background=_background(resized, lit),
        step=step,
        colours=colours if colours.ndim == 3 else colours[..., None],
        coloured=coloured,
    )


def _cropped(image: np.ndarray, field: Field) -> tuple[np.ndarray, Field]:
    """Return the part of an image around a field, and the field in it."""
    first = [max(0, int(place - field.radius) - _MARGIN_PX) for place in (field.row, field.column)]
    last = [int(place + field.radius) + _MARGIN_PX + 1 for place in (field.row, field.column)]
    part = image[first[0] : last[0], first[1] : last[1]]
    return part, replace(field, row=field.row - first[0], column=field.column - first[1])


def _shrunk(mask: np.ndarray) -> np.ndarray:
    """Return the mask without what is near to its border; the border of the image is none."""
    rows, columns = mask.shape
    padded = np.pad(mask, ((0, -rows % _COARSE), (0, -columns % _COARSE)), mode="edge")
    coarse = padded.reshape(padded.shape[0] // _COARSE, _COARSE, -1, _COARSE).all(axis=(1, 3))
    radius = round(_RIM * DIAMETER_PX / _COARSE)
    places = np.arange(-radius, radius + 1)
    disc = np.hypot(places[:, None], places) <= radius + 0.5
    kept = ndimage.binary_erosion(coarse, disc, border_value=1)
    return np.asarray(mask & kept.repeat(_COARSE, axis=0).repeat(_COARSE, axis=1)[:rows, :columns])


def _background(green: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the smooth level of green, (rows, columns) float32, at least 1."""
    small = box_reduced(green, _COARSE)
    mask = box_reduced(inside.astype(np.float32), _COARSE)
    sd_px = _BACKGROUND * DIAMETER_PX / _COARSE
    usual = mask
    for _ in range(_ROUNDS):
        level = _smooth(small, usual, sd_px)
        sd = np.sqrt(_smooth((small - level) ** 2, usual, sd_px))
        usual = mask * (np.abs(small - level) <= np.maximum(sd, 0.5))
    level = np.maximum(_smooth(small, usual, sd_px), 1.0)
    grown = np.pad(level, ((0, 1), (0, 1)), mode="edge")
    size = (grown.shape[1] * _COARSE, grown.shape[0] * _COARSE)
    full = np.asarray(Image.fromarray(grown).resize(size, Image.Resampling.BICUBIC))
    return np.asarray(np.maximum(full[: green.shape[0], : green.shape[1]], 1.0))


def _smooth(values: np.ndarray, weights: np.ndarray, sd_px: float) -> np.ndarray:
    """Return the weighted Gaussian mean of values, float32; the mean of all where no weight is near."""
    weights = weights.astype(np.float32)
    total = float(weights.sum())
    everywhere = float((values * weights).sum()) / total if total > 0 else 0.0
    above = ndimage.gaussian_filter(values * weights, sd_px, truncate=3.0)
    below = ndimage.gaussian_filter(weights, sd_px, truncate=3.0)
    return np.where(below > 1e-3, above / np.maximum(below, 1e-3), everywhere).astype(np.float32)
