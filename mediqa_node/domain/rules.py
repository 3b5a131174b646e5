"""The rules of a site: what each does with the objects that it matches.

Of the rules in one list the first that matches decides; `forward` alone goes by all of them.
"""

from dataclasses import dataclass
from typing import Literal

from mediqa_node.domain.match import InstanceMatch, Match, compiled


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnRule(Match):
    """Where the report of a series goes.

    Attributes:
        to: names of configured peers; `sender` means the peer whose AE title sent the series.
        when: `flagged` sends only what is borderline or worse.
        wait_for_study_s: how long to wait for the study to appear at the destination.
    """

    to: tuple[str, ...] = ()
    when: Literal["always", "flagged", "never"] = "always"
    wait_for_study_s: float = 0.0

    def __post_init__(self) -> None:
        Match.__post_init__(self)
        if self.wait_for_study_s < 0:
            raise ValueError("wait_for_study_s must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardRule(InstanceMatch):
    """Where received instances are sent on to, unchanged.

    Attributes:
        to: names of configured peers.
    """

    to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRule(Match):
    """Whether a series is scored.

    Attributes:
        score: False: it is harvested and measured, and gets no score and no report.
    """

    score: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryRule(Match):
    """Which reconstruction of one acquisition is scored.

    Attributes:
        kernel: pattern in Convolution Kernel (0018,1210).
        thickness_at_most_mm: Slice Thickness (0018,0050).
    """

    kernel: str | None = None
    thickness_at_most_mm: float | None = None

    def __post_init__(self) -> None:
        Match.__post_init__(self)
        if self.kernel is not None:
            compiled(self.kernel)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomRule(Match):
    """Which series are of a phantom of the site.

    Attributes:
        name: what the trend is called by, at most 64 characters.
    """

    name: str

    def __post_init__(self) -> None:
        Match.__post_init__(self)
        if not 0 < len(self.name.strip()) <= 64:
            raise ValueError("name must have 1 to 64 characters")
        if not self.conditions():
            raise ValueError("needs a condition, such as station, protocol, description or patient_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRule(Match):
    """When a series of this kind counts as complete; what is left out is as for all others.

    Attributes:
        contiguous_after_s, quiet_after_s, deliver_after_s, forced_after_s: see `CompletionRules`.
    """

    contiguous_after_s: float | None = None
    quiet_after_s: float | None = None
    deliver_after_s: float | None = None
    forced_after_s: float | None = None
