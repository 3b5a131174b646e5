"""The gates of the default checkpoint: results it must reach on held-out sources to be shipped."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from mediqa_node.reader_study.statistics import Interval, srcc
from training.data.store import Sample
from training.evaluate.by_method import METHODS, NETWORK, QUALITY, SHIPPED, STATISTICS, MethodPredictions
from training.evaluate.metrics import agreement, difference
from training.evaluate.results import Result, mean, metric, select, worst_source

GATES = {
    ("CT", QUALITY): "SRCC at least .95 over all, .90 for the worst source",
    ("CT", "mas"): "SRCC at least .95 within an image, .70 over all",
    ("MR", "tesla"): "SRCC at least .95",
    ("MR", QUALITY): "no more than .05 below the best baseline; wanted: .90",
    ("OP", "blur"): "no more than .05 below the best baseline; wanted: .85",
    ("OP", QUALITY): "no more than .05 below the best baseline; wanted: .85",
}
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


def results(predictions: Mapping[str, MethodPredictions], *, seed: int, weights_sha256: str) -> Iterator[Result]:
    """Yield the result of every method on every task; a larger prediction means a larger label."""
    for modality, output in TASKS:
        if modality not in predictions or output not in predictions[modality].values:
            continue
        one = predictions[modality]
        keep = np.array([_counts(sample, output) for sample in one.data.samples])
        if not keep.any():
            continue
        labelled = [sample for sample, kept in zip(one.data.samples, keep, strict=True) if kept]
        truth = one.truth(output)[keep]
        sources = np.array([sample.source for sample in labelled])
        bases = [sample.base for sample in labelled]
        values = {method: one.values[output][method][keep] for method in METHODS if method in one.values[output]}
        reached = {method: value for method in values if (value := srcc(values[method], truth)) is not None}
        for method, mine in values.items():
            by_source = {
                str(source): value
                for source in np.unique(sources)
                if (value := srcc(mine[sources == source], truth[sources == source])) is not None
            }
            worst = min(by_source, key=lambda source: by_source[source]) if by_source else ""
            others = [other for other in reached if other != method and _differ(values[other], mine)]
            best = max(others, key=lambda other: reached[other]) if others else ""
            yield Result(
                task=(modality, output),
                method=method,
                seed=seed,
                weights_sha256=weights_sha256,
                agreement=agreement(mine, truth, bases),
                worst=(by_source.get(worst), worst),
                behind=difference(mine, values[best], truth, bases) if best else Interval(value=None),
                best_other=best,
            )


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two methods rank differently; the shipped one may equal one of its two components."""
    return bool((np.argsort(a) != np.argsort(b)).any())


def passed(of_task: Sequence[Result]) -> bool:
    """Whether the shipped method passes its gate, by the mean over the seeds."""
    shipped = [one for one in of_task if one.method == SHIPPED]
    task = shipped[0].task
    overall = metric(shipped, "srcc")
    if task == ("CT", QUALITY):
        return overall >= 0.95 and worst_source(shipped) >= 0.90
    if task == ("CT", "mas"):
        return metric(shipped, "within") >= 0.95 and overall >= 0.70
    if task == ("MR", "tesla"):
        return overall >= 0.95
    return mean(shipped, lambda one: np.nan if one.behind.low is None else one.behind.low) >= -0.05


GATE_HEADS = (
    "task", "method", "images", "slices", "SRCC", "within", "PLCC", "RMSE", "worst source", "less the best other",
    "seeds", "gate",
)  # fmt: skip


