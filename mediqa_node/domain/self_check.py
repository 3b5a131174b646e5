"""Whether the score orders a site's own pairs: kinds of pairs, what is expected of each, and what was found.

A pair is two series of one study whose order of image quality follows from their headers: a thick slice has less noise
than a thin one of the same acquisition. The score is an index of noise and artefacts; it is expected to follow.

The share of pairs that are ordered as expected has a 95 % interval by Wilson (J Am Stat Assoc 22:209, 1927,
10.1080/01621459.1927.10502953). Its lower limit has to exceed one half, which a score without any relation to quality
would reach.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from mediqa_node.domain.promotion import Weights

TOLERANCE = 0.005
"""Scores, 0..1, that differ by less are a tie: half of the last digit that people see."""
FEWEST_PAIRS = 8
"""Below, one pair that disagrees would already leave everything open."""
_BETTER_THAN_CHANCE = 0.5
_Z = 1.959963984540054


class PairKind(StrEnum):
    """Why the order of quality of two series is known."""

    THICKNESS = "thickness"
    KERNEL = "kernel"
    REPEAT = "repeat"
    DOSE = "dose"


class State(StrEnum):
    """Whether the score orders the pairs of a kind."""

    TOO_FEW = "too_few"
    ORDERS = "orders"
    UNDECIDED = "undecided"
    DOES_NOT_ORDER = "does_not_order"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What is expected of a kind of pairs.

    Attributes:
        title: the series that should score higher, and the other one.
        because: the reason for the order.
        needs: what a site does to get such pairs.
        required: share of the pairs that the score has to order.
        ties_agree: whether equal scores are as expected: of a repetition only that it is not worse.
    """

    title: str
    because: str
    needs: str
    required: float = 0.8
    ties_agree: bool = False


OF_ONE_ACQUISITION = frozenset({PairKind.THICKNESS, PairKind.KERNEL})
"""Kinds that need both reconstructions of an acquisition scored, which `score.primary: all` does."""
_BOTH = "send both reconstructions of an acquisition"
EXPECTATIONS: Mapping[PairKind, Expectation] = {
    PairKind.THICKNESS: Expectation(
        title="thick against thin",
        because="thicker slices of the same acquisition have less noise",
        needs=f"{_BOTH}: the same kernel, slices 1.5 times as thick",
    ),
    PairKind.KERNEL: Expectation(
        title="soft against sharp kernel",
        because="a soft kernel leaves less noise than a lung or bone kernel",
        needs=f"{_BOTH}: the same thickness, a soft kernel and a lung or bone kernel",
    ),
    PairKind.REPEAT: Expectation(
        title="repetition against first",
        because="a series is repeated because the first one was poor",
        needs="series of one protocol that are repeated within the hour, without contrast agent, both sent",
        required=0.5,
        ties_agree=True,
    ),
    PairKind.DOSE: Expectation(
        title="high against low dose",
        because="more tube charge gives less noise",
        needs="two CT series of one protocol and region at tube charges that differ by a factor of 1.5, both sent",
    ),
}

SENTENCES: Mapping[State, str] = {
    State.TOO_FEW: f"too few pairs: {FEWEST_PAIRS} are needed",
    State.ORDERS: "the score orders these pairs as expected",
    State.UNDECIDED: "undecided: more pairs are needed",
    State.DOES_NOT_ORDER: "the score does not order these pairs as expected",
}
"""Every state in words, as the command shows it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two series of one study, by Series Instance UID: `better` is expected to score higher."""

    kind: PairKind
    better: str
    worse: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPair:
    """A pair with its scores, 0..1."""

    kind: PairKind
    better: str
    worse: str
    better_quality: float
    worse_quality: float

    @property
    def difference(self) -> float:
        """The score of the better series minus that of the other."""
        return self.better_quality - self.worse_quality

    @property
    def is_tie(self) -> bool:
        """Whether the scores differ by less than the tolerance."""
        return abs(self.difference) < TOLERANCE

    @property
    def agrees(self) -> bool:
        """Whether the scores are in the expected order."""
        return EXPECTATIONS[self.kind].ties_agree if self.is_tie else self.difference > 0


