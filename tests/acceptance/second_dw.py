"""A second water-equivalent diameter, with a mask of its own, to hold `ct.dw` against: written without its code.

Dw = 2 sqrt((mean HU / 1000 + 1) area / pi) of the patient (AAPM Report 220, 2014, doi 10.37206/146), at the full
resolution of every slice. The mask is a watershed of the gradient (Meyer 1994, doi 10.1016/0165-1684(94)90060-4): the
skin is where the slope between three kinds of markers is steepest, whatever its Hounsfield units.

1. Otsu's threshold of the whole stack tells matter from air.
2. Matter is opened, so that clothes and the plates of the table fall off. The heaviest of what is connected over
   slices is the body; arms beside it are every other solid part of the density of tissue.
3. Markers: the filled body, shrunk; air outside; and what is no patient: long thin sheets, thin matter that is a sheet
   at the same place in other slices, and solid parts that are neither body nor arms.

A fifth of a second a slice. Its constants were set by looking at masks, not at `ct.dw`. Known faults: a centimetre or
two of a head holder that an ear is pressed against counts as ear, at most 0.3 % of the diameter of that slice; ears
that are folded flat against it may lose their rim.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import sobel, threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import isotropic_closing, isotropic_dilation, isotropic_erosion, isotropic_opening
from skimage.segmentation import watershed

SMOOTHING_MM = 0.8
SHEET_MM = 3.0
"""Radius of the opening: matter thinner than twice this is a sheet, or skin."""
LONG_MM = 40.0
"""A sheet is at least as long: longer than an ear, a nose or a fold of skin."""
FIXED, FEWEST = 0.2, 5
"""A sheet belongs to the table if one is there in more than this share of slices, of at least so many."""
SHRINK_MM = 4.0
RIM_MM = 1.0
CLOSING_MM = 1.5
PART_MM2, PART_WIDTH_MM, PART_SOLIDITY, PART_HU = 400.0, 12.0, 0.85, (-150.0, 250.0)
"""An arm or breast: area, width, share of its convex hull, median (an arm at the border of the field is too bright)."""
AIR, BODY, OTHER = 1, 2, 3


@dataclass(frozen=True)
class Size:
    """The patient in one slice; `cut`: share of the outline that lies on the border of the field of view."""

    mask: np.ndarray
    dw_mm: float
    cut: float


def sizes(stack: np.ndarray, pixel_mm: float) -> list[Size]:
    """Return the size of the patient in every slice.

    Args:
        stack: (slices, rows, columns) HU, of one position and orientation.
    """
    sigma = SMOOTHING_MM / pixel_mm
    smooth = ndimage.gaussian_filter(np.clip(stack, -1000, 300), (0, sigma, sigma))
    field = _field(stack)
    matter = smooth > float(threshold_otsu(smooth[:, field]))
    sheets = _sheets(matter, pixel_mm)
    solid = np.stack([isotropic_opening(each, SHEET_MM, spacing=pixel_mm) for each in matter & ~sheets])
    cores = _cores(stack, solid, pixel_mm)
    found = []
    for index, (image, core) in enumerate(zip(stack, cores, strict=True)):
        no_patient = sheets[index] | (solid[index] & ~core)
        mask = _watershed(smooth[index], matter[index], core, no_patient, pixel_mm) & field
        found.append(Size(mask, water_equivalent_diameter_mm(image, mask, pixel_mm), _cut(mask, field)))
    return found


def water_equivalent_diameter_mm(image: np.ndarray, mask: np.ndarray, pixel_mm: float) -> float:
    """Return the diameter of the cylinder of water that attenuates as much (AAPM 220)."""
    water_mm2 = float((image[mask].astype(np.float64) / 1000 + 1).sum()) * pixel_mm**2
    return 2 * float(np.sqrt(max(water_mm2, 0) / np.pi))


def _field(stack: np.ndarray) -> np.ndarray:
    """Return where images were reconstructed: not what is, in all slices, the value of a corner and connected to it."""
    padding = np.zeros(stack.shape[1:], bool)
    for row in (0, -1):
        for column in (0, -1):
            same = (stack == stack[0, row, column]).all(axis=0)
            parts = label(same, connectivity=1)
            padding |= same & (parts == parts[row, column])
    rows, columns = (np.linspace(-1, 1, n) for n in padding.shape)
    inside = np.hypot(rows[:, None], columns[None, :]) < 0.98
    padding &= ~inside
    field = ~padding if padding.mean() > 0.1 else np.ones_like(padding)
    return np.asarray(ndimage.binary_fill_holes(field))


def _cut(mask: np.ndarray, field: np.ndarray) -> float:
    framed = np.pad(mask, 1)
    outline = framed & ~ndimage.binary_erosion(framed)
    edge = ~ndimage.binary_erosion(np.pad(field, 1), iterations=2)
    return float((outline & edge).sum() / max(int(outline.sum()), 1))


def _sheets(matter: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Return long thin matter: table, head holder, clothes, blankets."""
    sheets, thin = np.zeros_like(matter), np.zeros_like(matter)
    for index, each in enumerate(matter):
        thin[index] = each & ~isotropic_opening(each, SHEET_MM, spacing=pixel_mm)
        parts = label(thin[index], connectivity=2)
        long = [part.label for part in regionprops(parts) if _length_px(part.bbox) * pixel_mm > LONG_MM]
        sheets[index] = np.isin(parts, long)
    if len(matter) >= FEWEST:
        sheets |= thin & (sheets.mean(axis=0) > FIXED)
    return sheets


def _length_px(bbox: tuple[int, int, int, int]) -> float:
    return float(np.hypot(bbox[2] - bbox[0], bbox[3] - bbox[1]))


def _cores(stack: np.ndarray, solid: np.ndarray, pixel_mm: float) -> list[np.ndarray]:
    """Return the inside of the patient in every slice, air of lungs and bowel included."""
    parts = label(solid, connectivity=1)
    weights = np.bincount(parts.ravel(), np.clip(stack / 1000 + 1, 0, 2).ravel())
    weights[0] = 0
    body = parts == int(weights.argmax())
    return [
        np.asarray(ndimage.binary_fill_holes(own | _beside(image, others, pixel_mm)))
        for image, own, others in zip(stack, body, solid & ~body, strict=True)
    ]


def _beside(image: np.ndarray, others: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Return parts of the patient that do not touch the body: arms, breasts."""
    found = np.zeros_like(others)
    parts = label(others, connectivity=1)
    for part in regionprops(parts):
        large = part.area * pixel_mm**2 > PART_MM2 and part.axis_minor_length * pixel_mm > PART_WIDTH_MM
        density_hu = float(np.median(image[parts == part.label]))
        if large and part.solidity > PART_SOLIDITY and PART_HU[0] < density_hu < PART_HU[1]:
            found |= parts == part.label
    return found


def _watershed(
    soft: np.ndarray, matter: np.ndarray, core: np.ndarray, no_patient: np.ndarray, pixel_mm: float
) -> np.ndarray:
    """Return the patient of one slice: from the shrunk core to the steepest slope."""
    markers = np.zeros(soft.shape, np.int32)
    markers[~matter & ~isotropic_dilation(core, RIM_MM, spacing=pixel_mm)] = AIR
    markers[isotropic_erosion(core, SHRINK_MM, spacing=pixel_mm)] = BODY
    markers[no_patient] = OTHER
    slopes = sobel(np.clip(soft, -1000, 0))
    body = watershed(slopes, markers) == BODY
    return np.asarray(ndimage.binary_fill_holes(isotropic_closing(body, CLOSING_MM, spacing=pixel_mm)))
