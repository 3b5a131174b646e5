"""The interface between numpy and the network: input and output of a scorer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from mediqa_node.domain.constancy import Constancy
from mediqa_node.domain.preprocessing import NetworkInput, PreprocessSpec, View
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.range_position import RangePosition
from mediqa_node.domain.recall import Recall


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointId:
    """Identity of a checkpoint.

    Attributes:
        trained: False for seeded weights; marked wherever a score is shown.
        execution: device and arithmetic, e.g. `cpu fp32`: the same input, weights and execution
            give the same score.
        card_sha256: of the card, as pinned by the lock; it maps raw scores to 0..1.
        claims: the card's claims about the score, by modality.
        evaluated: False for a card without claims, training range or reference scores; marked in reports.
    """

    name: str
    sha256: str
    trained: bool
    size: str
    execution: str = "cpu fp32"
    card_sha256: str = ""
    claims: Mapping[str, str] = field(default_factory=dict, compare=False)
    evaluated: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Physical parameter predicted by the parameter head.

    Attributes:
        name: `mas` or `tesla`.
        unit: UCUM: `mA.s`, `T`, or `{0:1}` for a normalised label.
        learned: the lowest and highest label of the training samples; None if the card does not state them.
        likely: one root mean square error on held-out sources below and above `value`; None if the card states none.
    """

    name: str
    value: float
    unit: str
    learned: tuple[float, float] | None = None
    likely: tuple[float, float] | None = None

    @property
    def is_supported(self) -> bool:
        """Whether the value lies within what was learned and its error is known; no report states any other."""
        return self.likely is not None and self.learned is not None and self.learned[0] <= self.value <= self.learned[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchMaps:
    """Outputs of the two branches for every patch (paper section 2.2: q = sum(s w) / sum(w)).

    Attributes:
        scores: raw patch scores s, float32, (m, g, g), one grid for each view.
        weights: patch weights w, 0..1, float32, (m, g, g).
        views: where each grid lies in its slice.
        quality: `scores` mapped to 0..1 by the card; None where the card has no map.
    """

    __pydantic_config__: ClassVar[dict[str, bool]] = {"arbitrary_types_allowed": True}

    scores: np.ndarray = field(compare=False)
    weights: np.ndarray = field(compare=False)
    views: tuple[View, ...]
    quality: np.ndarray | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSlices:
    """Output of a scorer for one stack.

    Attributes:
        raw: the network's score per slice, the mean over its views, unbounded, shape (n,).
        quality: `raw` mapped to 0..1 by the card, shape (n,); None where the card has no map.
        weights: non-negative, sum 1, shape (n,).
        n_clamped: slices whose raw score is outside the card's scale and is clamped to its end.
    """

    raw: np.ndarray
    quality: np.ndarray | None
    weights: np.ndarray
    n_clamped: int = 0
    prediction: Prediction | None = None
    maps: PatchMaps | None = None


class Scorer(Protocol):
    """One network with its card on one device."""

    @property
    def checkpoint(self) -> CheckpointId:
        """The checkpoint that scores."""
        ...

    @property
    def hardware(self) -> str:
        """Name of the graphics device that scores; "" on a CPU."""
        ...

    @property
    def spec(self) -> PreprocessSpec:
        """The preprocessing that the weights were trained with."""
        ...

    @property
    def constancy(self) -> Constancy | None:
        """The card's reference scores; None if it pins none."""
        ...

    def recalling(self, recall: Recall) -> "Scorer":
        """Return this scorer, which does not compute again what `recall` knows: the scores are the same."""
        ...

    def code(self, prompt: Prompt) -> np.ndarray:
        """Return the prompt as network input, float32 (64,)."""
        ...

    def range_position(self, inputs: NetworkInput, modality: str) -> RangePosition | None:
        """Return where a stack lies in the training range of its modality; None without limits for it.

        Raises:
            NotScorable: it is no photograph of a fundus, or shows too little of one.
        """
        ...

    def score(self, inputs: NetworkInput, prompt: Prompt) -> ScoredSlices:
        """Score the slices of one stack."""
        ...
