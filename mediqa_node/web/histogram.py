"""A histogram as numbers for a drawing: bars, and ticks below them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

BINS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Bars of equal width over the range of some values.

    Attributes:
        bars: height of each bar over the highest one, 0..1, with the number in it and its lower end.
        ticks: place, 0..1, and text.
        logarithmic: bars have the same width on a logarithmic axis.
    """

    title: str
    n: int
    median: float
    unit: str
    bars: tuple[tuple[float, int, float], ...]
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool


def histogram(values: Sequence[float], *, unit: str, title: str, bins: int = BINS) -> Histogram:
    """Return the histogram of ordered values, at least one; logarithmic if they span more than a factor of ten."""
    low, high = values[0], values[-1]
    logarithmic = low > 0 and high / low > 10
    ends = (math.log10(low), math.log10(high)) if logarithmic else (low, high)
    width = (ends[1] - ends[0]) / bins or 1.0
    counts = [0] * bins
    for value in values:
        at = math.log10(value) if logarithmic else value
        counts[min(bins - 1, int((at - ends[0]) / width))] += 1
    most = max(counts)

    def original(at: float) -> float:
        return 10**at if logarithmic else at

    bars = tuple((n / most, n, original(ends[0] + i * width)) for i, n in enumerate(counts))
    ticks = tuple((share, f"{original(ends[0] + share * bins * width):.3g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0))
    return Histogram(
        title=title,
        n=len(values),
        median=values[len(values) // 2],
        unit=unit,
        bars=bars,
        ticks=ticks,
        logarithmic=logarithmic,
    )
