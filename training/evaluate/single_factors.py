"""How well a score follows one factor at a time, within every image of a sweep of simulated degradations.

A sweep has an image at rising strengths of one factor. Levels that nobody can tell apart are left out: of the levels in
order of severity, each must differ from the last one kept by `VISIBLE`; an image counts if three levels are left.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.reader_study.statistics import srcc
from training.data.store import Sample
from training.evaluate.by_method import METHODS, NETWORK, QUALITY, SHIPPED, STATISTICS, MethodPredictions
from training.evaluate.gates import verdict

VISIBLE = {"CT": 0.01, "MR": 0.05, "OP": 0.05}
"""By modality: of the quality of CT, whose severities saturate; of the severity of MR and photographs."""
_LEVELS = 3
BRAIN, BODY = "brain", "body"
SWEEP_GATES = {
    ("CT", "", "dose"): 0.98, ("CT", "", "views"): 0.90,
    ("MR", BRAIN, "noise"): 0.95, ("MR", BRAIN, "undersampling"): 0.90,
    ("MR", BRAIN, "ghosts"): 0.85, ("MR", BRAIN, "resolution"): 0.85,
    ("MR", BODY, "noise"): 0.90, ("MR", BODY, "undersampling"): 0.85,
    ("MR", BODY, "ghosts"): 0.60, ("MR", BODY, "resolution"): 0.55,
    ("OP", "", "blur"): 0.95, ("OP", "", "illumination"): 0.95, ("OP", "", "haze"): 0.95, ("OP", "", "glare"): 0.95,
    ("OP", "", "jpeg"): 0.95, ("OP", "", "noise"): 0.95,
}  # fmt: skip
"""Least mean SRCC over images, by modality, part of the body and factor."""
DETECTED = 0.80
"""Below this the card and the report say "not detected"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """How well the score follows one factor: mean SRCC within each image, the lowest, and the image it belongs to.

    Attributes:
        region: `brain` or `body`; "" for the whole modality.
        held_out: the set of held-out sources; "" for all.
    """

    modality: str
    region: str
    factor: str
    method: str
    weights_sha256: str
    held_out: str
    images: int
    mean: float
    worst: float
    worst_image: str


def sweeps(
    predictions: Mapping[str, MethodPredictions],
    factors: Mapping[str, Sequence[str]],
    *,
    weights_sha256: str,
    held_out: str = "",
    sources: Container[str] | None = None,
) -> Iterator[Swept]:
    """Yield how well the quality of each method follows every single factor; factors without copies are left out.

    MR of brains and of other parts of the body have their own entries as well.

    Args:
        held_out, sources: name of a set of held-out sources, and these; None: all.
    """
    for modality, one in predictions.items():
        for region in ("", BRAIN, BODY) if modality == "MR" else ("",):
            for factor in factors[modality]:
                for method in METHODS:
                    known = method in one.values.get(QUALITY, {})
                    found = _by_image(one, region, factor, method, sources) if known else {}
                    if found:
                        worst = min(found, key=lambda base: found[base])
                        yield Swept(
                            modality=modality,
                            region=region,
                            factor=factor,
                            method=method,
                            weights_sha256=weights_sha256,
                            held_out=held_out,
                            images=len(found),
                            mean=float(np.mean(list(found.values()))),
                            worst=found[worst],
                            worst_image=worst,
                        )


def part_of(sample: Sample) -> str:
    """Return `brain` for brains and heads, else `body`."""
    return BRAIN if sample.prompt["region"] in ("brain", "head") else BODY


def _by_image(
    one: MethodPredictions, region: str, factor: str, method: str, sources: Container[str] | None
) -> dict[str, float]:
    predicted = one.values[QUALITY][method]
    by_image: dict[str, list[tuple[float, float]]] = {}
    for place, sample in enumerate(one.data.samples):
        mine = sample.factor in (factor, "clean") and region in ("", part_of(sample))
        if mine and (sources is None or sample.source in sources):
            by_image.setdefault(sample.base, []).append((_severity(sample, factor), float(predicted[place])))
    found = {}
    for base, levels in by_image.items():
        kept = visible(levels, VISIBLE[one.data.samples[0].modality])
        if len(kept) >= _LEVELS:
            severity, score = zip(*kept, strict=True)
            found[base] = srcc(score, [-value for value in severity]) or 0.0  # 0 if the score is constant
    return found


def _severity(sample: Sample, factor: str) -> float:
    return -sample.labels[QUALITY] if sample.modality == "CT" else sample.severities[factor]


def visible(levels: Sequence[tuple[float, float]], apart: float) -> list[tuple[float, float]]:
    """Return the levels (severity, score) in order of severity, without those too near to the last one kept.

    >>> visible([(0.5, 1.0), (0.1, 2.0), (0.12, 3.0)], 0.05)
    [(0.1, 2.0), (0.5, 1.0)]
    """
    kept: list[tuple[float, float]] = []
    for level in sorted(levels):
        if not kept or level[0] - kept[-1][0] >= apart:
            kept.append(level)
    return kept


SWEEP_HEADS = ("factor", "images", "shipped", "network", "statistics", "worst image of the shipped score", "gate")


def sweep_rows(swept: Sequence[Swept]) -> Iterator[tuple[str, ...]]:
    """Yield a row under SWEEP_HEADS for each factor: the mean over the checkpoints, by method."""
    keys = dict.fromkeys((one.held_out, one.modality, one.region, one.factor) for one in swept if one.method == SHIPPED)
    for key in keys:
        held_out, modality, region, factor = key
        mine = [one for one in swept if (one.held_out, one.modality, one.region, one.factor) == key]
        means = {
            method: float(np.mean(values))
            for method in METHODS
            if (values := [one.mean for one in mine if one.method == method])
        }
        shipped = [one for one in mine if one.method == SHIPPED]
        worst = min(shipped, key=lambda one: one.worst)
        yield (
            " ".join(filter(None, (modality, region, factor, held_out and f"set {held_out}"))),
            str(shipped[0].images),
            *(f"{means[method]:.3f}" if method in means else "–" for method in (SHIPPED, NETWORK, STATISTICS)),
            f"{worst.worst:.2f} {worst.worst_image}",
            _gate(modality, region, factor, means[SHIPPED]),
        )


def _gate(modality: str, region: str, factor: str, mean: float) -> str:
    least = SWEEP_GATES.get((modality, region, factor))
    if least is not None:
        return verdict(mean >= least, f"{least:.2f}")
    return "" if mean >= DETECTED else "not detected"
