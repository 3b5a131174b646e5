r"""Whether slices are placed as a scanner acquires them, or as a workstation reformats a volume.

Some scanners write ORIGINAL\PRIMARY\MPR in the Image Type (0008,0008) of slices that they reconstructed from measured
data. A reformat is DERIVED and stays refused whatever its geometry; of an image that calls itself ORIGINAL the geometry
decides. Acquired slices are one acquisition in one frame of reference: all parallel, of one matrix and pixel spacing,
each position once, in even steps, at least seven of them (fewer show no pattern).

CT reconstructs slices across the table. Their rows follow an axis of the patient; gantry tilt, at most 30 degrees,
displaces them along the table and not along their normal. Coronal, sagittal and oblique slices are reformats. An
exactly axial reformat cannot be distinguished from slices; ORIGINAL is then believed. MR acquires slices in any
direction, so only their regularity counts; they are displaced along their normal.
"""

from collections.abc import Sequence

import numpy as np

from mediqa_node.dicom.series_exclusions import MINIMUM_SLICES, by_orientation, unique_positions_mm
from mediqa_node.dicom.stacks.geometry import TILT_DEG, position_along, shear_deg, slice_normal, spacing_flags
from mediqa_node.dicom.stacks.planes import Plane

_TILT_LIMIT_COSINE = 0.866
_ALONG_AXIS_COSINE = 0.9999
"""Cosines of 30 degrees and of 0.8 degrees."""


def is_acquisition(found: Sequence[Plane], modality: str) -> bool:
    """Whether the planes of a CT or MR series, or of a part of it, are placed as they are acquired."""
    if modality not in ("CT", "MR") or any(plane.orientation is None for plane in found) or not _is_one(found):
        return False
    if len(by_orientation(found)) != 1:
        return False
    positions = unique_positions_mm(found)
    if len(positions) < MINIMUM_SLICES or len(positions) < len(found) or spacing_flags(positions):
        return False
    return _is_across_table(found) if modality == "CT" else _is_displaced_along(_normal(found), found)


def _is_one(found: Sequence[Plane]) -> bool:
    return (
        len(
            {
                (plane.acquisition_number, plane.frame_of_reference, plane.rows, plane.columns, plane.spacing_mm)
                for plane in found
            }
        )
        == 1
    )


def _is_across_table(found: Sequence[Plane]) -> bool:
    """Whether CT slices lie across the table, which is along the patient's third axis in all positions of a patient."""
    row = np.abs(np.asarray(found[0].orientation, dtype=np.float64)[:3])
    table = np.array([0.0, 0.0, 1.0])
    is_upright = abs(_normal(found)[2]) >= _TILT_LIMIT_COSINE and max(row[:2]) >= _ALONG_AXIS_COSINE
    return bool(is_upright) and _is_displaced_along(table, found)


def _is_displaced_along(direction: np.ndarray, found: Sequence[Plane]) -> bool:
    """Whether the first pixels of all slices lie on one line in this direction."""
    normal = _normal(found)
    origins = sorted((plane.origin_mm or () for plane in found), key=lambda origin: position_along(normal, origin))
    return all(shear_deg(direction, origins[0], origin) < TILT_DEG for origin in origins[1:])


def _normal(found: Sequence[Plane]) -> np.ndarray:
    return slice_normal(found[0].orientation or ())
