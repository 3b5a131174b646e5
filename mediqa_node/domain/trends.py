"""Trends: which quantities are charted, what a chart compares with what, and what is known to have changed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from enum import StrEnum

from mediqa_node.domain.baseline import COMPARABLE
from mediqa_node.domain.quantities import QUANTITIES, SHOWN_UNITS

_DAY_S = 86_400.0
RECENT_S = 7 * _DAY_S
"""A chart whose rule was broken within this time is on the first page."""
_SIZES = ("ct.dw", "ct.lateral", "ct.ap")
"""Measures of size, which are not compared within a class of size."""
_SHA256 = 64
_COMPARABLE = frozenset(limit.value for limit in COMPARABLE if limit is not None)
_RECONSTRUCTIONS = {"fbp": "FBP", "hybrid_ir": "hybrid IR", "mbir": "MBIR", "dlr": "deep learning", "unknown": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Charted:
    """A quantity that has charts.

    Attributes:
        title: for people; starts with a small letter unless it is a name.
        unit: as people write it.
        places: decimals.
        factor, offset: shown = factor x value + offset.
        adverse: which side means worse images; "" for neither.
    """

    name: str
    title: str
    unit: str
    places: int
    adverse: str = ""
    factor: float = 1.0
    offset: float = 0.0

    def shown(self, value: float) -> float:
        """Return a value in the unit that people see."""
        return self.factor * value + self.offset


SCORE, PREDICTED, CTDI, DLP, SSDE, NOISE = "score", "predicted", "ctdi_vol", "dlp", "ct.ssde", "ct.noise.soft"
CHARTED: Mapping[str, Charted] = {
    SCORE: Charted(name=SCORE, title="score", unit="of 100", places=0, adverse="low", factor=100.0),
    PREDICTED: Charted(
        name=PREDICTED, title="predicted minus recorded", unit="% of recorded", places=0, factor=100.0, offset=-100.0
    ),
    CTDI: Charted(name=CTDI, title="CTDIvol", unit="mGy", places=1, adverse="high"),
    DLP: Charted(name=DLP, title="dose length product", unit="mGy cm", places=0, adverse="high"),
    **{
        one.name: Charted(
            name=one.name,
            title=one.title,
            unit={"[hnsf'U]-2.mGy-1.mm-1": "1/(HU² mGy mm)"}.get(one.unit, SHOWN_UNITS.get(one.unit, one.unit)),
            places=one.places,
            adverse=one.adverse,
        )
        for one in QUANTITIES.values()
    },
}
"""Every charted quantity by name. `predicted` is kept as predicted / recorded, whose spread does not grow with the
dose, and shown as a difference in percent; dose as harvested from images or dose reports."""


class ChartState(StrEnum):
    """Against what the points of a chart's last phase are judged."""

    NONE = "none"
    PROVISIONAL = "provisional"
    CHOSEN = "chosen"


class EventKind(StrEnum):
    """What is known to have changed."""

    SERVICE = "service"
    CALIBRATION = "calibration"
    SOFTWARE = "software"
    KERNEL = "kernel"
    WEIGHTS = "weights"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A known change; `id` is 0 for one that follows from the record of the node, such as a promotion of weights.

    Attributes:
        at: seconds since 1970.
        scanner: "" for all.
        by: who has entered it.
    """

    at: float
    kind: EventKind
    scanner: str
    note: str
    starts_phase: bool
    by: str
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Points that may be compared with each other.

    Attributes:
        size_class: band of the patient's size; "" where there is none.
        reconstruction: kernel, class and slice thickness.
        stack: echo, b-value, phase.
        phantom_cm: diameter of the phantom that CTDIvol refers to.
        limit_code: `domain.measures.Limit`, or "".
        basis: weights of a score, or method and version of a measure.
        is_comparable: False for a CT measure of a patient of unknown size, which is shown and never judged.
    """

    size_class: str = ""
    reconstruction: str = ""
    stack: str = ""
    phantom_cm: float | None = None
    limit_code: str = ""
    basis: str = ""
    is_comparable: bool = True

    @property
    def label(self) -> str:
        """The stratum in words."""
        phantom = "" if self.phantom_cm is None else f"{self.phantom_cm:g} cm phantom"
        limit = self.limit_code.replace("_", " ")
        words = (self.size_class, self.reconstruction, self.stack, phantom, limit)
        return " · ".join(word for word in words if word) or "all"


