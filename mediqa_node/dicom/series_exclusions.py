"""Rules that need the whole series: its name and geometry, too few slices, gaps, diffusion weighting."""

import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from pydicom import Dataset

from mediqa_node.dicom.header import number, text
from mediqa_node.dicom.series_names import NameHint, name_hint
from mediqa_node.dicom.stacks.geometry import (
    SAME_POSITION_MM,
    position_along,
    same_orientation,
    slice_normal,
    spacing_flags,
)
from mediqa_node.dicom.stacks.planes import Plane, planes
from mediqa_node.domain.images import Stack
from mediqa_node.domain.technique import Exclusion

MINIMUM_SLICES = 7
# So many parallel slices are no localizer, whatever the series is called.
VOLUME_SLICES = 20
# Planes at right angles, to within about 15 degrees.
_RIGHT_ANGLE_COSINE = 0.26
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
        localizer = _is_siemens_localizer(headers) or _is_three_plane(groups)
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


def with_stack(found: Sequence[Exclusion], stack: Stack) -> tuple[Exclusion, ...]:
    """Return the exclusions of a CT or MR series with those of its primary stack.

    The steps between the slices of the stack count, not those of a series in which several interleave.

    Args:
        found: the exclusions of the series; none of them is repeated.
    """
    known = {exclusion.code for exclusion in found}
    exclusions = [exclusion for exclusion in found if exclusion.code != "gap" or "gap" in stack.flags]
    if len(stack.frames) < MINIMUM_SLICES and "too_few_slices" not in known:
        detail = f"{len(stack.frames)} positions in the primary stack, {MINIMUM_SLICES} are needed"
        exclusions.append(Exclusion(code="too_few_slices", detail=detail, scorable=True))
    if "gap" in stack.flags and "gap" not in known:
        detail = "a step between slices of the primary stack is more than 1.5 times the median"
        exclusions.append(Exclusion(code="gap", detail=detail, scorable=True))
    return tuple(exclusions)


def named_exclusions(headers: Sequence[Dataset], placed: Sequence[Plane] | None) -> list[Exclusion | None]:
    """Return what the name of its series has against each instance, where the planes do not contradict.

    Args:
        headers: all instances of one series.
        placed: their planes, or None: they are found if a name asks for it.
    """
    hints = [_hint(header) for header in headers]
    if not any(hints):
        return [None] * len(headers)
    found = planes(headers) if placed is None else placed
    standing = {
        hint: not _contradicted(hint, [plane for plane in found if hints[plane.ref.instance_index] == hint])
        for hint in set(hints)
        if hint is not None
    }
    where = "Series Description (0008,103E) or Protocol Name (0018,1030)"
    return [
        Exclusion(code=hint.code, detail=f"{hint.words!r} in {where}", scorable=False)
        if hint is not None and standing[hint]
        else None
        for hint in hints
    ]


def _hint(header: Dataset) -> NameHint | None:
    """Return what the description of a series says; without one the protocol, if it names nothing else."""
    if description := text(header, "SeriesDescription"):
        return name_hint(description)
    hint = name_hint(text(header, "ProtocolName"))
    return hint if hint is not None and hint.alone else None


def _contradicted(hint: NameHint, named: Sequence[Plane]) -> bool:
    """Whether planes are a volume, in spite of their name: many slices, most of which face the same way.

    Fewer slices contradict words that may mean something else. Without geometry images count as slices, which pages of
    a document may be.
    """
    if hint.volume:
        return False
    groups = by_orientation([plane for plane in named if plane.orientation is not None])
    facing = max(groups, key=len, default=[])
    if groups and 5 * len(facing) < 4 * len(named):
        return False
    n_slices = len(unique_positions_mm(facing)) if groups else len(named)
    pages = hint.code == "document" and not groups
    return n_slices >= (VOLUME_SLICES if hint.certain or pages else MINIMUM_SLICES)


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


def _is_three_plane(groups: Sequence[Sequence[Plane]]) -> bool:
    """Whether a series holds a few slices in each of three directions at right angles."""
    if any(len(unique_positions_mm(facing)) >= MINIMUM_SLICES for facing in groups):
        return False
    normals = [slice_normal(facing[0].orientation or ()) for facing in groups[:12]]
    return any(
        max(abs(float(np.dot(one, other))) for one, other in combinations(three, 2)) < _RIGHT_ANGLE_COSINE
        for three in combinations(normals, 3)
    )
