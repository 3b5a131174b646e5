"""The gates of the default checkpoint, on sources that no training has seen: what it must reach to be shipped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from training.data.store import Sample
from training.evaluate.by_method import METHODS, NETWORK, QUALITY, SHIPPED, STATISTICS, MethodPredictions
from training.evaluate.metrics import Agreement, Interval, agreement, difference, srcc

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
_TOLD_BY = {"mas": "mas", "tesla": "field_t", "blur": "blur_px"}
"""The setting of a copy that a parameter is to be read off; copies without it are all alike to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One task, one method, one seed.

    Attributes:
        weights_sha256: of the checkpoint.
        worst: the lowest SRCC of a single source, and its name.
        behind: this method's SRCC less that of the best other one, and which that is.
    """

    task: tuple[str, str]
    method: str
    seed: int
    weights_sha256: str
    agreement: Agreement
    worst: tuple[float, str]
    behind: Interval
    best_other: str


def results(judged: Mapping[str, MethodPredictions], *, seed: int, weights_sha256: str) -> Iterator[Result]:
    """Yield how every method does at every task; larger parameters and larger scores mean the same of both."""
    for modality, output in TASKS:
        if modality not in judged or output not in judged[modality].said:
            continue
        one = judged[modality]
        keep = np.array([_counts(sample, output) for sample in one.data.samples])
        if not keep.any():
            continue
        labelled = [sample for sample, kept in zip(one.data.samples, keep, strict=True) if kept]
        truth = one.truth(output)[keep]
        sources = np.array([sample.source for sample in labelled])
        bases = [sample.base for sample in labelled]
        said = {method: one.said[output][method][keep] for method in METHODS if method in one.said[output]}
        reached = {method: value for method in said if (value := srcc(said[method], truth)) is not None}
        for method, mine in said.items():
            by_source = {
                str(source): value
                for source in np.unique(sources)
                if (value := srcc(mine[sources == source], truth[sources == source])) is not None
            }
            worst = min(by_source, key=lambda source: by_source[source]) if by_source else ""
            others = [other for other in reached if other != method and _differ(said[other], mine)]
            best = max(others, key=lambda other: reached[other]) if others else ""
            yield Result(
                task=(modality, output),
                method=method,
                seed=seed,
                weights_sha256=weights_sha256,
                agreement=agreement(mine, truth, bases),
                worst=(by_source.get(worst, float("nan")), worst),
                behind=difference(mine, said[best], truth, bases) if best else Interval(value=None),
                best_other=best,
            )


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two methods rank differently: what is shipped may be one of the two that it could mix."""
    return bool((np.argsort(a) != np.argsort(b)).any())


def passed(of_task: Sequence[Result]) -> bool:
    """Return whether what is shipped passes its gate, by the mean over the seeds."""
    shipped = [one for one in of_task if one.method == SHIPPED]
    task = shipped[0].task
    overall, within = _metric(shipped, "srcc"), _metric(shipped, "within")
    if task == ("CT", QUALITY):
        return overall >= 0.95 and _mean(shipped, lambda one: one.worst[0]) >= 0.90
    if task == ("CT", "mas"):
        return within >= 0.95 and overall >= 0.70
    if task == ("MR", "tesla"):
        return overall >= 0.95
    return _mean(shipped, lambda one: one.behind.low if one.behind.low is not None else float("nan")) >= -0.05


def table(results_of: Sequence[Result]) -> Iterator[str]:
    """Yield the table: a line for each task and method, the mean over seeds, intervals of the first seed.

    Errors of parameters are of their logarithm, in deviations over the training samples.
    """
    yield (
        f"{'task':16}{'method':12}{'images':>7}{'slices':>7}  {'SRCC':22}{'within':>7}{'PLCC':>7}{'RMSE':>7}"
        f"  {'worst source':34}{'less the best other':32}{'seeds':>6}"
    )
    for task, name in TASKS.items():
        of_task = [one for one in results_of if one.task == task]
        if not of_task:
            continue
        for method in METHODS:
            mine = [one for one in of_task if one.method == method]
            if mine:
                yield _line(name, method, mine)
        yield f"{'':16}{'PASSED' if passed(of_task) else 'NOT MET'}: {GATES[task]}"


