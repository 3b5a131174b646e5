"""Prompts predicted by an image classifier: they fill what headers leave open and never overrule them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mediqa_node.domain.prompt import Prompt, PromptTerm


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """Prediction of the image classifier for one stack.

    Attributes:
        words: the likeliest word of `modality`, `region` and `type`, with its probability.
        sure: the probability from which a prediction counts, from the checkpoint's card.
    """

    words: Mapping[str, tuple[str, float]]
    sure: float


class PromptClassifier(Protocol):
    """Predicts prompts from images alone."""

    def opinion(self, images: Sequence[np.ndarray], modality: str) -> Opinion:
        """Predict the prompts of one stack from its salient slices; images as `image.preprocess` takes them."""
        ...


def completed(prompt: Prompt, opinion: Opinion) -> Prompt:
    """Fill what the headers leave open with confident predictions, and flag contradictions.

    A header is never overruled. If the classifier is not sure, or predicts another modality than the SOP class,
    nothing is filled; the latter is flagged.
    """
    modality, certainty = opinion.words["modality"]
    if modality != prompt.modality.value:
        seen = ("modality_unlike_image",) if certainty >= opinion.sure else ()
        return replace(prompt, conflicts=(*prompt.conflicts, *seen))
    filled: dict[str, PromptTerm] = {}
    conflicts = list(prompt.conflicts)
    for term in ("region", "type"):
        said: PromptTerm = getattr(prompt, term)
        word, certainty = opinion.words[term]
        if certainty < opinion.sure or word == said.value:
            continue
        if said.value == "unknown":
            filled[term] = PromptTerm(value=word, source="classifier", confidence=certainty)
        else:
            conflicts.append(f"{term}_unlike_image")
    return replace(prompt, conflicts=tuple(conflicts), **filled)
