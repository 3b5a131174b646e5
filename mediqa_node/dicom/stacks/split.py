"""Split the planes of a series into groups that may form one stack."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from statistics import median
from typing import Any

from mediqa_node.dicom.stacks.geometry import same_orientation
from mediqa_node.dicom.stacks.passes import are_overlapping_runs, complement_each_other, passes
from mediqa_node.dicom.stacks.places import (
    SMALLEST_PART,
    at_each_position,
    at_shared_positions,
    distinct_positions,
    interleave,
    lie_apart,
    positions_repeat,
    run_along_plane,
)
from mediqa_node.dicom.stacks.planes import Parts, Plane

ECHO_TOLERANCE_MS = 0.05
ORIGIN_MM = 1.0
"""Two reconstructions of one scan differ by more in their origin within the plane."""
_DIMENSIONS = 6
"""So many indices of an enhanced object are tried."""
B_TOLERANCE = 1.0
B_TOLERANCE_FRACTION = 0.02

Separators = tuple[tuple[str, Callable[[Sequence[Plane]], Parts]], ...]
"""Rules, each with the label of its parts."""


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
    groups = _split_further(groups, (("frame of reference {}", _frames_of_reference),))
    groups = [replace(group, flags=_position_flags(group)) for group in groups]
    misplaced = [_is_misplaced(group) for group in groups]
    untrue = list(compress(groups, misplaced))
    groups = [group for group, is_misplaced in zip(groups, misplaced, strict=True) if not is_misplaced]
    groups = _split_each(groups, "echo_time_ms", _echoes)
    groups = _split_each(groups, "temporal_position", _times)
    groups = _split_each(groups, "b_value", _b_values)
    groups = _split_each(groups, "image_type", _image_types)
    groups = _split_further(groups, SEPARATORS)
    groups = _split_each(groups, "acquisition_number", _acquisitions)
    return untrue + _split_further(groups, LAST_SEPARATORS)


def _position_flags(group: Group) -> tuple[str, ...]:
    return (*group.flags, "orientation") if run_along_plane(group.planes) else group.flags


def _is_misplaced(group: Group) -> bool:
    """Whether slices were given one position or two, which nothing that counts them may tell apart as volumes."""
    places = at_each_position(group.planes)
    return len(places) < SMALLEST_PART and ("orientation" in group.flags or any(map(lie_apart, places)))


def _split_each(groups: Iterable[Group], name: str, rule: Callable[[Sequence[Plane]], Parts]) -> list[Group]:
    """Apply a rule to every group; its keys become the field `name` of the stack's key."""
    return [
        replace(group, planes=tuple(members), key={**group.key, name: value})
        for group in groups
        for value, members in rule(group.planes)
    ]


def _split_further(groups: list[Group], rules: Separators) -> list[Group]:
    """Apply rules one after another; what separated a group is its field `separated_by`."""
    for name, rule in rules:
        groups = [
            replace(group, planes=tuple(members), key={**group.key, "separated_by": _joined(group, name, found)})
            for group in groups
            for found, members in rule(group.planes)
        ]
    return groups


def _joined(group: Group, name: str, found: object) -> str | None:
    before = group.key.get("separated_by")
    if found is None:
        return before
    return ", ".join(filter(None, (before, name.format(found))))


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
    """Split by echo time, or by echo number (0018,0086) if there is no time.

    A time that is adjusted from slice to slice is counted at each position. If no position repeats, it may differ in
    every slice, and splits nothing.
    """
    if all(plane.echo_time_ms is None for plane in planes):
        return [(None, members) for _, members in _where_it_resolves(planes, lambda plane: plane.echo_number)]
    nominal = _nominal((plane.echo_time_ms for plane in planes), lambda _: ECHO_TOLERANCE_MS)
    parts = list(_by(planes, lambda plane: nominal[plane.echo_time_ms]).items())
    lowest: Parts = [(min(echo for echo in nominal.values() if echo is not None), list(planes))]
    if len(at_shared_positions(planes)) < len(planes) and _are_complete(planes, parts):
        return parts
    turns = _in_turn(planes, lambda plane: nominal[plane.echo_time_ms])
    if len(turns) > 1:
        return [(nominal[members[0].echo_time_ms], members) for _, members in turns]
    if not positions_repeat(planes):
        return parts if all(len(members) >= SMALLEST_PART for _, members in parts) else lowest
    parts = _where_it_resolves(planes, lambda plane: nominal[plane.echo_time_ms])
    return parts if len(parts) > 1 else lowest


