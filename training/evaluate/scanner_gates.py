"""Gates on series as scanned, on refusals, and on what a score is made of and costs.

The other gates are in `gates` (agreement with labels) and `single_factors`.
"""

import time
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mediqa_node.model.card import Card
from mediqa_node.model.predict import NetworkScorer
from training.data.collection import ImageSet, StackImages, stacks_of
from training.evaluate.by_method import QUALITY
from training.evaluate.gates import verdict
from training.evaluate.refusals import Refusals
from training.evaluate.series import CLEAN_GATE, ScoredSeries, prepared, score_of

FALSE_REFUSALS, CORE_SECONDS = 0.05, 0.6
LEAST_NETWORK = {"CT": 0.75, "MR": 1.0, "OP": 1.0}
"""Least share of the network in the quality; the regressors on statistics have the rest. All of it is due to a network
that passes the gate of its modality alone."""
TISSUE_LIKE = frozenset({"refuse/mr_fruit_ge_irspgr"})
"""Sets that must not be scored, and that neither headers nor pixels tell from tissue."""
_TIMED = 5
_WARM_UP = 2
_NO_SERIES = "no series"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One gate of one checkpoint.

    Attributes:
        figure: what was seen, in words.
        holds: None: reported only.
    """

    gate: str
    figure: str
    holds: bool | None
    least: str
    weights_sha256: str

    def row(self) -> tuple[str, ...]:
        """Return the row under CHECK_HEADS."""
        return self.gate, self.figure, self.weights_sha256[:12], verdict(self.holds, self.least)


CHECK_HEADS = ("series and cost", "seen", "weights", "gate")


def clean_series(series: Iterable[ScoredSeries], weights_sha256: str, *, held_out: str) -> Check:
    """Return whether the scores of held-out series that nobody degraded fit their own quality (`evaluate.series`).

    Args:
        held_out: name of the set of held-out sources; "" for all.
    """
    found = [one for one in series if one.refused is None]
    fit = [one.holds for one in found]
    of = [(modality, [one.holds for one in found if one.modality == modality]) for modality in ("CT", "MR", "OP")]
    wrong = [f"{one.name} {one.score:.2f} for {one.quality:.2f}" for one in found if not one.holds]
    parts = ", ".join(f"{modality} {sum(each)} of {len(each)}" for modality, each in of if each)
    return Check(
        gate=f"clean series, scores that fit{f', set {held_out}' if held_out else ''}",
        figure=f"{np.mean(fit):.0%}: {parts}{'; not: ' + ', '.join(wrong) if wrong else ''}" if fit else _NO_SERIES,
        holds=float(np.mean(fit)) >= CLEAN_GATE if fit else None,
        least=f"{CLEAN_GATE:.0%}",
        weights_sha256=weights_sha256,
    )


def of_card(card: Card, *, alone: Container[str] = ()) -> Iterator[Check]:
    """Yield the gates that a card decides: the network's share, and refusals where `mediqa-train recipe` counted.

    Args:
        alone: modalities in which the network passes the gate without statistics.
    """
    least = {modality: 1.0 if modality in alone else share for modality, share in LEAST_NETWORK.items()}
    fusion = {modality: card.fusion.get(modality, {}).get(QUALITY) for modality in LEAST_NETWORK}
    share = {
        modality: 1.0 if one is None else one.network / ((one.network + one.statistics) or 1.0)
        for modality, one in fusion.items()
    }
    yield Check(
        gate="share of the network in the quality",
        figure=", ".join(f"{modality} {value:.2f}" for modality, value in share.items()),
        holds=all(value >= least[modality] for modality, value in share.items()),
        least=", ".join(f"{modality} {value:.2f}" for modality, value in least.items()),
        weights_sha256=card.weights_sha256,
    )
    if "refusals" not in card.metrics:
        return
    seen = Refusals(**card.metrics["refusals"])
    refused, patients = sum(seen.refused.values()), sum(seen.patients.values())
    yield Check(
        gate="false refusals, the source of each series left out",
        figure=", ".join(
            f"{modality} {seen.refused[modality]} of {seen.patients[modality]}"
            if modality in seen.patients
            else f"{modality} has no range"
            for modality in LEAST_NETWORK
        ),
        holds=refused <= FALSE_REFUSALS * patients if patients else None,
        least=f"{FALSE_REFUSALS:.0%} at most",
        weights_sha256=card.weights_sha256,
    )
    yield Check(
        gate="sets that must not be scored",
        figure=f"{seen.foreign - len(seen.passed)} of {seen.foreign} refused"
        + (f"; not: {', '.join(seen.passed)}" if seen.passed else ""),
        holds=TISSUE_LIKE.issuperset(seen.passed) if seen.foreign else None,
        least="all but what looks like tissue",
        weights_sha256=card.weights_sha256,
    )


def cost(sets: Sequence[ImageSet], scorer: NetworkScorer) -> Check | None:
    """Return the processor time of a score of as many slices of CT as are scored, median of a few runs.

    From decoded slices on: views, statistics, training range and network. None: there is no such series.
    """
    stack = _all_slices(sets, scorer)
    if stack is None:
        return None
    spent = []
    for _ in range(_WARM_UP + _TIMED):
        started = time.process_time()
        inputs = prepared(stack.images, stack, scorer)
        scorer.range_position(inputs, stack.modality)
        score_of(inputs, stack, scorer)
        spent.append(time.process_time() - started)
    seconds = float(np.median(spent[_WARM_UP:]))
    return Check(
        gate=f"cost of {inputs.n_slices} slices in {len(inputs.views)} views",
        figure=f"{seconds:.2f} core-seconds on this machine",
        holds=seconds <= CORE_SECONDS,
        least=f"{CORE_SECONDS} at most",
        weights_sha256=scorer.card.weights_sha256,
    )


def repeatability(sets: Sequence[ImageSet], scorer: NetworkScorer) -> Check:
    """Return how far the scores of one series lie apart when every second slice is taken, or the slices between.

    The figure is the within-series standard deviation: of the differences of both scores, divided by the root of 2.
    """
    twice = replace(scorer.spec, slices=2 * scorer.spec.slices)
    apart = []
    for stack in (stack for one in sets for stack in stacks_of(one.folder, twice)):
        if stack.prompt is not None and stack.refused is None and len(stack.images) == twice.slices:
            halves = [score_of(prepared(stack.images[first::2], stack, scorer), stack, scorer) for first in (0, 1)]
            apart.append(halves[0] - halves[1])
    return Check(
        gate="repeatability over neighbouring slices",
        figure=f"SD {np.sqrt(np.mean(np.square(apart)) / 2.0):.3f} in {len(apart)} series, largest difference "
        f"{np.abs(apart).max():.3f}"
        if apart
        else _NO_SERIES,
        holds=None,
        least="",
        weights_sha256=scorer.card.weights_sha256,
    )


def _all_slices(sets: Sequence[ImageSet], scorer: NetworkScorer) -> StackImages | None:
    """Return a stack of CT with as many slices as are scored."""
    for stack in (stack for one in sets for stack in stacks_of(one.folder, scorer.spec)):
        whole = stack.modality == "CT" and len(stack.images) == scorer.spec.slices
        if whole and stack.prompt is not None and stack.refused is None:
            return stack
    return None
