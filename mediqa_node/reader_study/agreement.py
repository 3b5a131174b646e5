"""Agreement between readers, which limits how well any model can predict their mean.

Intraclass correlations by two-way analysis of variance after Shrout and Fleiss, Psychological Bulletin 1979;
86:420-428. Their intervals are from a bootstrap over patients: two series of one patient are not independent.
Krippendorff's alpha, which does not need a complete table, follows "Computing Krippendorff's Alpha-Reliability", 2011.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan, sqrt

import numpy as np

from mediqa_node.reader_study import statistics
from mediqa_node.reader_study.mos import reader_bias

FEWEST_READERS = 3
GOOD_ICC = 0.75
_SEED = 4
_FEWEST_PAIRS = 3
_APART_AT_LEAST = 0.2
"""Outlying is only who is this much of rank correlation below the median reader, however close the others are."""
_MAD_TO_SD = 1.4826
_NO_SPREAD = 1e-18
"""A mean square of scores on 0..1 below this is what rounding leaves of equal ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One reader compared with the others.

    Attributes:
        n_series: number of series rated.
        bias: mean difference from the mean opinion, on 0..1.
        sd: of their scores, on 0..1; 0: the same score for all.
        srcc: rank correlation with the mean of the other readers.
        repeat_sd: within-reader SD from repeated cases, on 0..1; NaN without any.
        outlying: far below the others in `srcc`. Flagged, never left out.
    """

    reader_id: str
    n_series: int
    bias: float
    sd: float
    srcc: float
    repeat_sd: float = nan
    outlying: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of the readers of a table of scores.

    Attributes:
        n_complete: series that every reader rated: the intraclass correlations rest on these.
        icc_2_1, icc_2_k: absolute agreement of one reader, and of the mean of all k.
        icc_3_1, icc_3_k: consistency of one of these readers, and of the mean of all k.
        alpha: Krippendorff, ordinal; over all scores, complete or not.
        srcc: mean over the readers of the rank correlation with the mean of the others.
        ceiling: sqrt(ICC(3,k)): the highest PLCC with this mean opinion that a model can be expected to reach. It uses
            consistency, because a correlation ignores that one reader is stricter than another.
        warnings: caveats to show with these figures.
    """

    n_series: int
    n_patients: int
    n_complete: int
    readers: tuple[Reader, ...]
    icc_2_1: Estimate
    icc_2_k: Estimate
    icc_3_1: Estimate
    icc_3_k: Estimate
    alpha: float
    srcc: float
    ceiling: float
    warnings: tuple[str, ...]


def agreement(
    scores: np.ndarray,
    reader_ids: Sequence[str],
    patients: Sequence[str],
    *,
    repeats: Sequence[Sequence[tuple[float, ...]]] = (),
) -> Agreement:
    """Return the agreement of the readers.

    Args:
        scores: shape (n series, k readers), float64, 0..1; NaN where a reader has not rated a series.
        reader_ids: k names.
        patients: patient of each row.
        repeats: for each reader, the scores of each case that they rated more than once, 0..1.
    """
    complete = np.isfinite(scores).all(axis=1)
    of_complete = [patient for patient, whole in zip(patients, complete, strict=True) if whole]
    icc_2_1, icc_2_k, icc_3_1, icc_3_k = _bootstrapped(scores[complete], of_complete)
    readers = _readers(scores, reader_ids, repeats)
    srcc = np.array([reader.srcc for reader in readers])
    found = Agreement(
        n_series=len(scores),
        n_patients=len(set(patients)),
        n_complete=int(complete.sum()),
        readers=readers,
        icc_2_1=icc_2_1,
        icc_2_k=icc_2_k,
        icc_3_1=icc_3_1,
        icc_3_k=icc_3_k,
        alpha=ordinal_alpha(scores),
        srcc=float(srcc[np.isfinite(srcc)].mean()) if np.isfinite(srcc).any() else nan,
        ceiling=sqrt(max(icc_3_k.value, 0.0)) if np.isfinite(icc_3_k.value) else nan,
        warnings=(),
    )
    return replace(found, warnings=_warnings(found, all_equal=bool(complete.any() and np.ptp(scores[complete]) == 0)))


def intraclass(scores: np.ndarray) -> tuple[float, float, float, float]:
    """Return ICC(2,1), ICC(2,k), ICC(3,1) and ICC(3,k) of a complete table.

    NaN for fewer than two series or readers, or where all scores are equal.

    Args:
        scores: shape (n series, k readers), no NaN.
    """
    n, k = scores.shape
    if n < 2 or k < 2:
        return nan, nan, nan, nan
    grand = scores.mean()
    rows, columns = scores.mean(axis=1), scores.mean(axis=0)
    between = k * ((rows - grand) ** 2).sum() / (n - 1)
    of_readers = n * ((columns - grand) ** 2).sum() / (k - 1)
    residual = ((scores - rows[:, None] - columns + grand) ** 2).sum() / ((n - 1) * (k - 1))
    signal = between - residual
    return (
        _ratio(signal, between + (k - 1) * residual + k * (of_readers - residual) / n),
        _ratio(signal, between + (of_readers - residual) / n),
        _ratio(signal, between + (k - 1) * residual),
        _ratio(signal, between),
    )


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > _NO_SPREAD else nan


