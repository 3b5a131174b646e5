"""Position and orientation of image planes in the patient, and the spacing between them.

All coordinates are those of the patient, LPS, in millimetres (PS3.3 C.7.6.2.1.1).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from mediqa_node.domain.errors import InconsistentGeometry

SAME_POSITION_MM = 0.01
GAP_FACTOR = 1.5
UNEVEN_FRACTION = 0.05
UNEVEN_MM = 0.05
TILT_DEG = 0.5


def slice_normal(orientation: ArrayLike, *, tolerance: float = 1e-2) -> np.ndarray:
    """Return the unit normal of an image plane in the patient coordinate system.

    Args:
        orientation: Image Orientation (Patient) (0020,0037), PS3.3 C.7.6.2: six
            direction cosines, the row's x, y, z, then the column's x, y, z.
        tolerance: how far from unit length and from perpendicular the two
            vectors may be (dimensionless).

    Returns:
        shape (3,), float64, row x column, unit length, LPS axes.

    Raises:
        InconsistentGeometry: the cosines are not two perpendicular unit vectors.
    """
    cosines = np.asarray(orientation, dtype=np.float64)
    if cosines.shape != (6,) or not np.isfinite(cosines).all():
        raise InconsistentGeometry(f"Image Orientation (0020,0037) needs six finite numbers, found {cosines.tolist()}")
    row, column = cosines[:3], cosines[3:]
    defects = np.linalg.norm(row) - 1, np.linalg.norm(column) - 1, row @ column
    if max(abs(float(defect)) for defect in defects) > tolerance:
        raise InconsistentGeometry(
            f"Image Orientation (0020,0037) {cosines.tolist()} is not two perpendicular unit vectors"
        )
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def position_along(normal: np.ndarray, origin_mm: ArrayLike) -> float:
    """Return Image Position (Patient) (0020,0032) projected on the normal, mm."""
    return float(np.asarray(origin_mm, dtype=np.float64) @ normal)


def same_orientation(one: Sequence[float], other: Sequence[float], *, tolerance: float = 1e-2) -> bool:
    """Whether no cosine of two orientations differs by more than `tolerance` (0.01 is about 0.6 degrees)."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= tolerance


def slice_spacing(positions_mm: Sequence[float]) -> float:
    """Return the median step between ascending positions, mm; 0.0 for fewer than two."""
    return float(np.median(np.diff(positions_mm))) if len(positions_mm) > 1 else 0.0


def spacing_flags(positions_mm: Sequence[float]) -> tuple[str, ...]:
    """Return flags for irregular steps between ascending positions.

    `gap`: a step of more than 1.5 times the median. `uneven_spacing`: another step that differs from
    the median by more than 5 % and more than 0.05 mm (headers round to 0.01 mm and worse).
    """
    if len(positions_mm) < 3:
        return ()
    steps = np.diff(positions_mm)
    median = float(np.median(steps))
    gaps = steps > GAP_FACTOR * median
    uneven = np.abs(steps - median) > max(UNEVEN_FRACTION * median, UNEVEN_MM)
    return ("gap",) * bool(gaps.any()) + ("uneven_spacing",) * bool((uneven & ~gaps).any())


def shear_deg(normal: np.ndarray, first_origin_mm: ArrayLike, last_origin_mm: ArrayLike) -> float:
    """Return the angle between the planes' normal and the line through their origins, degrees.

    Zero for a rectangular volume; the tilt for an axial CT acquired with a tilted gantry, where
    planes are displaced along the table and not along their normal.
    """
    line = np.asarray(last_origin_mm, dtype=np.float64) - np.asarray(first_origin_mm, dtype=np.float64)
    along = abs(float(line @ normal))
    across = float(np.linalg.norm(line - (line @ normal) * normal))
    return float(np.degrees(np.arctan2(across, along))) if along or across else 0.0