def gate_rows(found: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """Yield a row under GATE_HEADS for each task and method: means over seeds, intervals of the first seed.

    Errors of parameters are errors of the logarithm, in standard deviations of the training samples.
    """
    for task, name in TASKS.items():
        of_task = select(found, task=task)
        for method in METHODS:
            if not (mine := [one for one in of_task if one.method == method]):
                continue
            first = mine[0]
            interval = first.agreement.srcc
            yield (
                name,
                method,
                str(first.agreement.n),
                str(first.agreement.groups),
                str(replace(_interval(metric(mine, "srcc")), low=interval.low, high=interval.high)),
                *(str(_interval(metric(mine, key))) for key in ("within", "plcc", "rmse")),
                f"{_interval(worst_source(mine))!s} {first.worst[1]}".rstrip(),
                f"{first.behind!s} {first.best_other}" if first.best_other else "",
                str(len(mine)),
                f"{'PASSED' if passed(of_task) else 'NOT MET'}: {GATES[task]}" if method == SHIPPED else "",
            )


def undefined_lines(found: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each task and reason why methods have no agreement."""
    for task, name in TASKS.items():
        methods: dict[str, list[str]] = {}
        for one in select(found, task=task):
            if one.agreement.undefined and one.method not in methods.setdefault(one.agreement.undefined, []):
                methods[one.agreement.undefined].append(one.method)
        for why, each in methods.items():
            yield f"{name}, {', '.join(each)}: no agreement: {why}"


def _interval(value: float) -> Interval:
    """Return a value without its interval; None instead of NaN, which prints as a dash."""
    return Interval(value=None if np.isnan(value) else value)


def _counts(sample: Sample, output: str) -> bool:
    if output not in sample.labels:
        return False
    if output == QUALITY or not sample.factor:
        return True
    return sample.factor == "clean" or sample.settings.get(_SETTING_OF[output], 0) > 0


# ── one factor at a time ─────────────────────────────────────────────────────

SWEEP_GATES = {
    ("CT", "dose"): 0.95, ("CT", "views"): 0.95, ("MR", "noise"): 0.95, ("OP", "blur"): 0.95, ("OP", "haze"): 0.95,
    ("MR", "undersampling"): 0.90, ("OP", "jpeg"): 0.90, ("OP", "illumination"): 0.90,
}  # fmt: skip
"""Mean SRCC over images that one factor alone made worse; factors without a gate are only reported."""
DETECTED = 0.80
"""Below this the card and the report say "not detected"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """How well the score follows one factor: mean SRCC within each image, the lowest, and the image it belongs to.

    Attributes:
        region: of the body; "" for the whole modality.
    """

    modality: str
    region: str
    factor: str
    method: str
    weights_sha256: str
    images: int
    mean: float
    worst: float
    worst_image: str


def sweeps(
    predictions: Mapping[str, MethodPredictions], factors: Mapping[str, Sequence[str]], *, weights_sha256: str
) -> Iterator[Swept]:
    """Yield how well the quality of each method follows every single factor; factors without copies are left out.

    If a modality has several regions, each region also has its own entries.
    """
    for modality, one in predictions.items():
        regions = sorted({sample.prompt["region"] for sample in one.data.samples})
        for region, factor in product(["", *regions] if len(regions) > 1 else [""], factors[modality]):
            for method in METHODS:
                found = _by_image(one, region, factor, method) if method in one.values.get(QUALITY, {}) else {}
                if found:
                    worst = min(found, key=lambda base: found[base])
                    yield Swept(
                        modality=modality,
                        region=region,
                        factor=factor,
                        method=method,
                        weights_sha256=weights_sha256,
                        images=len(found),
                        mean=float(np.mean(list(found.values()))),
                        worst=found[worst],
                        worst_image=worst,
                    )


def _by_image(one: MethodPredictions, region: str, factor: str, method: str) -> dict[str, float]:
    predicted = one.values[QUALITY][method]
    by_image: dict[str, list[tuple[float, float]]] = {}
    for place, sample in enumerate(one.data.samples):
        if sample.factor in (factor, "clean") and region in ("", sample.prompt["region"]):
            by_image.setdefault(sample.base, []).append((-sample.severities[factor], float(predicted[place])))
    found = {}
    for base, pairs in by_image.items():
        severity, score = zip(*pairs, strict=True)
        if len(set(severity)) >= 3:
            found[base] = srcc(score, severity) or 0.0  # 0 if the score is constant
    return found


SWEEP_HEADS = ("factor", "images", "shipped", "network", "statistics", "worst image of the shipped score", "gate")


def sweep_rows(swept: Sequence[Swept]) -> Iterator[tuple[str, ...]]:
    """Yield a row under SWEEP_HEADS for each factor: the mean over the checkpoints, by method."""
    keys = dict.fromkeys((one.modality, one.region, one.factor) for one in swept if one.method == SHIPPED)
    for modality, region, factor in keys:
        mine = [one for one in swept if (one.modality, one.region, one.factor) == (modality, region, factor)]
        means = {
            method: float(np.mean(values))
            for method in METHODS
            if (values := [one.mean for one in mine if one.method == method])
        }
        shipped = [one for one in mine if one.method == SHIPPED]
        worst = min(shipped, key=lambda one: one.worst)
        yield (
            " ".join(filter(None, (modality, region, factor))),
            str(shipped[0].images),
            *(f"{means[method]:.3f}" if method in means else "–" for method in (SHIPPED, NETWORK, STATISTICS)),
            f"{worst.worst:.2f} {worst.worst_image}",
            _verdict(modality, factor, means[SHIPPED]) if not region else "",
        )


def _verdict(modality: str, factor: str, mean: float) -> str:
    gate = SWEEP_GATES.get((modality, factor))
    if gate is not None:
        return f"PASSED {gate:.2f}" if mean >= gate else f"NOT MET {gate:.2f}"
    return "reported" if mean >= DETECTED else "NOT DETECTED"
