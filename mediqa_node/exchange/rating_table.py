"""Read a table of expert ratings from CSV; every row is checked and every problem reported with its row.

Two layouts. *Long*: one row is one rating, `series_uid` or `series_key`, `reader_id`, `score`, and any other field of
`domain.rating.Rating`. *Wide*: one row is one series, one column one reader. Columns may have other headings, and
values that apply to the whole table (the scale, its direction) may be given outside of it: see `Layout`.

UTF-8 with or without a byte order mark; separated by commas, or by semicolons, then also with decimal commas.
"""

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from io import StringIO
from typing import Any

from mediqa_node.domain.errors import RatingsRefused
from mediqa_node.domain.rating import CRITERIA, DIRECTIONS, Rating
from mediqa_node.domain.uid import is_uid

MAX_BYTES = 64 << 20
HEADER_ROW = 1
"""Rows count from 1 as a spreadsheet shows them: the headings are the first."""

SERIES_COLUMNS = ("series_uid", "series_key")
Resolve = Callable[[str], str | None]
"""From the value of a series column to the Series Instance UID of a series that this node keeps, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a table differs from the layouts in the module docstring.

    Attributes:
        readers: headings of the columns with a reader's scores; if there are any, the table is wide.
        columns: headings by the standard column name.
        values: values for every row by standard name, instead of a column.
    """

    readers: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.columns, *self.values):
            if name not in _NAMES:
                raise RatingsRefused(f"no column is called {name!r} here; there are: {', '.join(_NAMES)}")
        if len(set(self.readers)) < len(self.readers):
            again = sorted({reader for reader in self.readers if self.readers.count(reader) > 1})
            raise RatingsRefused(f"{', '.join(again)}: a reader is named once, or each score would count twice")
        if twice := self.columns.keys() & self.values.keys():
            raise RatingsRefused(f"{', '.join(sorted(twice))}: either a column or a value for all rows, not both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem with one row; HEADER_ROW: with the whole table."""

    row: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingTable:
    """The content of a file.

    Attributes:
        sha256: over the file and its layout, to recognise a table that was already imported.
        rows: row number and rating, in order.
        problems: in order of rows.
        unread: headings of columns that are ignored.
    """

    sha256: str
    rows: tuple[tuple[int, Rating], ...]
    problems: tuple[Problem, ...]
    unread: tuple[str, ...] = ()


def read_ratings(content: bytes, layout: Layout, resolvers: Mapping[str, Resolve]) -> RatingTable:
    """Read a table of ratings.

    Args:
        resolvers: functions that find a series, by the identifying column (SERIES_COLUMNS).

    Raises:
        RatingsRefused: not a table: too large, not UTF-8, without headings, or with unbalanced quotes.
    """
    sha256 = hashlib.sha256(content + json.dumps(asdict(layout), sort_keys=True).encode()).hexdigest()
    header, records, decimal_comma = _records(content)
    place = {name: header.index(heading) for name, heading in _headings(layout, header).items()}
    if missing := _missing(layout, header, place, resolvers):
        return RatingTable(sha256=sha256, rows=(), problems=tuple(missing))
    rows, problems = [], []
    for row, cells in records:
        given = {**layout.values, **{name: cells[at].strip() for name, at in place.items() if at < len(cells)}}
        if len(cells) > len(header):
            problems.append(Problem(row=row, text=f"{len(cells)} values under {len(header)} headings"))
            continue
        for rating in _ratings_of(given, cells, layout, header):
            values, wrong = _converted(rating, resolvers, decimal_comma=decimal_comma)
            problems += [Problem(row=row, text=text) for text in wrong]
            if not wrong:
                rows.append((row, Rating(**values)))
    problems += _contradictions(rows)
    known = {*place.values(), *(header.index(reader) for reader in layout.readers)}
    return RatingTable(
        sha256=sha256,
        rows=tuple(rows),
        problems=tuple(sorted(problems, key=lambda problem: problem.row)),
        unread=tuple(heading for i, heading in enumerate(header) if i not in known and heading),
    )


WRITTEN = (
    "series_uid", "reader_id", "score", "scale_min", "scale_max", "scale_direction", "criterion", "study_id", "repeat",
    "read_at", "display_window", "comment",
)  # fmt: skip
"""Columns of a table that this node writes."""


def write_ratings(ratings: Iterable[Rating]) -> bytes:
    """Return ratings of series as a long table, which `read_ratings` takes as it is.

    A comment that a spreadsheet would compute as a formula begins with an apostrophe.
    """
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(WRITTEN)
    for rating in ratings:
        comment = rating.comment or ""
        if comment.startswith(("=", "+", "-", "@")):
            comment = f"'{comment}"
        row = asdict(rating) | {"series_uid": rating.series_instance_uid, "comment": comment}
        cells = (row[name] for name in WRITTEN)
        writer.writerow(["" if cell is None else f"{cell:g}" if isinstance(cell, float) else cell for cell in cells])
    return text.getvalue().encode("utf-8")


def _records(content: bytes) -> tuple[list[str], Iterator[tuple[int, list[str]]], bool]:
    """Return the headings, the non-blank rows with their numbers, and whether decimal commas are allowed."""
    if len(content) > MAX_BYTES:
        raise RatingsRefused(f"the table has {len(content):,} bytes; at most {MAX_BYTES:,} are read: split it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RatingsRefused(f"byte {error.start:,} is not UTF-8; save the table as CSV UTF-8") from error
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    try:
        rows = list(csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise RatingsRefused(f"the table is no CSV: {error}") from error
    if not rows or not any(cell.strip() for cell in rows[0]):
        raise RatingsRefused("the first row has to hold headings, and is blank")
    header = [cell.strip() for cell in rows[0]]
    if twice := sorted({heading for heading in header if heading and header.count(heading) > 1}):
        raise RatingsRefused(f"two columns are headed {', '.join(twice)}")
    filled = (
        (n, cells) for n, cells in enumerate(rows, start=HEADER_ROW) if n > HEADER_ROW and any(map(str.strip, cells))
    )
    return header, filled, delimiter == ";"


def _headings(layout: Layout, header: Sequence[str]) -> dict[str, str]:
    """Return the heading of each column that the table has, by standard name."""
    named = {name: name for name in _NAMES if name not in layout.columns and name not in layout.values}
    return {name: heading for name, heading in {**named, **layout.columns}.items() if heading in header}


def _missing(
    layout: Layout, header: Sequence[str], place: Mapping[str, int], resolvers: Mapping[str, Resolve]
) -> list[Problem]:
    missing = [
        f"no column is headed {heading!r}"
        for heading in (*layout.readers, *layout.columns.values())
        if heading not in header
    ]
    for name in ("scale_min", "scale_max", "scale_direction", *(() if layout.readers else ("reader_id", "score"))):
        if name not in place and name not in layout.values and name not in layout.columns:
            missing.append(f"{name} is missing: a column, `--column {name}=HEADING` or `--value {name}=VALUE`")
    if layout.readers and ("score" in place or "reader_id" in place):
        missing.append("score or reader_id in addition to columns of readers: the table is either long or wide")
    if not any(name in place for name in resolvers):
        missing.append(f"no column names the series: {' or '.join(resolvers)}")
    return [Problem(row=HEADER_ROW, text=text) for text in missing]


def _ratings_of(
    given: Mapping[str, str], cells: Sequence[str], layout: Layout, header: Sequence[str]
) -> Iterator[Mapping[str, str]]:
    """Yield the cells of each rating in a row: one in a long table, one per reader with a score in a wide one."""
    if not layout.readers:
        yield given
    for reader in layout.readers:
        at = header.index(reader)
        if at < len(cells) and (score := cells[at].strip()):
            yield {**given, "reader_id": reader, "score": score}


def _converted(
    given: Mapping[str, str], resolvers: Mapping[str, Resolve], *, decimal_comma: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a Rating and their problems."""
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for name, text in given.items():
        if name in SERIES_COLUMNS or (not text and name not in _REQUIRED):
            continue
        try:
            convert, kept_as = _CONVERTERS[name]
            values[kept_as] = convert(text.replace(",", ".") if decimal_comma and convert is _number else text)
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    named = next(((name, given[name]) for name in resolvers if given.get(name)), None)
    found = resolvers[named[0]](named[1]) if named else None
    if named is None:
        wrong.append(f"{' or '.join(resolvers)}: empty")
    elif found is None:
        wrong.append(f"{named[0]} {named[1][:64]}: this node keeps no such series")
    values["series_instance_uid"] = found
    if not wrong:
        low, high, score = values["scale_min"], values["scale_max"], values["score"]
        if low >= high:
            wrong.append(f"scale_min {low:g} is not below scale_max {high:g}")
        elif not low <= score <= high:
            wrong.append(f"score {score:g} is outside the scale {low:g} to {high:g}")
    return values, wrong


def _contradictions(rows: Sequence[tuple[int, Rating]]) -> Iterator[Problem]:
    """Yield contradictions between rows that are individually valid."""
    keys: dict[object, int] = {}
    scales: dict[object, tuple[int, Rating]] = {}
    for row, rating in rows:
        if (before := keys.setdefault(rating.key, row)) != row:
            same = f"reader {rating.reader_id} has rated this series for {rating.criterion} in row {before}"
            yield Problem(row=row, text=f"{same}, repeat {rating.repeat}; number a second reading in `repeat`")
        first, known = scales.setdefault((rating.study_id, rating.criterion), (row, rating))
        if rating.scale != known.scale:
            yield Problem(row=row, text=mixed_scales(rating, known, f"row {first}"))


def mixed_scales(rating: Rating, known: Rating, where: str) -> str:
    """Return the message for a rating whose scale differs from an earlier one of the same study and criterion."""
    (low, high, way), (known_low, known_high, known_way) = rating.scale, known.scale
    return (
        f"scale {low:g} to {high:g} {way}, while {where} has {known_low:g} to {known_high:g} {known_way} "
        f"for the same study and criterion; name another `study_id`"
    )


# ── one value ────────────────────────────────────────────────────────────────


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text[:32]!r} is no number" if text else "empty")
    return value


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise ValueError(f"{text[:32]!r} is no number from 1")
    return int(text)


def _text(at_most: int) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if not 1 <= len(text) <= at_most:
            raise ValueError("empty" if not text else f"longer than {at_most} characters")
        if "\0" in text:
            raise ValueError("holds a NUL character, which no text may")
        return text

    return convert


def _one_of(allowed: Sequence[str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{text[:32]!r} is not one of {', '.join(allowed)}")
        return text

    return convert


def _uid(text: str) -> str:
    if not is_uid(text):
        raise ValueError(f"{text[:64]!r} is no UID")
    return text


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return _text(40)(text)  # seconds may have any number of decimals


def _truth(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in known:
        raise ValueError(f"{text[:32]!r} is neither yes nor no")
    return known[text.lower()]


_CONVERTERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "reader_id": (_text(64), "reader_id"),
    "score": (_number, "score"),
    "scale_min": (_number, "scale_min"),
    "scale_max": (_number, "scale_max"),
    "scale_direction": (_one_of(DIRECTIONS), "scale_direction"),
    "criterion": (_one_of(CRITERIA), "criterion"),
    "study_id": (_text(64), "study_id"),
    "session": (_text(64), "session"),
    "repeat": (_count, "repeat"),
    "sop_uid": (_uid, "sop_instance_uid"),
    "read_at": (_moment, "read_at"),
    "experience_years": (_number, "experience_years"),
    "reader_group": (_text(64), "reader_group"),
    "display_window": (_text(64), "display_window"),
    "confidence": (_number, "confidence"),
    "usable": (_truth, "usable"),
    "comment": (_text(4000), "comment"),
}
"""How a value is read, and the field of Rating that it becomes, by the name of its column."""
_REQUIRED = frozenset({"reader_id", "score", "scale_min", "scale_max", "scale_direction"})
_NAMES = (*SERIES_COLUMNS, *_CONVERTERS)
