"""Tell passes over the same or overlapping positions apart."""

import re
from collections.abc import Sequence
from itertools import groupby, pairwise

from mediqa_node.dicom.stacks.geometry import spacing_flags
from mediqa_node.dicom.stacks.places import (
    SMALLEST_PART,
    at_each_position,
    at_shared_positions,
    interleave,
    positions_mm,
    positions_repeat,
)
from mediqa_node.dicom.stacks.planes import Parts, Plane

_DATE_TIME = re.compile(r"(?:(\d{4})(\d\d)(\d\d))?(\d\d)(\d\d)(\d\d(?:\.\d+)?)")
_NEARLY_ALL = 0.75
"""A pass has images at so many of the positions that it covers."""
_SHORTEST_RUN = 7
"""Fewer images may be those of one rotation, of which a volume has many."""


def passes(planes: Sequence[Plane]) -> Parts:
    """Split into passes that were acquired one after the other.

    A pass may lack a few images, and the first or the last may have been aborted. An aborted pass covers no position
    that the complete ones lack. A few slices that were repeated are no pass.
    """
    whole: Parts = [(None, list(planes))]
    if len({plane.seniority[0] for plane in planes}) == 1:
        return whole
    rows = at_shared_positions(planes)
    if len(rows) < SMALLEST_PART or len(rows) == len(planes):
        return whole
    runs = _restarts(planes, rows)
    full = [covered for covered, _ in runs if len(covered) >= _NEARLY_ALL * len(rows)]
    aborted = [covered for covered, _ in runs if covered not in full]
    smallest = 1 if len(full) > 1 else SMALLEST_PART
    if len(runs) == 1 or len(aborted) > len(full):
        return whole
    if any(len(covered) < smallest or not covered <= set().union(*full) for covered in aborted):
        return whole
    parts = [members for _, members in runs]
    return list(enumerate(parts, start=1)) if positions_repeat(planes) or interleave(planes, parts) else whole


def _restarts(planes: Sequence[Plane], rows: Sequence[Sequence[Plane]]) -> list[tuple[set[int], list[Plane]]]:
    """Cut planes in the order of time, so that no position comes twice; return positions and planes of each run.

    Never between images of one time, and where the pause is longest, if images are missing and there is a choice.
    """
    row_of = {id(plane): row for row, here in enumerate(rows) for plane in here}
    in_time = sorted(planes, key=lambda plane: plane.seniority)
    moments = [list(found) for _, found in groupby(in_time, key=lambda plane: plane.seniority[0])]
    covered = [{row_of[id(plane)] for plane in moment} for moment in moments]
    times = [seconds(moment[0].seniority[0]) for moment in moments]
    cuts = [0]
    for earliest in _earliest_cuts(covered):
        choice = range(max(earliest, cuts[-1] + 1), _until_repeated(covered, cuts[-1]) + 1)
        cuts.append(max(choice, key=lambda cut: times[cut] - times[cut - 1]))
    runs = [range(start, end) for start, end in pairwise((*cuts, len(moments)))]
    return [(set().union(*(covered[k] for k in run)), [plane for k in run for plane in moments[k]]) for run in runs]


def _earliest_cuts(covered: Sequence[set[int]]) -> list[int]:
    """Return how early each run but the first may begin: the last one with all that follows, and so on."""
    backwards = covered[::-1]
    cuts: list[int] = []
    start = 0
    while (start := _until_repeated(backwards, start)) < len(covered):
        cuts.append(len(covered) - start)
    return cuts[::-1]


def _until_repeated(covered: Sequence[set[int]], start: int) -> int:
    """Return where a position would come again in a run that begins at `start`."""
    seen: set[int] = set()
    for index in range(start, len(covered)):
        if covered[index] & seen:
            return index
        seen |= covered[index]
    return len(covered)


def seconds(time: str) -> float:
    """Return a date and time, or a time, in seconds from an arbitrary day; 0.0 if it is neither."""
    found = _DATE_TIME.match(time.replace(":", ""))
    if found is None:
        return 0.0
    year, month, day, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((((year * 12 + month) * 31 + day) * 24 + hours) * 60 + minutes) * 60 + seconds


def are_overlapping_runs(planes: Sequence[Plane], parts: Sequence[Sequence[Plane]]) -> bool:
    """Whether parts are long runs of neighbouring positions, of which each begins before another ends."""
    runs = sorted(_rows_of(planes, parts))
    if not all(len(run) >= _SHORTEST_RUN and _is_dense(run) for run in runs):
        return False
    return all(later[0] <= earlier[-1] for earlier, later in pairwise(runs))


def complement_each_other(planes: Sequence[Plane], parts: Sequence[Sequence[Plane]]) -> bool:
    """Whether evenly spaced planes are of one volume whose odd and even slices, say, were acquired in turn."""
    first_of_each = [here[0] for here in at_each_position(planes)]
    return not spacing_flags(positions_mm(first_of_each)) and not any(map(_is_dense, _rows_of(planes, parts)))


def _rows_of(planes: Sequence[Plane], parts: Sequence[Sequence[Plane]]) -> list[list[int]]:
    """Return for each part its positions, ascending, counted among those of all planes."""
    row_of = {id(plane): row for row, here in enumerate(at_each_position(planes)) for plane in here}
    return [sorted({row_of[id(plane)] for plane in part}) for part in parts]


def _is_dense(run: Sequence[int]) -> bool:
    return len(run) >= _NEARLY_ALL * (run[-1] - run[0] + 1)
