"""Constancy: raw scores of frozen images, pinned and compared with today's.

A score can drift although the weights do not change: another version of a library, another decoder or
processor, a flipped bit. Raw scores are compared, since a map to 0..1 hides a drift at its flat ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

BOUND = 1e-4
"""Largest difference of raw score that counts as the same in fp32: arithmetic alone moves one by 1e-7 to 1e-6."""
BOUND_BF16 = 0.03
"""The same for bf16, which moved the reference scores of the default weights by up to 0.008."""


class Baseline(StrEnum):
    """The reference for the scores of a check."""

    CARD = "card"
    FIRST = "first"
    NOTHING = "nothing"


class CheckedBy(StrEnum):
    """Which process made a check."""

    WORKER = "worker"
    COMMAND = "command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constancy:
    """Reference scores pinned by a checkpoint's card.

    Attributes:
        raw: raw score of each reference series, by name.
        bound, bound_bf16: largest |difference| that counts as the same, by precision; above 0.
    """

    raw: Mapping[str, float]
    bound: float = BOUND
    bound_bf16: float = BOUND_BF16


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Everything except the image that a score depends on; while it is unchanged, checks are a day apart.

    Attributes:
        execution: device and arithmetic, e.g. `cpu fp32`.
        libraries: versions, the processor, and the graphics device if it is one that scores.
        host_id: of a node that runs on several hosts: each proves itself, since memory and boards fail one by one.
    """

    software_version: str
    weights_sha256: str
    execution: str
    libraries: str
    host_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison of the reference set.

    Attributes:
        checked_at: seconds since 1970, UTC.
        scores: current scores of the reference series.
        expected: the scores to compare with; equal to `scores` at the first check of a site.
        compared_with: CARD; FIRST: the first check of these weights at this site, where the card pins nothing;
            NOTHING: this is that first check, or nothing could be scored.
        drift: largest |difference|; None where an expected series was not scored.
        passed: within the bound of the expected scores, or of acknowledged ones.
        problem: why the reference set could not be scored, or None.
        refusals: why a reference series has no score, by name.
        made_by: WORKER or COMMAND. A command is another process with its own copy of the weights: a good check of
            its own proves nothing about the worker, while a drift that it finds counts.
        id: in the record; None if not recorded.
    """

    identity: Identity
    checked_at: float
    scores: Mapping[str, float]
    expected: Mapping[str, float]
    compared_with: Baseline | str
    bound: float
    drift: float | None
    passed: bool
    problem: str | None = None
    refusals: Mapping[str, str] = field(default_factory=dict)
    made_by: CheckedBy | str = CheckedBy.WORKER
    id: int | None = None
    acknowledged_at: float | None = None
    acknowledged_by: str | None = None

    @property
    def withholds(self) -> bool:
        """Whether this check withholds results."""
        return not self.passed and self.acknowledged_at is None

    @property
    def as_acknowledged(self) -> bool:
        """Whether it passed only because this drift was acknowledged before."""
        return self.passed and (self.drift is None or self.drift > self.bound)

    @property
    def worst(self) -> str | None:
        """The series that differs most, or is missing; None without any."""
        return max(self.expected, key=lambda name: _difference(self.scores, self.expected, name), default=None)

    def finding(self) -> str:
        """Return the finding as one sentence."""
        if self.problem is not None:
            return f"the reference set could not be scored: {self.problem}"
        source = "the card" if self.compared_with is Baseline.CARD else "the first check at this site"
        if self.compared_with is Baseline.NOTHING:
            kept = "this first check is the baseline of this site from now on"
            return f"the card pins no scores: {kept if self.id is not None else 'there is nothing to compare with'}"
        name = self.worst or ""
        if self.drift is None:
            why = f" ({self.refusals[name]})" if name in self.refusals else ""
            return f"{name} is not scored{why}; {source} says {self.expected[name]:.6f}"
        now, then = self.scores[name], self.expected[name]
        relation = f"{self.drift:.1e} apart, bound {self.bound:.1e}"
        return f"raw score of {name} is {now:.6f}, {source} says {then:.6f}: {relation}"

    def advice(self) -> str:
        """Return the next step after a failed check."""
        if self.problem is not None:
            return "mend it; the worker tries again within ten minutes and then sends on by itself what waits for it"
        return '`mediqa-node constancy --history`; to accept it `--acknowledge "NAME"`, then `mediqa-node retry`'


def drift_of(scores: Mapping[str, float], expected: Mapping[str, float]) -> float | None:
    """Return the largest |difference| over the expected series; None if one of them was not scored."""
    if not expected.keys() <= scores.keys():
        return None
    return max((_difference(scores, expected, name) for name in expected), default=0.0)


def _difference(scores: Mapping[str, float], expected: Mapping[str, float], name: str) -> float:
    return abs(scores[name] - expected[name]) if name in scores else float("inf")


def compare(
    identity: Identity,
    scores: Mapping[str, float],
    *,
    pinned: Constancy | None,
    first: Mapping[str, float] | None,
    accepted: Mapping[str, float] | None,
    at: float,
    refusals: Mapping[str, str] | None = None,
) -> Check:
    """Compare today's scores with the card, else with the first check of this site.

    Args:
        pinned: the card's scores; None: compare with `first`.
        first: scores of the first check of these weights at this site, or None.
        accepted: scores of the last acknowledged check of this identity, or None. The same series within
            the bound of them pass; a further drift in any direction does not, nor does a series that had no
            score then.
        at: seconds since 1970.
        refusals: why a reference series has no score, by name.
    """
    rule = pinned or Constancy(raw={})
    bound = rule.bound_bf16 if "bf16" in identity.execution.split() else rule.bound
    expected = pinned.raw if pinned else first or scores
    drift = drift_of(scores, expected)
    from_accepted = drift_of(scores, accepted) if accepted and accepted.keys() == scores.keys() else None
    return Check(
        identity=identity,
        checked_at=at,
        scores=dict(scores),
        expected=dict(expected),
        compared_with=Baseline.CARD if pinned else Baseline.FIRST if first else Baseline.NOTHING,
        bound=bound,
        drift=drift,
        passed=any(apart is not None and apart <= bound for apart in (drift, from_accepted)),
        refusals=dict(refusals or {}),
    )


def not_scored(identity: Identity, problem: str, *, at: float) -> Check:
    """Return the failed check of a reference set that could not be scored."""
    return Check(
        identity=identity,
        checked_at=at,
        scores={},
        expected={},
        compared_with=Baseline.NOTHING,
        bound=BOUND,
        drift=None,
        passed=False,
        problem=problem,
    )
