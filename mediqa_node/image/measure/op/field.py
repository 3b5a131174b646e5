"""Find the circle of the illuminated field of a fundus photograph.

Method: a field stop inside the camera bounds the field by a circle. From the middle of the lit pixels the last lit
point is found in 360 directions; points at the border of the image are no border of the field and are dropped. Circles
through three points each are drawn and the one that most points agree on is kept (Fischler & Bolles 1981, doi
10.1145/358669.358692); an algebraic circle is fitted to those points (Kasa 1976, doi 10.1109/TIM.1976.6312298).

Assumptions: the field is round, brighter than the ground around it, and some of its border lies inside the image.
What breaks it: a photograph that was cropped inside its field has no border, and so no field; a rim that is as dark as
the ground is taken for ground, which the agreement of the brighter rim corrects only while that is most of it; masks
that are not round.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

DIRECTIONS = 360
_EDGE_PX = 320
"""Longer edge of the image in which the border is searched."""
_LEVEL = 0.12
_LEAST_CONTRAST = 12.0
_TRIPLES = 400
_AGREE = 0.01
"""Of the radius: points nearer to the circle agree with it."""
_LEAST_POINTS = 36
_FROM_BORDER_PX = 2.0
LEAST_AGREEMENT = 0.5
"""Share of the border points that must agree with a circle, unless the caller asks for another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """The circle of a field, in pixels of the image that it was found in.

    Attributes:
        row, column: the centre; pixel centres are whole numbers.
        inside_image: share of the circle's area that lies inside the image.
        agreement: share of the border points that agree with the circle.
    """

    row: float
    column: float
    radius: float
    inside_image: float
    agreement: float

    def scaled(self, factor: float) -> "Field":
        """Return the same circle in an image that is larger by a factor."""
        row, column = ((place + 0.5) * factor - 0.5 for place in (self.row, self.column))
        return replace(self, row=row, column=column, radius=self.radius * factor)

    def mask(self, shape: tuple[int, ...], *, share: float = 1.0) -> np.ndarray:
        """Return which pixels of an image lie inside the circle shrunk to a share of its radius."""
        return self.distance(shape) <= share * self.radius

    def distance(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the distance from the centre, (rows, columns) float32."""
        rows = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(self.row)
        columns = np.arange(shape[1], dtype=np.float32)[None] - np.float32(self.column)
        return np.asarray(np.hypot(rows, columns))


def find_field(
    brightness: np.ndarray, *, least_agreement: float = LEAST_AGREEMENT, largest_radius: float = np.inf
) -> Field | None:
    """Return the circle of the field; None if no circle is found.

    Args:
        brightness: (rows, columns), 0..255, the brightest colour of each pixel.
        least_agreement: share of the border points that must agree with the circle.
        largest_radius: of circles that are considered, as a share of the longer edge: a straight border lies on a large
            circle.
    """
    step = max(1, max(brightness.shape) // _EDGE_PX)
    small = box_reduced(brightness, step)
    if min(small.shape) < 16:
        return None
    level = _level(small)
    if level is None:
        return None
    points = _border(small, level)
    if len(points) < _LEAST_POINTS:
        return None
    fitted = _fitted(points, largest_radius * max(small.shape))
    if fitted is None or fitted[3] < least_agreement:
        return None
    row, column, radius, agreement = fitted
    if not 0.15 * min(small.shape) < radius < 1.5 * max(small.shape):
        return None
    found = Field(row=row, column=column, radius=radius, inside_image=1.0, agreement=agreement)
    inside = min(1.0, float(found.mask(small.shape).sum()) / (np.pi * radius**2))
    return replace(found, inside_image=inside).scaled(step)


def box_reduced(image: np.ndarray, step: int) -> np.ndarray:
    """Return the means of blocks of `step` x `step` pixels, float32; rows and columns that fill no block are dropped.

    Args:
        image: (rows, columns) or (rows, columns, 3).
    """
    if step <= 1:
        return np.asarray(image, dtype=np.float32)
    rows, columns = (size - size % step for size in image.shape[:2])
    cut = image[:rows, :columns]
    by_row = cut[0::step].astype(np.float32)
    for offset in range(1, step):
        by_row += cut[offset::step]
    reduced = by_row[:, 0::step].copy()
    for offset in range(1, step):
        reduced += by_row[:, offset::step]
    return np.asarray(reduced / np.float32(step * step))


def _level(small: np.ndarray) -> float | None:
    """Return the brightness that separates field from ground; None if there is no darker ground."""
    edge = max(1, min(small.shape) // 16)
    corners = [small[:edge, :edge], small[:edge, -edge:], small[-edge:, :edge], small[-edge:, -edge:]]
    ground = sorted(float(np.median(corner)) for corner in corners)[1]
    bright = float(np.percentile(small, 80))
    if bright - ground < _LEAST_CONTRAST:
        return None
    return ground + max(4.0, _LEVEL * (bright - ground))


def _border(small: np.ndarray, level: float) -> np.ndarray:
    """Return the last lit points (n, 2) in all directions that lie inside the image, as row and column."""
    lit = ndimage.binary_opening(small > level, iterations=2)
    if lit.sum() < 100:
        return np.zeros((0, 2))
    row, column = (float(np.mean(places)) for places in np.nonzero(lit))
    angles = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    radii = np.arange(0.0, float(np.hypot(*small.shape)), 0.5)
    rows = row + np.sin(angles)[:, None] * radii
    columns = column + np.cos(angles)[:, None] * radii
    last_row, last_column = small.shape[0] - 1, small.shape[1] - 1
    within = (rows >= 0) & (rows <= last_row) & (columns >= 0) & (columns <= last_column)
    at = (np.clip(np.rint(rows), 0, last_row).astype(int), np.clip(np.rint(columns), 0, last_column).astype(int))
    shining = lit[at] & within
    last = radii.size - 1 - np.argmax(shining[:, ::-1], axis=1)
    y, x = (np.take_along_axis(places, last[:, None], axis=1)[:, 0] for places in (rows, columns))
    away = np.minimum.reduce([y, x, last_row - y, last_column - x])
    used = shining.any(axis=1) & (away > _FROM_BORDER_PX)
    return _crossings(small, (row, column), angles[used], radii[last[used]])


def _crossings(small: np.ndarray, centre: tuple[float, float], angles: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the points (n, 2) near the last lit ones where the brightness falls half of the way to the ground."""
    steps = np.arange(-8.0, 4.25, 0.25)
    near = last[:, None] + steps
    places = [middle + of(angles)[:, None] * near for middle, of in zip(centre, (np.sin, np.cos), strict=True)]
    profiles = ndimage.map_coordinates(small, places, order=1, mode="nearest")
    plateau = np.median(profiles[:, steps <= -3.0], axis=1, keepdims=True)
    half = (plateau + profiles[:, -4:].mean(axis=1, keepdims=True)) / 2
    above = profiles > half
    place = np.minimum(len(steps) - 1 - np.argmax(above[:, ::-1], axis=1), len(steps) - 2)
    each = np.arange(len(place))
    here, there, middle = profiles[each, place], profiles[each, place + 1], half[:, 0]
    share = np.where(here > there, (here - middle) / np.where(here > there, here - there, 1.0), 0.0).clip(0, 1)
    at = near[each, place] + 0.25 * share
    return np.stack([centre[0] + np.sin(angles) * at, centre[1] + np.cos(angles) * at], axis=1)


def _fitted(points: np.ndarray, largest: float) -> tuple[float, float, float, float] | None:
    """Return row, column and radius of the circle, not larger than so, that most points agree on, and their share."""
    generator = np.random.default_rng(1)
    triples = generator.integers(0, len(points), (_TRIPLES, 3))
    a, b, c = (points[triples[:, corner]] for corner in range(3))
    twice = 2 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        b2, c2 = ((b - a) ** 2).sum(axis=1), ((c - a) ** 2).sum(axis=1)
        rows = a[:, 0] + ((c - a)[:, 1] * b2 - (b - a)[:, 1] * c2) / twice
        columns = a[:, 1] + ((b - a)[:, 0] * c2 - (c - a)[:, 0] * b2) / twice
        radii = np.hypot(a[:, 0] - rows, a[:, 1] - columns)
        off = np.abs(np.hypot(points[:, 0] - rows[:, None], points[:, 1] - columns[:, None]) - radii[:, None])
        votes = (off < _AGREE * radii[:, None]).sum(axis=1)
    extent = float(np.ptp(points, axis=0).max())
    votes[~np.isfinite(radii) | (radii > min(2 * extent, largest))] = 0
    best = int(np.argmax(votes))
    if votes[best] < 3:
        return None
    agree = off[best] < _AGREE * radii[best]
    for _ in range(3):
        row, column, radius = _kasa(points[agree])
        distance = np.abs(np.hypot(points[:, 0] - row, points[:, 1] - column) - radius)
        agree = distance < _AGREE * radius
        if agree.sum() < 3:
            return None
    return row, column, radius, float(agree.mean())


def _kasa(points: np.ndarray) -> tuple[float, float, float]:
    """Return row, column and radius of the algebraic circle through points (n, 2)."""
    middle = points.mean(axis=0)
    y, x = (points - middle).T
    design = np.stack([2 * y, 2 * x, np.ones_like(y)], axis=1)
    (row, column, rest), *_ = np.linalg.lstsq(design, y**2 + x**2, rcond=None)
    return float(row + middle[0]), float(column + middle[1]), float(np.sqrt(max(rest + row**2 + column**2, 0.0)))
