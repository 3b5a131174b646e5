"""What is usual at a site, and what stands out from it.

A baseline holds the median and the spread of each measure over the series of a period, apart for each scanner,
protocol, stack and size class. It is compared with nothing before the site has approved it. What stands out is a
measure in the adverse tail of its baseline; it says nothing about the cause.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.measures import Measure, MeasuredStack, Validity
from mediqa_node.domain.quantities import QUANTITIES, SHOWN_UNITS

FEWEST_SERIES = 30
SIGNIFICANT = 0.01
AT_MOST = 3
HEADING = "What stands out in the measurements"
_MAD_TO_SD = 1.4826


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Series that may be compared with each other; fields as in `MeasuredStack`."""

    modality: str
    scanner: str
    protocol: str
    stack: str
    size_class: str

    @classmethod
    def of(cls, measured: MeasuredStack) -> "Group":
        """Return the group that a series belongs to."""
        return cls(**{name: getattr(measured, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The usual values of one measure in one group.

    Attributes:
        method, method_version: values of another method or version are never compared with these.
        n: series.
        spread: robust standard deviation over series, 1.4826 x the median absolute deviation.
    """

    group: Group
    name: str
    method: str
    method_version: int
    n: int
    median: float
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StandsOut:
    """A measure in the adverse tail of its baseline.

    Attributes:
        p: probability of a value at least so adverse in the baseline, times the comparisons that were made (Holm).
    """

    measure: Measure
    usual: Usual
    p: float

    def in_words(self) -> str:
        """Return the measure next to its usual value; ASCII."""
        return f"{QUANTITIES[self.measure.name].title} {compared(self.measure, self.usual)}"


def usual_values(measured: Iterable[MeasuredStack], *, fewest: int = FEWEST_SERIES) -> tuple[Usual, ...]:
    """Return the usual values of each measure in each group with enough valid values, in a fixed order."""
    values: dict[tuple[Group, str, str, int], list[float]] = {}
    for one in measured:
        for measure in one.measures:
            if measure.validity is Validity.VALID and measure.value is not None:
                key = (Group.of(one), measure.name, measure.method.name, measure.method.version)
                values.setdefault(key, []).append(measure.value)
    return tuple(
        _usual(*key, found)
        for key, found in sorted(values.items(), key=lambda item: repr(item[0]))
        if len(found) >= fewest
    )


def _usual(group: Group, name: str, method: str, version: int, values: list[float]) -> Usual:
    median = float(np.median(values))
    spread = _MAD_TO_SD * float(np.median(np.abs(np.subtract(values, median))))
    return Usual(
        group=group, name=name, method=method, method_version=version, n=len(values), median=median, spread=spread
    )


def usual_of(measured: MeasuredStack, usual: Iterable[Usual]) -> dict[str, Usual]:
    """Return by name the usual values that the measures of a series may be compared with."""
    group = Group.of(measured)
    found = {(one.name, one.method, one.method_version): one for one in usual if one.group == group}
    keys = {one.name: (one.name, one.method.name, one.method.version) for one in measured.measures}
    return {name: found[key] for name, key in keys.items() if key in found}


def what_stands_out(measures: Iterable[Measure], usual: Mapping[str, Usual]) -> tuple[StandsOut, ...]:
    """Return at most three measures in the adverse tail of their baseline, the least likely first.

    p < 0.01 after Holm's correction (1979) for the number of measures that were compared. A measure that is limited, or
    of which neither tail is adverse, is not compared.
    """
    compared_ones = [
        (_tail(one.value, usual[one.name], QUANTITIES[one.name].adverse), one)
        for one in measures
        if one.name in usual
        and one.value is not None
        and one.validity is Validity.VALID
        and QUANTITIES[one.name].adverse
        and usual[one.name].spread > 0
    ]
    compared_ones.sort(key=lambda pair: pair[0])
    found: list[StandsOut] = []
    for rank, (p, one) in enumerate(compared_ones[:AT_MOST]):
        corrected = min(1.0, p * (len(compared_ones) - rank))
        if corrected >= SIGNIFICANT:
            break
        found.append(StandsOut(measure=one, usual=usual[one.name], p=corrected))
    return tuple(found)


def compared(measure: Measure, usual: Usual) -> str:
    """Return a value next to its usual one, such as `21.0 HU; usual here 12.0 +- 2.0`; ASCII."""
    quantity = QUANTITIES[measure.name]
    unit = SHOWN_UNITS.get(quantity.unit, quantity.unit)
    size = f" for {usual.group.size_class}" if usual.group.size_class else ""
    shown = [f"{value:.{quantity.places}f}" for value in (measure.value or 0.0, usual.median, usual.spread)]
    return f"{f'{shown[0]} {unit}'.rstrip()}; usual here {shown[1]} +- {shown[2]}{size}"


def _tail(value: float, usual: Usual, adverse: str) -> float:
    """Return the probability of a further value at least as adverse, by Student's t with n - 1 degrees of freedom.

    The normal deviate of t is that of Wallace 1959 (doi 10.1214/aoms/1177706094), within 0.02 for n >= 30.
    """
    sign = 1.0 if adverse == "high" else -1.0
    t = sign * (value - usual.median) / (usual.spread * math.sqrt(1 + 1 / usual.n))
    freedom = usual.n - 1
    deviate = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return 0.5 * math.erfc(math.copysign(deviate, t) / math.sqrt(2))
