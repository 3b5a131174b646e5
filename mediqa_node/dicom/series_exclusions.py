"""Rules that need the whole series: too few slices, gaps, several orientations, diffusion weighting."""

import re
from collections.abc import Sequence

from pydicom import Dataset

from mediqa_node.dicom.header import number, text
from mediqa_node.dicom.stacks.geometry import (
    SAME_POSITION_MM,
    position_along,
    same_orientation,
    slice_normal,
    spacing_flags,
)
from mediqa_node.dicom.stacks.planes import Plane
from mediqa_node.domain.technique import Exclusion

MINIMUM_SLICES = 7
# Up to this b-value an image of a diffusion series counts as b = 0.
B0_LIMIT_S_MM2 = 50.0


def series_exclusions(headers: Sequence[Dataset], found: Sequence[Plane]) -> list[Exclusion]:
    """Return the reasons to exclude a CT or MR series for its geometry or diffusion weighting.

    Args:
        headers: all instances of one series.
        found: their planes, `stacks.planes.planes(headers)`.
    """
    placed = [plane for plane in found if plane.orientation is not None]
    groups = by_orientation(placed)
    exclusions = []
    if len(groups) > 1:
        detail = f"{len(groups)} orientations in Image Orientation (Patient) (0020,0037)"
        localizer = _is_siemens_localizer(headers)
        exclusions.append(
            Exclusion(code="localizer" if localizer else "mixed_orientation", detail=detail, scorable=not localizer)
        )
    positions = unique_positions_mm(max(groups, key=len, default=[]))
    if len(positions) < MINIMUM_SLICES:
        detail = f"{len(positions)} distinct positions, {MINIMUM_SLICES} are needed"
        exclusions.append(Exclusion(code="too_few_slices", detail=detail, scorable=True))
    if "gap" in spacing_flags(positions):
        detail = "a step between slices is more than 1.5 times the median"
        exclusions.append(Exclusion(code="gap", detail=detail, scorable=True))
    weighted = [plane.b_value for plane in found if plane.b_value is not None and plane.b_value > B0_LIMIT_S_MM2]
    if weighted:
        detail = f"b-value up to {max(weighted):g} s/mm2 in {len(weighted)} of {len(found)} images"
        exclusions.append(Exclusion(code="diffusion", detail=detail, scorable=True))
    return exclusions


def by_orientation(placed: Sequence[Plane]) -> list[list[Plane]]:
    """Collect planes that face the same way; the members all have an orientation."""
    groups: list[list[Plane]] = []
    for plane in placed:
        home = next((g for g in groups if same_orientation(g[0].orientation or (), plane.orientation or ())), None)
        if home is None:
            groups.append([plane])
        else:
            home.append(plane)
    return groups


def unique_positions_mm(facing: Sequence[Plane]) -> tuple[float, ...]:
    """Return the distinct positions along the common normal of planes that face the same way, ascending, mm."""
    if not facing or facing[0].orientation is None:
        return ()
    normal = slice_normal(facing[0].orientation)
    kept: list[float] = []
    for position in sorted(position_along(normal, plane.origin_mm or ()) for plane in facing):
        if not kept or position - kept[-1] > SAME_POSITION_MM:
            kept.append(position)
    return tuple(kept)


def _is_siemens_localizer(headers: Sequence[Dataset]) -> bool:
    """Whether a series in several directions is a Siemens localizer: 2-D FLASH `fl2d1` with short TR."""
    first = headers[0]
    return bool(re.search("fl2d1", text(first, "SequenceName"))) and (number(first, "RepetitionTime") or 1e9) < 50
