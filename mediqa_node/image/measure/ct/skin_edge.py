"""Sharpness of the skin-air edge in one CT slice: edge spread function of the skin, modulation transfer, f50.

Method: around places on the patient's outline every 8 mm, pixels within 10 mm are sorted by their distance from a
parabola fitted to the edge where it crosses half way from air to tissue. Segments count that border on clear air and
bend little. Their pixels make one edge spread function with bins of a tenth of a pixel; its derivative is the line
spread function, whose air side, mirrored, gives the modulation transfer. Mirroring keeps out what lies under the skin:
a layer of skin of 1 to 2 mm over fat is no step. f50 is where the transfer falls to one half.

Source: Sanders, Hurwitz and Samei, "Patient-specific quantification of image quality: an automated method for
measuring spatial resolution in clinical CT images", Med Phys 2016 (doi 10.1118/1.4961984), which takes surfaces of many
slices; the choice of the steepest segments of a slice and the mirrored air side are ours.
Assumptions: a skin that is perpendicular to the slice, and spread symmetrically: mirrored, both sides are alike.
What breaks it: skin oblique to thick slices lowers f50; clothes on the skin (such segments are left out, not all are
found); air cut off at -1024 HU hides undershoot of sharp kernels. It is sharpness of high contrast: under iterative
reconstruction soft tissue is less sharp.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mediqa_node.image.measure.ct.patient import Pixel
from mediqa_node.image.measure.stack_source import evenly

EVERY_MM = 8.0
REACH_MM = 10.0
FEWEST_SEGMENTS = 6
MOST_SEGMENTS = 96
_USUAL_MM2 = 0.64
_BINS_PER_PX = 10
_CLEAR_MM = (3.0, 8.0)
_AIR_HU, _TISSUE_HU = -930.0, -250.0
_SPREAD_OF_AIR_HU = 100.0
_STEEPEST = (70, 95)
"""Percentiles of steepness of segments that count: where skin is perpendicular to the slice, its edge is steepest."""
_FLATTEST_MM = 15.0
"""Smallest radius of curvature of a segment."""


@dataclass(frozen=True, slots=True)
class EdgeSpread:
    """Sum and number of scaled pixels in bins of distance from the edge, air positive; `bin_mm` wide."""

    total: np.ndarray
    count: np.ndarray
    bin_mm: float
    segments: int


def edge_spread(
    image_hu: np.ndarray,
    patient: np.ndarray,
    pixel_mm: Pixel,
    *,
    step: int = 4,
    field_radius_px: float | None = None,
) -> EdgeSpread | None:
    """Return the edge spread function of the skin of one slice, None for fewer than six segments that border on air.

    Args:
        image_hu: (rows, columns), full resolution.
        patient: mask of its `coarse` pixels, of `step`.
        pixel_mm: of `image_hu`, between rows, between columns.
        field_radius_px: of the circle beyond which nothing was reconstructed, in pixels of `patient`: its border on a
            cut patient is no skin.
    """
    places, normals = _places(patient, image_hu.shape, pixel_mm, step, field_radius_px)
    places, normals = _in_air(image_hu, places, normals, pixel_mm)
    if len(places) < FEWEST_SEGMENTS:
        return None
    along, outward, values = _segments(image_hu, places, normals, pixel_mm)
    edge = _refined(_first_edge(along, outward, values), along, outward, values)
    slope = edge[:, 1, None] + 2 * edge[:, 2, None] * along
    distance = (outward - _parabola(edge, along)) / np.sqrt(1 + slope**2)
    used = np.abs(along) < REACH_MM
    good, air = _clear(edge, distance, values, used)
    good = _steep(good, distance, values, used)
    if good.sum() < FEWEST_SEGMENTS:
        return None
    bin_mm = min(pixel_mm) / _BINS_PER_PX
    bins = 2 * int(REACH_MM / bin_mm)
    at = np.floor(distance[good] / bin_mm).astype(np.intp) + bins // 2
    inside = used[good] & (at >= 0) & (at < bins)
    scaled = np.broadcast_to(values[good] - air[good, None], at.shape)[inside]
    return EdgeSpread(
        total=np.bincount(at[inside], weights=scaled, minlength=bins),
        count=np.bincount(at[inside], minlength=bins),
        bin_mm=bin_mm,
        segments=int(good.sum()),
    )


def f50(edge: EdgeSpread, nyquist_per_mm: float) -> float:
    """Return the frequency where the transfer of an edge falls to one half, 1/mm, at most the Nyquist frequency."""
    bins = np.arange(len(edge.total))
    filled = edge.count > 0
    spread = np.interp(bins, bins[filled], edge.total[filled] / edge.count[filled])
    line = -np.diff(spread)
    start = _peak(line, half=8)
    distance = np.arange(0.0, REACH_MM * 0.6, edge.bin_mm)
    half = np.interp(start + distance / edge.bin_mm, np.arange(len(line)), line)
    half[0] /= 2
    half -= half[-len(half) // 4 :].mean()
    frequencies = np.linspace(0, nyquist_per_mm, 129)
    transfer = (np.cos(2 * np.pi * np.outer(frequencies, distance)) * half).sum(axis=1)
    transfer /= transfer[0]
    below = np.flatnonzero(transfer < 0.5)
    if not len(below):
        return nyquist_per_mm
    last = below[0]
    high, low = transfer[last - 1], transfer[last]
    return float(frequencies[last - 1] + (high - 0.5) / (high - low) * (frequencies[1] - frequencies[0]))


def _places(
    patient: np.ndarray, shape: tuple[int, ...], pixel_mm: Pixel, step: int, field_radius_px: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return places on the outline, (n, 2) in pixels of the image, and normals there that point to the air, (n, 2)."""
    coarse = patient.astype(np.float32)
    smooth = ndimage.gaussian_filter(coarse, 2.0, mode="nearest")
    rows, columns = np.nonzero(patient & ~ndimage.binary_erosion(patient))
    cells = np.stack([rows * pixel_mm[0] * step // EVERY_MM, columns * pixel_mm[1] * step // EVERY_MM], axis=1)
    _, first = np.unique(cells, axis=0, return_index=True)
    rows, columns = rows[first], columns[first]
    inner = (rows > 0) & (rows < coarse.shape[0] - 1) & (columns > 0) & (columns < coarse.shape[1] - 1)
    rows, columns = rows[inner], columns[inner]
    normals = -np.stack([
        (smooth[rows + 1, columns] - smooth[rows - 1, columns]) / pixel_mm[0],
        (smooth[rows, columns + 1] - smooth[rows, columns - 1]) / pixel_mm[1],
    ], axis=1)  # fmt: skip
    length = np.hypot(*normals.T)
    places = np.stack([rows * step + step // 2, columns * step + step // 2], axis=1)
    margin = _reach_px(pixel_mm)
    if field_radius_px is not None:
        middle = (np.asarray(coarse.shape) - 1) / 2
        inner = np.hypot(*(np.stack([rows, columns], axis=1) - middle).T) < field_radius_px - margin / step
        length = np.where(inner, length, 0.0)
    fits = (places >= margin).all(axis=1) & (places < np.asarray(shape[:2]) - margin).all(axis=1) & (length > 0)
    return places[fits], normals[fits] / length[fits, None]


def _in_air(
    image_hu: np.ndarray, places: np.ndarray, normals: np.ndarray, pixel_mm: Pixel
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places with air 7 and 10 mm outside, evenly at most 96 of them: for speed, `_clear` looks closer.

    Fewer where pixels are small, so that about as many pixels count; never fewer than 32.
    """
    clear = np.ones(len(places), dtype=bool)
    for outside_mm in (7.0, 10.0):
        rows, columns = np.rint(places + normals * (outside_mm / np.asarray(pixel_mm))).astype(np.intp).T
        clear &= image_hu[rows, columns] < _AIR_HU + 2 * _SPREAD_OF_AIR_HU
    chosen = np.flatnonzero(clear)
    most = max(MOST_SEGMENTS // 3, min(MOST_SEGMENTS, round(MOST_SEGMENTS * pixel_mm[0] * pixel_mm[1] / _USUAL_MM2)))
    chosen = chosen[list(evenly(len(chosen), most))]
    return places[chosen], normals[chosen]


def _reach_px(pixel_mm: Pixel) -> int:
    return int(np.ceil(1.2 * REACH_MM / min(pixel_mm)))


def _segments(
    image_hu: np.ndarray, places: np.ndarray, normals: np.ndarray, pixel_mm: Pixel
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of the pixels around places: distance along and across the outline in mm, HU; (places, pixels) each."""
    reach = _reach_px(pixel_mm)
    dy, dx = (part.ravel() for part in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    values = image_hu[places[:, :1] + dy, places[:, 1:] + dx].astype(np.float32)
    y, x = (dy * pixel_mm[0]).astype(np.float32), (dx * pixel_mm[1]).astype(np.float32)
    down, right = (part.astype(np.float32)[:, None] for part in normals.T)
    return y * right - x * down, y * down + x * right, values


def _parabola(edge: np.ndarray, along: np.ndarray) -> np.ndarray:
    return np.asarray(edge[:, 0, None] + along * (edge[:, 1, None] + along * edge[:, 2, None]))


def _first_edge(along: np.ndarray, outward: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return where the edge lies, (segments, 3) of a parabola, from the share of tissue in five columns."""
    share = np.clip((values + 1000) / 1000, 0, 1)
    middles = np.linspace(-0.8, 0.8, 5) * REACH_MM
    places = np.empty((len(values), 5))
    for column, middle in enumerate(middles):
        inside = (np.abs(along - middle) < 0.2 * REACH_MM) & (np.abs(outward) < 0.8 * REACH_MM)
        places[:, column] = (share * inside).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)
    places = (places * 2 - 1) * 0.8 * REACH_MM
    return np.asarray(np.polynomial.polynomial.polyfit(middles, places.T, 2).T)


def _refined(edge: np.ndarray, along: np.ndarray, outward: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the edge where pixels near to it cross -500 HU: HU ~ 1, across, along, along², by least squares."""
    for near_mm in (2.0, 1.0):
        weight = (np.abs(outward - _parabola(edge, along)) < near_mm) & (np.abs(along) < REACH_MM)
        system = np.stack([np.ones_like(along), outward, along, along**2], axis=-1)
        weighted = system * weight[..., None]
        matrix = np.matmul(weighted.transpose(0, 2, 1), system).astype(np.float64)
        matrix += 1e-6 * np.eye(4)
        right = np.matmul(weighted.transpose(0, 2, 1), (values + 500.0)[..., None]).astype(np.float64)
        level, steep, tilt, bend = np.linalg.solve(matrix, right)[..., 0].T
        steep = np.where(steep < -1.0, steep, -np.inf)
        edge = -np.stack([level, tilt, bend], axis=1) / steep[:, None]
    return edge


def _clear(
    edge: np.ndarray, distance: np.ndarray, values: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which segments border tissue on clear air along a smooth edge, and the mean HU of their air."""
    air_side = used & (distance > _CLEAR_MM[0]) & (distance < _CLEAR_MM[1])
    tissue_side = used & (distance < -_CLEAR_MM[0]) & (distance > -_CLEAR_MM[1])
    air, tissue = (_mean(values, side) for side in (air_side, tissue_side))
    spread = np.sqrt(_mean((values - air[:, None]) ** 2, air_side))
    flat = (np.abs(edge[:, 2]) < 0.5 / _FLATTEST_MM) & (np.abs(edge[:, 1]) < 0.7) & (np.abs(edge[:, 0]) < 5.0)
    good = flat & (air < _AIR_HU) & (tissue > _TISSUE_HU) & (spread < _SPREAD_OF_AIR_HU) & np.isfinite(edge).all(axis=1)
    return good & (edge[:, 0] != 0), air


def _steep(good: np.ndarray, distance: np.ndarray, values: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the segments, of the good ones, whose edge is steeper than that of most; the very steepest are no skin."""
    if not good.any():
        return good
    near = used & (np.abs(distance) < 1.0)
    middle, level = _mean(distance, near), _mean(values, near)
    shift = (distance - middle[:, None]) * near
    steepness = -(shift * (values - level[:, None])).sum(axis=1) / np.maximum((shift**2).sum(axis=1), 1e-6)
    low, high = np.percentile(steepness[good], _STEEPEST)
    return np.asarray(good & (steepness >= low) & (steepness <= high))


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.asarray((values * where).sum(axis=1) / np.maximum(where.sum(axis=1), 1))


def _peak(line: np.ndarray, *, half: int) -> float:
    """Return the place of the largest value near the middle, after smoothing, to a fraction of a bin."""
    smooth = np.convolve(line, np.bartlett(4 * half + 3), mode="same")
    low = len(smooth) // 2 - 2 * _BINS_PER_PX
    at = low + int(np.argmax(smooth[low : low + 4 * _BINS_PER_PX + 1]))
    left, middle, right = smooth[at - 1], smooth[at], smooth[at + 1]
    bend = left - 2 * middle + right
    return at + (0.5 * (left - right) / bend if bend < 0 else 0.0)
