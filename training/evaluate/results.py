"""One result per task, method and seed, used by gates, tables and the ablation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from mediqa_node.reader_study.statistics import Interval
from training.evaluate.metrics import Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one method on one task with one seed.

    Attributes:
        task: what was predicted, of which samples: `("CT", "quality")`, `("downstream", "brain t1")`.
        method: a method, a row of a table or an arm of an experiment.
        weights_sha256: of the checkpoint, if the method has one.
        worst: the lowest SRCC of a single source, and its name; None and "" where no source has one.
        behind: this method's SRCC minus that of `best_other`, the best of the other methods.
    """

    task: tuple[str, ...]
    method: str
    seed: int
    agreement: Agreement
    weights_sha256: str = ""
    worst: tuple[float | None, str] = (None, "")
    behind: Interval = Interval(value=None)
    best_other: str = ""


def select(results: Iterable[Result], *, task: tuple[str, ...], method: str | None = None) -> list[Result]:
    """Return the results of a task, of all methods or of one, in order."""
    return [one for one in results if one.task == task and method in (None, one.method)]


def mean(results: Sequence[Result], of: Callable[[Result], float]) -> float:
    """Return the mean of a number over seeds; NaN without results."""
    return float(np.mean([of(one) for one in results])) if results else nan


def metric(results: Sequence[Result], name: str) -> float:
    """Return the mean over seeds of `srcc`, `plcc`, `rmse` or `within`; NaN where one is undefined."""
    return mean(results, lambda one: value(getattr(one.agreement, name)))


def worst_source(results: Sequence[Result]) -> float:
    """Return the mean over seeds of the SRCC of the worst source; NaN where one is undefined."""
    return mean(results, lambda one: nan if one.worst[0] is None else one.worst[0])


def value(interval: Interval) -> float:
    """Return the value of an interval, NaN where it is undefined."""
    return nan if interval.value is None else interval.value