def _line(name: str, method: str, mine: Sequence[Result]) -> str:
    first = mine[0].agreement
    mean = _metric(mine, "srcc")
    spread = (
        f"{mean:.3f} [{first.srcc.low:.3f}, {first.srcc.high:.3f}]" if first.srcc.low is not None else f"{mean:.3f}"
    )
    within, plcc, rmse = (_metric(mine, name) for name in ("within", "plcc", "rmse"))
    worst = f"{_mean(mine, lambda one: one.worst[0]):.3f} {mine[0].worst[1]}"
    behind = f"{mine[0].behind!s} {mine[0].best_other}" if mine[0].best_other else ""
    return (
        f"{name:16}{method:12}{first.n:7}{first.groups:7}  {spread:22}{within:7.3f}{plcc:7.3f}{rmse:7.3f}"
        f"  {worst:34}{behind:32}{len(mine):6}"
    )


def _mean(ones: Sequence[Result], of: Callable[[Result], float]) -> float:
    return float(np.mean([of(one) for one in ones]))


def _metric(ones: Sequence[Result], name: str) -> float:
    return _mean(ones, lambda one: _value(getattr(one.agreement, name)))


def _value(interval: Interval) -> float:
    return float("nan") if interval.value is None else interval.value


def _counts(sample: Sample, output: str) -> bool:
    if output not in sample.labels:
        return False
    if output == QUALITY or not sample.factor:
        return True
    return sample.factor == "clean" or sample.settings.get(_TOLD_BY[output], 0) > 0


# ── one factor at a time ─────────────────────────────────────────────────────

SWEEP_GATES = {
    ("CT", "dose"): 0.95, ("CT", "views"): 0.95, ("MR", "noise"): 0.95, ("OP", "blur"): 0.95, ("OP", "haze"): 0.95,
    ("MR", "undersampling"): 0.90, ("OP", "jpeg"): 0.90, ("OP", "illumination"): 0.90,
}  # fmt: skip
"""Mean SRCC over images that one factor alone made worse; what is not here is reported, whatever it is."""
DETECTED = 0.80
"""Below this the card and the report say "not detected"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """How the score follows one factor, over images: mean of SRCC within each, lowest, and which image that was.

    Attributes:
        region: of the body; "" for all of a modality.
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
    judged: Mapping[str, MethodPredictions], factors: Mapping[str, Sequence[str]], *, weights_sha256: str
) -> Iterator[Swept]:
    """Yield how the quality that each method tells follows every factor alone; a factor without copies is left out.

    Where a modality has several regions, each is told besides.
    """
    for modality, one in judged.items():
        regions = sorted({sample.prompt["region"] for sample in one.data.samples})
        for region, factor in product(["", *regions] if len(regions) > 1 else [""], factors[modality]):
            for method in METHODS:
                found = _by_image(one, region, factor, method) if method in one.said.get(QUALITY, {}) else {}
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
    said = one.said[QUALITY][method]
    by_image: dict[str, list[tuple[float, float]]] = {}
    for place, sample in enumerate(one.data.samples):
        if sample.factor in (factor, "clean") and region in ("", sample.prompt["region"]):
            by_image.setdefault(sample.base, []).append((-sample.severities[factor], float(said[place])))
    found = {}
    for base, pairs in by_image.items():
        severity, score = zip(*pairs, strict=True)
        if len(set(severity)) >= 3:
            found[base] = _ranked(score, severity)
    return found


def _ranked(score: Sequence[float], truth: Sequence[float]) -> float:
    """Return SRCC of the few copies of one image; 0 where a score does not move at all."""
    from scipy.stats import spearmanr

    return 0.0 if len(set(score)) == 1 else float(spearmanr(score, truth).statistic)


def sweep_table(swept: Sequence[Swept]) -> Iterator[str]:
    """Yield the sweeps, the mean over the checkpoints: what is shipped, and both that it is mixed of."""
    yield f"{'factor':26}{'images':>7}{'shipped':>9}{'network':>9}{'statistics':>11}  worst image of what is shipped"
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
        widths = ((SHIPPED, 9), (NETWORK, 9), (STATISTICS, 11))
        cells = "".join(f"{means[method]:{width}.3f}" if method in means else " " * width for method, width in widths)
        yield (
            f"{' '.join(filter(None, (modality, region, factor))):26}{shipped[0].images:7}{cells}"
            f"  {f'{worst.worst:.2f} {worst.worst_image}':44}"
            + (_verdict(modality, factor, means[SHIPPED]) if not region else "")
        )


def _verdict(modality: str, factor: str, mean: float) -> str:
    gate = SWEEP_GATES.get((modality, factor))
    if gate is not None:
        return f"PASSED {gate:.2f}" if mean >= gate else f"NOT MET {gate:.2f}"
    return "reported" if mean >= DETECTED else "NOT DETECTED"