def labels(strata: Mapping[int, Stratum]) -> dict[int, str]:
    """Return strata in words, by number; those that differ in weights or method alone name these too."""
    words = [one.label for one in strata.values()]
    return {
        number: one.label if words.count(one.label) == 1 else f"{one.label} · {_basis(one.basis)}"
        for number, one in strata.items()
    }


def _basis(basis: str) -> str:
    return f"weights {basis[:12]}" if len(basis) == _SHA256 else basis


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value of a series, for the chart of its quantity."""

    quantity: str
    value: float
    stratum: Stratum


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredValue:
    """A measure of a series, as far as a chart needs it."""

    name: str
    value: float
    method: str
    limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is stored about a series and goes into charts.

    Attributes:
        series: its number.
        study: number of the first series of its study.
        acquired: as recorded, local time; "" if it is not.
        predicted: range of the predicted parameter.
        has_measures: whether its present content was measured.
    """

    series: int
    study: int
    modality: str
    scanner: str
    protocol: str
    acquired: str
    received_at: float
    score: float | None
    weights: str
    predicted: tuple[float, float] | None
    recorded: float | None
    size_class: str
    kernel: str
    recon_class: str
    thickness_mm: float | None
    stack: str
    ctdi_vol_mgy: float | None
    ctdi_phantom_cm: float | None
    dlp_mgy_cm: float | None
    measures: Sequence[MeasuredValue]


def values_of(source: Source) -> Iterator[Value]:
    """Return the values of a series, each with the stratum that it is compared in."""
    thickness = "" if source.thickness_mm is None else f"{source.thickness_mm:.1f} mm"
    kind = _RECONSTRUCTIONS.get(source.recon_class, source.recon_class)
    reconstruction = " ".join(word for word in (source.kernel, kind, thickness) if word)
    plain = Stratum(size_class=source.size_class, reconstruction=reconstruction, stack=source.stack)
    scored = replace(plain, basis=source.weights)
    if source.score is not None:
        yield Value(quantity=SCORE, value=source.score, stratum=scored)
    if source.predicted is not None and source.recorded and min(*source.predicted, source.recorded) > 0:
        middle = (source.predicted[0] * source.predicted[1]) ** 0.5
        yield Value(quantity=PREDICTED, value=middle / source.recorded, stratum=scored)
    for one in source.measures:
        if one.name not in QUANTITIES or not (one.limit == "" or one.limit in _COMPARABLE):
            continue
        size = "" if one.name in _SIZES else source.size_class
        stratum = replace(
            plain,
            size_class=size,
            limit_code=one.limit,
            basis=one.method,
            is_comparable=source.modality != "CT" or bool(size) or one.name in _SIZES,
        )
        yield Value(quantity=one.name, value=one.value, stratum=stratum)
    dose = Stratum(size_class=source.size_class, phantom_cm=source.ctdi_phantom_cm)
    for name, dosed in ((CTDI, source.ctdi_vol_mgy), (DLP, source.dlp_mgy_cm)):
        if dosed is not None and dosed > 0:
            yield Value(quantity=name, value=dosed, stratum=dose)


def time_of(source: Source, zone: tzinfo) -> float:
    """Return when a series was acquired, in seconds since 1970; when it was received, if that is not known.

    A chart follows the scanner: images that are sent late, or imported, have their place at their own time. A date
    after the reception is that of a clock gone wrong, and does not count.
    """
    try:
        acquired = datetime.strptime(source.acquired[:19], "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone).timestamp()
    except ValueError:
        return source.received_at
    return acquired if acquired < source.received_at + _DAY_S else source.received_at