def wilson(n_expected: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, 0..1, by Wilson's score method; 0 and 1 without any pair.

    >>> [round(limit, 3) for limit in wilson(14, 15)]
    [0.702, 0.988]
    """
    if n == 0:
        return 0.0, 1.0
    share = n_expected / n
    middle = share + _Z**2 / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + _Z**2 / n) for sign in (-1, 1))
    return (0.0 if n_expected == 0 else low), (1.0 if n_expected == n else high)


def state_of(kind: PairKind, n_expected: int, n: int) -> State:
    """Return whether the score orders the pairs of a kind.

    It does if the share is at least the required one and its interval lies above one half; it does not if the interval
    lies below the required share.

    >>> [state_of(PairKind.KERNEL, k, 10).value for k in (10, 9, 8, 5)]
    ['orders', 'orders', 'undecided', 'does_not_order']
    """
    if n < FEWEST_PAIRS:
        return State.TOO_FEW
    required, (low, high) = EXPECTATIONS[kind].required, wilson(n_expected, n)
    if n_expected >= required * n and low > _BETTER_THAN_CHANCE:
        return State.ORDERS
    return State.DOES_NOT_ORDER if high < required else State.UNDECIDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How the score orders the pairs of one kind.

    Attributes:
        n: pairs, at most one for each study.
        n_expected: pairs in the expected order.
        n_ties: pairs whose scores differ by less than the tolerance; of repetitions they are as expected.
    """

    kind: PairKind
    n: int
    n_expected: int
    n_ties: int

    @classmethod
    def of(cls, kind: PairKind, pairs: Iterable[ScoredPair]) -> "Figures":
        """Count the pairs of a kind."""
        own = [pair for pair in pairs if pair.kind is kind]
        return cls(
            kind=kind,
            n=len(own),
            n_expected=sum(pair.agrees for pair in own),
            n_ties=sum(pair.is_tie for pair in own),
        )

    @property
    def state(self) -> State:
        """Whether the score orders them."""
        return state_of(self.kind, self.n_expected, self.n)

    @property
    def share(self) -> float | None:
        """Share of the pairs in the expected order; None without any."""
        return self.n_expected / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the share; None without any pair."""
        return wilson(self.n_expected, self.n) if self.n else None

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        low, high = self.interval or (None, None)
        return {**asdict(self), "share": self.share, "low": low, "high": high, "state": str(self.state)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """One self-check of a site.

    Attributes:
        checked_at: seconds since 1970, UTC.
        weights: the checkpoint whose scores were compared.
        figures: one entry for each kind that was looked for.
    """

    checked_at: float
    software_version: str
    weights: Weights
    figures: tuple[Figures, ...]

    @property
    def holds(self) -> bool:
        """Whether no kind with enough pairs contradicts the score."""
        return all(one.state is not State.DOES_NOT_ORDER for one in self.figures)

    def in_brief(self) -> str:
        """Return the counts in one line: `thickness 14 of 15, kernel 8 of 8`."""
        return in_brief(self.figures)

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        figures = [one.as_dict() for one in self.figures]
        return {**asdict(self), "figures": figures, "holds": self.holds}


def in_brief(figures: Sequence[Figures]) -> str:
    """Return the counts of every kind that has pairs, in one line; kinds that the score does not order are marked.

    >>> in_brief([Figures(kind=PairKind.DOSE, n=9, n_expected=8, n_ties=1)])
    'dose 8 of 9'
    """
    shown = [
        f"{one.kind} {one.n_expected} of {one.n}{' (NOT ORDERED)' if one.state is State.DOES_NOT_ORDER else ''}"
        for one in figures
        if one.n
    ]
    return ", ".join(shown) or "no pairs"
