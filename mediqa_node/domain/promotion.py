"""Which weights score, who decided so, and what they replaced.

A promotion that is on record is in force, whatever `model.checkpoint` of the configuration says: a person has
named it with a reason after it was tried on the reference set, and a file that somebody edits does not undo that.
Without one, or after all were rolled back, the configuration counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What was decided."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    SHADOW = "shadow"
    UNSHADOW = "unshadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A checkpoint: a name for people, and the SHA-256 of weights and card, which say what it is."""

    name: str
    sha256: str
    card_sha256: str

    @property
    def label(self) -> str:
        """The name with the beginning of the digest."""
        return f"{self.name} {self.sha256[:12]}"

    def same_as(self, other: "Weights | None") -> bool:
        """Return whether it is the same checkpoint, whatever it is called."""
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
        before, after: what scored until then and since then, by name and digest even where the configuration
            named it; or for a shadow what was and is scored beside it, None: nothing.
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
    """What the record comes to.

    Attributes:
        current: the weights in force; None: those that the configuration names.
        since: the decision that put them in force, or None.
        previous: what `rollback` returns to; None: to the configuration.
        can_roll_back: whether there is anything to return from.
        shadow: scored beside them, since `shadow_since`; or None: weights are not held against themselves.
    """

    current: Weights | None = None
    since: Promotion | None = None
    previous: Weights | None = None
    can_roll_back: bool = False
    shadow: Weights | None = None
    shadow_since: float = 0.0


def standing_after(history: Sequence[Promotion]) -> Standing:
    """Return what decisions, oldest first, come to: a promotion goes on top, a rollback takes the top away.

    Whichever puts the weights in force that are in shadow ends the shadow.
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
    """What a candidate says of a series beside what was reported.

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