def _bootstrapped(scores: np.ndarray, patients: Sequence[str]) -> list[Estimate]:
    """Return the four intraclass correlations with percentile intervals over resampled patients."""
    values = intraclass(scores)
    of, n_patients = statistics.numbered(patients, len(scores))
    if n_patients < 2:
        return [Estimate(value=value, low=nan, high=nan) for value in values]
    counts = statistics.draws(n_patients, _SEED)[:, of].astype(np.intp)
    drawn = np.array([intraclass(np.repeat(scores, times, axis=0)) for times in counts])
    found = [statistics.between(value, resampled) for value, resampled in zip(values, drawn.T, strict=True)]
    return [
        Estimate(value=value, low=nan if one.low is None else one.low, high=nan if one.high is None else one.high)
        for value, one in zip(values, found, strict=True)
    ]


def ordinal_alpha(scores: np.ndarray) -> float:
    """Return Krippendorff's alpha for ordinal data; NaN where fewer than two scores differ.

    Args:
        scores: shape (n series, k readers); NaN where missing. A series with one score does not count.
    """
    paired = scores[np.isfinite(scores).sum(axis=1) > 1]
    levels, codes = np.unique(paired[np.isfinite(paired)], return_inverse=True)
    if len(levels) < 2:
        return nan
    counts = np.zeros((len(paired), len(levels)))
    np.add.at(counts, (np.nonzero(np.isfinite(paired))[0], codes), 1)
    per_series = counts.sum(axis=1, keepdims=True)
    coincidences = counts.T @ (counts / (per_series - 1)) - np.diag((counts / (per_series - 1)).sum(axis=0))
    totals = coincidences.sum(axis=1)
    middle = np.cumsum(totals) - totals / 2  # a level's place among all scores
    distance = (middle[:, None] - middle) ** 2
    expected = (np.outer(totals, totals) * distance).sum() / (totals.sum() - 1)
    return float(1 - (coincidences * distance).sum() / expected)


def srcc(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's rank correlation, ties at their mean rank; NaN for a constant or fewer than three."""
    found = statistics.srcc(one, other) if len(one) >= _FEWEST_PAIRS else None
    return nan if found is None else found


def _readers(
    scores: np.ndarray, reader_ids: Sequence[str], repeats: Sequence[Sequence[tuple[float, ...]]]
) -> tuple[Reader, ...]:
    bias = reader_bias(scores)
    correlations = np.array([_with_the_others(scores, i) for i in range(len(reader_ids))])
    known = correlations[np.isfinite(correlations)]
    median = np.median(known) if len(known) else nan
    spread = _MAD_TO_SD * np.median(np.abs(known - median)) if len(known) else nan
    return tuple(
        Reader(
            reader_id=name,
            n_series=int(np.isfinite(scores[:, i]).sum()),
            bias=float(bias[i]),
            sd=_sd(scores[:, i]),
            srcc=float(correlations[i]),
            repeat_sd=_within(repeats[i]) if repeats else nan,
            outlying=bool(correlations[i] < median - max(3 * spread, _APART_AT_LEAST)),
        )
        for i, name in enumerate(reader_ids)
    )


def _sd(scores: np.ndarray) -> float:
    """Return the SD of the scores present; exactly 0 if all are equal, despite the rounding of their mean."""
    given = scores[np.isfinite(scores)]
    return float(given.std()) if np.ptp(given) > 0 else 0.0


def _with_the_others(scores: np.ndarray, reader: int) -> float:
    """Return the rank correlation of a reader with the mean of the others."""
    others = np.delete(scores, reader, axis=1)
    both = np.isfinite(scores[:, reader]) & np.isfinite(others).any(axis=1)
    if not both.any():
        return nan
    return srcc(scores[both, reader], np.nanmean(others[both], axis=1).round(12))  # equal means are ties


def _within(cases: Sequence[tuple[float, ...]]) -> float:
    """Return the within-reader SD: the root of the mean variance over repeated cases."""
    variances = [np.var(scores, ddof=1) for scores in cases if len(scores) > 1]
    return float(np.sqrt(np.mean(variances))) if variances else nan


def _warnings(found: Agreement, *, all_equal: bool) -> tuple[str, ...]:
    several = found.n_complete > 1 and len(found.readers) > 1
    icc, missing = found.icc_2_k.value, found.n_series - found.n_complete
    constant = [reader.reader_id for reader in found.readers if reader.sd == 0]
    outlying = [reader.reader_id for reader in found.readers if reader.outlying]
    conditions = {
        f"{len(found.readers)} readers: with fewer than {FEWEST_READERS} a mean is the opinion of one": (
            len(found.readers) < FEWEST_READERS
        ),
        f"ICC(2,k) {icc:.2f} is below {GOOD_ICC}: the readers' mean is a weak target": icc < GOOD_ICC,
        "ICC cannot be had: no two series were rated by two readers who rated all": not several,
        "ICC cannot be had: all scores are equal": several and all_equal,
        "ICC cannot be had: the mean scores of series differ less than their readers": (
            several and not all_equal and not np.isfinite(icc)
        ),
        f"{missing} of {found.n_series} series were not rated by all: ICC leaves them out": missing > 0,
        f"the same score for every series: {', '.join(constant)}": bool(constant),
        f"ranks unlike the others: {', '.join(outlying)}; kept, look at their scores": bool(outlying),
    }
    return tuple(text for text, holds in conditions.items() if holds)
