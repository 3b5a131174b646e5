"""Size of the patient in one coarse CT slice: water-equivalent diameter, width, thickness, and what the field cuts.

Method: Dw = 2 sqrt((mean HU / 1000 + 1) A / pi) over the patient's pixels, of area A, filled air included. Width and
thickness are those of the box around the patient, arms beside the trunk included. The share of the outline that the
field of view cuts counts pixels of the outline on the border of the image, or on the circle beyond which the scanner
reconstructs nothing and writes one constant.

Source: AAPM Report 220 (2014), equation for Dw in section 3, truncation in section 5; widths: AAPM Report 204 (2011).
Assumptions: Hounsfield units; the slice lies across the patient; `patient_mask` found the patient.
What breaks it: what breaks the mask; a truncated patient, whose Dw is too small; metal, beyond the largest value.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mediqa_node.image.measure.ct.patient import Pixel

_FIELD_FROM = 0.9
"""Of half the image: no scanner's field is a smaller circle of it."""
_CONSTANT = 0.98
_ON_THE_CIRCLE_PX = 1.6
"""How far inside the circle the outline of a cut patient may lie: a pixel and its diagonal."""
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)


@dataclass(frozen=True, slots=True)
class SliceSize:
    """Size of the patient in one slice, mm, and the share of the outline that the field of view cuts, 0 to 1."""

    dw_mm: float
    lateral_mm: float
    ap_mm: float
    cut: float


def slice_size(image_hu: np.ndarray, patient: np.ndarray, pixel_mm: Pixel) -> SliceSize | None:
    """Return the size of the patient in a slice, None without a patient.

    Args:
        image_hu: (rows, columns).
        patient: mask of the patient, the same shape.
        pixel_mm: between rows, between columns.
    """
    rows, columns = np.flatnonzero(patient.any(axis=1)), np.flatnonzero(patient.any(axis=0))
    if not len(rows):
        return None
    water = float((image_hu[patient].astype(np.float64) / 1000.0 + 1.0).sum())
    area_mm2 = max(water, 0.0) * pixel_mm[0] * pixel_mm[1]
    return SliceSize(
        dw_mm=2.0 * float(np.sqrt(area_mm2 / np.pi)),
        lateral_mm=float(columns[-1] - columns[0] + 1) * pixel_mm[1],
        ap_mm=float(rows[-1] - rows[0] + 1) * pixel_mm[0],
        cut=_cut(image_hu, patient),
    )


def _cut(image_hu: np.ndarray, patient: np.ndarray) -> float:
    outline = patient & ~np.asarray(ndimage.binary_erosion(patient, _CROSS))
    border = np.zeros_like(patient)
    border[[0, -1]] = border[:, [0, -1]] = True
    radius = field_radius(image_hu)
    if radius is not None:
        border |= _distance(image_hu.shape) >= radius - _ON_THE_CIRCLE_PX
    return float((outline & border).sum() / outline.sum())


def field_radius(image_hu: np.ndarray) -> float | None:
    """Return the radius in pixels of the circle beyond which a slice is constant, None if there is no such circle.

    A patient in the middle of air that is constant to the last unit cannot be told from it, and real air never is.
    """
    rows, columns = image_hu.shape
    constant = image_hu == image_hu[0, 0]
    if not constant[[0, 0, -1, -1], [0, -1, 0, -1]].all():
        return None
    distance = _distance(image_hu.shape)
    half = min(rows, columns) / 2
    if constant[distance > half].mean() < _CONSTANT:
        return None
    rings = np.arange(int(_FIELD_FROM * half), int(half) + 1)
    filled = [r for r in rings if constant[distance > r].mean() >= _CONSTANT]
    inside = constant[(distance <= half * _FIELD_FROM)].mean()
    return float(filled[0]) if filled and inside < _CONSTANT else None


def _distance(shape: tuple[int, ...]) -> np.ndarray:
    """Return the distance of every pixel from the middle of an image, in pixels."""
    y, x = (np.abs(np.arange(size) - (size - 1) / 2) for size in shape)
    return np.asarray(np.hypot(y[:, None], x[None, :]))
