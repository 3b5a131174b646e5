"""The gates of the default checkpoint for whole modalities: results it must reach on held-out sources.

Gates for single factors are in `single_factors`, those for whole series in `series`.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mediqa_node.reader_study.statistics import Interval, srcc
from training.data.store import Sample
from training.evaluate.by_method import METHODS, QUALITY, SHIPPED, MethodPredictions
from training.evaluate.metrics import agreement, difference
from training.evaluate.results import Result, metric, select, worst_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Least SRCC of a task, mean over seeds; None: not gated.

    Attributes:
        pooled: over all images; within: mean inside an image; worst: of the worst source.
    """

    pooled: float | None = None
    within: float | None = None
    worst: float | None = None

    def __str__(self) -> str:
        """Return `SRCC at least .95, worst source .90`."""
        parts = (("", self.pooled), ("within an image ", self.within), ("worst source ", self.worst))
        named = [f"{name}{value:.2f}".replace("0.", ".", 1) for name, value in parts if value is not None]
        return f"SRCC at least {', '.join(named)}"


GATES = {
    ("CT", QUALITY): Gate(pooled=0.95, worst=0.90),
    ("MR", QUALITY): Gate(pooled=0.82, within=0.88, worst=0.60),
    ("OP", QUALITY): Gate(pooled=0.88),
}
"""That of MR is for an absolute severity of resolution (`simulate.mr.RESOLUTION_LABEL`); other tasks are reported."""
TASKS = {
    ("CT", QUALITY): "CT quality",
    ("CT", "mas"): "CT mAs",
    ("MR", "tesla"): "MR SNR",
    ("MR", QUALITY): "MR quality",
    ("OP", "blur"): "fundus blur",
    ("OP", QUALITY): "fundus quality",
}
_SETTING_OF = {"mas": "mas", "tesla": "field_t", "blur": "blur_px"}
"""The setting of a simulated copy that decides its parameter; copies without it all have the same parameter."""


def results(
    predictions: Mapping[str, MethodPredictions],
    *,
    seed: int,
    weights_sha256: str,
    held_out: str = "",
    sources: Container[str] | None = None,
) -> Iterator[Result]:
    """Yield the result of every method on every task; a larger prediction means a larger label.

    Args:
        held_out, sources: name of a set of held-out sources, and these; None: all.
    """
    for modality, output in TASKS:
        if modality not in predictions or output not in predictions[modality].values:
            continue
        one = predictions[modality]
        keep = np.array(
            [_counts(sample, output) and (sources is None or sample.source in sources) for sample in one.data.samples]
        )
        if not keep.any():
            continue
        labelled = [sample for sample, kept in zip(one.data.samples, keep, strict=True) if kept]
        truth = one.truth(output)[keep]
        origin = np.array([sample.source for sample in labelled])
        bases = [sample.base for sample in labelled]
        values = {method: one.values[output][method][keep] for method in METHODS if method in one.values[output]}
        reached = {method: value for method in values if (value := srcc(values[method], truth)) is not None}
        for method, mine in values.items():
            by_source = {
                str(source): value
                for source in np.unique(origin)
                if (value := srcc(mine[origin == source], truth[origin == source])) is not None
            }
            worst = min(by_source, key=lambda source: by_source[source]) if by_source else ""
            others = [other for other in reached if other != method and _differ(values[other], mine)]
            best = max(others, key=lambda other: reached[other]) if others else ""
            yield Result(
                task=(modality, output, held_out) if held_out else (modality, output),
                method=method,
                seed=seed,
                weights_sha256=weights_sha256,
                agreement=agreement(mine, truth, bases, sources=list(origin)),
                worst=(by_source.get(worst), worst),
                behind=difference(mine, values[best], truth, bases, sources=list(origin))
                if best
                else Interval(value=None),
                best_other=best,
            )


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two methods rank differently; the shipped one may equal one of its two components."""
    return bool((np.argsort(a) != np.argsort(b)).any())


def passed(of_task: Sequence[Result], method: str = SHIPPED) -> bool | None:
    """Whether a method passes the gate of a task, by the mean over the seeds; None without a gate."""
    mine = [one for one in of_task if one.method == method]
    gate = GATES.get((mine[0].task[0], mine[0].task[1]))
    if gate is None:
        return None
    found = (
        (gate.pooled, metric(mine, "srcc")),
        (gate.within, metric(mine, "within")),
        (gate.worst, worst_source(mine)),
    )
    return all(value >= least for least, value in found if least is not None)


GATE_HEADS = (
    "task", "method", "images", "slices", "SRCC", "within", "PLCC", "RMSE", "worst source", "less the best other",
    "seeds", "gate",
)  # fmt: skip


def gate_rows(found: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """Yield a row under GATE_HEADS for each task and method: means over seeds, intervals of the first seed.

    Errors of parameters are errors of the logarithm, in standard deviations of the training samples.
    """
    for task in dict.fromkeys(one.task for one in found):
        of_task = select(found, task=task)
        for method in METHODS:
            if not (mine := [one for one in of_task if one.method == method]):
                continue
            first = mine[0]
            interval = first.agreement.srcc
            yield (
                title(task),
                method,
                str(first.agreement.n),
                str(first.agreement.groups),
                str(replace(_interval(metric(mine, "srcc")), low=interval.low, high=interval.high)),
                *(str(_interval(metric(mine, key))) for key in ("within", "plcc", "rmse")),
                f"{_interval(worst_source(mine))!s} {first.worst[1]}".rstrip(),
                f"{first.behind!s} {first.best_other}" if first.best_other else "",
                str(len(mine)),
                verdict(passed(of_task), str(GATES.get((task[0], task[1]), ""))) if method == SHIPPED else "",
            )


def title(task: tuple[str, ...]) -> str:
    """Return a task in words, with the set of held-out sources if there are several."""
    return " ".join([TASKS[task[0], task[1]], *(f"set {name}" for name in task[2:])])


def verdict(holds: bool | None, gate: str) -> str:
    """Return a gate with its result; a task without one is reported."""
    return "reported" if holds is None else f"{'PASSED' if holds else 'NOT MET'}: {gate}"


def undefined_lines(found: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each task and reason why methods have no agreement."""
    for task in dict.fromkeys(one.task for one in found):
        methods: dict[str, list[str]] = {}
        for one in select(found, task=task):
            if one.agreement.undefined and one.method not in methods.setdefault(one.agreement.undefined, []):
                methods[one.agreement.undefined].append(one.method)
        for why, each in methods.items():
            yield f"{title(task)}, {', '.join(each)}: no agreement: {why}"


def _interval(value: float) -> Interval:
    """Return a value without its interval; None instead of NaN, which prints as a dash."""
    return Interval(value=None if np.isnan(value) else value)


def _counts(sample: Sample, output: str) -> bool:
    if output not in sample.labels:
        return False
    if output == QUALITY or not sample.factor:
        return True
    return sample.factor == "clean" or sample.settings.get(_SETTING_OF[output], 0) > 0
