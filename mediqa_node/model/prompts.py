"""Encode prompts: four concatenated one-hots, zero-padded to 64 (paper section 2.2, concat of p_dim..p_type)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.prompt import DIMENSIONS, MODALITIES, REGIONS, TYPES, Prompt

PROMPT_WIDTH = 64
"""Inputs of MLP1 and MLP2 in the public release."""

TERMS = ("dimension", "modality", "region", "type")
KNOWN = dict(zip(TERMS, (DIMENSIONS, MODALITIES, REGIONS, TYPES), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCode:
    """How the weights encode prompts; part of their card.

    Attributes:
        words: vocabulary of each of TERMS, in training order; {} for a fixed index.
        index: the single position that is 1 for every prompt, as in the public release,
            for which no table of meanings is published; None for words.
    """

    words: Mapping[str, tuple[str, ...]]
    index: int | None = None

    def encode(self, prompt: Prompt) -> np.ndarray:
        """Return float32 (64,). A word that was not trained is encoded as `unknown` if that was, else as zeros."""
        vector = np.zeros(PROMPT_WIDTH, dtype=np.float32)
        if self.index is not None:
            vector[self.index] = 1.0
            return vector
        start = 0
        for term in TERMS:
            words = self.words[term]
            value = getattr(prompt, term).value
            value = value if value in words else "unknown"
            if value in words:
                vector[start + words.index(value)] = 1.0
            start += len(words)
        return vector


FOUR_ONE_HOTS = PromptCode(words=KNOWN)
