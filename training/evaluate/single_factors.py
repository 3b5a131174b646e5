"""How well a score follows one factor at a time, within every image of a sweep of simulated degradations.

A sweep has an image at rising strengths of one factor. Levels that nobody can tell apart are left out (`visible`). An
image of MR or of a fundus counts if three levels are left, with the SRCC of their scores. Of CT, whose streaks of few
views seldom show, every pair of levels that can be told apart counts: concordant less discordant pairs of an image.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.reader_study.statistics import srcc
from training.data.store import Sample
from training.evaluate.by_method import METHODS, NETWORK, QUALITY, SHIPPED, STATISTICS, MethodPredictions
from training.evaluate.gates import verdict
from training.evaluate.visible import VISIBLE, order_of_pairs, severity_of, visible

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
"""Least mean over images, by modality, part of the body and factor."""
NOT_EVALUATED = "NOT EVALUATED"
DETECTED = 0.80
"""Below this a factor without a gate counts as not detected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """How well the score follows one factor: mean over images, the lowest, and the image it belongs to.

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
            by_image.setdefault(sample.base, []).append((severity_of(sample, factor), float(predicted[place])))
    modality = one.data.samples[0].modality
    found = {base: _followed(levels, modality) for base, levels in by_image.items()}
    return {base: value for base, value in found.items() if value is not None}


def _followed(levels: Sequence[tuple[float, float]], modality: str) -> float | None:
    """Return how well the scores of an image follow the severity, -1..1; None if too few levels can be told apart."""
    if modality == "CT":
        pairs = list(order_of_pairs([((severity,), score) for severity, score in levels], VISIBLE[modality]))
        return float(np.mean(pairs)) if pairs else None
    kept = visible(levels, VISIBLE[modality])
    if len(kept) < _LEVELS:
        return None
    severity, score = zip(*kept, strict=True)
    return srcc(score, [-value for value in severity]) or 0.0  # 0 if the score is constant


def is_followed(modality: str, region: str, factor: str, mean: float) -> bool:
    """Whether a score follows a factor: by its gate, or by `DETECTED` if it has none."""
    return mean >= SWEEP_GATES.get((modality, region, factor), DETECTED)


SWEEP_HEADS = ("factor", "images", "shipped", "network", "statistics", "worst image of the shipped score", "gate")


def sweep_rows(swept: Sequence[Swept]) -> Iterator[tuple[str, ...]]:
    """Yield a row under SWEEP_HEADS for each factor: the mean over the checkpoints, by method.

    A gate for which no image has levels that can be told apart has a row, too.
    """
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
            _title(modality, region, factor, held_out),
            str(shipped[0].images),
            *(f"{means[method]:.3f}" if method in means else "–" for method in (SHIPPED, NETWORK, STATISTICS)),
            f"{worst.worst:.2f} {worst.worst_image}",
            _gate(modality, region, factor, means[SHIPPED]),
        )
    for held_out, of in dict.fromkeys((one.held_out, one.modality) for one in swept):
        for modality, region, factor in SWEEP_GATES:
            if modality == of and (held_out, modality, region, factor) not in keys:
                yield _title(modality, region, factor, held_out), "0", *("–",) * 4, NOT_EVALUATED


def _title(modality: str, region: str, factor: str, held_out: str) -> str:
    return " ".join(filter(None, (modality, region, factor, held_out and f"set {held_out}")))


def _gate(modality: str, region: str, factor: str, mean: float) -> str:
    holds, least = is_followed(modality, region, factor, mean), SWEEP_GATES.get((modality, region, factor))
    if least is not None:
        return verdict(holds, f"{least:.2f}")
    return "" if holds else "not detected"
