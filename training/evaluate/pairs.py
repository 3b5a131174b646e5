"""Two reconstructions of one acquisition, slice by slice: what the score says of each beside its noise.

A sharp kernel shows more noise and more detail of the same projections; a score that follows noise calls it worse.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mediqa_node.domain.errors import NotScorable
from mediqa_node.image.preprocess import preprocess
from mediqa_node.model.predict import NetworkScorer
from training.data.collection import StackImages, stacks_of
from training.simulate.ct import body, own_noise_hu


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
        NotScorable: nothing there is one.
    """
    for stack in stacks_of(folder, scorer.spec):
        if stack.modality != "CT" or stack.prompt is None:
            raise NotScorable("modality", f"{folder}: {stack.refused or 'no CT'}; kernels are a matter of CT")
        inputs = preprocess(stack.images, scorer.spec, modality="CT", image_type=stack.image_type)
        scored = scorer.score(inputs, stack.prompt)
        quality = scored.quality if scored.quality is not None else np.full(len(scored.raw), np.nan)
        return stack, [
            Slice(
                number=number,
                noise_hu=own_noise_hu(image, body(image)),
                raw=float(scored.raw[number]),
                quality=float(quality[number]),
            )
            for number, image in enumerate(stack.images)
        ]
    raise NotScorable("no image", f"{folder} holds no series")


def table(pairs: list[tuple[Path, Path]], scorer: NetworkScorer) -> Iterator[str]:
    """Yield a line for each slice of each pair, and how often the noisier one got the lower score."""
    yield f"{'slice':>5}  {'noise [HU]':>21}  {'raw score':>15}  {'quality':>11}"
    for one, other in pairs:
        (first, left), (second, right) = slices_of(one, scorer), slices_of(other, scorer)
        yield f"{one.name} ({first.image_type}) | {other.name} ({second.image_type})"
        agree = 0
        for a, b in zip(left, right, strict=False):
            yield (
                f"{a.number:5}  {a.noise_hu:9.1f} | {b.noise_hu:9.1f}  {a.raw:6.3f} | {b.raw:6.3f}"
                f"  {a.quality:4.2f} | {b.quality:4.2f}"
            )
            agree += (a.noise_hu < b.noise_hu) == (a.raw > b.raw)
        yield f"       the noisier slice has the lower score in {agree} of {min(len(left), len(right))}"
