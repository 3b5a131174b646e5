"""Reading studies, the orders of their readers, and what readers confirmed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.reading import Criterion, Example, Place, Reading, Scale, Study, criteria_of
from mediqa_node.storage.database import take_table
from mediqa_node.storage.reading_tables import (
    reading_cases,
    reading_examples,
    reading_places,
    reading_ratings,
    reading_readers,
    reading_studies,
)

_STANDS = reading_ratings.c.undone_at.is_(None)
_UNRATED = "overall"
"""Criterion of the row that says that a reader could not rate a case."""

Shown = tuple[str, int]
"""A series and the revision of its assessment whose slices are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderRow:
    """A reader of a study; rating tables name them `reader-NUMBER`."""

    id: int
    study_id: int
    name: str
    number: int
    seed: str
    began_at: float

    @property
    def pseudonym(self) -> str:
        """The name in rating tables."""
        return f"reader-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a reader is."""

    reader: ReaderRow
    n_done: int
    n_places: int
    n_unrated: int
    last_at: float | None
    median_s: float | None


# ── studies ──────────────────────────────────────────────────────────────────


def add_study(
    connection: sa.Connection,
    *,
    criteria: Sequence[Criterion],
    scale: Scale,
    cases: Iterable[Shown],
    examples: Iterable[tuple[str, int, int]],
    **values: Any,
) -> int:
    """Keep a new study; return its number.

    Args:
        examples: series, revision and value of each rung of the ladder.
        values: further columns by name.
    """
    values |= {
        "criteria": [(one.name, one.question) for one in criteria],
        "points": list(scale.points),
        "direction": scale.direction,
    }
    made = connection.execute(sa.insert(reading_studies).values(**values).returning(reading_studies.c.id))
    number = int(made.scalar_one())
    rows = [{"study_id": number, "series_instance_uid": uid, "revision": revision} for uid, revision in cases]
    connection.execute(sa.insert(reading_cases), rows)
    ladder = [
        {"study_id": number, "place": place, "series_instance_uid": uid, "revision": revision, "value": value}
        for place, (uid, revision, value) in enumerate(examples, start=1)
    ]
    if ladder:
        connection.execute(sa.insert(reading_examples), ladder)
    return number


_N_CASES = (
    sa.select(sa.func.count())
    .select_from(reading_cases)
    .where(reading_cases.c.study_id == reading_studies.c.id)
    .scalar_subquery()
    .label("n_cases")
)
_PLAIN = ("id", "name", "question", "seed", "repeats", "chosen", "made_at", "made_by", "closed_at", "closed_by",
          "import_id")  # fmt: skip


def _study(row: sa.Row[*tuple[Any, ...]]) -> Study:
    points = tuple((int(value), str(label)) for value, label in row.points)
    return Study(
        **{name: getattr(row, name) for name in (*_PLAIN, "n_cases")},
        criteria=criteria_of(row.criteria),
        scale=Scale(points=points, direction=row.direction),
        readers=tuple(row.readers),
    )


def every(connection: sa.Connection) -> list[Study]:
    """Return all studies: open ones first, then the newest."""
    query = sa.select(reading_studies, _N_CASES).order_by(
        reading_studies.c.closed_at.is_not(None), reading_studies.c.id.desc()
    )
    return [_study(row) for row in connection.execute(query)]


def find(connection: sa.Connection, number: int) -> Study | None:
    """Return a study, or None."""
    query = sa.select(reading_studies, _N_CASES).where(reading_studies.c.id == number)
    row = connection.execute(query).one_or_none()
    return _study(row) if row is not None else None


def close(connection: sa.Connection, number: int, *, by: str, at: float) -> bool:
    """Let a study take no more ratings; return whether it did until now."""
    here = sa.and_(reading_studies.c.id == number, reading_studies.c.closed_at.is_(None))
    return bool(connection.execute(sa.update(reading_studies).where(here).values(closed_at=at, closed_by=by)).rowcount)


def set_import(connection: sa.Connection, number: int, import_id: int | None) -> None:
    """Note which import has the ratings of a study; None: none any more."""
    connection.execute(sa.update(reading_studies).where(reading_studies.c.id == number).values(import_id=import_id))


def examples(connection: sa.Connection, number: int) -> list[Example]:
    """Return the ladder of a study, the lowest value first."""
    columns = [reading_examples.c[name] for name in Example.__dataclass_fields__]
    query = sa.select(*columns).where(reading_examples.c.study_id == number)
    rows = connection.execute(query.order_by(reading_examples.c.value, reading_examples.c.place))
    return [Example(**row._mapping) for row in rows]


def cases(connection: sa.Connection, number: int) -> list[str]:
    """Return the series of a study."""
    query = sa.select(reading_cases.c.series_instance_uid).where(reading_cases.c.study_id == number)
    return list(connection.execute(query.order_by(reading_cases.c.id)).scalars())


# ── readers and their orders ─────────────────────────────────────────────────

_READER = [reading_readers.c[name] for name in ReaderRow.__dataclass_fields__]


def reader(connection: sa.Connection, number: int, name: str) -> ReaderRow | None:
    """Return the reader of a study by user name; None who has not begun."""
    query = sa.select(*_READER).where(reading_readers.c.study_id == number, reading_readers.c.name == name)
    row = connection.execute(query).one_or_none()
    return ReaderRow(**row._mapping) if row is not None else None


def readers(connection: sa.Connection, number: int) -> list[ReaderRow]:
    """Return the readers of a study in the order in which they began."""
    query = sa.select(*_READER).where(reading_readers.c.study_id == number).order_by(reading_readers.c.number)
    return [ReaderRow(**row._mapping) for row in connection.execute(query)]


