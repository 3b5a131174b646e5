"""The assessment of a series, and the calibration behind its verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from mediqa_node.domain.images import FrameRef, Stack
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.range_position import OUTSIDE_RANGE, RangePosition
from mediqa_node.domain.scoring import CheckpointId, PatchMaps, Prediction
from mediqa_node.domain.technique import HeaderDoubt, Technique, doubts_in

VERDICTS = ("acceptable", "borderline", "review", "uncalibrated", OUTSIDE_RANGE)
_SAME_WEIGHT = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceResult:
    """One scored slice. `quality` is None where the checkpoint maps no raw score to 0..1."""

    frame: FrameRef
    quality: float | None
    raw: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StackResult:
    """One scored stack: Q = sum of weight x quality over its slices (paper, eq. of section 2.2).

    Attributes:
        quality: Q, 0..1; None where the checkpoint maps no raw score to 0..1. Such a checkpoint never runs in a node.
        window: the values mapped to black and white for the network, in HU, signal or 0..255; None: as stored.
        n_clamped: slices whose raw score is outside the checkpoint's scale and is clamped to its end.
        range_position: where the stack lies in the training range; None: the card has no limits for it, or the result
            was stored before positions were kept.
        maps: per patch; stored separately, None when read back.
        inference_s: wall time of the network, seconds.
    """

    stack: Stack
    prompt: Prompt
    quality: float | None
    raw_score: float
    slices: tuple[SliceResult, ...]
    prediction: Prediction | None = None
    window: tuple[float, float] | None = None
    maps: PatchMaps | None = field(default=None, compare=False)
    n_clamped: int = 0
    inference_s: float = field(default=0.0, compare=False)
    range_position: RangePosition | None = None

    @property
    def outside_range(self) -> RangePosition | None:
        """The position of a stack outside the training range; None for any other."""
        return self.range_position if self.range_position is not None and self.range_position.is_outside else None

    @property
    def has_learned_weights(self) -> bool:
        """Whether the slices count differently; a checkpoint that never learned weights gives all the same."""
        weights = [part.weight for part in self.slices]
        return len(weights) > 1 and max(weights) - min(weights) > _SAME_WEIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A site's record of what a score means on one scanner and protocol.

    Applies only while `weights_sha256`, `card_sha256` and `fingerprint` are those of the active checkpoint: another
    card may map the same raw score to another quality, or combine the network with other statistics.

    Attributes:
        station_name, protocol_name: its scope; `*` for any.
        modality: CT, MR or OP.
        borderline_below, review_below: thresholds on Q, 0..1, review_below <= borderline_below.
        n_series, n_readers: its basis.
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
    card_sha256: str
    fingerprint: str

    @property
    def thresholds(self) -> tuple[float, float]:
        """Both thresholds on Q, 0..1."""
        return self.review_below, self.borderline_below

    def made_for(self, weights_sha256: str, card_sha256: str) -> bool:
        """Return whether it was made for these weights with this card."""
        return (self.weights_sha256, self.card_sha256) == (weights_sha256, card_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The assessment of one series at one revision.

    Attributes:
        primary: the stack that represents the series: the one with most positions.
        others: further stacks that were scored (at most 3), or ().
        n_stacks: how many stacks the series has in all.
        verdict: one of VERDICTS; `uncalibrated` without a matching calibration record, `outside_range` for a primary
            stack outside the training range.
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
        """Q of the series, 0..1; ValueError as in `mapped`."""
        return mapped(self.primary.quality)

    @property
    def doubts(self) -> tuple[HeaderDoubt, ...]:
        """Header values that contradict each other or the images; `technique.DOUBTS` has the words."""
        return doubts_in((*self.technique.flags, *self.primary.stack.flags))


def weighted_quality(quality: Sequence[float], weights: Sequence[float]) -> float:
    """Return Q = sum of w_i q_i (paper section 2.2); weights sum to 1.

    Q lies between the lowest and the highest q_i, even where rounding would take it a last bit past them: seven slices
    of quality 1 must not make 1.0000000000000002, which no report may state.
    """
    total = float(sum(w * q for w, q in zip(weights, quality, strict=True)))
    return min(max(total, min(quality)), max(quality))


def rounded(quality: float, calibration: Calibration | None, *, places: int = 2) -> Decimal:
    """Return a quality for people, never rounded across a threshold of its calibration.

    It has more than `places` decimals only where no shorter number is on its side of both thresholds.

    >>> rounded(0.5967, None)
    Decimal('0.60')
    """
    exact = Decimal(repr(quality))
    thresholds = [Decimal(repr(limit)) for limit in calibration.thresholds] if calibration else []
    step = Decimal(1).scaleb(-places)
    down, up = (exact.quantize(step, rounding) for rounding in (ROUND_FLOOR, ROUND_CEILING))
    for near in (up, down) if up - exact <= exact - down else (down, up):
        if all((near < limit) == (exact < limit) for limit in thresholds):
            return near
    return rounded(quality, calibration, places=places + 1)  # ends where nothing is left to round


def mapped(quality: float | None) -> float:
    """Return a quality that must exist.

    Raises:
        ValueError: it is None: the checkpoint maps no raw score to 0..1, and none may be reported.
    """
    if quality is None:
        raise ValueError("the checkpoint's card maps no raw score to 0..1, so that there is no quality to report")
    return quality
