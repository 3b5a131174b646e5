"""Does a score follow a degradation at fixed measures of `image/measure`, or only repeat what they say?

For each factor: correlation of score and measures with its severity within slices, and the partial ones (see
`partial_correlation`), of the score given the measures and of each measure given the score.

Given are all measures, and for each one also on which copies it is not measurable: that too is known without a score.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.reader_study.statistics import Interval
from training.data.store import Sample
from training.evaluate.by_method import NETWORK, SHIPPED, STATISTICS
from training.evaluate.partial_correlation import Ranked, ranked
from training.simulate.degraded import FACTORS

MIXED = "mixed"
FEWEST_COPIES = 5
"""Copies with a measure below which a slice has no part in the correlation of that measure."""
_SEVERITY = "severity"
SCORES = (SHIPPED, NETWORK, STATISTICS)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCopies:
    """Degraded copies of the slices of one modality, measured and scored.

    Attributes:
        measures: (n,) by name, NaN where it is not measurable.
        scores: (n,) by method of `SCORES`; one that a checkpoint does not have is absent. Larger is better.
    """

    samples: Sequence[Sample]
    measures: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfScore:
    """How a score falls as the severity rises: 1 if always.

    Attributes:
        given_measures: at fixed measures.
        given_both: of the network, at fixed measures and fixed prediction by statistics.
    """

    spearman: Interval
    given_measures: Interval
    given_both: Interval = Interval(value=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfMeasure:
    """How a measure rises with the severity, on the copies that have it; -1 if it always falls.

    Attributes:
        missing: copies on which it is not measurable.
        given_score: at fixed shipped score.
    """

    missing: int
    spearman: Interval
    given_score: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class OfFactor:
    """The correlations of one factor.

    Attributes:
        explained: share of the variance of the severity's ranks that the measures explain.
    """

    modality: str
    factor: str
    slices: int
    copies: int
    explained: float | None
    scores: Mapping[str, OfScore]
    measures: Mapping[str, OfMeasure]


def by_factor(copies: MeasuredCopies, *, seed: int = 0) -> Iterator[OfFactor]:
    """Yield the correlations of every factor that has copies, then of copies that several factors made worse."""
    if not copies.samples:
        return
    modality = copies.samples[0].modality
    for factor in (*FACTORS[modality], MIXED):
        if any(sample.factor == factor for sample in copies.samples):
            yield _of_factor(copies, modality, factor, seed)


def severity(sample: Sample, factor: str) -> float:
    """Return how bad a copy is: its severity, or for several factors 1 less its simulated quality."""
    return 1.0 - sample.labels["quality"] if factor == MIXED else sample.severities[factor]


def _of_factor(copies: MeasuredCopies, modality: str, factor: str, seed: int) -> OfFactor:
    chosen = [place for place, sample in enumerate(copies.samples) if sample.factor in (factor, "clean")]
    bases = [copies.samples[place].base for place in chosen]
    measures = {name: values[chosen] for name, values in copies.measures.items()}
    columns = {_SEVERITY: np.array([severity(copies.samples[place], factor) for place in chosen])}
    columns |= {name: -values[chosen] for name, values in copies.scores.items()}
    given = measures | {f"{name} missing": np.isnan(values).astype(float) for name, values in measures.items()}
    pool = ranked(columns | given, bases)
    return OfFactor(
        modality=modality,
        factor=factor,
        slices=len(set(bases)),
        copies=len(bases),
        explained=pool.explained(_SEVERITY, list(given)),
        scores={name: _of_score(pool, name, list(given), seed) for name in SCORES if name in copies.scores},
        measures={
            name: _of_measure(values, columns[_SEVERITY], columns[SHIPPED], np.array(bases), seed)
            for name, values in measures.items()
        },
    )


def _of_score(pool: Ranked, name: str, given: Sequence[str], seed: int) -> OfScore:
    both = name == NETWORK and STATISTICS in pool.names
    return OfScore(
        spearman=pool.correlation(_SEVERITY, name, seed=seed),
        given_measures=pool.correlation(_SEVERITY, name, given, seed=seed),
        given_both=pool.correlation(_SEVERITY, name, [*given, STATISTICS], seed=seed) if both else Interval(value=None),
    )


def _of_measure(
    values: np.ndarray, severities: np.ndarray, score: np.ndarray, bases: np.ndarray, seed: int
) -> OfMeasure:
    """Return the correlations of a measure on the copies that have it, in slices with enough of them."""
    known = np.isfinite(values)
    counts = {base: int((known & (bases == base)).sum()) for base in np.unique(bases)}
    kept = known & np.array([counts[base] >= FEWEST_COPIES for base in bases])
    missing = int((~known).sum())
    if not kept.any():
        return OfMeasure(missing=missing, spearman=Interval(value=None), given_score=Interval(value=None))
    columns = {_SEVERITY: severities[kept], "measure": values[kept], SHIPPED: score[kept]}
    pool = ranked(columns, list(bases[kept]))
    return OfMeasure(
        missing=missing,
        spearman=pool.correlation(_SEVERITY, "measure", seed=seed),
        given_score=pool.correlation(_SEVERITY, "measure", [SHIPPED], seed=seed),
    )


SCORE_HEADS = (
    "factor", "slices", "copies", "measures explain", "shipped", "shipped, given measures", "network",
    "network, given measures", "network, given measures and statistics", "statistics", "statistics, given measures",
)  # fmt: skip
MEASURE_HEADS = ("factor", "measure", "not measurable", "rises with severity", "given the shipped score")


def score_rows(found: Sequence[OfFactor]) -> Iterator[tuple[str, ...]]:
    """Yield a row under SCORE_HEADS for each factor."""
    for one in found:
        cells: list[str] = []
        for name in SCORES:
            of = one.scores.get(name, OfScore(spearman=Interval(value=None), given_measures=Interval(value=None)))
            cells += [shown(Interval(value=of.spearman.value)), shown(of.given_measures)]
            cells += [shown(of.given_both)] if name == NETWORK else []
        explained = "–" if one.explained is None else f"{one.explained:.2f}"
        yield f"{one.modality} {one.factor}", str(one.slices), str(one.copies), explained, *cells


def measure_rows(found: Sequence[OfFactor]) -> Iterator[tuple[str, ...]]:
    """Yield a row under MEASURE_HEADS for each factor and measure."""
    for one in found:
        for name, of in one.measures.items():
            lacking = f"{of.missing} of {one.copies}"
            yield f"{one.modality} {one.factor}", name, lacking, shown(of.spearman), shown(of.given_score)


def shown(interval: Interval) -> str:
    """Return a correlation with its interval in two decimals: `.93 [.90, .96]`."""
    if interval.value is None:
        return "–"
    text = _two(interval.value)
    return (
        text
        if interval.low is None or interval.high is None
        else (f"{text} [{_two(interval.low)}, {_two(interval.high)}]")
    )


def _two(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("0.", ".", 1)
