"""Control charts: is a scanner still what it was?

Individuals with limits from the moving range (Shewhart), and an exponentially weighted moving average (EWMA, Roberts
1959) for small lasting shifts. One point is one session: the median of the series of a study.

A score or a noise depends on the size of the patient and on the reconstruction, so that a change of who is examined
would look like a change of the scanner. Each point is therefore standardised by mean and standard deviation of its own
stratum (size class, reconstruction) in the baseline, and all strata share one chart in units of sigma. A stratum with
fewer than 20 points in the baseline is shown and not judged.

A phase begins where something is known to have changed: an event, or other weights. A phase is compared with its own
baseline only. As long as nobody has chosen one, the first 60 points of each stratum in the phase serve as provisional
limits, marked as such: a node with two hundred charts would otherwise be blind until a person has looked at each.
Points of a baseline are marked where they break a rule, and never alarm, since they helped to make the limits.

Only rule 1 and the EWMA alarm. Rules 2 to 4 of the Western Electric handbook (1956) raise the number of false alarms
about fourfold (Champ & Woodall 1987, doi 10.1080/00401706.1987.10488266), so that they only mark.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

FEWEST_POINTS = 20
PROVISIONAL_POINTS = 60
LAMBDA = 0.2
EWMA_LIMIT = 2.962
"""L with an in-control run length of 500 at lambda 0.2 (Lucas & Saccucci 1990, doi 10.1080/00401706.1990.10484583)."""
SIGMAS = 3.0
D2 = 1.128
"""Mean range of two normal values, in standard deviations."""
D4 = 3.267
"""Upper limit of a moving range of two, in mean moving ranges."""
_SKEWED = 0.5
_FARTHEST = 12.0
"""Where a standardised value is cut, so that a single wrong value does not hold the EWMA for weeks."""


class Rule(StrEnum):
    """What a point, or a run of points, does that chance seldom does."""

    BEYOND = "1"
    TWO_OF_THREE = "2"
    FOUR_OF_FIVE = "3"
    EIGHT = "4"
    EWMA = "E"


RULES: Mapping[Rule, str] = {
    Rule.BEYOND: "beyond 3σ",
    Rule.TWO_OF_THREE: "two of three beyond 2σ",
    Rule.FOUR_OF_FIVE: "four of five beyond 1σ",
    Rule.EIGHT: "eight in a row on one side",
    Rule.EWMA: "EWMA beyond its limit",
}
ALARMING = (Rule.BEYOND, Rule.EWMA)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """Points of a chart in the order of time; all arrays have the shape (n,).

    Attributes:
        at: seconds since 1970.
        value: in the unit of the chart.
        stratum: number of the stratum.
        series: number of the series that a click opens.
    """

    at: np.ndarray
    value: np.ndarray
    stratum: np.ndarray
    series: np.ndarray

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A time between two changes; `baseline` is the chosen period within it, or None: provisional limits."""

    since: float
    baseline: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Mean and standard deviation of a stratum in the baseline of a phase.

    Attributes:
        n: points that they rest on.
        mean, sigma: of the values, or of their logarithms; sigma is the mean moving range over 1.128.
    """

    n: int
    mean: float
    sigma: float
    logarithmic: bool

    def at(self, z: float) -> float:
        """Return the value that lies so many sigma from the mean."""
        scaled = self.mean + z * self.sigma
        return math.exp(scaled) if self.logarithmic else scaled

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Return how many sigma values lie from the mean, at most 12."""
        scaled = _scaled(values, self.logarithmic)
        cut: np.ndarray = np.clip((scaled - self.mean) / self.sigma, -_FARTHEST, _FARTHEST)
        return cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A rule that was broken, from the point where it was first broken to the last one in a row; indices of points.

    Attributes:
        worst: the largest distance from the mean in sigma; for the EWMA three times its share of the limit.
        alarms: False for rules that only mark, and for points of a baseline.
    """

    rule: Rule
    first: int
    last: int
    worst: float
    alarms: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Points against their limits; arrays have the shape (n,), NaN where a point is not judged.

    Attributes:
        phase: index of the phase.
        z: standardised values.
        ewma, ewma_limit: of the standardised values; the limit to both sides.
        moving_range: |difference| to the point before of the same stratum, in sigma.
        in_baseline: points that the limits rest on.
        limits: by phase and stratum.
        is_provisional: for each phase, whether nobody chose its baseline.
    """

    phase: np.ndarray
    z: np.ndarray
    ewma: np.ndarray
    ewma_limit: np.ndarray
    moving_range: np.ndarray
    in_baseline: np.ndarray
    limits: Mapping[tuple[int, int], Limits]
    is_provisional: tuple[bool, ...]
    signals: tuple[Signal, ...]

    @property
    def is_judged(self) -> np.ndarray:
        """Which points are judged, in the baseline or not: bool, (n,)."""
        judged: np.ndarray = ~np.isnan(self.z)
        return judged


