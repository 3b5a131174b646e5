"""Promotions: which checkpoint is active, who decided so, and what it replaced.

A recorded promotion overrides `model.checkpoint` of the configuration: a person decided on it, with a reason, after
a trial on the reference set, and editing a file does not undo that. Without one, or after all were rolled back, the
configuration decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mediqa_node.domain.range_position import OUTSIDE_RANGE


class Action(StrEnum):
    """The kind of decision."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    SHADOW = "shadow"
    UNSHADOW = "unshadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A checkpoint: a name for people, and the SHA-256 of weights and card, which identify it."""

    name: str
    sha256: str
    card_sha256: str

    @property
    def label(self) -> str:
        """The name with the first digits of the digest."""
        return f"{self.name} {self.sha256[:12]}"

    def same_as(self, other: "Weights | None") -> bool:
        """Return whether it is the same checkpoint under any name."""
        return other is not None and (self.sha256, self.card_sha256) == (other.sha256, other.card_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who decides, why and when; `at` in seconds since 1970."""

    by: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One decision on record.

    Attributes:
        at: seconds since 1970, UTC.
        before, after: the active checkpoint before and after, also if the configuration named it; for a shadow,
            the shadow checkpoint before and after, or None.
    """

    action: Action | str
    at: float
    by: str
    reason: str
    before: Weights | None = None
    after: Weights | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The result of all decisions.

    Attributes:
        current: the active checkpoint; None: the configured one.
        since: the decision that made it active, or None.
        previous: what `rollback` returns to; None: to the configuration.
        can_roll_back: whether a promotion can be rolled back.
        shadow: the candidate that scores in shadow since `shadow_since`, or None.
    """

    current: Weights | None = None
    since: Promotion | None = None
    previous: Weights | None = None
    can_roll_back: bool = False
    shadow: Weights | None = None
    shadow_since: float = 0.0


def standing_after(history: Sequence[Promotion]) -> Standing:
    """Return the result of decisions, oldest first: a promotion is pushed, a rollback pops.

    Making the shadow checkpoint active ends the shadow.
    """
    promoted: list[Weights] = []
    since: Promotion | None = None
    shadow: Promotion | None = None
    for decision in history:
        if decision.action is Action.PROMOTE and decision.after is not None:
            promoted.append(decision.after)
        elif decision.action is Action.ROLLBACK and promoted:
            promoted.pop()
        if decision.action not in (Action.PROMOTE, Action.ROLLBACK):
            shadow = decision
            continue
        since = decision
        if shadow is not None and shadow.after is not None and shadow.after.same_as(decision.after):
            shadow = None
    return Standing(
        current=promoted[-1] if promoted else None,
        since=since,
        previous=promoted[-2] if len(promoted) > 1 else None,
        can_roll_back=bool(promoted),
        shadow=shadow.after if shadow else None,
        shadow_since=shadow.at if shadow else 0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowScore:
    """Score of a candidate for a series, with the reported one.

    Attributes:
        station_name: Station Name (0008,1010).
        quality, verdict: those of the series' own assessment, by `weights_sha256`.
        candidate_quality: 0..1; None: not scored, for `reason`.
    """

    series_instance_uid: str
    revision: int
    station_name: str
    modality: str
    weights_sha256: str
    quality: float
    verdict: str
    candidate: Weights
    candidate_quality: float | None
    candidate_verdict: str | None
    reason: str | None
    scored_at: float

    @property
    def is_comparable(self) -> bool:
        """Whether both have scored the series, within their training ranges."""
        return self.candidate_quality is not None and self.verdict != OUTSIDE_RANGE
