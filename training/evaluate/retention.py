"""How much of the order that a score gives to seen sources is left on unseen ones, factor by factor.

Measured on the copies of a store that one factor alone degraded, by order alone: concordant less discordant pairs of
copies of one image. A pooled figure hides a source on which the score fails, so retention is that of the worst source.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.data.store import Sample
from training.simulate.degraded import FACTORS
from training.simulate.mr_from_ct import PREFIX

VISIBLE = 0.05
"""Copies whose severities differ by less look the same, and are not compared."""
_BASES = 4
"""Slices of each source that are predicted: there are many sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The order of one factor on seen and unseen sources.

    Attributes:
        seen: mean over the sources of training.
        unseen: mean over the held-out sources; worst: the lowest of these, and its source.
        weights_sha256: of the checkpoint.
    """

    modality: str
    factor: str
    seen: float
    unseen: float
    worst: float
    source: str
    weights_sha256: str

    def row(self) -> tuple[str, ...]:
        """Return the row under RETENTION_HEADS."""
        kept = f"{self.worst / self.seen:.2f}" if self.seen > 0 else "–"
        worst = f"{self.worst:.2f} {self.source}"
        return f"{self.modality} {self.factor}", f"{self.seen:.2f}", f"{self.unseen:.2f}", worst, kept


RETENTION_HEADS = ("order of copies", "seen sources", "unseen sources", "worst unseen source", "retention")


def looked_at(samples: Sequence[Sample]) -> frozenset[str]:
    """Return the keys of the copies to predict: of a few slices of every source as scanned, without `mixed` ones."""
    by_source: dict[str, list[str]] = {}
    for sample in samples:
        if sample.source.startswith(PREFIX) or sample.is_variant:
            continue
        bases = by_source.setdefault(sample.source, [])
        if sample.base not in bases:
            bases.append(sample.base)
    chosen = {base for bases in by_source.values() for base in bases[:: max(1, len(bases) // _BASES)][:_BASES]}
    return frozenset(
        sample.key
        for sample in samples
        if sample.base in chosen and sample.factor != "mixed" and sample.split in ("train", "test")
    )


def retention(
    predicted: np.ndarray, samples: Sequence[Sample], modality: str, *, weights_sha256: str
) -> Iterator[Retention]:
    """Yield the retention of every factor of a modality.

    Args:
        predicted: quality of the samples, (n,).
    """
    by_source: dict[tuple[str, str], Mapping[str, float]] = {}
    for split in ("train", "test"):
        for source in sorted({one.source for one in samples if (one.split, one.modality) == (split, modality)}):
            mine = [place for place, one in enumerate(samples) if (one.split, one.source) == (split, source)]
            by_source[split, source] = order_within(predicted[mine], [samples[place] for place in mine], modality)
    for factor in FACTORS[modality]:
        seen, unseen = (
            {source: order[factor] for (side, source), order in by_source.items() if side == split and factor in order}
            for split in ("train", "test")
        )
        if seen and unseen:
            worst = min(unseen, key=lambda source: unseen[source])
            yield Retention(
                modality=modality,
                factor=factor,
                seen=float(np.mean(list(seen.values()))),
                unseen=float(np.mean(list(unseen.values()))),
                worst=unseen[worst],
                source=worst,
                weights_sha256=weights_sha256,
            )


def order_within(predicted: np.ndarray, samples: Sequence[Sample], modality: str) -> Mapping[str, float]:
    """Return for each factor the concordant less the discordant pairs of copies of one image, as a share.

    Pairs are copies that this factor alone degraded, or the image itself, whose severities differ visibly.
    """
    found = {}
    for factor in FACTORS[modality]:
        by_base: dict[str, list[tuple[float, float]]] = {}
        for value, sample in zip(predicted, samples, strict=True):
            if sample.modality == modality and sample.factor in (factor, "clean"):
                by_base.setdefault(sample.base, []).append((sample.severities[factor], float(value)))
        order = [
            np.sign(b[1] - a[1])
            for pairs in by_base.values()
            for i, a in enumerate(pairs)
            for b in pairs[:i] + pairs[i + 1 :]
            if a[0] - b[0] > VISIBLE
        ]
        if order:
            found[factor] = float(np.mean(order))
    return found
