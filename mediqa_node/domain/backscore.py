"""Back-scoring: an archive that the node already holds is scored with the active checkpoint, behind all other work."""

from dataclasses import dataclass
from enum import StrEnum

from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.series import ReasonCode


class SetState(StrEnum):
    """Life of a set of series to back-score. One that is done or cancelled stays so."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DONE = "DONE"
    CANCELLED = "CANCELLED"


OPEN_SETS = (SetState.RUNNING, SetState.PAUSED)


class PauseReason(StrEnum):
    """Why a set is paused; `WORDS` has the words."""

    BY_PERSON = "by_person"
    OTHER_CHECKPOINT = "other_checkpoint"
    UNTRAINED = "untrained"
    CONSTANCY = "constancy"


WORDS = {
    PauseReason.BY_PERSON: "by a person",
    PauseReason.OTHER_CHECKPOINT: "another checkpoint is active than the one that the set was started for; cancel the "
    "set and start another, or resume it once its checkpoint is active again",
    PauseReason.UNTRAINED: "the weights were never trained; their scores have no meaning",
    PauseReason.CONSTANCY: "the constancy check of the score is not good: `mediqa-node constancy`, then resume",
}


class ItemState(StrEnum):
    """How far one series of a set is.

    WAITING and QUEUED are under way: without and with a durable job. All others are outcomes: SCORED made an assessment
    of the series' own, ALONGSIDE a score that is kept next to the reported one. What was REFUSED or FAILED left the
    series as it was; one that CHANGED was received again and is assessed by itself.
    """

    WAITING = "waiting"
    QUEUED = "queued"
    SCORED = "scored"
    ALONGSIDE = "alongside"
    REFUSED = "refused"
    FAILED = "failed"
    CHANGED = "changed"
    CANCELLED = "cancelled"


UNDER_WAY = (ItemState.WAITING, ItemState.QUEUED)
WITH_A_SCORE = (ItemState.SCORED, ItemState.ALONGSIDE)

NEVER_SCORED = frozenset(
    {
        ReasonCode.NO_IMAGES,
        ReasonCode.NO_IMAGE,
        ReasonCode.NOT_AN_IMAGE,
        ReasonCode.SECONDARY_CAPTURE,
        ReasonCode.LOCALIZER,
        ReasonCode.DOCUMENT,
        ReasonCode.PHANTOM,
        ReasonCode.REFORMAT,
        ReasonCode.MAP,
        ReasonCode.MOSAIC,
        ReasonCode.BURNED_IN,
        ReasonCode.COLOUR,
        ReasonCode.STRIP,
        ReasonCode.FRAMES_IN_SINGLE_FRAME_CLASS,
        ReasonCode.OWN_REPORT,
        ReasonCode.PURGED,
        ReasonCode.REJECTED,
    }
)
"""Why a series has no score that neither another checkpoint nor other rules of the site would give it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which series of the archive are back-scored.

    Attributes:
        since, until: days of acquisition, `YYYY-MM-DD`, both included; of reception if no header states one. "": any.
        modality: Modality (0008,0060); "": any.
        station: name of the scanner, as the worklist shows it; "": any.
        calling_ae: AE title that sent it; "": any.
        with_score: also series that have a score of the set's checkpoint.
        at_most: number of series; None: all.
    """

    since: str = ""
    until: str = ""
    modality: str = ""
    station: str = ""
    calling_ae: str = ""
    with_score: bool = False
    at_most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackscoreSet:
    """A set of series to back-score. Times in seconds since 1970.

    Attributes:
        weights: the checkpoint that was active at the start: no other scores for this set.
        with_reports: scores are reported by the rules of the site, as those of live series.
        pause_reason: why it is paused; None: it is not.
        total: series that were selected at the start.
        n_taken: series that were taken from the index so far.
        cursor: UID of the last one; "" at the start.
        done_at: when it was done or cancelled.
    """

    id: int
    made_at: float
    made_by: str
    selection: Selection
    weights: Weights
    with_reports: bool
    state: SetState
    pause_reason: PauseReason | None
    total: int
    n_taken: int
    cursor: str
    done_at: float | None

    def in_brief(self) -> str:
        """Return the state and how many series were taken, in a line."""
        return f"set {self.id} {self.state.lower()}, {self.n_taken:,} of {self.total:,} series taken"

    @property
    def left_to_take(self) -> int | None:
        """How many more series may be taken; None: no limit."""
        return None if self.selection.at_most is None else max(0, self.selection.at_most - self.n_taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How many series of a set are in a state, by reason."""

    state: ItemState
    reason_code: str | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a set is.

    Attributes:
        outcomes: of the series that were taken.
        per_minute: series that ended in the last ten minutes, by the minute; None while nothing is known.
    """

    outcomes: tuple[Outcome, ...]
    per_minute: float | None

    @property
    def n_done(self) -> int:
        """Series with an outcome."""
        return sum(one.n for one in self.outcomes if one.state not in UNDER_WAY)

    @property
    def n_under_way(self) -> int:
        """Series that were taken and have no outcome."""
        return sum(one.n for one in self.outcomes if one.state in UNDER_WAY)

    def left_s(self, total: int) -> float | None:
        """Return how long the rest takes at the present rate, seconds; None if that is not known."""
        return 60 * max(0, total - self.n_done) / self.per_minute if self.per_minute else None
