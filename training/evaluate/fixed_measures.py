"""Does a score follow a degradation at fixed measures of `image/measure`, or only repeat what they say?

For each factor: correlation of score and measures with its severity within slices, and the partial ones (see
`partial_correlation`), of the score given the measures and of each measure given the score.

Given are all measures, and for each one also on which copies it is not measurable: that too is known without a score.
A slice in which no measure that is meant for the factor (`MEANT_FOR`) can be measured is left out: there, nothing is
held fixed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.quantities import (
    CT_NOISE,
    MR_GHOST,
    MR_SNR,
    MR_SUPPORT_COLUMNS,
    MR_SUPPORT_ROWS,
    OP_FOCUS,
    OP_ILLUMINATION,
    OP_VESSEL_CONTRAST,
)
from mediqa_node.reader_study.statistics import Interval
from training.data.store import Sample
from training.evaluate.by_method import NETWORK, SHIPPED, STATISTICS
from training.evaluate.partial_correlation import Ranked, ranked
from training.simulate.degraded import FACTORS

MIXED = "mixed"
FEWEST_COPIES = 5
"""Copies with a measure below which it counts as not measurable in a slice."""
MEANT_FOR = {
    ("CT", "dose"): (CT_NOISE.name,),
    ("CT", "views"): (CT_NOISE.name,),
    ("MR", "noise"): (MR_SNR.name,),
    ("MR", "ghosts"): (MR_GHOST.name,),
    ("MR", "undersampling"): (MR_GHOST.name,),
    ("MR", "resolution"): (MR_SUPPORT_ROWS.name, MR_SUPPORT_COLUMNS.name),
    ("OP", "blur"): (OP_FOCUS.name,),
    ("OP", "illumination"): (OP_ILLUMINATION.name,),
    ("OP", "haze"): (OP_VESSEL_CONTRAST.name,),
}
"""The measures in which a factor should show. There is none for compression and noise of photographs."""
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
        slices, copies: that were used.
        left_out: slices in which nothing that is meant for the factor can be measured.
        explained: share of the variance of the severity's ranks that the measures explain.
    """

    modality: str
    factor: str
    slices: int
    copies: int
    left_out: int
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
    every = [place for place, sample in enumerate(copies.samples) if sample.factor in (factor, "clean")]
    slices = np.array([copies.samples[place].base for place in every])
    held = _held_fixed(copies, every, slices, MEANT_FOR.get((modality, factor), ()))
    chosen, bases = np.array(every)[held], slices[held]
    measures = {name: values[chosen] for name, values in copies.measures.items()}
    columns = {_SEVERITY: np.array([severity(copies.samples[place], factor) for place in chosen])}
    columns |= {name: -values[chosen] for name, values in copies.scores.items()}
    given = measures | {f"{name} missing": np.isnan(values).astype(float) for name, values in measures.items()}
    pool = ranked(columns | given, list(bases))
    return OfFactor(
        modality=modality,
        factor=factor,
        slices=len(np.unique(bases)),
        copies=len(bases),
        left_out=len(np.unique(slices)) - len(np.unique(bases)),
        explained=pool.explained(_SEVERITY, list(given)),
        scores={name: _of_score(pool, name, list(given), seed) for name in SCORES if name in copies.scores},
        measures={
            name: _of_measure(values, columns[_SEVERITY], columns[SHIPPED], bases, seed)
            for name, values in measures.items()
        },
    )


def _held_fixed(copies: MeasuredCopies, every: Sequence[int], slices: np.ndarray, meant: Sequence[str]) -> np.ndarray:
    """Return which copies belong to a slice in which one of the measures that are meant can be measured."""
    if not meant:
        return np.ones(len(every), dtype=bool)
    return np.asarray(np.any([_measurable(copies.measures[name][list(every)], slices) for name in meant], axis=0))


def _measurable(values: np.ndarray, slices: np.ndarray) -> np.ndarray:
    """Return which copies belong to a slice with enough copies that have a value."""
    known = np.isfinite(values)
    enough = {one: (known & (slices == one)).sum() >= FEWEST_COPIES for one in np.unique(slices)}
    return np.array([enough[one] for one in slices], dtype=bool)


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
    kept = known & _measurable(values, bases)
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
    "factor", "slices", "left out", "copies", "measures explain", "shipped", "shipped, given measures", "network",
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
        counts = (str(one.slices), str(one.left_out), str(one.copies))
        yield f"{one.modality} {one.factor}", *counts, explained, *cells


def measure_rows(found: Sequence[OfFactor]) -> Iterator[tuple[str, ...]]:
    """Yield a row under MEASURE_HEADS for each factor and measure."""
    for one in found:
        for name, of in one.measures.items():
            lacking = f"{of.missing} of {one.copies}"
            meant = name in MEANT_FOR.get((one.modality, one.factor), ())
            yield (
                f"{one.modality} {one.factor}",
                name + " *" * meant,
                lacking,
                shown(of.spearman),
                shown(of.given_score),
            )


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
