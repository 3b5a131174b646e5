"""Scores of whole series as they came from the scanner, compared with their own quality.

A series that nobody degraded must not be called poor, and one that its scanner took poorly must not be called good.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.preprocessing import NetworkInput
from mediqa_node.image.preprocess import preprocess
from mediqa_node.model.predict import NetworkScorer
from training.data.collection import ImageSet, StackImages, stacks_of
from training.simulate.build import bases_of_stack, own_quality

GOOD, GOOD_SCORE, NEAR = 0.8, 0.6, 0.15
"""A series of quality .8 or more must score .6 or more; any other within .15 of its quality."""
CLEAN_GATE = 0.85
"""Least share of held-out series for which this holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSeries:
    """One stack of a collection.

    Attributes:
        name: of its set; number: of its stack.
        score: as reported, 0..1, whether or not the node would score the stack.
        quality: its own, by its noise, resolution or blur: the mean over its slices.
        refused: why the node would not score it for its headers; None if it would.
        outside: why it is outside of the training range; None if it is inside.
    """

    name: str
    number: int
    source: str
    modality: str
    region: str
    type: str
    score: float
    quality: float
    refused: str | None
    outside: str | None
    image: np.ndarray

    @property
    def holds(self) -> bool:
        """Whether the score fits the quality."""
        if self.quality >= GOOD:
            return self.score >= GOOD_SCORE
        return abs(self.score - float(np.clip(self.quality, 0.0, 1.0))) <= NEAR


def scored_series(sets: Sequence[ImageSet], scorer: NetworkScorer) -> Iterator[ScoredSeries]:
    """Yield every stack with images of some sets, scored as by the node."""
    for one in sets:
        for number, stack in enumerate(stacks_of(one.folder, scorer.spec)):
            if stack.prompt is not None and stack.images:
                yield _scored(one, number, stack, scorer)


def _scored(one: ImageSet, number: int, stack: StackImages, scorer: NetworkScorer) -> ScoredSeries:
    assert stack.prompt is not None
    inputs = prepared(stack.images, stack, scorer)
    return ScoredSeries(
        name=one.name,
        number=number,
        source=one.source,
        modality=stack.modality,
        region=stack.prompt.region.value,
        type=stack.image_type,
        score=score_of(inputs, stack, scorer),
        quality=float(np.mean([own_quality(base) for base in bases_of_stack(one, number, stack)])),
        refused=stack.refused,
        outside=_outside(inputs, stack.modality, scorer),
        image=stack.images[len(stack.images) // 2],
    )


def prepared(images: Sequence[np.ndarray], stack: StackImages, scorer: NetworkScorer) -> NetworkInput:
    """Return slices of a stack as input of the network."""
    return preprocess(images, scorer.spec, modality=stack.modality, image_type=stack.image_type)


def score_of(inputs: NetworkInput, stack: StackImages, scorer: NetworkScorer) -> float:
    """Return the score of slices of a stack as reported, or the raw one without a quality map."""
    assert stack.prompt is not None
    found = scorer.score(inputs, stack.prompt)
    return float(((found.raw if found.quality is None else found.quality) * found.weights).sum())


def _outside(inputs: NetworkInput, modality: str, scorer: NetworkScorer) -> str | None:
    """Return why a node would refuse a stack for its pixels; None if it would not."""
    try:
        position = scorer.range_position(inputs, modality)
    except NotScorable as refusal:
        return str(refusal)
    return position.details() if position is not None and position.is_outside else None