def begin(
    connection: sa.Connection, study: Study, name: str, *, seed: str, order: Sequence[tuple[int, int]], at: float
) -> ReaderRow:
    """Keep the order of a reader who begins; who has begun keeps theirs.

    Args:
        order: index of the case, in the order of `cases`, and number of the reading, for each place.
    """
    take_table(connection, reading_readers)
    if (known := reader(connection, study.id, name)) is not None:
        return known
    ids = list(
        connection.execute(
            sa.select(reading_cases.c.id).where(reading_cases.c.study_id == study.id).order_by(reading_cases.c.id)
        ).scalars()
    )
    last = sa.select(sa.func.coalesce(sa.func.max(reading_readers.c.number), 0))
    number = int(connection.execute(last.where(reading_readers.c.study_id == study.id)).scalar_one()) + 1
    values: dict[str, Any] = {"study_id": study.id, "name": name, "number": number, "seed": seed, "began_at": at}
    made = connection.execute(sa.insert(reading_readers).values(**values).returning(reading_readers.c.id)).scalar_one()
    rows = [
        {"reader_id": made, "position": position, "case_id": ids[case], "repeat": repeat}
        for position, (case, repeat) in enumerate(order, start=1)
    ]
    connection.execute(sa.insert(reading_places), rows)
    return ReaderRow(id=int(made), **values)


def places(connection: sa.Connection, reader_id: int) -> list[Place]:
    """Return the order of a reader."""
    columns = (
        reading_places.c.position,
        reading_places.c.repeat,
        reading_cases.c.series_instance_uid,
        reading_cases.c.revision,
    )
    query = sa.select(*columns).join(reading_cases, reading_cases.c.id == reading_places.c.case_id)
    rows = connection.execute(query.where(reading_places.c.reader_id == reader_id).order_by(reading_places.c.position))
    return [Place(**row._mapping) for row in rows]


# ── ratings ──────────────────────────────────────────────────────────────────


def confirm(
    connection: sa.Connection,
    reader_id: int,
    position: int,
    values: Mapping[str, int],
    *,
    comment: str,
    window: str,
    took_s: float | None,
    at: float,
) -> bool:
    """Keep what a reader confirmed; False if this place was confirmed before, as in another tab.

    Args:
        values: by criterion; empty: the reader could not rate the case.
    """
    take_table(connection, reading_ratings)
    here = sa.and_(reading_ratings.c.reader_id == reader_id, reading_ratings.c.position == position, _STANDS)
    if connection.execute(sa.select(reading_ratings.c.id).where(here).limit(1)).first() is not None:
        return False
    same = {"reader_id": reader_id, "position": position, "comment": comment, "window": window[:64]}
    same |= {"took_s": took_s, "at": at}
    given: dict[str, int | None] = dict(values) or {_UNRATED: None}
    rows = [{**same, "criterion": criterion, "value": value} for criterion, value in given.items()]
    connection.execute(sa.insert(reading_ratings), rows)
    return True


def undo_last(connection: sa.Connection, reader_id: int, *, at: float) -> Reading | None:
    """Take back what a reader confirmed last, and return it; None: there is nothing to take back."""
    mine = sa.and_(reading_ratings.c.reader_id == reader_id, _STANDS)
    query = sa.select(reading_ratings.c.position).where(mine).order_by(reading_ratings.c.id.desc()).limit(1)
    position = connection.execute(query).scalar_one_or_none()
    if position is None:
        return None
    [last] = readings(connection, reader_id, position=position)
    here = sa.and_(mine, reading_ratings.c.position == position)
    connection.execute(sa.update(reading_ratings).where(here).values(undone_at=at))
    return last


def readings(connection: sa.Connection, reader_id: int, *, position: int | None = None) -> list[Reading]:
    """Return what stands of a reader, by position."""
    query = sa.select(reading_ratings).where(reading_ratings.c.reader_id == reader_id, _STANDS)
    if position is not None:
        query = query.where(reading_ratings.c.position == position)
    return _grouped(connection.execute(query.order_by(reading_ratings.c.position, reading_ratings.c.id)))


def taken_back(connection: sa.Connection, reader_id: int, position: int) -> Reading | None:
    """Return what a reader took back at a place last, to begin with when the case is shown again; or None."""
    here = (reading_ratings.c.reader_id == reader_id, reading_ratings.c.position == position)
    latest = sa.select(sa.func.max(reading_ratings.c.undone_at)).where(*here).scalar_subquery()
    found = _grouped(connection.execute(sa.select(reading_ratings).where(*here, reading_ratings.c.undone_at == latest)))
    return found[0] if found else None


def _grouped(rows: Iterable[sa.Row[*tuple[Any, ...]]]) -> list[Reading]:
    by_place: dict[int, list[sa.Row[*tuple[Any, ...]]]] = {}
    for row in rows:
        by_place.setdefault(row.position, []).append(row)
    return [
        Reading(
            position=position,
            values={row.criterion: row.value for row in found if row.value is not None},
            comment=found[0].comment,
            window=found[0].window,
            took_s=found[0].took_s,
            at=found[0].at,
        )
        for position, found in by_place.items()
    ]


def progress(connection: sa.Connection, number: int) -> list[Progress]:
    """Return how far each reader of a study is, in the order in which they began."""
    found = []
    for one in readers(connection, number):
        count = sa.select(sa.func.count()).where(reading_places.c.reader_id == one.id)
        given = readings(connection, one.id)
        took = sorted(reading.took_s for reading in given if reading.took_s is not None)
        found.append(
            Progress(
                reader=one,
                n_done=len(given),
                n_places=int(connection.execute(count).scalar_one()),
                n_unrated=sum(not reading.values for reading in given),
                last_at=max((reading.at for reading in given), default=None),
                median_s=took[len(took) // 2] if took else None,
            )
        )
    return found