def one_for_each_session(points: Points, study: np.ndarray) -> Points:
    """Return one point for each study: the median of its series of one stratum.

    Of several strata in a study, such as two reconstructions of one acquisition, the commonest of the chart counts.

    Args:
        study: whatever tells studies apart, shape (n,).
    """
    if len(points) == 0:
        return points
    _, stratum = np.unique(points.stratum, return_inverse=True)
    common = np.bincount(stratum)[stratum]
    order = np.lexsort((points.value, stratum, -common, study))
    study, stratum = study[order], stratum[order]
    first = np.r_[True, study[1:] != study[:-1]]
    start = np.flatnonzero(first)
    which = np.cumsum(first) - 1
    kept = stratum == stratum[start][which]
    count = np.bincount(which[kept], minlength=len(start))
    low, high = start + (count - 1) // 2, start + count // 2
    values = points.value[order]
    middle = order[low]
    found = Points(
        at=points.at[middle],
        value=(values[low] + values[high]) / 2,
        stratum=points.stratum[middle],
        series=points.series[middle],
    )
    by_time = np.lexsort((found.series, found.at))
    return Points(**{name: getattr(found, name)[by_time] for name in Points.__dataclass_fields__})


def fit(values: np.ndarray, *, logarithmic: bool) -> Limits | None:
    """Return the limits of consecutive values; None for fewer than 20 of them, or all equal."""
    if len(values) < FEWEST_POINTS:
        return None
    scaled = _scaled(values, logarithmic)
    sigma = float(np.abs(np.diff(scaled)).mean()) / D2
    if not sigma > 1e-12 * max(1.0, abs(float(scaled.mean()))):
        return None
    return Limits(n=len(values), mean=float(scaled.mean()), sigma=sigma, logarithmic=logarithmic)


def judge(points: Points, phases: Sequence[Phase] = (), *, never: frozenset[int] = frozenset()) -> Judged:
    """Compare points with the limits of their phase and stratum, and find the rules that they break.

    Args:
        phases: in the order of time; what lies before the first one is a phase too.
        never: strata that are shown and not judged, whatever their number.
    """
    phases = [Phase(since=-math.inf), *phases] if not phases or phases[0].since > -math.inf else list(phases)
    n = len(points)
    phase = np.searchsorted([one.since for one in phases], points.at, side="right") - 1
    z, moving, in_baseline = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, dtype=bool)
    members = [
        (p, s, here, base)
        for p, one in enumerate(phases)
        for s in (int(s) for s in np.unique(points.stratum[phase == p]))
        if s not in never
        for here in (np.flatnonzero((phase == p) & (points.stratum == s)),)
        for base in (_baseline(points, here, one),)
    ]
    logarithmic = is_skewed([points.value[base] for *_, base in members if len(base) >= FEWEST_POINTS])
    limits = {}
    for p, s, here, base in members:
        if (found := fit(points.value[base], logarithmic=logarithmic)) is None:
            continue
        limits[p, s] = found
        z[here] = found.standardised(points.value[here])
        moving[here[1:]] = np.abs(np.diff(z[here]))
        in_baseline[base] = True
    ewma, ewma_limit = np.full(n, np.nan), np.full(n, np.nan)
    signals: list[Signal] = []
    for p in range(len(phases)):
        here = np.flatnonzero((phase == p) & ~np.isnan(z))
        ewma[here], ewma_limit[here] = smoothed(z[here])
        signals += _signals(here, z[here], ewma[here], ewma_limit[here], in_baseline)
    return Judged(
        phase=phase, z=z, ewma=ewma, ewma_limit=ewma_limit, moving_range=moving, in_baseline=in_baseline, limits=limits,
        is_provisional=tuple(one.baseline is None for one in phases),
        signals=tuple(sorted(signals, key=lambda signal: (signal.first, signal.rule))),
    )  # fmt: skip


