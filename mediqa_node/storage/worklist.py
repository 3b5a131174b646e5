"""Entries of the worklist: written by the courier, read by pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.series import DeliveryState, SeriesState, parse_state
from mediqa_node.domain.worklist import ALARMS, FEWEST_SCORES, AnswerKind, Category, Entry, Range
from mediqa_node.storage.database import take_table
from mediqa_node.storage.workbench_tables import worklist

_RANGE = ("low", "median", "high", "n")
_DERIVED = ("id", "change", "usual", "thresholds", "predicted")
_PLAIN = tuple(name for name in Entry.__dataclass_fields__ if name not in _DERIVED)
_LENGTHS = {
    column.name: column.type.length
    for column in worklist.c
    if isinstance(column.type, sa.String) and column.type.length is not None
}
_USUAL_OF = 200
_SEARCHED = ("description", "protocol", "scanner", "model", "sender", "acquired", "region", "why", "accession_end")
_CHOICES = 200
_ACCESSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a list shows; empty or None: everything.

    Attributes:
        since, until: of reception, seconds since 1970, the second not included.
        text: in description, protocol, scanner, model, sender or acquisition, or the end of the accession number, or
            the series number.
        scanners: those that the viewer may see; None: all.
        only_open: entries that wait for an answer.
    """

    category: Category | None = None
    modality: str = ""
    scanner: str = ""
    protocol: str = ""
    since: float | None = None
    until: float | None = None
    text: str = ""
    only_open: bool = False
    scanners: frozenset[str] | None = None


def save(connection: sa.Connection, uid: str, values: dict[str, Any]) -> None:
    """Write the entry of a series, new or again, with the next change number.

    Args:
        values: by column; texts are cut to the length of theirs.
    """
    values = {name: value[: _LENGTHS.get(name, len(value))] if isinstance(value, str) else value
              for name, value in values.items()}  # fmt: skip
    values["search"] = " ".join(str(values.get(name) or "") for name in _SEARCHED).lower()[:500]
    change = next_change(connection)
    found = sa.update(worklist).where(worklist.c.series_instance_uid == uid)
    if not connection.execute(found.values(**values, change=change)).rowcount:
        connection.execute(sa.insert(worklist).values(series_instance_uid=uid, **values, change=change))


def next_change(connection: sa.Connection) -> int:
    """Return the next change number; until this transaction ends no other is given, so that they commit in order."""
    take_table(connection, worklist)
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(worklist.c.change), 0))).scalar_one()) + 1


def last_change(connection: sa.Connection) -> int:
    """Return the number of the last change, 0 without any."""
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(worklist.c.change), 0))).scalar_one())


def values_of(entry_values: dict[str, Any]) -> dict[str, Any]:
    """Return the columns for the fields of an entry: ranges and pairs in columns of their own."""
    values = {name: entry_values[name] for name in _PLAIN if name in entry_values}
    usual, thresholds, predicted = (entry_values.get(name) for name in ("usual", "thresholds", "predicted"))
    values |= {f"usual_{name}": getattr(usual, name, None) for name in _RANGE}
    values["review_below"], values["borderline_below"] = thresholds or (None, None)
    values["predicted_low"], values["predicted_high"] = predicted or (None, None)
    return values


def entry_of(row: sa.Row[*tuple[Any, ...]]) -> Entry:
    """Return a row as a value."""
    values = {name: getattr(row, name) for name in _PLAIN}
    values["state"] = parse_state(SeriesState, row.state)
    values["category"] = Category(row.category)
    values["delivery"] = parse_state(DeliveryState, row.delivery) if row.delivery else None
    values["answer"] = AnswerKind(row.answer) if row.answer else None
    usual = {name: getattr(row, f"usual_{name}") for name in _RANGE}
    return Entry(
        **values,
        id=row.id,
        change=row.change,
        usual=Range(**usual) if usual["n"] else None,
        thresholds=None if row.review_below is None else (row.review_below, row.borderline_below),
        predicted=None if row.predicted_low is None else (row.predicted_low, row.predicted_high),
    )


