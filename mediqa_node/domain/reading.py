"""Reading studies: which cases readers rate, on which scale, in which order.

A study has cases (series), criteria and one scale. Each reader has an order of their own, in which some cases come
twice, so that a reader can be compared with themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mediqa_node.domain.rating import CRITERIA, DIRECTIONS, HIGHER_BETTER

MOST_CASES = 500
MOST_EXAMPLES = 5
MOST_REPEATS = 0.3
"""Share of cases that may come twice; more cannot all be a third of the list apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A scale of labelled whole numbers, each of which is one digit key.

    Attributes:
        points: value and label, the lowest value first.
        direction: one of DIRECTIONS.
    """

    points: tuple[tuple[int, str], ...]
    direction: str = HIGHER_BETTER

    def __post_init__(self) -> None:
        values = [value for value, _ in self.points]
        if len(values) < 2 or values != sorted(set(values)):
            raise ValueError("a scale has two points or more, each value once")
        if values[0] < 0 or values[-1] > 9:
            raise ValueError("a point of a scale is one digit, 0 to 9: readers rate with one key")
        if self.direction not in DIRECTIONS:
            raise ValueError(f"the direction of a scale is {' or '.join(DIRECTIONS)}")

    @property
    def low(self) -> int:
        """The lowest value."""
        return self.points[0][0]

    @property
    def high(self) -> int:
        """The highest value."""
        return self.points[-1][0]

    @property
    def is_higher_better(self) -> bool:
        """Whether the highest value is the best image."""
        return self.direction == HIGHER_BETTER

    def has(self, value: int) -> bool:
        """Return whether a value is a point of the scale."""
        return any(value == point for point, _ in self.points)

    def label(self, value: float) -> str:
        """Return the label of a value; "" between points."""
        return next((label for point, label in self.points if point == value), "")

    def unit(self, value: float) -> float:
        """Return a value from 0, worst, to 1, best.

        >>> Scale(points=((1, "bad"), (5, "good"))).unit(4)
        0.75
        """
        share = (value - self.low) / (self.high - self.low)
        return share if self.is_higher_better else 1 - share

    def value(self, unit: float) -> float:
        """Return the value on the scale of 0, worst, to 1, best: the inverse of `unit`."""
        share = unit if self.is_higher_better else 1 - unit
        return self.low + share * (self.high - self.low)


def read_points(text: str) -> tuple[tuple[int, str], ...]:
    """Return the points of a scale from lines such as `1 not usable`.

    Raises:
        ValueError: a line does not begin with a digit; the message names it.

    >>> read_points("1 not usable\\n2 = poor")
    ((1, 'not usable'), (2, 'poor'))
    """
    points = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        value, label = line[:1], line[1:].lstrip(" =:.-\t").strip()
        if not value.isascii() or not value.isdigit() or line[1:2].isdigit():
            raise ValueError(f"each point of the scale is a line such as “1 not usable”, unlike “{line[:40]}”")
        points.append((int(value), label[:60]))
    return tuple(sorted(points))


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """What is rated: one of CRITERIA, and the question that the reader sees."""

    name: str
    question: str

    def __post_init__(self) -> None:
        if self.name not in CRITERIA:
            raise ValueError(f"a criterion is one of {', '.join(CRITERIA)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A reading study.

    Attributes:
        question: what readers are told before they begin.
        repeats: share of the cases that each reader sees twice.
        readers: user names of those who may read; (): everybody with the permission.
        chosen: how the cases were chosen, for people.
        n_cases: without repeats.
        import_id: the import of ratings that was made of it; None: none, or it was withdrawn.
    """

    id: int
    name: str
    question: str
    criteria: tuple[Criterion, ...]
    scale: Scale
    seed: int
    repeats: float
    readers: tuple[str, ...]
    chosen: str
    made_at: float
    made_by: str
    n_cases: int
    closed_at: float | None = None
    closed_by: str | None = None
    import_id: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it takes ratings."""
        return self.closed_at is None

    @property
    def study_id(self) -> str:
        """The name of its ratings in rating tables."""
        return f"reading-{self.id}"

    def admits(self, name: str) -> bool:
        """Return whether a person may read it."""
        return not self.readers or name in self.readers


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One place in the order of a reader: which case, and for which time.

    Attributes:
        position: from 1.
        repeat: 1 or 2.
    """

    position: int
    series_instance_uid: str
    revision: int
    repeat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A series with a rating that is agreed: a rung of the ladder next to each case."""

    place: int
    series_instance_uid: str
    revision: int
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a reader confirmed at one place of their order.

    Attributes:
        values: by criterion; empty: the reader could not rate the case.
    """

    position: int
    values: Mapping[str, int]
    comment: str
    window: str
    took_s: float | None
    at: float


def criteria_of(stored: Any) -> tuple[Criterion, ...]:
    """Return criteria from what is stored: pairs of name and question."""
    return tuple(Criterion(name=name, question=question) for name, question in stored)
