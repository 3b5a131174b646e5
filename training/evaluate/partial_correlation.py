"""Partial rank correlation over degraded copies of slices: what two quantities share that others do not explain.

1. Within each slice the copies are ranked, ties at their mean rank; the ranks are divided by the number of copies, and
   their mean over the slice is subtracted. Copies are so compared with copies of the same slice only: what differs
   between slices (anatomy, scanner) has no part in it, and slices of few and of many copies share one scale. A copy
   without a value (NaN) has rank 0, the mean; whether values are missing can be a quantity of its own.
2. These ranks are pooled over all slices. Their Pearson correlation is Spearman's within slices.
3. Both quantities are regressed on the ranks of the given ones by least squares over the pool (no intercept: means are
   zero). The correlation of the residuals is the partial one.

A quantity that the given ones determine (less than 1e-6 of its variance is left) has the partial correlation 0. One
that is constant within every slice has none. Intervals are a bootstrap over slices, regression and all: a resample sums
the cross products of the slices that were drawn.

What it cannot show: ranks are related linearly, so a relation of another shape is not fully taken out, and a measure
that is itself noisy leaves part of the quantity that it measures to others.

Kendall and Stuart, The Advanced Theory of Statistics, volume 2, chapter 27.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from mediqa_node.reader_study.statistics import FEWEST_GROUPS, RESAMPLES, Interval, between, draws, numbered

_NOTHING_LEFT = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Quantities of the copies of some slices, ranked within each slice.

    Attributes:
        names: k quantities.
        products: sums over the copies of each slice of the products of two centred ranks, (slices, k, k).
    """

    names: tuple[str, ...]
    products: np.ndarray

    def correlation(
        self, a: str, b: str, given: Sequence[str] = (), *, seed: int = 0, resamples: int = RESAMPLES
    ) -> Interval:
        """Return Spearman's correlation of two quantities within slices, partial if others are given."""
        value = float(self._correlations(self.products.sum(axis=0)[None], a, b, given)[0])
        if not np.isfinite(value):
            return Interval(value=None)
        if len(self.products) < FEWEST_GROUPS:
            return Interval(value=value)
        drawn = np.einsum("rs,sij->rij", draws(len(self.products), seed, resamples), self.products)
        return between(value, self._correlations(drawn, a, b, given))

    def explained(self, a: str, given: Sequence[str]) -> float | None:
        """Return the share of the variance of a quantity's ranks that the ranks of others explain (R squared).

        Of m others without any relation to it, n copies of s slices let about m / (n - s) seem explained.
        """
        products = self.products.sum(axis=0)[None]
        place = self.names.index(a)
        whole = products[0, place, place]
        return float(1.0 - self._left(products, [place], given)[0, 0, 0] / whole) if whole > 0 else None

    def _correlations(self, products: np.ndarray, a: str, b: str, given: Sequence[str]) -> np.ndarray:
        """Return a correlation for each sum of products, (r, k, k) → (r,); NaN where one is constant."""
        pair = [self.names.index(a), self.names.index(b)]
        left = self._left(products, pair, given)
        whole, rest = products[:, pair, pair], left[:, [0, 1], [0, 1]]
        constant = (whole <= 0).any(axis=1)
        determined = (rest <= _NOTHING_LEFT * whole).any(axis=1)
        power = np.sqrt(np.prod(np.where(rest > 0, rest, 1.0), axis=1))
        found = np.where(determined, 0.0, left[:, 0, 1] / power)
        return np.where(constant, np.nan, np.clip(found, -1.0, 1.0))

    def _left(self, products: np.ndarray, places: Sequence[int], given: Sequence[str]) -> np.ndarray:
        """Return the products of residuals, (r, places, places): those of the ranks less what is explained."""
        own = products[:, places][:, :, places]
        if not given:
            return own
        others = [self.names.index(name) for name in given]
        across = products[:, others][:, :, places]
        inverse = np.linalg.pinv(products[:, others][:, :, others], rcond=1e-9, hermitian=True)
        return np.asarray(own - across.transpose(0, 2, 1) @ inverse @ across)


def ranked(values: Mapping[str, np.ndarray], slices: Sequence[str]) -> Ranked:
    """Rank quantities within slices.

    Args:
        values: n values of each quantity, by name; NaN where there is none.
        slices: the slice that each of the n copies was made of.
    """
    of, count = numbered(slices, len(slices))
    ranks = np.zeros((len(slices), len(values)))
    for column, each in enumerate(values.values()):
        known = np.isfinite(each)
        for one in range(count):
            here = known & (of == one)
            n = max(1, int(here.sum()))
            ranks[here, column] = (rankdata(each[here]) - (n + 1) / 2) / n  # their mean: exactly 0 for a constant
    products = [ranks[of == one].T @ ranks[of == one] for one in range(count)]
    return Ranked(names=tuple(values), products=np.array(products).reshape(count, len(values), len(values)))
