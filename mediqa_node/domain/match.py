"""Which objects a rule of the site is for.

One type serves every list of rules: `forward`, `returns`, `score.rules`, `score.primary`, `score.phantoms` and
`completion.rules`. Patterns are RE2 regular expressions, searched without regard to case: matching takes time linear in
the text, so that nothing a peer writes into a header can keep the receiver busy.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar

import re2

ANY = "*"
TEXT_AT_MOST = 256
"""Characters of a value that a pattern is searched in."""
_MEMORY_BYTES = 1024**2
_REMEMBERED, _VALUES_REMEMBERED = 1024, 64
_NO_VALUE: tuple[str, ...] = ()
_EMPTY = ("",)

PATTERNS = {
    "station": "StationName",
    "protocol": "ProtocolName",
    "description": "SeriesDescription",
    "body_part": "BodyPartExamined",
    "institution": "InstitutionName",
    "patient_id": "PatientID",
    "image_type": "ImageType",
}
"""The attribute that each condition with a pattern looks at, by its keyword."""


def key_of(name: str) -> str:
    """Return the key of a condition in `node.yaml`; `from` is a word of Python."""
    return "from" if name == "sender" else name


RULE: dict[str, Any] = {"extra": "forbid", "alias_generator": key_of}
"""How the configuration reader reads a rule."""

Names = str | tuple[str, ...]


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> Any:
    """Return a compiled pattern.

    Raises:
        ValueError: it is no RE2 regular expression, or a very large one.
    """
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = _MEMORY_BYTES
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
        raise ValueError(f"{pattern!r} is no RE2 regular expression: {reason}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of an object when rules are asked.

    Attributes:
        senders: calling AE title, and the name of the configured peer that has it.
        called: the AE title that was called; "" if it is not known.
        values: by keyword of a public top-level attribute; absent: no value.
        study_age_days: None without a readable Study Date (0008,0020).
    """

    senders: tuple[str, ...] = ()
    called: str = ""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    study_age_days: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Conditions on a series; all that are given must hold.

    Attributes:
        sender: key `from`. Calling AE title, or the name of its configured peer; several: any of them.
        called: the AE title that was called; one or several.
        modality: Modality (0008,0060), one or several.
        station: pattern in Station Name (0008,1010).
        protocol: pattern in Protocol Name (0018,1030).
        description: pattern in Series Description (0008,103E).
        body_part: pattern in Body Part Examined (0018,0015).
        institution: pattern in Institution Name (0008,0080).
        patient_id: pattern in Patient ID (0010,0020).
        study_at_least_days: age of the study by its Study Date (0008,0020); one without a date does not match.
        study_at_most_days: likewise.
        attributes: patterns by keyword of further attributes of patient, study, series or equipment. Of several values
            any may match; an absent one is empty.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = RULE

    sender: Names = ANY
    called: Names = ANY
    modality: Names = ANY
    station: str | None = None
    protocol: str | None = None
    description: str | None = None
    body_part: str | None = None
    institution: str | None = None
    patient_id: str | None = None
    study_at_least_days: float | None = None
    study_at_most_days: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pattern in self.patterns.values():
            compiled(pattern)

    @property
    def patterns(self) -> dict[str, str]:
        """The patterns of this rule by the keyword of their attribute."""
        named = {keyword: getattr(self, name, None) for name, keyword in PATTERNS.items()}
        return {**{keyword: pattern for keyword, pattern in named.items() if pattern is not None}, **self.attributes}

    @property
    def keywords(self) -> frozenset[str]:
        """The attributes that this rule looks at."""
        modality = () if self.modality == ANY else ("Modality",)
        dated = (self.study_at_least_days, self.study_at_most_days) != (None, None)
        return frozenset({*self.patterns, *modality, *(("StudyDate",) if dated else ())})

    def is_for(self, *, senders: tuple[str, ...], called: str) -> bool:
        """Whether a series from this sender may match, whatever it is of."""
        return (self.sender == ANY or not set(names(self.sender)).isdisjoint(senders)) and (
            self.called == ANY or called in names(self.called)
        )

    def conditions(self) -> dict[str, object]:
        """Return the conditions that are given, by their key."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name in _CONDITIONS}
        return {key_of(name): value for name, value in own.items() if value not in (None, ANY, {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceMatch(Match):
    """Conditions on a single instance; `attributes` may name any public top-level attribute.

    Attributes:
        image_type: pattern in the values of Image Type (0008,0008).
    """

    image_type: str | None = None


_CONDITIONS = frozenset(InstanceMatch.__dataclass_fields__)

_Rule = TypeVar("_Rule", bound=Match)
_Check = Callable[[Facts], bool]


class RuleList(Generic[_Rule]):
    """Rules in their order, ready to be asked; equal facts are answered from memory."""

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self.rules = tuple(rules)
        self.keywords = frozenset[str]().union(*(rule.keywords for rule in rules))
        self._checks = [tuple(_checks(rule).values()) for rule in rules]
        self._known: OrderedDict[tuple[Any, ...], tuple[_Rule, ...]] = OrderedDict()
        self._order = sorted(self.keywords)
        self._by_age = "StudyDate" in self.keywords

    def all(self, facts: Facts) -> tuple[_Rule, ...]:
        """Return every rule that matches, in order."""
        age = facts.study_age_days if self._by_age else None
        key = (facts.senders, facts.called, age, *(facts.values.get(keyword) for keyword in self._order))
        found = self._known.get(key)
        if found is None:
            found = tuple(
                rule
                for rule, checks in zip(self.rules, self._checks, strict=True)
                if all(check(facts) for check in checks)
            )
            self._known[key] = found
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found

    def first(self, facts: Facts) -> _Rule | None:
        """Return the first rule that matches, or None."""
        return next(iter(self.all(facts)), None)


def failing(rule: Match, facts: Facts) -> str:
    """Return the key of the first condition that does not hold; "" if the rule matches."""
    return next((key for key, check in _checks(rule).items() if not check(facts)), "")


def _checks(rule: Match) -> dict[str, _Check]:
    """Return the conditions of a rule that are given, the cheapest first."""
    found = dict(_name_checks(rule))
    for keyword, pattern in rule.patterns.items():
        key = next((name for name, known in PATTERNS.items() if known == keyword), keyword)
        found[key] = _searched(keyword, compiled(pattern).search)
    return found


def _name_checks(rule: Match) -> Iterator[tuple[str, _Check]]:
    if rule.sender != ANY:
        senders = frozenset(names(rule.sender))
        yield "from", lambda facts: not senders.isdisjoint(facts.senders)
    if rule.called != ANY:
        called = frozenset(names(rule.called))
        yield "called", lambda facts: facts.called in called
    if rule.modality != ANY:
        modalities = frozenset(names(rule.modality))
        yield "modality", lambda facts: not modalities.isdisjoint(facts.values.get("Modality", ()))
    if (least := rule.study_at_least_days) is not None:
        yield "study_at_least_days", lambda facts: facts.study_age_days is not None and facts.study_age_days >= least
    if (most := rule.study_at_most_days) is not None:
        yield "study_at_most_days", lambda facts: facts.study_age_days is not None and facts.study_age_days <= most


def names(given: Names) -> tuple[str, ...]:
    """Return the names of a condition, one or several."""
    return (given,) if isinstance(given, str) else given


def words(rule: Match) -> str:
    """Return what a rule is for, in words.

    >>> words(Match(sender=("CT1", "CT2"), modality="CT", station="^R"))
    "CT from CT1 or CT2, station '^R'"
    """
    given = rule.conditions()
    modality = " or ".join(names(rule.modality)) if rule.modality != ANY else "any modality"
    sender = " or ".join(names(rule.sender)) if rule.sender != ANY else "any sender"
    rest = {key: value for key, value in given.items() if key not in ("from", "modality", "attributes")}
    said = [f"{key.replace('_', ' ')} {value!r}" for key, value in {**rest, **rule.attributes}.items()]
    return ", ".join([f"{modality} from {sender}", *said])


def _searched(keyword: str, search: Callable[[str], Any]) -> _Check:
    known: dict[tuple[str, ...], bool] = {}  # the images of a series share most of their values

    def check(facts: Facts) -> bool:
        values = facts.values.get(keyword, _NO_VALUE)
        found = known.get(values)
        if found is None:
            if len(known) >= _VALUES_REMEMBERED:
                known.clear()
            found = any(search(value[:TEXT_AT_MOST]) is not None for value in values or _EMPTY)
            known[values] = found
        return found

    return check
