"""Split the planes of a series into groups that may form one stack."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any

from mediqa_node.dicom.stacks.geometry import SAME_POSITION_MM, position_along, same_orientation, slice_normal
from mediqa_node.dicom.stacks.planes import Plane

ECHO_TOLERANCE_MS = 0.05
B_TOLERANCE = 1.0
B_TOLERANCE_FRACTION = 0.02

Parts = list[tuple[Any, list[Plane]]]
"""The parts that a rule splits planes into: the distinguishing value and the planes of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Planes of one stack, with the fields of its StackKey and the flags that splitting raised."""

    planes: tuple[Plane, ...]
    key: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def split(planes: Sequence[Plane]) -> list[Group]:
    """Split planes with geometry into groups, each fit to be ordered along one normal."""
    groups: list[Group] = []
    for facing in _by_orientation(planes):
        sizes = _by(facing, lambda plane: (plane.rows, plane.columns))
        flags = ("mixed_size",) if len(sizes) > 1 else ()
        groups += [Group(planes=tuple(members), flags=flags) for members in sizes.values()]
    groups = _split_each(groups, "echo_time_ms", _echoes)
    groups = _split_each(groups, "temporal_position", _times)
    groups = _split_each(groups, "b_value", _b_values)
    groups = _split_each(groups, "image_type", _image_types)
    return _split_each(groups, "acquisition_number", _acquisitions)


def _split_each(groups: Iterable[Group], name: str, rule: Callable[[Sequence[Plane]], Parts]) -> list[Group]:
    """Apply a rule to every group; its keys become the field `name` of the stack's key."""
    return [
        replace(group, planes=tuple(members), key={**group.key, name: value})
        for group in groups
        for value, members in rule(group.planes)
    ]


def _by(planes: Iterable[Plane], value: Callable[[Plane], Hashable]) -> dict[Any, list[Plane]]:
    found: dict[Any, list[Plane]] = {}
    for plane in planes:
        found.setdefault(value(plane), []).append(plane)
    return found


def _by_orientation(planes: Iterable[Plane]) -> list[list[Plane]]:
    """Group planes by orientation, within a tolerance of the first of each group."""
    found: list[list[Plane]] = []
    for plane in planes:
        for facing in found:
            if same_orientation(facing[0].orientation or (), plane.orientation or ()):
                facing.append(plane)
                break
        else:
            found.append([plane])
    return found


def _nominal(values: Iterable[float | None], tolerance: Callable[[float], float]) -> dict[float | None, float | None]:
    """Map each measured value to the lowest of its cluster, where neighbours are closer than the tolerance."""
    nominal: dict[float | None, float | None] = {None: None}
    previous = lowest = None
    for value in sorted({value for value in values if value is not None}):
        if previous is None or value - previous > tolerance(value):
            lowest = value
        nominal[value] = lowest
        previous = value
    return nominal


def _echoes(planes: Sequence[Plane]) -> Parts:
    """Split by echo time, or by echo number (0018,0086) if there is no time."""
    if all(plane.echo_time_ms is None for plane in planes):
        return [(None, members) for members in _by(planes, lambda plane: plane.echo_number).values()]
    nominal = _nominal((plane.echo_time_ms for plane in planes), lambda _: ECHO_TOLERANCE_MS)
    return list(_by(planes, lambda plane: nominal[plane.echo_time_ms]).items())


def _times(planes: Sequence[Plane]) -> Parts:
    """Split by temporal position, unless it differs for every plane: then it counts slices, not time points."""
    found = _by(planes, lambda plane: plane.temporal_position)
    shattered = all(len(members) == 1 for members in found.values()) and not positions_repeat(planes)
    return [(None, list(planes))] if shattered or len(found) == 1 else list(found.items())


def _b_values(planes: Sequence[Plane]) -> Parts:
    """Split by b-value; without any weighted plane, the value is ignored."""
    if not any(plane.b_value and plane.b_value > B_TOLERANCE for plane in planes):
        return [(None, list(planes))]
    nominal = _nominal(
        (plane.b_value for plane in planes), lambda value: max(B_TOLERANCE, B_TOLERANCE_FRACTION * value)
    )
    return list(_by(planes, lambda plane: nominal[plane.b_value]).items())


def _image_types(planes: Sequence[Plane]) -> Parts:
    """If positions repeat, split magnitude from phase, real from imaginary, water from fat."""
    common = set.intersection(*(set(plane.image_type) for plane in planes))
    return _where_it_separates(
        planes, lambda plane: " ".join(word for word in plane.image_type if word not in common) or None
    )


def _acquisitions(planes: Sequence[Plane]) -> Parts:
    """If positions still repeat, split by acquisition."""
    return _where_it_separates(planes, lambda plane: plane.acquisition_number)


def _where_it_separates(planes: Sequence[Plane], value: Callable[[Plane], Hashable]) -> Parts:
    """Split only if positions repeat and the parts are complete: half of the parts cover half of the positions.

    Otherwise one repeated slice would split a head CT in which each slice is a separate acquisition.
    """
    if not positions_repeat(planes):
        return [(None, list(planes))]
    parts = _by(planes, value)
    covered = median(distinct_positions(part) for part in parts.values())
    whole = len(parts) == 1 or covered < distinct_positions(planes) / 2
    return [(None, list(planes))] if whole else list(parts.items())


def distinct_positions(planes: Sequence[Plane]) -> int:
    """Count distinct positions along the normal of the first plane, to within 0.01 mm."""
    normal = slice_normal(planes[0].orientation or ())
    ordered = sorted(position_along(normal, plane.origin_mm or ()) for plane in planes)
    steps = (after - before for before, after in pairwise(ordered))
    return 1 + sum(step > SAME_POSITION_MM for step in steps)


def positions_repeat(planes: Sequence[Plane]) -> bool:
    """Whether two planes have the same position."""
    return distinct_positions(planes) < len(planes)
