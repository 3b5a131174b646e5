"""Where the planes of a series lie: their positions along the normal, and whether these can be true."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from mediqa_node.dicom.stacks.geometry import (
    SAME_POSITION_MM,
    slice_normal,
    slice_spacing,
    spacing_flags,
)
from mediqa_node.dicom.stacks.planes import Plane

SMALLEST_PART = 3
"""Fewer images have no spacing of their own."""
_MOST_JITTER_MM = 1.0
_APART_MM = 1.0
"""Images at one position whose Slice Locations differ by more are not at one position."""
_OFF_LINE = 0.1
_ALONG_PLANE = 0.7
"""Cosine of about 45 degrees: no gantry is tilted so far."""
_SLICE_STEPS_MM = (0.3, 0.25)
"""A step between slices is no smaller; and, as a fraction of the field of view, no larger."""


def positions_mm(planes: Sequence[Plane], *, like: Plane | None = None) -> list[float]:
    """Return positions along the normal of the first plane, or of another, ascending."""
    return sorted(_along_normal(planes, like or planes[0]))


def _along_normal(planes: Sequence[Plane], like: Plane) -> list[float]:
    origins = np.array([plane.origin_mm for plane in planes], dtype=np.float64)
    return [float(position) for position in origins @ slice_normal(like.orientation or ())]


def at_each_position(planes: Sequence[Plane], *, within_mm: float = SAME_POSITION_MM) -> list[list[Plane]]:
    """Return the planes at each position."""
    located = sorted(
        zip(_along_normal(planes, planes[0]), planes, strict=True), key=lambda pair: (pair[0], pair[1].seniority)
    )
    found = [[located[0][1]]]
    for (before, _), (position, plane) in pairwise(located):
        if position - before > within_mm:
            found.append([])
        found[-1].append(plane)
    return found


def at_shared_positions(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Return the planes at each position; where none repeats, those whose positions lie a fraction of a step apart.

    The latter may be volumes that were corrected for motion, if they are evenly spaced (`interleave`).
    """
    if positions_repeat(planes):
        return at_each_position(planes)
    steps_mm = (after - before for before, after in pairwise(positions_mm(planes)))
    return at_each_position(planes, within_mm=min(_MOST_JITTER_MM, max(steps_mm, default=0.0) / 4))


def distinct_positions(planes: Sequence[Plane]) -> int:
    """Count distinct positions along the normal of the first plane, to within 0.01 mm."""
    steps = (after - before for before, after in pairwise(positions_mm(planes)))
    return 1 + sum(step > SAME_POSITION_MM for step in steps)


def positions_repeat(planes: Sequence[Plane]) -> bool:
    """Whether two planes have the same position."""
    return distinct_positions(planes) < len(planes)


def interleave(planes: Sequence[Plane], parts: Sequence[Sequence[Plane]]) -> bool:
    """Whether parts that are evenly spaced run into each other, so that the whole is not."""
    if not spacing_flags(positions_mm(planes)):
        return False
    of_parts = sorted(positions_mm(part, like=planes[0]) for part in parts)
    if any(len(positions) < SMALLEST_PART or "uneven_spacing" in spacing_flags(positions) for positions in of_parts):
        return False
    return any(later[0] < earlier[-1] for earlier, later in pairwise(of_parts))


def lie_apart(here: Sequence[Plane]) -> bool:
    """Whether images at one position are different slices by Slice Location or In-Stack Position Number."""
    locations = [plane.slice_location_mm for plane in here if plane.slice_location_mm is not None]
    numbers = {(plane.stack_id, plane.in_stack_position) for plane in here if plane.in_stack_position is not None}
    stack_ids = {stack_id for stack_id, _ in numbers}
    return len(numbers) > len(stack_ids) or (bool(locations) and max(locations) - min(locations) > _APART_MM)


def run_along_plane(planes: Sequence[Plane]) -> bool:
    """Whether positions follow each other like slices, but in the plane: they have the orientation of others.

    Fields of view side by side are further apart than slices, and what is corrected for motion is not on a line.
    """
    origins = np.unique(np.round([plane.origin_mm or () for plane in planes], 2), axis=0)
    if len(origins) < 3:
        return False
    normal = slice_normal(planes[0].orientation or ())
    centred = origins - origins.mean(axis=0)
    line = np.linalg.svd(centred, full_matrices=False)[2][0]
    along = centred @ line
    steps = np.diff(centred[np.argsort(along)], axis=0)
    straight = np.linalg.norm(centred - np.outer(along, line)) <= _OFF_LINE * np.linalg.norm(along)
    if not straight or np.median(np.abs(steps @ normal) / np.linalg.norm(steps, axis=1)) > _ALONG_PLANE:
        return False
    located = sorted(along.tolist())
    first, spacing_mm = planes[0], [spacing or 1.0 for spacing in planes[0].spacing_mm]
    field_mm = max(first.rows * spacing_mm[0], first.columns * spacing_mm[1])
    smallest, largest = _SLICE_STEPS_MM[0], _SLICE_STEPS_MM[1] * field_mm
    return smallest <= slice_spacing(located) <= largest and "uneven_spacing" not in spacing_flags(located)
