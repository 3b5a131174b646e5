"""The worklist: one entry for each series, with the facts that a person needs to decide whether to repeat it.

An entry is derived from what is stored elsewhere and can be made again at any time. Facts are measured, recorded or
decided, never guessed: an entry names no artefact and no cause.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.baseline import StandsOut
from mediqa_node.domain.quantities import QUANTITIES, SHOWN_UNITS
from mediqa_node.domain.scoring import Prediction
from mediqa_node.domain.series import Completed, DeliveryState, Reason, SeriesState
from mediqa_node.domain.technique import DOUBTS, Technique

WHY_AT_MOST = 40
FEWEST_SCORES = 20
"""Scores of one scanner and protocol from which a usual range is shown."""


class Category(StrEnum):
    """What an entry asks of a person, the most urgent first; `WORDS` has the words."""

    REPEAT = "repeat"
    LOOK = "look"
    FINE = "fine"
    SCORED = "scored"
    NOT_SCORED = "not_scored"
    ARRIVING = "arriving"


ALARMS = (Category.REPEAT, Category.LOOK)
"""Verdicts that ask a person to look or to repeat."""
WORDS: Mapping[Category, str] = {
    Category.REPEAT: "Repeat?",
    Category.LOOK: "Look",
    Category.FINE: "Fine",
    Category.SCORED: "Scored",
    Category.NOT_SCORED: "Not scored",
    Category.ARRIVING: "Arriving",
}
_BY_VERDICT = {"review": Category.REPEAT, "borderline": Category.LOOK, "acceptable": Category.FINE}


class AnswerKind(StrEnum):
    """What a person has done about a series."""

    REPEATED = "repeated"
    KEPT = "kept"
    WRONG_ALARM = "wrong_alarm"


ANSWERS: Mapping[AnswerKind, str] = {
    AnswerKind.REPEATED: "Repeated",
    AnswerKind.KEPT: "Kept",
    AnswerKind.WRONG_ALARM: "Wrong alarm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What is usual for a number on one scanner and protocol.

    Attributes:
        low, high: tenth and ninetieth percentile.
        n: values that it rests on.
    """

    low: float
    median: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact about a series that speaks for a look at it.

    Attributes:
        short: for a line of the worklist, at most 40 characters.
        text: a full sentence with numbers.
        is_adverse: it says that images are worse; False for a doubt about the header.
    """

    short: str
    text: str
    is_adverse: bool = True


def category_of(state: SeriesState | str, verdict: str | None, *, is_live: bool = True) -> Category:
    """Return the category of a series.

    Args:
        verdict: of the last assessment; None without one.
        is_live: False for what was pulled from an archive: nobody can repeat it, and it is no alarm.
    """
    if verdict is not None and not is_live:
        return Category.SCORED
    if verdict is not None:
        return _BY_VERDICT.get(verdict, Category.SCORED)
    if state in (SeriesState.RECEIVING, SeriesState.READY):
        return Category.ARRIVING
    return Category.NOT_SCORED


def provisional_until(completion: str | None, last_image_at: float, deliver_after_s: float) -> float | None:
    """Return until when images are likely to follow a complete series; None if it is known to be whole."""
    if completion in (Completed.ANNOUNCED, Completed.CONTIGUOUS):
        return None
    return last_image_at + deliver_after_s


def shown(score: float) -> str:
    """Return a score, 0..1, as pages and reports show it, 0 to 100.

    >>> shown(0.583)
    '58'
    """
    return f"{100 * score:.0f}"


def facts(
    assessment: Assessment | None,
    technique: Technique | None,
    stands_out: Sequence[StandsOut],
    usual_score: Range | None,
    reason: Reason | None,
) -> tuple[Fact, ...]:
    """Return the facts about a series, those that say most about its images first."""
    if assessment is None:
        return () if reason is None else (_refusal(reason),)
    found = [*_below(assessment), *(_stands_out(one) for one in stands_out), *_looks_like(assessment, technique)]
    if usual_score is not None and usual_score.n >= FEWEST_SCORES and assessment.quality < usual_score.low:
        found.append(_unusual(assessment.quality, usual_score))
    found += [*_range(assessment), *_doubts(assessment)]
    return tuple(found)


def _refusal(reason: Reason) -> Fact:
    words, _, detail = str(reason).partition(": ")
    text = f"{words}: {detail}" if detail else words
    return Fact(short=cut(words[:1].upper() + words[1:]), text=text[:1].upper() + text[1:] + ".", is_adverse=False)


def _below(assessment: Assessment) -> Iterator[Fact]:
    """Slices below the limit that the verdict rests on."""
    calibration = assessment.calibration
    if calibration is None or assessment.verdict not in ("review", "borderline"):
        return
    limit = calibration.review_below if assessment.verdict == "review" else calibration.borderline_below
    scores = [part.quality for part in assessment.primary.slices if part.quality is not None]
    low = [score for score in scores if score < limit]
    lowest = min(range(len(scores)), key=lambda i: scores[i])
    short = f"{len(low)} of {len(scores)} slices below {shown(limit)}" if len(scores) > 1 else f"below {shown(limit)}"
    yield Fact(
        short=short,
        text=f"The score is {shown(assessment.quality)}, this protocol's limit {shown(limit)}; lowest is slice "
        f"{lowest + 1} with {shown(scores[lowest])}.",
    )


def _stands_out(one: StandsOut) -> Fact:
    quantity, usual = QUANTITIES[one.measure.name], one.usual
    unit = SHOWN_UNITS.get(quantity.unit, quantity.unit)
    value, median = (f"{number:.{quantity.places}f}" for number in (one.measure.value or 0.0, usual.median))
    room = WHY_AT_MOST - len(f" {value} {unit}, usual {median}")
    name = quantity.title if len(quantity.title) <= room else quantity.title.partition(" in ")[0]
    return Fact(
        short=cut(f"{name} {value} {unit}".rstrip() + f", usual {median}"),
        text=f"{quantity.title[:1].upper()}{quantity.title[1:]} is {f'{value} {unit}'.rstrip()}; usual here is "
        f"{median} ± {usual.spread:.{quantity.places}f} ({usual.n} exams).",
    )


def _looks_like(assessment: Assessment, technique: Technique | None) -> Iterator[Fact]:
    predicted, recorded = looks_like(assessment.primary.prediction), recorded_value(technique)
    if predicted is None or recorded is None:
        return
    low, high, unit = predicted
    wide = (high / low) ** 0.5 if low > 0 else 1.0
    if unit != "mAs" or low / wide <= recorded <= high * wide:
        return  # a predicted field strength follows the signal to noise ratio: it contradicts no header
    span, stated = f"{number(low)}–{number(high)} {unit}", number(recorded)
    short, text = f"Looks like {span}, {stated} recorded", f"The images look like {span}; recorded are {stated} {unit}."
    yield Fact(short=cut(short), text=text + " That is off by more than two of the model's errors.",
               is_adverse=recorded > high)  # fmt: skip


def number(value: float) -> str:
    """Return a number with two or three figures, never in scientific notation.

    >>> number(265.4), number(1.494), number(0.0)
    ('265', '1.5', '0')
    """
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def looks_like(prediction: Prediction | None) -> tuple[float, float, str] | None:
    """Return the range of a predicted parameter and its unit; None where the checkpoint supports none."""
    if prediction is None or prediction.likely is None or not prediction.is_supported:
        return None
    unit = {"mA.s": "mAs"}.get(prediction.unit, prediction.unit)
    return (*prediction.likely, unit)


def recorded_value(technique: Technique | None) -> float | None:
    """Return the recorded tube charge in mAs, or field strength in tesla."""
    if technique is None:
        return None
    return technique.tube_charge_mas if technique.label_name == "mas" else technique.field_strength_t


def _unusual(score: float, usual: Range) -> Fact:
    span = f"{shown(usual.low)}–{shown(usual.high)}"
    return Fact(
        short=f"Score {shown(score)}, usual {span}",
        text=f"The score is {shown(score)}; eight of ten series of this scanner and protocol have {span} (n = "
        f"{usual.n}).",
    )


def _range(assessment: Assessment) -> Iterator[Fact]:
    position = assessment.primary.range_position
    if position is None or not position.is_near:
        return
    if position.is_outside:
        yield Fact(short="Unlike the training images", text=f"Outside the training range: {position.details()}.")
    else:
        text = f"Near the limit of the training range: {position.details()}."
        yield Fact(short="Near the training range's limit", text=text, is_adverse=False)


def _doubts(assessment: Assessment) -> Iterator[Fact]:
    for doubt in assessment.doubts:
        yield Fact(short=cut(DOUBTS[doubt]), text=f"Header: {DOUBTS[doubt]}.", is_adverse=False)
    for conflict in assessment.primary.prompt.conflicts:
        words = conflict.replace("_", " ")
        yield Fact(short=cut(f"Header: {words}"), text=f"Sources of the prompt disagree: {words}.", is_adverse=False)


def cut(text: str, at_most: int = WHY_AT_MOST) -> str:
    """Return a text of at most so many characters, cut between words.

    >>> cut("Rescale Slope or Intercept is missing, stored values count as HU")
    'Rescale Slope or Intercept is missing…'
    """
    if len(text) <= at_most:
        return text
    return text[: at_most - 1].rpartition(" ")[0].rstrip(" ,;:") + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the worklist. Times are seconds since 1970.

    Attributes:
        id: number of the series in addresses of pages.
        change: raised with every change of the entry, over all entries; in the order of commits.
        generation: of the content that the description was read from.
        scanner: Station Name (0008,1010), else Manufacturer's Model Name (0008,1090).
        accession_end: the last four characters of Accession Number (0008,0050).
        laterality: R, L or B as recorded; "" if it is not.
        score: 0..1 of the last assessment; None without one.
        provisional_until: until when images are likely to follow; None: the series is known to be whole.
        usual: usual scores of this scanner and protocol with the same weights.
        thresholds: limits of the calibration, review and borderline; None without one.
        predicted: range of the predicted parameter; `recorded` and `unit` go with it.
        eligible: its label is fit for training; `exclusions`: codes of why it is not, separated by spaces.
        delivery: the least finished delivery of the last revision; None without one.
        delivered_in_s: from the last image to the answer of the destination.
        answer: of a person; None without one, or when it was taken back.
    """

    id: int
    series_instance_uid: str
    study_instance_uid: str
    change: int
    generation: int
    revision: int
    received_at: float
    last_image_at: float
    n_images: int
    state: SeriesState | str
    category: Category
    reason_code: str | None
    modality: str
    scanner: str
    model: str
    protocol: str
    description: str
    series_number: int | None
    sender: str
    accession_end: str
    laterality: str
    acquired: str
    region: str
    type: str
    score: float | None
    trained: bool
    weights_sha256: str
    provisional_until: float | None
    usual: Range | None
    thresholds: tuple[float, float] | None
    why: str
    why_more: str
    predicted: tuple[float, float] | None
    recorded: float | None
    unit: str
    eligible: bool
    exclusions: str
    delivery: DeliveryState | str | None
    destination: str
    delivered_in_s: float | None
    answer: AnswerKind | None
    answered_at: float | None

    def is_provisional(self, now: float) -> bool:
        """Whether the score may still change because images are being received or are likely to follow."""
        if self.state in (SeriesState.RECEIVING, SeriesState.READY):
            return True
        return self.provisional_until is not None and now < self.provisional_until

    @property
    def is_alarm(self) -> bool:
        """Whether its verdict is an alarm."""
        return self.category in ALARMS

    @property
    def asks(self) -> bool:
        """Whether it waits for a person's answer."""
        return self.is_alarm and self.answer is None
