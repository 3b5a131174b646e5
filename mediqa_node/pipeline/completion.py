"""When a series counts as complete. DICOM does not define it, so the node decides and records why.

    announced    a completed procedure step lists the objects, or the headers give their number, and all have arrived
    contiguous   one association, released, nothing refused for now; even spacing; a sender that never splits
    quiet        no instance for a while, and no open association that is still sending
    forced       the series has been open too long

A pure function of stored facts and the clock: nothing is lost when the process restarts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mediqa_node.domain.policy import CompletionRules
from mediqa_node.domain.series import Completed

IDLE_ON_OPEN_ASSOCIATION_S = 30.0
LEARNED_QUIET_AT_MOST_S = 120.0
CLOCK_SET_BACK_S = 60.0
"""A stored time further in the future than this means that the clock was set back; nothing waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFacts:
    """Facts about a series that is being received. Times in seconds since 1970, UTC.

    Attributes:
        association_closed_at: None while the association that sent the last instance is open.
        moved_on: that association has sent another series since.
        sender_splits: this calling AE has split a series, or paused long within one.
        sender_gaps_s: pauses inside earlier series of this calling AE.
        announced: all objects that a procedure step of the modality lists, or of a concatenation, have arrived; False:
            some are missing; None: nothing is announced.
        evenly_spaced: at least three slices without gaps, or a kind of image that is sent singly.
    """

    opened_at: float
    last_instance_at: float
    n_associations: int
    association_closed_at: float | None
    released: bool
    moved_on: bool
    sender_splits: bool
    sender_gaps_s: Sequence[float] = ()
    announced: bool | None = None
    evenly_spaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Why a series is complete, and from when its report may be delivered."""

    reason: Completed
    report_not_before: float


def completion(facts: SeriesFacts, rules: CompletionRules, now: float) -> Completion | None:
    """Return why the series is complete at `now`, the strongest reason first, or None."""
    if max(facts.last_instance_at, facts.opened_at) > now + CLOCK_SET_BACK_S:
        return Completion(reason=Completed.FORCED, report_not_before=now + rules.deliver_after_s)
    if facts.announced:
        return Completion(reason=Completed.ANNOUNCED, report_not_before=now)
    if _contiguous(facts) and now - _end(facts) >= rules.contiguous_after_s:
        return Completion(reason=Completed.CONTIGUOUS, report_not_before=now)
    later = facts.last_instance_at + rules.deliver_after_s
    silent_s = now - facts.last_instance_at
    busy = facts.association_closed_at is None and not facts.moved_on and silent_s < IDLE_ON_OPEN_ASSOCIATION_S
    if silent_s >= quiet_after_s(facts.sender_gaps_s, rules) and not busy and facts.announced is not False:
        return Completion(reason=Completed.QUIET, report_not_before=later)
    if now - facts.opened_at >= rules.forced_after_s:
        return Completion(reason=Completed.FORCED, report_not_before=later)
    return None


def could_be_contiguous(facts: SeriesFacts) -> bool:
    """Return whether all but the spacing indicates `contiguous`, so that reading the headers pays."""
    return (
        facts.n_associations == 1
        and facts.association_closed_at is not None
        and facts.released
        and not facts.sender_splits
    )


def _contiguous(facts: SeriesFacts) -> bool:
    return could_be_contiguous(facts) and facts.evenly_spaced and facts.announced is not False


def _end(facts: SeriesFacts) -> float:
    return max(facts.last_instance_at, facts.association_closed_at or 0.0)


def quiet_after_s(gaps_s: Sequence[float], rules: CompletionRules) -> float:
    """Return the silence in seconds that ends a series of this sender: 4 x its 99th-percentile pause, bounded."""
    if not gaps_s:
        return rules.quiet_after_s
    learned = 4 * sorted(gaps_s)[min(len(gaps_s) - 1, int(0.99 * len(gaps_s)))]
    return max(rules.quiet_after_s, min(learned, LEARNED_QUIET_AT_MOST_S))
