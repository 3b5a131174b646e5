"""What the node says of one series, and what it needs to say it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Protocol

import numpy as np

from mediqa_node.domain.images import FrameRef, Stack
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.technique import Technique

VERDICTS = ("acceptable", "borderline", "review", "uncalibrated")


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensityRule:
    """A fixed affine of a clipped range: (x - low) / (high - low), then 0..1.

    Attributes:
        kind: `window` (low and high in rescaled units, HU for CT) or `percentile` (low and high in
            percent, of the pixels inside the body over all salient slices of the stack). Never the
            image's own extremes: one metal pixel would change the gain.
    """

    kind: str
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessSpec:
    """How pixels become network input. Travels in the checkpoint's card, never in the node's configuration.

    Attributes:
        size_px: edge of the square input.
        slices: salient slices per volume (paper: 7).
        intensity: rules by `modality/type`, with `modality` alone as the fallback.
    """

    size_px: int
    slices: int
    intensity: Mapping[str, IntensityRule]

    def rule_for(self, modality: str, image_type: str) -> IntensityRule:
        """Return the rule of `modality/image_type`, else of `modality`; KeyError if there is neither."""
        return self.intensity.get(f"{modality}/{image_type}") or self.intensity[modality]

    def fingerprint(self) -> str:
        """Return 16 hex digits that change when any field does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointId:
    """Which weights spoke. `trained` is False for seeded weights, and everything that shows a score says so."""

    name: str
    sha256: str
    trained: bool
    size: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the parameter head says the image looks like.

    Attributes:
        name: `mas` or `tesla`.
        unit: UCUM: `mA.s`, `T`, or `{0:1}` for a normalised label.
    """

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSlices:
    """What a scorer returns for one stack.

    Attributes:
        raw: the network's score per slice, unbounded, shape (n,).
        quality: `raw` mapped to 0..1 by the card, shape (n,).
        weights: non-negative, sum 1, shape (n,).
    """

    raw: np.ndarray
    quality: np.ndarray
    weights: np.ndarray
    prediction: Prediction | None = None


class Scorer(Protocol):
    """The border between numpy and the network."""

    @property
    def checkpoint(self) -> CheckpointId:
        """Which weights speak."""
        ...

    @property
    def spec(self) -> PreprocessSpec:
        """The preprocessing that the weights were trained with."""
        ...

    def score(self, images: np.ndarray, prompt: Prompt) -> ScoredSlices:
        """Score slices of one stack: float32, shape (n, 3, size, size), 0..1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceResult:
    """One scored slice."""

    frame: FrameRef
    quality: float
    raw: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StackResult:
    """One scored stack: Q = sum of weight x quality over its slices (paper, eq. of section 2.2)."""

    stack: Stack
    prompt: Prompt
    quality: float
    raw_score: float
    slices: tuple[SliceResult, ...]
    prediction: Prediction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A site's own record of what a score means on one scanner and protocol.

    Applies only while `weights_sha256` and `fingerprint` are those of the running model.

    Attributes:
        station_name, protocol_name: what it holds for; `*` for any.
        modality: CT, MR or OP.
        borderline_below, review_below: thresholds on Q, 0..1, review_below <= borderline_below.
        n_series, n_readers: what it was made from.
    """

    id: str
    modality: str
    station_name: str
    protocol_name: str
    borderline_below: float
    review_below: float
    n_series: int
    n_readers: int
    approved_by: str
    approved_on: str
    weights_sha256: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The judgement of one series at one revision.

    Attributes:
        primary: the stack that speaks for the series: the one with most positions.
        others: further stacks that were scored (at most 3), or ().
        n_stacks: how many stacks the series has in all.
        verdict: one of VERDICTS; `uncalibrated` without a matching calibration record.
        failed_slices: frames that should have been scored and could not be decoded.
        fingerprint: of the preprocessing.
        assessed_at: UTC.
    """

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    revision: int
    primary: StackResult
    others: tuple[StackResult, ...]
    n_stacks: int
    technique: Technique
    verdict: str
    calibration: Calibration | None
    checkpoint: CheckpointId
    fingerprint: str
    assessed_at: datetime
    failed_slices: tuple[FrameRef, ...] = ()

    @property
    def quality(self) -> float:
        """Q of the series, 0..1."""
        return self.primary.quality


def weighted_quality(quality: Sequence[float], weights: Sequence[float]) -> float:
    """Return Q = sum of w_i q_i (paper section 2.2); weights sum to 1."""
    return float(sum(w * q for w, q in zip(weights, quality, strict=True)))
