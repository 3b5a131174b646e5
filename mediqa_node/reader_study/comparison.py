"""Two checkpoints on the same series: how much their scores differ, and how often the order changes."""

from dataclasses import dataclass
from math import nan

import numpy as np

from mediqa_node.reader_study.agreement import srcc


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The candidate compared with the active checkpoint.

    Attributes:
        mean_difference, sd: of candidate - current, on 0..1; SD with n - 1, NaN below two series.
        srcc: rank correlation; NaN below three series, or where one is constant.
        turned: share of series pairs, 0..1, that the candidate ranks in the opposite order; NaN without pairs that
            differ in the current scores.
    """

    n: int
    mean_difference: float
    sd: float
    srcc: float
    turned: float


def compare(current: np.ndarray, candidate: np.ndarray) -> Comparison:
    """Compare scores of the same series, each of shape (n,), 0..1, n at least 1."""
    difference = candidate - current
    turned = apart = 0
    for i in range(len(current) - 1):  # a row at a time: all pairs at once would fill the memory
        before, after = np.sign(current[i + 1 :] - current[i]), np.sign(candidate[i + 1 :] - candidate[i])
        apart += int((before != 0).sum())
        turned += int((before * after < 0).sum())
    return Comparison(
        n=len(current),
        mean_difference=float(difference.mean()),
        sd=float(difference.std(ddof=1)) if len(current) > 1 else nan,
        srcc=srcc(current, candidate),
        turned=turned / apart if apart else nan,
    )
