"""What a classifier of images makes of prompts: it may fill what headers leave open, never overrule them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mediqa_node.domain.prompt import Prompt, PromptTerm


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What a classifier of images takes a stack for.

    Attributes:
        words: the likeliest word of `modality`, `region` and `type`, with its probability.
        sure: the probability from which its word counts, by what its checkpoint's card says.
    """

    words: Mapping[str, tuple[str, float]]
    sure: float


class PromptClassifier(Protocol):
    """Tells prompts from images alone."""

    def opinion(self, images: Sequence[np.ndarray], modality: str) -> Opinion:
        """Return what the salient slices of one stack look like; images as `assess.preprocess` takes them."""
        ...


def completed(prompt: Prompt, opinion: Opinion) -> Prompt:
    """Fill what the headers leave open with what a classifier is sure of, and flag where it contradicts them.

    A header is never overruled. Where the classifier is not sure, or takes the images for another modality than
    the SOP class says, it knows nothing of them and fills nothing; the latter is flagged.
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
