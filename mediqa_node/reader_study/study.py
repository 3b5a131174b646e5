"""The figures of one reading study: agreement between its readers, and of each reader with themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mediqa_node.domain.rating import CRITERIA, Rating
from mediqa_node.reader_study.agreement import Agreement, agreement, srcc
from mediqa_node.reader_study.kappa import Repeats, repeated, weighted_kappa
from mediqa_node.reader_study.mos import score_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two readers on the series that both rated; NaN where undefined."""

    one: str
    other: str
    n: int
    kappa: float
    srcc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Agreement on one criterion; `repeats` in the order of the readers of `agreement`."""

    criterion: str
    agreement: Agreement
    pairs: tuple[Pair, ...]
    repeats: tuple[Repeats, ...]


def figures(ratings: Sequence[Rating], patients: Mapping[str, str]) -> list[Figures]:
    """Return the agreement of the readers of one study, by criterion.

    Args:
        ratings: of one study, all criteria.
        patients: key of the patient of each series.
    """
    return [
        _of_criterion(criterion, rows, patients)
        for criterion in CRITERIA
        if (rows := [one for one in ratings if one.criterion == criterion])
    ]


def _of_criterion(criterion: str, rows: Sequence[Rating], patients: Mapping[str, str]) -> Figures:
    table = score_table(rows)
    found = agreement(table.scores, table.readers, [patients[uid] for uid in table.series], repeats=table.repeats)
    pairs = [
        _pair(table.readers[i], table.readers[j], table.scores[:, i], table.scores[:, j])
        for i, j in combinations(range(len(table.readers)), 2)
    ]
    return Figures(
        criterion=criterion, agreement=found, pairs=tuple(pairs), repeats=tuple(repeated(one) for one in table.repeats)
    )


def _pair(one: str, other: str, x: np.ndarray, y: np.ndarray) -> Pair:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    return Pair(
        one=one, other=other, n=int(both.sum()), kappa=weighted_kappa(x.tolist(), y.tolist()), srcc=srcc(x, y)
    )  # fmt: skip
