"""Mean, noise and uniformity of a round, homogeneous phantom, for daily quality control.

Regions as in IEC 61223-3-5 and the tests of AAPM: a central circle of 40 % of the phantom's diameter, and four
of 10 % at 12, 3, 6 and 9 o'clock, their centres 10 % of the diameter inside the edge, which leaves a centimetre of
water outside of them in a 20 cm phantom.

The disc is found by thresholding against air. Attached objects are removed: eroding the mask drops thin ones (a table,
a holder), and the circle is fitted to the edge that most directions agree on.
"""

import numpy as np
from scipy import ndimage

from mediqa_node.domain.phantom import PhantomSlice
from mediqa_node.image.foreground import otsu_threshold

AIR_BELOW_HU = -500.0
CENTRAL = 0.40
PERIPHERAL = 0.10
SMALLEST_PX = 32
_DIRECTIONS = 360
_THIN = 0.02
"""Of the image's edge: what is thinner is no phantom."""
_AGREE = (0.05, 0.01)
"""Of the radius: edge points nearer to the median, then to the circle, belong to it."""
_ROUND = 0.4
"""Share of directions that must agree."""


def measure_phantom(image: np.ndarray, *, modality: str) -> PhantomSlice:
    """Measure one slice of a phantom.

    Args:
        image: (rows, columns) of `dicom.pixels.to_image`: HU for CT, rescaled signal for MR.
        modality: CT or MR. Uniformity is the largest |peripheral - central| mean in HU for CT; for MR percent
            integral uniformity, 100 (1 - (max - min) / (max + min)) over the means of the five regions, so
            that noise does not count as shading.

    Raises:
        ValueError: no disc of at least 32 pixels, a disc cut off by the image border, or values that are not finite;
            the message states what was found.
    """
    row, column, radius = find_disc(image, threshold=_air_below(image, modality))
    centre = _values(image, row, column, CENTRAL * radius)
    mean, noise = float(centre.mean()), float(centre.std(ddof=1))
    out = radius * (1 - 2 * PERIPHERAL)
    places = ((row + dy * out, column + dx * out) for dy, dx in ((-1, 0), (0, 1), (1, 0), (0, -1)))
    around = [float(_values(image, y, x, PERIPHERAL * radius).mean()) for y, x in places]
    if modality == "CT":
        uniformity = max(abs(value - mean) for value in around)
    else:
        low, high = min(mean, *around), max(mean, *around)
        uniformity = 100.0 * (1.0 - (high - low) / (high + low)) if high + low > 0 else 0.0
    if not np.isfinite((mean, noise, uniformity)).all():
        raise ValueError("the phantom holds values that are not finite")
    return PhantomSlice(mean=mean, noise=noise, uniformity=uniformity, diameter_px=2 * radius, centre_px=(row, column))


def find_disc(image: np.ndarray, *, threshold: float) -> tuple[float, float, float]:
    """Return row, column and radius, in pixels, of the largest object above the threshold; see module.

    Raises:
        ValueError: see `measure_phantom`.
    """
    mask = image > threshold
    reach = max(1, round(_THIN * min(image.shape)))
    core = _largest_part(ndimage.minimum_filter(mask, 2 * reach + 1, mode="constant"))
    rows, columns = np.nonzero(core)
    if not len(rows):
        raise ValueError("no phantom: nothing stands out from the air")
    middle = float(rows.mean()), float(columns.mean())
    points, cut = _edge_points(mask & ndimage.maximum_filter(core, 2 * reach + 3, mode="constant"), middle)
    distance = np.hypot(*(points - middle).T)
    median = float(np.median(distance))
    agreeing = np.abs(distance - median) <= _AGREE[0] * median
    if 2 * median < SMALLEST_PX:
        raise ValueError(f"no phantom: the largest thing has a diameter of {2 * median:.0f} pixels")
    if cut.mean() > 0.5 or (agreeing.any() and cut[agreeing].mean() > 0.25):
        raise ValueError("the phantom is cut off by the edge of the image")
    if agreeing.mean() < _ROUND:
        raise ValueError(f"no round phantom: {agreeing.mean():.0%} of the edge lies on a circle")
    for _ in range(3):
        row, column, radius = _circle(points[agreeing])
        distance = np.hypot(*(points - (row, column)).T)
        agreeing = np.abs(distance - radius) <= max(1.0, _AGREE[1] * radius)
    return row, column, radius


def _air_below(image: np.ndarray, modality: str) -> float:
    """Return the threshold between air and phantom: half way, or for MR a third of the way to keep shaded edges."""
    if modality == "CT":
        return AIR_BELOW_HU
    bright = image > otsu_threshold(image)
    air, phantom = float(image[~bright].mean()), float(image[bright].mean()) if bright.any() else 0.0
    return air + (phantom - air) / 3


def _values(image: np.ndarray, row: float, column: float, radius: float) -> np.ndarray:
    low, high = np.asarray((row, column)) - radius, np.asarray((row, column)) + radius
    if (low < 0).any() or (high > np.asarray(image.shape) - 1).any():
        raise ValueError("the phantom is cut off by the edge of the image: a region to measure is outside")
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    return np.asarray(image[(y - row) ** 2 + (x - column) ** 2 <= radius**2], dtype=np.float64)


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest part connected by pixel sides; an empty mask stays empty."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray((parts == sizes.argmax()) & mask)


def _edge_points(mask: np.ndarray, middle: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the last point of the mask in every direction, (n, 2) as row and column, and whether it is cut off.

    Holes inside a phantom (its inserts) are ignored. A point is cut off, (n,), if it reaches the edge of the image.
    """
    angles = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False)
    directions = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    steps = np.arange(0, np.hypot(*mask.shape), 0.5)
    places = np.asarray(middle) + steps[None, :, None] * directions[:, None, :]
    pixels = np.rint(places).astype(np.intp)
    inside = ((pixels >= 0) & (pixels < mask.shape)).all(axis=2)
    clipped = np.clip(pixels, 0, np.asarray(mask.shape) - 1)
    hit = mask[clipped[..., 0], clipped[..., 1]] & inside
    last = hit.shape[1] - 1 - np.argmax(hit[:, ::-1], axis=1)
    beyond = np.minimum(last + 3, hit.shape[1] - 1)
    cut = ~inside[np.arange(len(last)), beyond]
    return np.asarray(places[np.arange(len(last)), last]), cut


def _circle(points: np.ndarray) -> tuple[float, float, float]:
    """Return row, column and radius of the circle through points (n, 2), by least squares (Kåsa 1976)."""
    shift = points.mean(axis=0)
    centred = points - shift
    system = np.column_stack([2 * centred, np.ones(len(points))])
    (dy, dx, constant), *_ = np.linalg.lstsq(system, (centred**2).sum(axis=1), rcond=None)
    radius = float(np.sqrt(constant + dy**2 + dx**2))
    return float(shift[0] + dy), float(shift[1] + dx), radius
