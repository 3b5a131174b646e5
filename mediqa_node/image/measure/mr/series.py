"""Measure a stack of MR images: signal to noise, ghosts, the acquired part of k-space and nonuniformity.

At most 16 slices are decoded, spread evenly over the stack; each is measured alone, and the median stands for the
stack. The acquired part of k-space is that of all of them together.

Motion between slices is not measured: without any, neighbouring slices of real stacks seem displaced by up to two
pixels since anatomy changes, and the slices of a 3-D acquisition share one k-space, so that motion does not part them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.domain.measure_facts import MrFacts
from mediqa_node.domain.measures import Limit, Measure
from mediqa_node.domain.quantities import (
    MR_GHOST,
    MR_NONUNIFORMITY,
    MR_QUANTITIES,
    MR_SNR,
    MR_SUPPORT_COLUMNS,
    MR_SUPPORT_ROWS,
    Quantity,
)
from mediqa_node.image.measure.mr.ghosts import ghosts
from mediqa_node.image.measure.mr.nonuniformity import nonuniformity
from mediqa_node.image.measure.mr.regions import Regions, regions
from mediqa_node.image.measure.mr.snr import snr
from mediqa_node.image.measure.mr.support import Edge, Support, spectrum, support
from mediqa_node.image.measure.over_slices import over_slices
from mediqa_node.image.measure.stack_source import StackSource, evenly

SLICES = 16
_SMALLEST_PX = 32
_OF_LARGEST = 0.2


@dataclass(frozen=True, slots=True)
class _Slice:
    image: np.ndarray
    regions: Regions


def measure_mr(source: StackSource, facts: MrFacts, wanted: Collection[str]) -> tuple[Measure, ...]:
    """Return the measures of an MR stack, one for each name of `MR_QUANTITIES` that is wanted."""
    quantities = [one for one in MR_QUANTITIES if one.name in wanted]
    if not quantities:
        return ()
    images, decoded = _images(source)
    if not facts.magnitude:
        return _none(quantities, Limit.UNSUITABLE, "phase, real or imaginary image")
    if not decoded:
        return _none(quantities, Limit.UNDECODABLE)
    if not images:
        return _none(quantities, Limit.UNSUITABLE, "constant, or not a grayscale image of finite numbers")
    if min(images[0].shape) < _SMALLEST_PX:
        return _none(quantities, Limit.SMALL_IMAGE)
    supports = _supports(images, facts)
    slices = _with_body(images)
    return tuple(_measure(quantity, slices, supports, len(images), facts) for quantity in quantities)


def _measure(
    quantity: Quantity, slices: Sequence[_Slice], supports: tuple[Support, Support], images: int, facts: MrFacts
) -> Measure:
    if quantity in (MR_SUPPORT_ROWS, MR_SUPPORT_COLUMNS):
        return _support(quantity, supports[0 if quantity is MR_SUPPORT_ROWS else 1], images)
    if not slices:
        return quantity.not_measurable(Limit.NO_BODY)
    if quantity is MR_SNR:
        return snr([one.image for one in slices], [one.regions for one in slices], supports, facts)
    if quantity is MR_GHOST:
        return _ghosts(slices, facts)
    if quantity is MR_NONUNIFORMITY:
        fields = [found for one in slices if (found := nonuniformity(one.image, one.regions.body)) is not None]
        return over_slices(quantity, fields) if fields else quantity.not_measurable(Limit.SMALL_IMAGE)
    raise ValueError(f"{quantity.name} has no method")


def _with_body(images: Sequence[np.ndarray]) -> list[_Slice]:
    """Return the slices with a body of at least a fifth of the largest: not those at its ends."""
    slices = [_Slice(image, found) for image in images if (found := regions(image)) is not None]
    sizes = [int(one.regions.body.sum()) for one in slices]
    return [one for one, size in zip(slices, sizes, strict=True) if size >= _OF_LARGEST * max(sizes)]


def _none(quantities: Sequence[Quantity], limit: Limit, detail: str = "") -> tuple[Measure, ...]:
    return tuple(quantity.not_measurable(limit, detail) for quantity in quantities)


def _images(source: StackSource) -> tuple[list[np.ndarray], int]:
    """Return the slices to measure, each over its largest value, and how many could be decoded."""
    images: list[np.ndarray] = []
    decoded = 0
    for index in evenly(source.count, SLICES):
        try:
            image = source.image_at(index)
        except UndecodablePixels:
            continue
        decoded += 1
        if image.ndim != 2 or (images and image.shape != images[0].shape) or not np.isfinite(image).all():
            continue
        largest, lowest = float(image.max()), float(image.min())
        if largest > lowest and largest > 0:
            images.append((image / largest).astype(np.float32))
    return images, decoded


def _supports(images: Sequence[np.ndarray], facts: MrFacts) -> tuple[Support, Support]:
    folded = spectrum(images)
    rows, columns = images[0].shape
    acquired = facts.acquired_matrix or (None, None)
    return support(folded, 0, rows, acquired[0]), support(folded, 1, columns, acquired[1])


def _support(quantity: Quantity, found: Support, images: int) -> Measure:
    if found.edge is Edge.UNKNOWN:
        return quantity.not_measurable(Limit.UNKNOWN_SUPPORT, found.compared)
    limit = Limit.FILTERED if found.edge is Edge.FADED else None
    return quantity.measured(found.share, n=images, limit=limit, detail=found.compared)


def _ghosts(slices: Sequence[_Slice], facts: MrFacts) -> Measure:
    if facts.phase_axis is None:
        return MR_GHOST.not_measurable(Limit.NO_PHASE_DIRECTION)
    found = [ghosts(one.image, one.regions, facts.phase_axis) for one in slices]
    ratios = [one.ratio for one in found if not isinstance(one, Limit)]
    if not ratios:
        limits = [one for one in found if isinstance(one, Limit)]
        return MR_GHOST.not_measurable(max(set(limits), key=limits.count))
    if facts.normalised:
        return over_slices(MR_GHOST, ratios, limit=Limit.NORMALISED)
    if 2 * sum(one.bright for one in found if not isinstance(one, Limit)) > len(ratios):
        return over_slices(MR_GHOST, ratios, limit=Limit.STRAY_TISSUE)
    return over_slices(MR_GHOST, ratios)
