"""The four prompts of MedIQA: dimension, modality, region, type (paper section 2.2, Fig. 1.C)."""

from collections.abc import Mapping
from dataclasses import dataclass

DIMENSIONS = ("2D", "3D")
MODALITIES = ("CT", "MR", "OP")
REGIONS = (
    "unknown", "head", "brain", "neck", "chest", "breast", "heart", "abdomen", "pelvis", "spine", "extremity", "retina",
)  # fmt: skip
TYPES = ("unknown", "lung", "soft", "bone", "t1", "t2", "flair", "stir", "t2_star", "pd", "dwi", "cfp")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTerm:
    """One prompt and its source.

    Attributes:
        value: a member of the vocabulary above.
        source: `data`, `sop_class`, `site`, `anatomy_code`, `image_type`, `body_part`, `text`, `kernel`,
            `window`, `acquisition_contrast`, `physics`, `classifier`, or `none`.
        confidence: 0..1, reliability of this source.
    """

    value: str
    source: str
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The four prompts of one series, with contradictions."""

    dimension: PromptTerm
    modality: PromptTerm
    region: PromptTerm
    type: PromptTerm
    conflicts: tuple[str, ...] = ()

    @property
    def words(self) -> dict[str, str]:
        """The word of each term; the inverse of `prompt_of`."""
        return {term: getattr(self, term).value for term in ("dimension", "modality", "region", "type")}


def prompt_of(words: Mapping[str, str], *, source: str = "data") -> Prompt:
    """Return a prompt of these words, by term, with full confidence."""
    terms = {term: PromptTerm(value=word, source=source, confidence=1.0) for term, word in words.items()}
    return Prompt(dimension=terms["dimension"], modality=terms["modality"], region=terms["region"], type=terms["type"])
