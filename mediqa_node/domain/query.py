"""Queries for the node's own objects: levels, keys and matching (PS3.4 annex C.2.2.2 and C.6).

Nothing here backtracks: the time of a comparison is bounded by the lengths of the two texts, which callers choose.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052), from the top."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"


class MoveState(StrEnum):
    """How far the sub-operations of a C-MOVE are."""

    WAITING = "waiting"
    SENDING = "sending"
    DONE = "done"
    CANCELLED = "cancelled"


UNIQUE_KEYS: Mapping[Level, str] = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}

_UID, _TEXT, _NAME, _DATE, _TIME, _NUMBER = "uid", "text", "name", "date", "time", "number"

KEYS: Mapping[str, tuple[Level, str]] = {
    "PatientName": (Level.PATIENT, _NAME),
    "PatientID": (Level.PATIENT, _TEXT),
    "IssuerOfPatientID": (Level.PATIENT, _TEXT),
    "PatientBirthDate": (Level.PATIENT, _DATE),
    "PatientSex": (Level.PATIENT, _TEXT),
    "StudyInstanceUID": (Level.STUDY, _UID),
    "StudyDate": (Level.STUDY, _DATE),
    "StudyTime": (Level.STUDY, _TIME),
    "AccessionNumber": (Level.STUDY, _TEXT),
    "StudyID": (Level.STUDY, _TEXT),
    "StudyDescription": (Level.STUDY, _TEXT),
    "ReferringPhysicianName": (Level.STUDY, _NAME),
    "SeriesInstanceUID": (Level.SERIES, _UID),
    "Modality": (Level.SERIES, _TEXT),
    "SeriesNumber": (Level.SERIES, _NUMBER),
    "SeriesDescription": (Level.SERIES, _TEXT),
    "SOPInstanceUID": (Level.IMAGE, _UID),
    "SOPClassUID": (Level.IMAGE, _UID),
    "InstanceNumber": (Level.IMAGE, _NUMBER),
    "ContentDate": (Level.IMAGE, _DATE),
    "ContentTime": (Level.IMAGE, _TIME),
}
"""What each object has, the level that it describes, and how it is matched."""

IDENTIFIED_BY: Mapping[Level, tuple[str, ...]] = {
    level: (key, "IssuerOfPatientID") if level is Level.PATIENT else (key,) for level, key in UNIQUE_KEYS.items()
}
"""What tells the entities of a level apart: a Patient ID means something to its issuer only."""

_LEVELS = tuple(Level)


def matches(keyword: str, wanted: str, value: str) -> bool:
    r"""Return whether a value matches a key; an empty key matches every value.

    Args:
        wanted: as in the identifier, several UIDs separated by backslashes.

    >>> matches("PatientID", "A*1?", "AB12"), matches("StudyDate", "20260101-", "20251231")
    (True, False)
    >>> matches("StudyInstanceUID", "1.2\\1.3", "1.3"), matches("PatientName", "doe^*", "DOE^JANE")
    (True, True)
    """
    if not wanted or wanted == "*":
        return True
    return _MATCHING[KEYS[keyword][1]](wanted, value)


def _in_list(wanted: str, value: str) -> bool:
    return value in wanted.split("\\")


def _is_number(wanted: str, value: str) -> bool:
    return wanted.strip().lstrip("0") == value.strip().lstrip("0")


def _in_date_range(wanted: str, value: str) -> bool:
    return _in_range(wanted, value, lambda text: text.replace(".", "")[:8])


def _in_time_range(wanted: str, value: str) -> bool:
    return _in_range(wanted, value, lambda text: f"{text.replace(':', ''):0<6}"[:6])


def _in_range(wanted: str, value: str, in_full: Callable[[str], str]) -> bool:
    """Range matching (PS3.4 C.2.2.2.5); what has no date is in no range."""
    if not value:
        return False
    first, dash, last = wanted.partition("-")
    found = in_full(value)
    if not dash:
        return found == in_full(first)
    return (not first or in_full(first) <= found) and (not last or found <= in_full(last))


def _is_name(wanted: str, value: str) -> bool:
    return has_wildcard_match(wanted.casefold(), value.casefold())


def has_wildcard_match(pattern: str, text: str) -> bool:
    """Return whether the whole text matches a pattern with `*` and `?` (PS3.4 C.2.2.2.4).

    >>> has_wildcard_match("a*b?", "aXXbc"), has_wildcard_match("*" * 50 + "x", "a" * 50)
    (True, False)
    """
    at, seen, star, resumed = 0, 0, -1, 0
    while seen < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resumed, at = at, seen, at + 1
        elif at < len(pattern) and pattern[at] in ("?", text[seen]):
            at, seen = at + 1, seen + 1
        elif star >= 0:
            resumed += 1
            at, seen = star + 1, resumed
        else:
            return False
    return not pattern[at:].strip("*")


_MATCHING: Mapping[str, Callable[[str, str], bool]] = {
    _UID: _in_list,
    _TEXT: has_wildcard_match,
    _NAME: _is_name,
    _DATE: _in_date_range,
    _TIME: _in_time_range,
    _NUMBER: _is_number,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnObject:
    """A report or companion of this node, with the values of `KEYS`; "" where it has none."""

    values: Mapping[str, str]

    def __getitem__(self, keyword: str) -> str:
        """Return the value of a key."""
        return self.values.get(keyword, "")


def selected(objects: Iterable[OwnObject], wanted: Mapping[str, str], level: Level) -> Iterator[OwnObject]:
    """Return the objects that match the keys down to a level; a key of a lower level selects nothing."""
    known = {key: value for key, value in wanted.items() if key in KEYS and value and KEYS[key][0] in _down_to(level)}
    return (one for one in objects if all(matches(key, value, one[key]) for key, value in known.items()))


def grouped(objects: Sequence[OwnObject], level: Level) -> list[list[OwnObject]]:
    """Return the objects of each entity of a level, such as of each study."""
    groups: dict[tuple[str, ...], list[OwnObject]] = {}
    for one in objects:
        groups.setdefault(tuple(one[key] for key in IDENTIFIED_BY[level]), []).append(one)
    return list(groups.values())


def described(group: Sequence[OwnObject], level: Level) -> dict[str, str | int | list[str]]:
    """Return every attribute of an entity that a query at its level may ask for."""
    first = group[0]
    found: dict[str, str | int | list[str]] = {
        key: first[key] for key, (of_level, _) in KEYS.items() if of_level in _down_to(level)
    }
    n_series = len({one["SeriesInstanceUID"] for one in group})
    if level is Level.PATIENT:
        found["NumberOfPatientRelatedStudies"] = len({one["StudyInstanceUID"] for one in group})
        found |= {"NumberOfPatientRelatedSeries": n_series, "NumberOfPatientRelatedInstances": len(group)}
    elif level is Level.STUDY:
        found["ModalitiesInStudy"] = sorted({one["Modality"] for one in group})
        found["SOPClassesInStudy"] = sorted({one["SOPClassUID"] for one in group})
        found |= {"NumberOfStudyRelatedSeries": n_series, "NumberOfStudyRelatedInstances": len(group)}
    elif level is Level.SERIES:
        found["NumberOfSeriesRelatedInstances"] = len(group)
    return found


def _down_to(level: Level) -> tuple[Level, ...]:
    return _LEVELS[: _LEVELS.index(level) + 1]
