"""Compare two reconstructions of one acquisition slice by slice: noise and score.

A sharp kernel shows more noise and more detail of the same projections; a score that follows noise is lower for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mediqa_node.domain.errors import NotScorable
from mediqa_node.image.preprocess import preprocess
from mediqa_node.model.predict import NetworkScorer
from training.data.collection import StackImages, stacks_of
from training.simulate.ct import body, own_noise_hu, pixel_mm


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One slice of one reconstruction: noise in HU, raw score, quality 0..1."""

    number: int
    noise_hu: float
    raw: float
    quality: float


def slices_of(folder: Path, scorer: NetworkScorer) -> tuple[StackImages, list[Slice]]:
    """Return the scored slices of the first stack in a folder of CT.

    Raises:
        NotScorable: there is no CT stack.
    """
    for stack in stacks_of(folder, scorer.spec):
        if stack.modality != "CT" or stack.prompt is None:
            raise NotScorable("modality", f"{folder}: {stack.refused or 'no CT'}; only CT has reconstruction kernels")
        inputs = preprocess(stack.images, scorer.spec, modality="CT", image_type=stack.image_type)
        scored = scorer.score(inputs, stack.prompt)
        quality = scored.quality if scored.quality is not None else np.full(len(scored.raw), np.nan)
        return stack, [
            Slice(
                number=number,
                noise_hu=own_noise_hu(image, body(image), pixel_mm(stack.spacing_mm)),
                raw=float(scored.raw[number]),
                quality=float(quality[number]),
            )
            for number, image in enumerate(stack.images)
        ]
    raise NotScorable("no image", f"{folder} holds no series")


HEADS = ("slice", "noise [HU]", "", "raw score", "", "quality", "")


def rows(one: Sequence[Slice], other: Sequence[Slice]) -> list[tuple[str, ...]]:
    """Return a row under HEADS for each slice of two reconstructions."""
    return [
        (
            str(a.number),
            *(f"{each.noise_hu:.1f}" for each in (a, b)),
            *(f"{each.raw:.3f}" for each in (a, b)),
            *(f"{each.quality:.2f}" for each in (a, b)),
        )
        for a, b in zip(one, other, strict=False)
    ]


def in_agreement(one: Sequence[Slice], other: Sequence[Slice]) -> int:
    """Return the number of slices where the noisier reconstruction has the lower score."""
    return sum((a.noise_hu < b.noise_hu) == (a.raw > b.raw) for a, b in zip(one, other, strict=False))
