"""Measure the photographs of a fundus series.

Each frame is a photograph of its own; the value of a series is the median over at most 16 of them.
"""

from collections import defaultdict
from collections.abc import Collection

import numpy as np

from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.domain.measures import Limit, Measure
from mediqa_node.domain.quantities import (
    OP_CLIPPED,
    OP_FIELD_COVERAGE,
    OP_FIELD_DIAMETER,
    OP_FOCUS,
    OP_ILLUMINATION,
    OP_QUANTITIES,
    OP_VESSEL_CONTRAST,
    Quantity,
)
from mediqa_node.image.measure.op.focus import MOST_NOISE, focus, relative_noise
from mediqa_node.image.measure.op.light import clipped, coverage, unevenness
from mediqa_node.image.measure.op.photograph import prepare
from mediqa_node.image.measure.op.vessels import vessel_contrast
from mediqa_node.image.measure.over_slices import over_slices
from mediqa_node.image.measure.stack_source import StackSource, evenly

PHOTOGRAPHS = 16
SMALL_DIAMETER_PX = 300
"""Fields with fewer pixels do not resolve vessels."""
_WHOLE = 0.995

Found = tuple[float | None, Limit | None]
"""A value, and why it is limited or missing."""


def measure_op(source: StackSource, wanted: Collection[str]) -> tuple[Measure, ...]:
    """Return a measure for each wanted quantity of fundus photographs.

    Args:
        source: photographs, RGB or gray, 0..255.
        wanted: names; those of other modalities are ignored.
    """
    quantities = [one for one in OP_QUANTITIES if one.name in wanted]
    if not quantities:
        return ()
    found: dict[str, list[Found]] = defaultdict(list)
    for index in evenly(source.count, PHOTOGRAPHS):
        try:
            image = source.image_at(index)
        except UndecodablePixels:
            continue
        for name, one in measure_photograph(image, [quantity.name for quantity in quantities]).items():
            found[name].append(one)
    return tuple(_of_series(quantity, found[quantity.name]) for quantity in quantities)


def measure_photograph(image: np.ndarray, wanted: Collection[str]) -> dict[str, Found]:
    """Return the values of one photograph by name, each with its limit.

    Args:
        image: (rows, columns, 3) RGB or (rows, columns) gray, 0..255.
    """
    photograph = prepare(image)
    if photograph is None:
        return dict.fromkeys(wanted, (None, Limit.NO_FIELD))
    gray = None if photograph.coloured else Limit.NO_COLOUR
    diameter_px = 2 * photograph.field.radius
    found: dict[str, Found] = {}
    if OP_FIELD_DIAMETER.name in wanted:
        whole = photograph.field.inside_image >= _WHOLE
        found[OP_FIELD_DIAMETER.name] = (diameter_px, None if whole else Limit.FIELD_CUT)
    if OP_FIELD_COVERAGE.name in wanted:
        found[OP_FIELD_COVERAGE.name] = (coverage(photograph), None)
    if OP_ILLUMINATION.name in wanted:
        found[OP_ILLUMINATION.name] = (unevenness(photograph), gray)
    if OP_CLIPPED.name in wanted:
        found[OP_CLIPPED.name] = (clipped(photograph), gray)
    small = diameter_px < SMALL_DIAMETER_PX
    if OP_FOCUS.name in wanted:
        limit = Limit.NOISY if relative_noise(photograph) > MOST_NOISE else gray
        found[OP_FOCUS.name] = (None, Limit.SMALL_IMAGE) if small else (focus(photograph), limit)
    if OP_VESSEL_CONTRAST.name in wanted:
        value = None if small else vessel_contrast(photograph)
        missing = Limit.SMALL_IMAGE if small else Limit.NO_VESSELS
        found[OP_VESSEL_CONTRAST.name] = (value, gray if value is not None else missing)
    return found


def _of_series(quantity: Quantity, found: list[Found]) -> Measure:
    if not found:
        return quantity.not_measurable(Limit.UNDECODABLE)
    values = [value for value, _ in found if value is not None]
    limits = [limit for value, limit in found if limit is not None and (value is not None or not values)]
    if not values:
        return quantity.not_measurable(limits[0])
    return over_slices(quantity, values, limit=limits[0] if limits else None)
