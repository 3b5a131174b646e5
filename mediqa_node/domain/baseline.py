"""What is usual at a site, and what stands out from it.

A baseline holds the median and the spread of each measure over the exams of a period, apart for each scanner, protocol,
stack, reconstruction and size class. It is compared with nothing before the site has approved it. What stands out is a
measure in the adverse tail of its baseline; it says nothing about the cause.

The tail is that of one further value from the same population: Student's t with n - 1 degrees of freedom, from mean and
standard deviation, of logarithms where all values are positive, since noise and ratios are skewed. Where nearly all
values are equal (counts of slices, which are 0), a value beyond all n of them has the probability 1 / (n + 1).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.measures import Limit, Measure, MeasuredStack
from mediqa_node.domain.quantities import QUANTITIES, SHOWN_UNITS

FEWEST_EXAMS = 30
SIGNIFICANT = 0.01
AT_MOST = 3
HEADING = "What stands out in the measurements"
_MAD_TO_SD = 1.4826
COMPARABLE = frozenset({
    None, Limit.FILTERED, Limit.NORMALISED, Limit.FINE_ANATOMY, Limit.MANY_COILS, Limit.STRAY_TISSUE,
})  # fmt: skip
"""Limits that are those of a protocol, not of a patient: values of one such limit are compared with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Series that may be compared with each other; fields as in `MeasuredStack`, the thickness as text."""

    modality: str
    scanner: str
    protocol: str
    stack: str
    kernel: str
    recon_class: str
    thickness: str
    size_class: str

    @classmethod
    def of(cls, measured: MeasuredStack) -> "Group | None":
        """Return the group that a series belongs to; None for a CT of unknown size, which is compared with nothing."""
        if measured.modality == "CT" and not measured.size_class:
            return None
        same = {name: getattr(measured, name) for name in cls.__dataclass_fields__ if name != "thickness"}
        return cls(**same, thickness="" if measured.thickness_mm is None else f"{measured.thickness_mm:.1f} mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The usual values of one measure in one group.

    Attributes:
        method, method_version, limit: values of another method, version or limit are never compared with these.
        n: exams; of several series of one exam in the group the median counts.
        spread: robust standard deviation over exams, 1.4826 x the median absolute deviation.
        mean, sd: of the values, or of their logarithms where `logarithmic`; they decide what stands out.
        low, high: the smallest and the largest value.
        baseline: its number; 0 before it is kept.
    """

    group: Group
    name: str
    method: str
    method_version: int
    limit: str
    n: int
    median: float
    spread: float
    mean: float
    sd: float
    logarithmic: bool
    low: float
    high: float
    baseline: int = 0


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


_Key = tuple[str, str, int, str]


def _key(measure: Measure) -> _Key:
    return measure.name, measure.method.name, measure.method.version, measure.limit or ""


def usual_values(measured: Iterable[MeasuredStack], *, fewest: int = FEWEST_EXAMS) -> tuple[Usual, ...]:
    """Return the usual values of each measure in each group with enough exams, in a fixed order."""
    values: dict[tuple[Group, _Key], dict[str, list[float]]] = {}
    for one in measured:
        if (group := Group.of(one)) is None:
            continue
        for measure in one.measures:
            if measure.value is not None and measure.limit in COMPARABLE:
                exams = values.setdefault((group, _key(measure)), {})
                exams.setdefault(one.study_instance_uid, []).append(measure.value)
    return tuple(
        _usual(group, key, [float(np.median(series)) for series in exams.values()])
        for (group, key), exams in sorted(values.items(), key=lambda item: repr(item[0]))
        if len(exams) >= fewest
    )


def _usual(group: Group, key: _Key, values: list[float]) -> Usual:
    name, method, version, limit = key
    median = float(np.median(values))
    logarithmic = min(values) > 0
    scaled = np.log(values) if logarithmic else np.asarray(values)
    return Usual(
        group=group,
        name=name,
        method=method,
        method_version=version,
        limit=limit,
        n=len(values),
        median=median,
        spread=_MAD_TO_SD * float(np.median(np.abs(np.subtract(values, median)))),
        mean=float(scaled.mean()),
        sd=float(scaled.std(ddof=1)),
        logarithmic=logarithmic,
        low=min(values),
        high=max(values),
    )


def usual_of(measured: MeasuredStack, usual: Iterable[Usual]) -> dict[str, Usual]:
    """Return by name the usual values that the measures of a series may be compared with."""
    group = Group.of(measured)
    found = {(one.name, one.method, one.method_version, one.limit): one for one in usual if one.group == group}
    return {one.name: found[_key(one)] for one in measured.measures if one.value is not None and _key(one) in found}


def what_stands_out(measures: Iterable[Measure], usual: Mapping[str, Usual]) -> tuple[StandsOut, ...]:
    """Return at most three measures in the adverse tail of their baseline, the least likely first.

    p < 0.01 after Holm's correction (1979) for the number of measures that were compared; a measure of which neither
    tail is adverse is not.
    """
    compared_ones = [
        (_tail(one.value, usual[one.name], QUANTITIES[one.name].adverse), one)
        for one in measures
        if one.name in usual and one.value is not None and QUANTITIES[one.name].adverse
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
    """Return a value next to its usual one: `21.0 HU; usual here 12.0 +- 2.0 for Dw 280-320 mm (84 exams)`; ASCII."""
    quantity = QUANTITIES[measure.name]
    unit = SHOWN_UNITS.get(quantity.unit, quantity.unit)
    size = f" for {usual.group.size_class}" if usual.group.size_class else ""
    shown = [f"{value:.{quantity.places}f}" for value in (measure.value or 0.0, usual.median, usual.spread)]
    source = f"{usual.n} exams, baseline {usual.baseline}" if usual.baseline else f"{usual.n} exams"
    return f"{f'{shown[0]} {unit}'.rstrip()}; usual here {shown[1]} +- {shown[2]}{size} ({source})"


def _tail(value: float, usual: Usual, adverse: str) -> float:
    """Return the probability of a further value at least as adverse; 1 for a value on the other side of the median.

    The normal deviate of Student's t is that of Wallace 1959 (doi 10.1214/aoms/1177706094), within 0.02 for n >= 30.
    """
    sign = 1.0 if adverse == "high" else -1.0
    if sign * (value - usual.median) <= 0:
        return 1.0
    if usual.spread == 0 or usual.sd == 0 or (usual.logarithmic and value <= 0):
        beyond = value > usual.high if adverse == "high" else value < usual.low
        return 1 / (usual.n + 1) if beyond else 1.0
    scaled = math.log(value) if usual.logarithmic else value
    t = sign * (scaled - usual.mean) / (usual.sd * math.sqrt(1 + 1 / usual.n))
    freedom = usual.n - 1
    deviate = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return 0.5 * math.erfc(math.copysign(deviate, t) / math.sqrt(2))
