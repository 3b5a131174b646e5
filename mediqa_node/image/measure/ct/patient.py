"""The patient in a coarse CT slice: without table, headrest, clothes and blankets, with all air inside of the body.

Method: pixels above -400 HU, half way between air and fat, are matter. Opening with a square of 10 mm drops what is
thinner: shells of tables and headrests, sheets, tubes. Matter within two pixels of what is left is added again, so
that thin walls between thick parts close. Enclosed air (lungs, bowel, airways) is filled, and a second opening drops
stubs of the table where the patient touches it. Of the parts that are left, those of tissue count: trunk, both legs,
an arm beside the trunk.

Source: AAPM Report 220 (2014) asks for the patient alone and leaves the method to the implementer.
Assumptions: axial slices, displayed as acquired; one patient; tables and headrests are shells or foam.
What breaks it: thick, solid objects of the density of tissue that touch the patient (water bags, phantoms for
calibration, casts); emphysema that the field of view cuts open; fingers and ears are dropped, as they are thin.
"""

import numpy as np
from scipy import ndimage

from mediqa_node.image.measure.ct.field import distance_px, field_radius, is_beside

MATTER_HU = -400.0
THIN_MM = 10.0
LUNG_FROM_HU = -900.0
_MOSTLY, _OPEN = 0.6, 0.42
"""Of a lung that opens to the border of the field: share that is denser, or that opens sideways, at least; share of its
own border that opens, at most, where it does not open sideways."""
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)
SMALLEST_MM2 = 500.0
_REGROWN_PX = 2
_TISSUE_HU = (-250.0, 400.0)
_FEWEST_PX = 16
Pixel = tuple[float, float]
"""Size of a pixel, between rows and between columns, mm."""


def patient_mask(image_hu: np.ndarray, pixel_mm: Pixel) -> np.ndarray:
    """Return which pixels are patient, bool (rows, columns); all False if there is none.

    Args:
        image_hu: (rows, columns), pixels of 2 to 5 mm.
        pixel_mm: between rows, between columns, > 0.
    """
    if min(image_hu.shape) < _FEWEST_PX:
        return np.zeros(image_hu.shape, dtype=bool)
    matter = image_hu > MATTER_HU
    window = tuple(2 * round((THIN_MM / step - 1) / 2) + 1 for step in pixel_mm)
    thick = _opened(matter, window)
    if not thick.any():
        return thick
    for _ in range(_REGROWN_PX):
        thick = _dilated(thick, (3, 3)) & matter
    solid = _opened(_filled(thick, image_hu), window)
    return _tissue(solid, matter, image_hu, pixel_mm)


def _eroded(mask: np.ndarray, window: tuple[int, ...]) -> np.ndarray:
    """Return a mask eroded by a rectangle; what touches the border continues beyond it."""
    return np.asarray(ndimage.minimum_filter(mask.view(np.uint8), window, mode="nearest").view(bool))


def _dilated(mask: np.ndarray, window: tuple[int, ...]) -> np.ndarray:
    return np.asarray(ndimage.maximum_filter(mask.view(np.uint8), window, mode="nearest").view(bool))


def _opened(mask: np.ndarray, window: tuple[int, ...]) -> np.ndarray:
    return _dilated(_eroded(mask, window), window)


def _filled(mask: np.ndarray, image_hu: np.ndarray) -> np.ndarray:
    """Return a mask with the air inside of the patient: what does not reach the border of the field, and lungs that do.

    A lung that the field cuts opens to its border. It is denser than the air around the patient; that below a cut
    patient, which artefacts make as dense, opens widely and downwards.
    """
    radius = field_radius(image_hu)
    air = ~mask if radius is None else ~mask & (distance_px(mask.shape) < radius)
    parts, count = ndimage.label(air)
    every = np.bincount(parts.ravel(), minlength=count + 1)
    dense = np.bincount(parts[image_hu > LUNG_FROM_HU], minlength=count + 1)
    edge = air & ~np.asarray(ndimage.binary_erosion(air, _CROSS))
    beyond = _dilated(~(mask | air), (3, 3)) if radius is not None else np.zeros_like(mask)
    beyond[[0, -1]] = beyond[:, [0, -1]] = True
    around = np.bincount(parts[edge], minlength=count + 1)
    cut = np.bincount(parts[edge & beyond], minlength=count + 1)
    beside = np.bincount(parts[edge & beyond & is_beside(mask.shape)], minlength=count + 1)
    lung = (dense >= _MOSTLY * every) & ((cut <= _OPEN * around) | (beside >= _MOSTLY * cut))
    outside = (cut > 0) & ~lung
    outside[0] = False
    return np.asarray((mask | air) & ~outside[parts])


def _tissue(solid: np.ndarray, matter: np.ndarray, image_hu: np.ndarray, pixel_mm: Pixel) -> np.ndarray:
    """Return the parts of the mask that are patient: the largest, and others of tissue that are not below it."""
    parts, count = ndimage.label(solid)
    if not count:
        return solid
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    places = ndimage.find_objects(parts)
    keep = np.zeros(count + 1, dtype=bool)
    largest = int(sizes.argmax())
    bottom = places[largest - 1][0].stop
    for part in range(1, count + 1):
        if sizes[part] * pixel_mm[0] * pixel_mm[1] < SMALLEST_MM2:
            continue
        place = places[part - 1]
        inside = image_hu[place][(parts[place] == part) & matter[place]]
        middle = float(np.median(inside)) if len(inside) else -1000.0
        below = (place[0].start + place[0].stop) / 2 >= bottom
        keep[part] = _TISSUE_HU[0] < middle < _TISSUE_HU[1] and not below
    return np.asarray(keep[parts])
