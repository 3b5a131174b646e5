"""Measures of any stack: missing and repeated slices, spacing over thickness, text that was drawn into the pixels.

Missing slices: a step between neighbours of n median steps hides n - 1 slices. Steps that differ by more than a tenth
from every multiple of the median are of no stack with one step: they limit the measure, and where they are more than a
quarter, it is not measurable.

Repeated slices: every fourth row and column of all slices is compared with the slice before. One pixel in 16 is enough:
two exposures of the same place never have equal noise. Constant slices hold nothing that could be repeated, and are not
counted.

What breaks them: slices that are missing at either end leave no gap, and where most slices are missing the median step
is that of the gaps; a copy that was compressed with loss differs.
"""

from collections.abc import Collection
from functools import partial

import numpy as np

from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.domain.measures import Limit, Measure
from mediqa_node.domain.quantities import (
    BURNED_IN_TEXT,
    MISSING_SLICES,
    REPEATED_SLICES,
    SPACING_TO_THICKNESS,
    STACK_QUANTITIES,
)
from mediqa_node.domain.recall import recalled
from mediqa_node.image.measure.burned_in import holds_text
from mediqa_node.image.measure.stack_source import StackSource, evenly

FULL_SLICES = 16
_LEAST_SLICES = 3
_SAME_STEP_MM = 1e-3
_UNEVEN = 0.1
_MOST_UNEVEN = 0.25


def measure_stack(source: StackSource, wanted: Collection[str]) -> tuple[Measure, ...]:
    """Return a measure for each wanted quantity of stacks of any modality.

    Args:
        source: the stack.
        wanted: names; those that belong to one modality are ignored.
    """
    methods = {
        MISSING_SLICES.name: missing_slices,
        REPEATED_SLICES.name: repeated_slices,
        SPACING_TO_THICKNESS.name: spacing_to_thickness,
        BURNED_IN_TEXT.name: burned_in_text,
    }
    return tuple(methods[one.name](source) for one in STACK_QUANTITIES if one.name in wanted)


def missing_slices(source: StackSource) -> Measure:
    """Return how many slices are missing inside the stack."""
    steps = _steps_mm(source)
    if isinstance(steps, Limit):
        return MISSING_SLICES.not_measurable(steps)
    multiples = steps / float(np.median(steps))
    whole = np.maximum(np.rint(multiples), 1.0)
    uneven = float((np.abs(multiples - whole) > _UNEVEN * whole).mean())
    if uneven > _MOST_UNEVEN:
        return MISSING_SLICES.not_measurable(Limit.UNEVEN_STEPS)
    limit = Limit.UNEVEN_STEPS if uneven > 0 else None
    return MISSING_SLICES.measured(float((whole - 1).sum()), n=source.count, limit=limit)


def spacing_to_thickness(source: StackSource) -> Measure:
    """Return the median step over the slice thickness."""
    steps = _steps_mm(source, least=2)
    if isinstance(steps, Limit):
        return SPACING_TO_THICKNESS.not_measurable(steps)
    if source.thickness_mm is None or not source.thickness_mm > 0:
        return SPACING_TO_THICKNESS.not_measurable(Limit.NO_THICKNESS)
    return SPACING_TO_THICKNESS.measured(float(np.median(steps)) / source.thickness_mm, n=source.count)


def repeated_slices(source: StackSource) -> Measure:
    """Return how many slices have the pixels of the slice before."""
    if source.count < 2:
        return REPEATED_SLICES.not_measurable(Limit.FEW_SLICES)
    repeated = decoded = 0
    before: np.ndarray | None = None
    compared = source.coarse_indices(evenly(source.count, FULL_SLICES))
    for index in compared:
        try:
            pixels = source.coarse_at(index)
        except UndecodablePixels:
            before = None
            continue
        decoded += 1
        if before is not None and pixels.size and np.array_equal(pixels, before) and np.ptp(pixels) > 0:
            repeated += 1
        before = pixels
    if decoded == 0:
        return REPEATED_SLICES.not_measurable(Limit.UNDECODABLE)
    limit, detail = None, ""
    if len(compared) < source.count:
        limit, detail = Limit.FEW_SLICES, f"{len(compared)} of {source.count} were compared"
    return REPEATED_SLICES.measured(float(repeated), n=decoded, limit=limit, detail=detail)


def burned_in_text(source: StackSource) -> Measure:
    """Return on how many of at most 16 slices characters are suspected."""
    decoded = suspected = 0
    for index in evenly(source.count, FULL_SLICES):
        try:
            found = recalled(source.recall, ("text", source.name_at(index)), partial(_holds_text, source, index))
        except UndecodablePixels:
            continue
        decoded += 1
        suspected += found
    if decoded == 0:
        return BURNED_IN_TEXT.not_measurable(Limit.UNDECODABLE)
    return BURNED_IN_TEXT.measured(float(suspected), n=decoded)


def _holds_text(source: StackSource, index: int) -> bool:
    return holds_text(source.image_at(index))


def _steps_mm(source: StackSource, *, least: int = _LEAST_SLICES) -> np.ndarray | Limit:
    """Return the steps between distinct positions, or why there are none."""
    if source.count < least:
        return Limit.FEW_SLICES
    if len(source.positions_mm) != source.count:
        return Limit.NO_POSITIONS
    steps = np.diff(np.sort(np.asarray(source.positions_mm, dtype=np.float64)))
    steps = steps[steps > _SAME_STEP_MM]
    return steps if len(steps) else Limit.NO_POSITIONS
