"""Mean opinion scores of several readers, corrected for the bias of each reader.

Some readers are strict, some use only half of the scale. If all have read the same cases, at least 20 each, a reader's
scores become z-scores over these cases. Otherwise only the reader's bias is removed, as in ITU-T P.913 (subjective
assessment in any environment), which does not need readers who have seen all cases.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.rating import Mos, Rating

FEWEST_CASES = 20
"""A reader's mean and SD over fewer cases describe the cases more than the reader."""
Z_SCORES, BIAS_REMOVED = "z-scores", "bias removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinions:
    """One value per series, shape (n,); NaN where missing.

    Attributes:
        mean: over the readers of the series.
        sd: between them, n - 1.
        n_readers: int.
        ci95: half width of the 95 % confidence interval of the mean.
        adjusted: the mean after `method`; not clipped to 0..1.
        method: Z_SCORES or BIAS_REMOVED.
    """

    mean: np.ndarray
    sd: np.ndarray
    n_readers: np.ndarray
    ci95: np.ndarray
    adjusted: np.ndarray
    method: str


def opinions(scores: np.ndarray) -> Opinions:
    """Return mean opinion scores.

    Args:
        scores: shape (n series, k readers), float64, 0..1, higher is better; NaN where a reader has not
            rated a series. No row is all NaN.
    """
    from scipy.special import stdtrit as student  # quantiles of Student's t

    n_readers = np.isfinite(scores).sum(axis=1)
    mean = np.nanmean(scores, axis=1)
    several = n_readers > 1
    sd = np.full(len(scores), np.nan)
    sd[several] = np.nanstd(scores[several], axis=1, ddof=1)
    ci95 = student(np.maximum(n_readers - 1, 1), 0.975) * sd / np.sqrt(n_readers)
    by_z = _share_cases(scores)
    adjusted = _z_scored(scores) if by_z else scores - reader_bias(scores)
    return Opinions(
        mean=mean,
        sd=sd,
        n_readers=n_readers,
        ci95=ci95,
        adjusted=np.nanmean(adjusted, axis=1),
        method=Z_SCORES if by_z else BIAS_REMOVED,
    )


def reader_bias(scores: np.ndarray) -> np.ndarray:
    """Return how far each reader scores above the mean opinion, averaged over their cases, shape (k,)."""
    return np.asarray(np.nanmean(scores - np.nanmean(scores, axis=1, keepdims=True), axis=0))


def _share_cases(scores: np.ndarray) -> bool:
    """Whether z-scores of readers may be compared: the same cases, enough of them, and no constant reader."""
    if len(scores) < FEWEST_CASES or not np.isfinite(scores).all():
        return False
    return bool((np.ptp(scores, axis=0) > 0).all())  # an SD of equal numbers need not be 0: their mean is rounded


def _z_scored(scores: np.ndarray) -> np.ndarray:
    """Return z-scores over each reader's cases, mapped back with mean and SD of all scores."""
    z = (scores - scores.mean(axis=0)) / scores.std(axis=0, ddof=1)
    return np.asarray(scores.mean() + scores.std(ddof=1) * z)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """The ratings of one study and criterion, one value per series and reader.

    Attributes:
        scores: shape (n series, k readers), float64, 0..1, higher is better; NaN where missing. Repeats and images of
            one series are averaged.
        repeats: for each reader, the scores of each case that they rated more than once.
    """

    series: tuple[str, ...]
    readers: tuple[str, ...]
    scores: np.ndarray
    repeats: tuple[tuple[tuple[float, ...], ...], ...]


def score_table(ratings: Iterable[Rating]) -> ScoreTable:
    """Return the ratings of one study and criterion as a table, series and readers sorted by name.

    Scores are rounded to 12 digits, because rescaling and averaging repeats change the last bits of a level, and alpha
    compares levels for equality.
    """
    given: dict[tuple[str, str], dict[str | None, list[float]]] = {}
    for rating in ratings:
        images = given.setdefault((rating.series_instance_uid, rating.reader_id), {})
        images.setdefault(rating.sop_instance_uid, []).append(rating.unit_score)
    series, readers = (tuple(sorted({key[i] for key in given})) for i in (0, 1))
    row, column = ({name: i for i, name in enumerate(names)} for names in (series, readers))
    scores = np.full((len(series), len(readers)), np.nan)
    repeats: list[list[tuple[float, ...]]] = [[] for _ in readers]
    for (uid, reader), images in sorted(given.items()):
        scores[row[uid], column[reader]] = np.mean([np.mean(repeated) for repeated in images.values()])
        repeats[column[reader]] += [tuple(repeated) for repeated in images.values() if len(repeated) > 1]
    return ScoreTable(series=series, readers=readers, scores=scores.round(12), repeats=tuple(map(tuple, repeats)))


def mos_by_series(ratings: Iterable[Rating]) -> dict[str, Mos]:
    """Return the mean opinion of each series for one criterion.

    For a series rated in several studies, the study with most readers counts, because scales may differ between
    studies.
    """
    studies: dict[str, list[Rating]] = {}
    for rating in ratings:
        studies.setdefault(rating.study_id, []).append(rating)
    found: dict[str, Mos] = {}
    for _, members in sorted(studies.items()):
        for mos in _of_study(members):
            known = found.get(mos.series_instance_uid)
            if known is None or mos.n_readers > known.n_readers:
                found[mos.series_instance_uid] = mos
    return found


def _of_study(ratings: Sequence[Rating]) -> Iterator[Mos]:
    table, of = score_table(ratings), ratings[0]
    found = opinions(table.scores)
    for i, uid in enumerate(table.series):
        several = bool(found.n_readers[i] > 1)
        adjusted = float(found.adjusted[i])
        yield Mos(
            series_instance_uid=uid,
            mos=float(found.mean[i]),
            mos_sd=float(found.sd[i]) if several else None,
            n_readers=int(found.n_readers[i]),
            ci95=float(found.ci95[i]) if several else None,
            zmos=adjusted if found.method == Z_SCORES else None,
            mos_norm=min(max(adjusted, 0.0), 1.0),
            method=found.method,
            scale_min=of.scale_min,
            scale_max=of.scale_max,
            study_id=of.study_id,
            criterion=of.criterion,
        )