def find(connection: sa.Connection, number: int, scanners: frozenset[str] | None = None) -> Entry | None:
    """Return an entry by its number, or None; None too for a scanner that is not among `scanners`."""
    row = connection.execute(sa.select(worklist).where(worklist.c.id == number)).one_or_none()
    entry = entry_of(row) if row is not None else None
    return entry if entry is not None and (scanners is None or entry.scanner in scanners) else None


def find_by_uid(connection: sa.Connection, series_instance_uid: str) -> Entry | None:
    """Return the entry of a series, or None."""
    query = sa.select(worklist).where(worklist.c.series_instance_uid == series_instance_uid)
    row = connection.execute(query).one_or_none()
    return entry_of(row) if row is not None else None


def page(
    connection: sa.Connection, wanted: Filter, *, at_most: int, before: int | None = None, after: int | None = None
) -> list[Entry]:
    """Return entries, the newest first.

    Args:
        before, after: numbers of entries: only older, or only newer ones.
    """
    query = sa.select(worklist).where(*_conditions(wanted)).order_by(worklist.c.id.desc()).limit(at_most)
    if before is not None:
        query = query.where(worklist.c.id < before)
    if after is not None:
        query = query.where(worklist.c.id > after)
    return [entry_of(row) for row in connection.execute(query)]


def neighbours(connection: sa.Connection, wanted: Filter, number: int) -> tuple[int | None, int | None]:
    """Return the numbers of the newer and the older entry next to one, in the same list."""
    column, where = worklist.c.id, _conditions(wanted)
    newer = sa.select(sa.func.min(column)).where(*where, column > number)
    older = sa.select(sa.func.max(column)).where(*where, column < number)
    return connection.execute(newer).scalar_one(), connection.execute(older).scalar_one()


def changed_since(
    connection: sa.Connection, change: int, *, at_most: int, scanners: frozenset[str] | None = None
) -> list[Entry]:
    """Return the entries that have changed since a change, in the order of their changes."""
    query = sa.select(worklist).where(worklist.c.change > change, *_conditions(Filter(scanners=scanners)))
    return [entry_of(row) for row in connection.execute(query.order_by(worklist.c.change).limit(at_most))]


def counts(connection: sa.Connection, wanted: Filter) -> tuple[dict[Category, int], int]:
    """Return how many entries each category has, whichever the filter names, and how many wait for an answer."""
    open_ = sa.and_(worklist.c.answer.is_(None), worklist.c.category.in_(ALARMS))
    conditions = _conditions(wanted, category=False)
    query = (
        sa.select(worklist.c.category, sa.func.count().label("n"), sa.func.count().filter(open_).label("n_open"))
        .where(*conditions)
        .group_by(worklist.c.category)
    )
    rows = connection.execute(query).all()
    return {Category(row.category): int(row.n) for row in rows}, sum(int(row.n_open) for row in rows)


def choices(connection: sa.Connection, wanted: Filter) -> dict[str, list[str]]:
    """Return the modalities, scanners and protocols that a viewer may choose from."""
    columns = {name: worklist.c[name] for name in ("modality", "scanner", "protocol")}
    if wanted.scanners is None:
        return {name: _distinct(connection, column) for name, column in columns.items()}
    mine = worklist.c.scanner.in_(sorted(wanted.scanners))
    queries = {name: sa.select(column).where(mine).distinct().order_by(column) for name, column in columns.items()}
    return {name: [*filter(None, connection.execute(query).scalars())] for name, query in queries.items()}


def _distinct(connection: sa.Connection, column: sa.Column[Any]) -> list[str]:
    """Return the values of an indexed column in order, by one look into the index for each instead of a scan."""
    first = sa.select(sa.func.min(column).label("value")).where(column != "").cte("value", recursive=True)
    following = sa.select(sa.func.min(column)).where(column > first.c.value).scalar_subquery()
    every = first.union_all(sa.select(following).where(first.c.value.is_not(None)))
    query = sa.select(every.c.value).where(every.c.value.is_not(None)).limit(_CHOICES)
    return list(connection.execute(query).scalars())


