"""How much of the order that a score gives to seen sources is left on unseen ones, factor by factor.

Measured on the copies of a store that one factor alone degraded, by order alone: concordant less discordant pairs of
copies of one image. A pooled figure hides a source on which the score fails, so retention is that of the worst source.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.data.store import Sample
from training.evaluate.by_method import QUALITY, SHIPPED, MethodPredictions
from training.evaluate.visible import VISIBLE, order_of_pairs, severities_of
from training.simulate.degraded import FACTORS
from training.simulate.mr_from_ct import PREFIX

_BASES = 6
"""Slices of each seen source that are predicted: there are many sources."""
_FEWEST_PAIRS = 20
"""Of the seen sources, or of an unseen one; fewer say nothing of a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The order of one factor on seen and unseen sources, -1..1.

    Attributes:
        seen, unseen: over all pairs of the sources of training, and of the held-out ones.
        worst: the lowest of a held-out source with enough pairs, its name, and its pairs; None: none has enough.
        pairs: of the seen sources.
        weights_sha256: of the checkpoint.
    """

    modality: str
    factor: str
    seen: float
    pairs: int
    unseen: float
    worst: tuple[float, str, int] | None
    weights_sha256: str

    def row(self) -> tuple[str, ...]:
        """Return the row under RETENTION_HEADS."""
        worst, kept = f"fewer than {_FEWEST_PAIRS} pairs", "–"
        if self.worst is not None:
            worst = f"{self.worst[0]:.2f} {self.worst[1]} ({self.worst[2]} pairs)"
            if self.seen > 0 and self.pairs >= _FEWEST_PAIRS:
                kept = f"{self.worst[0] / self.seen:.2f}"
        title = f"{self.modality} {self.factor}"
        return title, f"{self.seen:.2f} ({self.pairs} pairs)", f"{self.unseen:.2f}", worst, kept


RETENTION_HEADS = ("order of copies", "seen sources", "unseen sources", "worst unseen source", "retention")


def seen_copies(samples: Sequence[Sample]) -> frozenset[str]:
    """Return the keys of copies of training to predict: of a few slices of every source as scanned, none `mixed`."""
    by_source: dict[str, list[str]] = {}
    for sample in samples:
        if sample.split != "train" or sample.source.startswith(PREFIX) or sample.is_variant:
            continue
        bases = by_source.setdefault(sample.source, [])
        if sample.base not in bases:
            bases.append(sample.base)
    chosen = {base for bases in by_source.values() for base in bases[:: max(1, len(bases) // _BASES)][:_BASES]}
    return frozenset(
        sample.key
        for sample in samples
        if sample.base in chosen and sample.factor != "mixed" and sample.split == "train"
    )


def retention(seen: MethodPredictions, unseen: MethodPredictions, *, weights_sha256: str) -> Iterator[Retention]:
    """Yield the retention of every factor of a modality of which there are pairs on both sides."""
    modality = seen.data.samples[0].modality
    known = _order(seen, modality)
    sources = sorted({sample.source for sample in unseen.data.samples})
    by_source = {source: _order(unseen, modality, source) for source in sources}
    for factor, pairs in known.items():
        orders = {source: order[factor] for source, order in by_source.items() if factor in order}
        if not orders:
            continue
        judged = [
            (float(np.mean(order)), source, len(order))
            for source, order in orders.items()
            if len(order) >= _FEWEST_PAIRS
        ]
        yield Retention(
            modality=modality,
            factor=factor,
            seen=float(np.mean(pairs)),
            pairs=len(pairs),
            unseen=float(np.mean(np.concatenate(list(orders.values())))),
            worst=min(judged) if judged else None,
            weights_sha256=weights_sha256,
        )


def _order(one: MethodPredictions, modality: str, source: str | None = None) -> Mapping[str, Sequence[float]]:
    places = [place for place, sample in enumerate(one.data.samples) if source in (None, sample.source)]
    return order_within(one.values[QUALITY][SHIPPED][places], [one.data.samples[place] for place in places], modality)


def order_within(
    predicted: np.ndarray,
    samples: Sequence[Sample],
    modality: str,
    severities: Callable[[Sample, str], Sequence[float]] = severities_of,
) -> Mapping[str, Sequence[float]]:
    """Return for each factor 1 for every concordant pair of copies of one image, -1 for a discordant one, 0 for a tie.

    Pairs are copies that this factor alone degraded, or the image itself, if all severities tell them apart.
    """
    found: dict[str, list[float]] = {}
    for factor in FACTORS[modality]:
        by_base: dict[str, list[tuple[Sequence[float], float]]] = {}
        for value, sample in zip(predicted, samples, strict=True):
            if sample.modality == modality and sample.factor in (factor, "clean"):
                by_base.setdefault(sample.base, []).append((severities(sample, factor), float(value)))
        order = [pair for levels in by_base.values() for pair in order_of_pairs(levels, VISIBLE[modality])]
        if order:
            found[factor] = order
    return found
