"""From one number a slice to the measure of a stack: its value, its uncertainty and its spread over slices.

The uncertainty is the standard deviation of the statistic over resamples of the slices (Efron 1979, doi
10.1214/aos/1176344552), k = 1: how much it would move had other slices of the same kind been measured. The spread is
the interquartile range over the slices, which holds anatomy and tube current modulation and is no error. Resampling
takes slices as independent: neighbours that share their noise make the uncertainty too small.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mediqa_node.domain.measures import Limit, Measure, Validity
from mediqa_node.domain.quantities import Quantity, Statistic

RESAMPLES = 200
MOST_UNCERTAIN = 0.1
"""Share of a value that its uncertainty may be, where slices that differ may differ in what was measured."""
_SEED = 20261129
_MOST_AT_ONCE = 2_000_000


def over_slices(
    quantity: Quantity,
    values: Sequence[float],
    *,
    limit: Limit | None = None,
    detail: str = "",
) -> Measure:
    """Return the measure of a stack from the values of its slices.

    Args:
        values: one number for each slice that could be measured, (n,), n >= 1.
        limit, detail: why the measure is limited, if it is.

    >>> from mediqa_node.domain.quantities import CT_NOISE
    >>> over_slices(CT_NOISE, [10.0, 12.0, 11.0]).value
    11.0
    """
    slices = np.asarray(values, dtype=np.float64)
    statistic = quantity.statistic or "median"
    of = np.mean if statistic == "mean" else np.median
    uncertainty = spread = None
    if len(slices) > 1:
        spread = float(np.subtract(*np.percentile(slices, (75, 25))))
        uncertainty = bootstrap_uncertainty(slices, statistic)
    return quantity.measured(
        float(of(slices)), n=len(slices), uncertainty=uncertainty, spread=spread, limit=limit, detail=detail
    )


def limited_where_uncertain(measure: Measure) -> Measure:
    """Return a measure, limited if nothing else limits it and its uncertainty exceeds a tenth of its value."""
    if measure.validity is not Validity.VALID or measure.value is None or measure.uncertainty is None:
        return measure
    if measure.uncertainty <= MOST_UNCERTAIN * abs(measure.value):
        return measure
    return replace(measure, validity=Validity.LIMITED, limit=Limit.UNCERTAIN)


def bootstrap_uncertainty(values: np.ndarray, statistic: Statistic) -> float:
    """Return the standard deviation of a statistic over 200 resamples of values (n,); the same values give the same."""
    of = np.mean if statistic == "mean" else np.median
    generator = np.random.default_rng(_SEED)
    resamples = min(RESAMPLES, max(20, _MOST_AT_ONCE // len(values)))
    drawn = values[generator.integers(0, len(values), (resamples, len(values)))]
    return float(of(drawn, axis=1).std(ddof=1))