def _conditions(wanted: Filter, *, category: bool = True) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if category and wanted.category is not None:
        found.append(worklist.c.category == wanted.category)
    if category and wanted.only_open:
        found += [worklist.c.answer.is_(None), worklist.c.category.in_(ALARMS)]
    found += [worklist.c[name] == value for name in ("modality", "scanner", "protocol")
              if (value := getattr(wanted, name))]  # fmt: skip
    if wanted.since is not None:
        found.append(worklist.c.received_at >= wanted.since)
    if wanted.until is not None:
        found.append(worklist.c.received_at < wanted.until)
    if wanted.scanners is not None:
        found.append(worklist.c.scanner.in_(sorted(wanted.scanners)))
    if wanted.text:
        found.append(_matches(wanted.text))
    return found


def _matches(text: str) -> sa.ColumnElement[bool]:
    found = [worklist.c.search.contains(text.lower(), autoescape=True)]
    if len(text) > _ACCESSION:  # somebody has typed a whole accession number
        found.append(worklist.c.accession_end == text[-_ACCESSION:])
    if text.isascii() and text.isdecimal() and len(text) < 10:
        found += [worklist.c.series_number == int(text), worklist.c.id == int(text)]
    return sa.or_(*found)


def usual_scores(
    connection: sa.Connection, *, scanner: str, protocol: str, modality: str, weights_sha256: str, uid: str
) -> Range | None:
    """Return the usual scores of a scanner and protocol from the last entries of the same weights, or None for few.

    Args:
        uid: of the series that is compared, which does not count.
    """
    here = {"scanner": scanner, "protocol": protocol, "modality": modality, "weights_sha256": weights_sha256}
    query = (
        sa.select(worklist.c.score)
        .where(
            *(worklist.c[name] == value for name, value in here.items()),
            worklist.c.score.is_not(None),
            worklist.c.series_instance_uid != uid,
        )
        .order_by(worklist.c.id.desc())
        .limit(_USUAL_OF)
    )
    scores = sorted(connection.execute(query).scalars())
    if len(scores) < FEWEST_SCORES:
        return None
    return Range(low=_at(scores, 0.1), median=_at(scores, 0.5), high=_at(scores, 0.9), n=len(scores))


def _at(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One scanner at a glance: its last entries, the newest first."""

    scanner: str
    entries: tuple[Entry, ...]


def rooms(
    connection: sa.Connection, *, since: float, scanners: frozenset[str] | None, at_most: int = 8, last: int = 15
) -> list[Room]:
    """Return the scanners that have sent series since a time, by name, with their last entries."""
    names = sorted(scanners) if scanners is not None else _distinct(connection, worklist.c.scanner)
    newest = [entry for name in names for entry in room(connection, name, last=1).entries]
    active = [entry for entry in newest if entry.received_at >= since]
    latest = sorted(active, key=lambda entry: entry.id, reverse=True)[:at_most]
    return [room(connection, name, last=last) for name in sorted(entry.scanner for entry in latest)]


def room(connection: sa.Connection, scanner: str, *, last: int = 15) -> Room:
    """Return the last entries of a scanner."""
    query = sa.select(worklist).where(worklist.c.scanner == scanner).order_by(worklist.c.id.desc()).limit(last)
    return Room(scanner=scanner, entries=tuple(entry_of(row) for row in connection.execute(query)))


def set_answer(connection: sa.Connection, number: int, kind: AnswerKind | None, *, at: float | None) -> None:
    """Show an answer, or none, in the entry of a series."""
    change = next_change(connection)
    here = sa.update(worklist).where(worklist.c.id == number)
    connection.execute(here.values(answer=kind, answered_at=at, change=change))