def _frames_of_reference(planes: Sequence[Plane]) -> Parts:
    """Split by frame of reference, between which positions mean nothing (PS3.3 C.7.4.1), unless it counts images."""
    found = list(_by(planes, lambda plane: plane.frame_of_reference).values())
    if len(found) == 1 or any(len(members) < SMALLEST_PART for members in found):
        return [(None, list(planes))]
    return list(enumerate(found, start=1))


def _times(planes: Sequence[Plane]) -> Parts:
    """Split by temporal position where that resolves repeated positions.

    Where it counts images instead of time points, its order at each position tells the time points.
    """
    parts = _where_it_resolves(planes, lambda plane: plane.temporal_position)
    return parts if len(parts) > 1 else _in_turn(planes, lambda plane: plane.temporal_position)


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
    return _where_it_resolves(
        planes, lambda plane: " ".join(word for word in plane.image_type if word not in common) or None
    )


def _acquisitions(planes: Sequence[Plane]) -> Parts:
    """If positions still repeat or interleave, split by acquisition."""
    return _where_it_resolves(planes, lambda plane: plane.acquisition_number)


def _are_complete(planes: Sequence[Plane], parts: Parts) -> bool:
    """Whether every part has an image at every position."""
    row_of = {id(plane): row for row, here in enumerate(at_shared_positions(planes)) for plane in here}
    n_rows = len(set(row_of.values()))
    return all(len({row_of[id(plane)] for plane in members}) == n_rows for _, members in parts)


def _in_turn(planes: Sequence[Plane], value: Callable[[Plane], float | None], apart: float = 0.0) -> Parts:
    """Split by the order of a value at each position, for values that drift from slice to slice.

    Most positions must hold the same number of images. Where one is missing, the others go where their values are
    nearest. Where positions only lie close, the values of a turn must all be above those of the turn before.

    Args:
        apart: how much values at one position differ at least.
    """
    whole: Parts = [(None, list(planes))]
    known = {id(plane): found for plane in planes if (found := value(plane)) is not None}
    if len(known) < len(planes) or len(set(known.values())) == 1:
        return whole
    at_positions = at_shared_positions(planes)
    if len(at_positions) == len(planes):
        return whole
    rows = [sorted(here, key=lambda plane: known[id(plane)]) for here in at_positions]
    n_turns = max(map(len, rows))
    full = [row for row in rows if len(row) == n_turns]
    steps = [known[id(after)] - known[id(before)] for row in rows for before, after in pairwise(row)]
    if 2 * len(full) <= len(rows) or min(steps) <= apart:
        return whole
    centres = [median(known[id(row[turn])] for row in full) for turn in range(n_turns)]
    turns: list[list[Plane]] = [[] for _ in range(n_turns)]
    for row in rows:
        of_row = range(n_turns) if len(row) == n_turns else [_nearest(known[id(plane)], centres) for plane in row]
        if len(set(of_row)) < len(row):
            return whole
        for turn, plane in zip(of_row, row, strict=True):
            turns[turn].append(plane)
    if not positions_repeat(planes):
        ends = [(min(of_turn), max(of_turn)) for of_turn in ([known[id(plane)] for plane in turn] for turn in turns)]
        if any(later[0] <= earlier[1] for earlier, later in pairwise(ends)) or not interleave(planes, turns):
            return whole
    return list(enumerate(turns, start=1))


def _nearest(value: float, centres: Sequence[float]) -> int:
    return min(range(len(centres)), key=lambda turn: abs(centres[turn] - value))


def _where_it_resolves(planes: Sequence[Plane], value: Callable[[Plane], Hashable]) -> Parts:
    """Split only where planes are in each other's way and the parts are not.

    Where positions repeat, fewer must repeat within the parts, and half of the parts must cover half of the positions
    unless all are runs that overlap: one repeated slice must not split a head CT in which each slice is an acquisition
    of its own, nor one whose odd and even slices are. Where positions only interleave, the parts must be evenly spaced,
    and the whole is not.
    """
    parts = _by(planes, value)
    whole: Parts = [(None, list(planes))]
    if len(parts) == 1:
        return whole
    n_positions = distinct_positions(planes)
    if n_positions == len(planes):
        return list(parts.items()) if interleave(planes, list(parts.values())) else whole
    repeated = sum(len(part) - distinct_positions(part) for part in parts.values())
    covered = median(distinct_positions(part) for part in parts.values())
    if repeated >= len(planes) - n_positions or complement_each_other(planes, list(parts.values())):
        return whole
    resolved = covered >= n_positions / 2 or are_overlapping_runs(planes, list(parts.values()))
    return list(parts.items()) if resolved else whole