def _baseline(points: Points, here: np.ndarray, phase: Phase) -> np.ndarray:
    if phase.baseline is None:
        return here[:PROVISIONAL_POINTS]
    since, until = phase.baseline
    within: np.ndarray = here[(points.at[here] >= since) & (points.at[here] < until)]
    return within


def is_skewed(samples: Sequence[np.ndarray]) -> bool:
    """Whether samples are better described by their logarithms: all are positive, and skewed less so.

    Noise, dose and ratios are; a score, which is bounded at both ends, is not.
    """
    if not samples or min(float(one.min()) for one in samples) <= 0:
        return False
    sizes = [len(one) for one in samples]
    plain = float(np.average([_skewness(one) for one in samples], weights=sizes))
    logs = float(np.average([_skewness(np.log(one)) for one in samples], weights=sizes))
    return plain > _SKEWED and abs(logs) < plain


def _skewness(values: np.ndarray) -> float:
    apart = values - values.mean()
    spread = float(np.sqrt((apart**2).mean()))
    return float((apart**3).mean()) / spread**3 if spread > 0 else 0.0


def _scaled(values: np.ndarray, logarithmic: bool) -> np.ndarray:
    scaled: np.ndarray = np.log(np.maximum(values, 1e-300)) if logarithmic else np.asarray(values, dtype=float)
    return scaled


def smoothed(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the EWMA of standardised values, from 0 on, and its limit with the exact variance at each point."""
    ewma, last = np.empty(len(z)), 0.0
    for i, value in enumerate(z.tolist()):
        last += LAMBDA * (value - last)
        ewma[i] = last
    steps = np.arange(1, len(z) + 1)
    variance = LAMBDA / (2 - LAMBDA) * (1 - (1 - LAMBDA) ** (2 * steps))
    return ewma, EWMA_LIMIT * np.sqrt(variance)


def broken(z: np.ndarray) -> dict[Rule, np.ndarray]:
    """Return for each rule on individuals at which points it is broken: bool, shape (n,)."""
    found = {Rule.BEYOND: np.abs(z) > SIGMAS}
    for rule, beyond, needed, of in (
        (Rule.TWO_OF_THREE, 2.0, 2, 3),
        (Rule.FOUR_OF_FIVE, 1.0, 4, 5),
        (Rule.EIGHT, 0.0, 8, 8),
    ):
        found[rule] = np.zeros(len(z), dtype=bool)
        for side in (1, -1):
            out = side * z > beyond
            total = np.cumsum(np.r_[np.zeros(of, dtype=int), out])
            found[rule] |= out & (total[of:] - total[:-of] >= needed)
    return found


def _signals(
    here: np.ndarray, z: np.ndarray, ewma: np.ndarray, limit: np.ndarray, in_baseline: np.ndarray
) -> Iterator[Signal]:
    sides = {**broken(z), Rule.EWMA: np.abs(ewma) > limit}
    for rule, out in sides.items():
        far = np.abs(z) if rule is not Rule.EWMA else SIGMAS * np.abs(ewma) / limit
        signed = np.where(out, np.sign(ewma if rule is Rule.EWMA else z), 0)
        edges = np.flatnonzero(np.diff(np.r_[0, signed, 0]))
        for first, end in pairwise(edges):
            if signed[first] == 0:
                continue
            alarms = rule in ALARMING and not in_baseline[here[first:end]].all()
            yield Signal(
                rule=rule,
                first=int(here[first]),
                last=int(here[end - 1]),
                worst=float(far[first:end].max()),
                alarms=alarms,
            )
