"""Repeats and wrong alarms by scanner and month, as AAPM Task Group 151 asks of a department (doi 10.1118/1.4932623).

A repeat is a series that a person answered with `repeated`. The precision of the alarms (positive predictive value) is
the share of answered alarms that nobody called a wrong alarm; an alarm without an answer counts in neither.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mediqa_node.domain.self_check import wilson
from mediqa_node.domain.worklist import ALARMS, AnswerKind, Category


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One standing answer, as far as it counts here.

    Attributes:
        month: `2026-11`, of the answer at the site.
        reason: as given; may be empty.
    """

    month: str
    scanner: str
    protocol: str
    kind: AnswerKind
    category: Category
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of cases with its 95 % interval by Wilson; `value` is None without any case."""

    n: int
    of: int

    @property
    def value(self) -> float | None:
        """The share, 0..1."""
        return self.n / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float]:
        """Its interval, 0..1."""
        return wilson(self.n, self.of)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One scanner in one month.

    Attributes:
        n_series: series that were received.
        n_alarms: those among them with Repeat? or Look as the node's verdict.
        repeated: of all series.
        precision: alarms that were not called wrong, of answered alarms.
        repeated_without_alarm: repeats that the node had not asked for.
    """

    month: str
    scanner: str
    n_series: int
    n_alarms: int
    repeated: Share
    precision: Share
    repeated_without_alarm: int


def lines(answers: Iterable[Answered], received: Mapping[tuple[str, str], tuple[int, int]]) -> tuple[Line, ...]:
    """Return one line for each month and scanner, the newest month first.

    Args:
        received: series and alarms by month and scanner.
    """
    by_key: dict[tuple[str, str], list[Answered]] = {key: [] for key in received}
    for one in answers:
        by_key.setdefault((one.month, one.scanner), []).append(one)
    found = [_line(key, of, received.get(key, (0, 0))) for key, of in by_key.items()]
    found.sort(key=lambda line: line.scanner)
    return tuple(sorted(found, key=lambda line: line.month, reverse=True))


def _line(key: tuple[str, str], answers: list[Answered], received: tuple[int, int]) -> Line:
    n_series, n_alarms = received
    repeated = [one for one in answers if one.kind is AnswerKind.REPEATED]
    alarms = [one for one in answers if one.category in ALARMS]
    right = sum(one.kind is not AnswerKind.WRONG_ALARM for one in alarms)
    return Line(
        month=key[0],
        scanner=key[1],
        n_series=n_series,
        n_alarms=n_alarms,
        repeated=Share(n=len(repeated), of=max(n_series, len(repeated))),
        precision=Share(n=right, of=len(alarms)),
        repeated_without_alarm=sum(one.category not in ALARMS for one in repeated),
    )


def total(of: Iterable[Line], *, month: str) -> Line:
    """Return all scanners of a month as one line."""
    members = [line for line in of if line.month == month]
    return Line(
        month=month,
        scanner="all scanners",
        n_series=sum(line.n_series for line in members),
        n_alarms=sum(line.n_alarms for line in members),
        repeated=Share(n=sum(line.repeated.n for line in members), of=sum(line.repeated.of for line in members)),
        precision=Share(n=sum(line.precision.n for line in members), of=sum(line.precision.of for line in members)),
        repeated_without_alarm=sum(line.repeated_without_alarm for line in members),
    )


def repeats_by(answers: Iterable[Answered], name: str) -> list[tuple[str, int]]:
    """Return how often series were repeated by `reason` or `protocol`, the commonest first."""
    repeated = (getattr(one, name) for one in answers if one.kind is AnswerKind.REPEATED)
    return sorted(Counter(repeated).items(), key=lambda item: (-item[1], item[0]))