def _in_plane_mm(plane: Plane) -> tuple[float, float]:
    """Return the origin along rows and columns: two reconstructions of one scan may differ in it."""
    row, column = (plane.orientation or ())[:3], (plane.orientation or ())[3:]
    origin = plane.origin_mm or ()
    along = [sum(a * b for a, b in zip(axis, origin, strict=True)) for axis in (row, column)]
    return along[0], along[1]


def _origins(planes: Sequence[Plane]) -> Parts:
    """Split by origin within the plane; a tilted gantry shifts it from slice to slice, and it is counted at each."""
    if run_along_plane(planes):
        return [(None, list(planes))]
    origins = {id(plane): _in_plane_mm(plane) for plane in planes}
    nominal = [_nominal((origin[axis] for origin in origins.values()), lambda _: ORIGIN_MM) for axis in (0, 1)]

    def nominal_mm(plane: Plane) -> tuple[int, int]:
        along = [nominal[axis][origins[id(plane)][axis]] or 0.0 for axis in (0, 1)]
        return round(along[0]), round(along[1])

    parts = _where_it_resolves(planes, nominal_mm)
    if len(parts) > 1 and _are_complete(planes, parts):
        return parts
    by_row = _in_turn(planes, lambda plane: origins[id(plane)][0], apart=ORIGIN_MM)
    by_column = _in_turn(planes, lambda plane: origins[id(plane)][1], apart=ORIGIN_MM)
    return next((turns for turns in (by_row, by_column) if len(turns) > 1), parts)


def _where(value: Callable[[Plane], Hashable]) -> Callable[[Sequence[Plane]], Parts]:
    return lambda planes: _where_it_resolves(planes, value)


def _where_complete(value: Callable[[Plane], Hashable]) -> Callable[[Sequence[Plane]], Parts]:
    """Return a rule that splits by exact values if each occurs at every position."""

    def rule(planes: Sequence[Plane]) -> Parts:
        parts = list(_by(planes, value).items())
        if len(parts) == 1 or len(at_shared_positions(planes)) == len(planes) or not _are_complete(planes, parts):
            return [(None, list(planes))]
        return parts

    return rule


def _drifting(name: str, value: Callable[[Plane], float | None]) -> Separators:
    """Return rules for a time that a scanner may repeat exactly or adjust from slice to slice, strongest first."""
    exact = f"{name} {{:g}} ms"
    return (
        (exact, _where_complete(value)),
        (f"{name} {{}}", lambda planes: _in_turn(planes, value)),
        (exact, _where(value)),
    )


def _dimension(place: int) -> Callable[[Plane], float | None]:
    return lambda plane: plane.dimensions[place] if place < len(plane.dimensions) else None


SEPARATORS: Separators = (
    ("phase {:g} %", _where(lambda plane: plane.cardiac_phase_percent)),
    *_drifting("trigger", lambda plane: plane.trigger_time_ms),
    *_drifting("TI", lambda plane: plane.inversion_time_ms),
    ("offset {:g} s", _where(lambda plane: plane.time_offset_s)),
    ("{:g} kV", _where(lambda plane: plane.tube_voltage_kv)),
    ("kernel {}", _where(lambda plane: plane.kernel or None)),
    ("slices of {:g} mm", _where(lambda plane: plane.thickness_mm)),
    ("station {}", _where(lambda plane: plane.station or None)),
    ("stack {}", _where(lambda plane: plane.stack_id or None)),
    ("origin {}", _origins),
)
"""What separates planes at the same or interleaved positions, strongest evidence first; listed in docs/physics.md."""

LAST_SEPARATORS: Separators = (
    ("pass {}", passes),
    ("flip angle {:g}", _where(lambda plane: plane.flip_angle_deg)),
    ("TR {:g} ms", _where(lambda plane: plane.repetition_time_ms)),
    *(("index {:g}", _where(_dimension(place))) for place in range(_DIMENSIONS)),
)
"""What separates planes that even their acquisition numbers do not; listed as well."""
