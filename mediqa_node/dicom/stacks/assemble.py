"""Sort the images of one series into stacks: planes that belong together, in order along their normal.

A series is not a volume. It may hold localisers in three directions, several echoes, time points and
b-values, magnitude and phase, a slice that was acquired twice. Size, orientation and b-value always separate stacks.
What else does, it does mostly where positions repeat (`split`): one head CT in our collection has 14 slices and 13
acquisition numbers, and is one stack. Instance Number (0020,0013) never orders planes.
"""

from collections.abc import Sequence
from itertools import compress, pairwise
from typing import Any

from pydicom import Dataset

from mediqa_node.dicom.header import integer, text
from mediqa_node.dicom.modality import modality_of
from mediqa_node.dicom.stacks.geometry import (
    SAME_POSITION_MM,
    TILT_DEG,
    position_along,
    shear_deg,
    slice_normal,
    slice_spacing,
    spacing_flags,
)
from mediqa_node.dicom.stacks.mosaic import mosaic_evidence
from mediqa_node.dicom.stacks.planes import Plane, planes
from mediqa_node.dicom.stacks.split import Group, split
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.images import Stack, StackKey

_VOLUMETRIC = ("CT", "MR", "PT")


def assemble_stacks(
    headers: Sequence[Dataset], fine: Sequence[bool] | None = None, placed: Sequence[Plane] | None = None
) -> tuple[Stack, ...]:
    """Return the stacks of one series, those with most positions first; () for no headers.

    Args:
        headers: of one series, without pixels, in any order; `FrameRef.instance_index` is an index into it.
        fine: for each header, whether its image counts (`exclusions.scorable`); None: all do.
        placed: `planes(headers)`, if the caller has them already.

    Returns:
        The same stacks for any order of `headers` (apart from `instance_index`). An image without
        usable orientation or position is a stack of its own: a photograph, or, flagged
        `missing_geometry`, a CT or MR image with a broken header.

    Raises:
        NotScorable: `mosaic`, if an image is a mosaic of slices.
    """
    counting = [fine is None or fine[index] for index in range(len(headers))]
    for header in compress(headers, counting):
        if evidence := mosaic_evidence(header):
            raise NotScorable("mosaic", evidence)
    found = planes(headers) if placed is None else placed
    return stacks_of([plane for plane in found if counting[plane.ref.instance_index]], headers)


def stacks_of(found: Sequence[Plane], headers: Sequence[Dataset]) -> tuple[Stack, ...]:
    """Return the stacks of planes that are known already, as `assemble_stacks` does.

    Args:
        found: all or some of `planes(headers)`.
    """
    placed = [plane for plane in found if plane.orientation is not None]
    groups = split(placed) + [Group(planes=(plane,)) for plane in found if plane.orientation is None]
    stacks = [(group, _stack(group, headers)) for group in groups]
    return tuple(stack for _, stack in sorted(stacks, key=lambda pair: _rank(*pair)))


def stack_label(stack: Stack) -> str:
    """Return what distinguishes a stack, such as `echo 80 ms, b 1000`, or else its number of images."""
    label, count = stack.key.label(), len(stack.frames)
    return label if label != StackKey().label() else f"{count} image{'s' * (count > 1)}"


def concatenation_complete(headers: Sequence[Dataset]) -> bool | None:
    """Whether every concatenation of the series is complete (PS3.3 C.7.6.16.2.2.4).

    Instances that share Concatenation UID (0020,9161) must carry In-concatenation Numbers (0020,9162)
    1 to In-concatenation Total Number (0020,9163).

    Returns:
        None unless a concatenation gives its total.
    """
    arrived: dict[str, set[int]] = {}
    totals: dict[str, int] = {}
    for header in headers:
        if uid := text(header, "ConcatenationUID"):
            arrived.setdefault(uid, set()).add(integer(header, "InConcatenationNumber") or 0)
            total = integer(header, "InConcatenationTotalNumber")
            if total:
                totals[uid] = max(total, totals.get(uid, 0))
    if not totals:
        return None
    return all(uid in totals and set(range(1, totals[uid] + 1)) <= parts for uid, parts in arrived.items())


def _stack(group: Group, headers: Sequence[Dataset]) -> Stack:
    """Order a group along its normal, keep each position once, and flag irregularities."""
    ordered, positions = _in_order(group.planes)
    first = ordered[0]
    header = headers[first.ref.instance_index]
    modality = modality_of(header) or text(header, "Modality")
    flags = [*group.flags, *spacing_flags(positions)]
    flags += ["duplicate_position"] * (len(ordered) < len(group.planes))
    flags += ["missing_geometry"] * (first.orientation is None and modality in _VOLUMETRIC)
    flags += ["gantry_tilt"] * (modality == "CT" and _is_tilted(ordered))
    return Stack(
        study_instance_uid=text(header, "StudyInstanceUID"),
        series_instance_uid=text(header, "SeriesInstanceUID"),
        frame_of_reference_uid=text(header, "FrameOfReferenceUID") or None,
        modality=modality,
        key=StackKey(orientation=_rounded(first.orientation), **group.key),
        frames=tuple(plane.ref for plane in ordered),
        rows=first.rows,
        columns=first.columns,
        positions_mm=positions,
        spacing_mm=(slice_spacing(positions), *first.spacing_mm),
        origin_mm=(first.origin_mm[0], first.origin_mm[1], first.origin_mm[2]) if first.origin_mm else None,
        orientation=first.orientation,
        flags=tuple(sorted(set(flags))),
    )


def _in_order(group: Sequence[Plane]) -> tuple[list[Plane], tuple[float, ...]]:
    """Return planes and positions (mm), ascending along the normal; at one position the earliest acquired wins."""
    reference = group[0].orientation
    if reference is None:
        return list(group), ()
    normal = slice_normal(reference)
    located = sorted(
        ((position_along(normal, plane.origin_mm or ()), plane) for plane in group),
        key=lambda pair: (pair[0], pair[1].seniority),
    )
    clusters = [[located[0]]]
    for previous, current in pairwise(located):
        if current[0] - previous[0] > SAME_POSITION_MM:
            clusters.append([])
        clusters[-1].append(current)
    kept = [min(cluster, key=lambda pair: pair[1].seniority) for cluster in clusters]
    return [plane for _, plane in kept], tuple(position for position, _ in kept)


def _is_tilted(ordered: Sequence[Plane]) -> bool:
    if any(abs(plane.tilt_deg) > TILT_DEG for plane in ordered):
        return True
    first, last = ordered[0], ordered[-1]
    if first.orientation is None or first.origin_mm is None or last.origin_mm is None:
        return False
    return shear_deg(slice_normal(first.orientation), first.origin_mm, last.origin_mm) > TILT_DEG


def _rounded(orientation: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if orientation is None else tuple(round(cosine, 4) + 0.0 for cosine in orientation)


def _rank(group: Group, stack: Stack) -> tuple[Any, ...]:
    """Sort key: most positions, then first echo, time point, b-value and acquisition, then earliest image."""
    key = stack.key
    values = (key.echo_time_ms, key.temporal_position, key.b_value, key.acquisition_number)
    first = group.planes[0]
    seniority = min(plane.seniority for plane in group.planes)
    return (
        -len(stack.frames),
        stack.orientation is None,
        *(-1.0 if value is None else float(value) for value in values),
        seniority[2:],
        first.ref.sop_instance_uid,
        first.ref.frame_number or 0,
    )
