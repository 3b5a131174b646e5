"""Answers of people to verdicts: who, what, when and why. None is deleted; one that was a mistake is undone."""

from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.worklist import AnswerKind, Category, Entry
from mediqa_node.storage import worklist
from mediqa_node.storage.workbench_tables import answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer; `score`, `category` and `why` are what the person saw."""

    id: int
    series_instance_uid: str
    revision: int
    kind: AnswerKind
    reason: str
    by: str
    initials: str
    role: str
    at: float
    category: Category
    score: float | None
    why: str
    scanner: str
    protocol: str
    modality: str
    undone_at: float | None
    undone_by: str | None


_COLUMNS = [answers.c[name] for name in Answer.__dataclass_fields__]
_STANDS = answers.c.undone_at.is_(None)


def _answer(row: sa.Row[*tuple[object, ...]]) -> Answer:
    values = dict(row._mapping)
    return Answer(**values | {"kind": AnswerKind(row.kind), "category": Category(row.category)})


def give(
    connection: sa.Connection,
    entry: Entry,
    kind: AnswerKind,
    *,
    by: str,
    role: str,
    at: float,
    initials: str = "",
    reason: str = "",
) -> None:
    """Keep an answer in place of an earlier one, which is undone, and show it in the worklist."""
    undo(connection, entry, by=by, at=at)
    same = ("series_instance_uid", "revision", "category", "score", "why", "scanner", "protocol", "modality")
    values = {name: getattr(entry, name) for name in same}
    values |= {"kind": kind, "reason": reason[:64], "by": by, "initials": initials[:8], "role": role, "at": at}
    connection.execute(sa.insert(answers).values(**values))
    worklist.set_answer(connection, entry.id, kind, at=at)


def undo(connection: sa.Connection, entry: Entry, *, by: str, at: float) -> bool:
    """Take the standing answer of a series back; return whether there was one."""
    here = sa.and_(answers.c.series_instance_uid == entry.series_instance_uid, _STANDS)
    undone = connection.execute(sa.update(answers).where(here).values(undone_at=at, undone_by=by)).rowcount
    if undone:
        worklist.set_answer(connection, entry.id, None, at=None)
    return bool(undone)


def current(connection: sa.Connection, series_instance_uid: str) -> Answer | None:
    """Return the standing answer of a series, or None."""
    query = sa.select(*_COLUMNS).where(answers.c.series_instance_uid == series_instance_uid, _STANDS)
    row = connection.execute(query.order_by(answers.c.id.desc()).limit(1)).one_or_none()
    return _answer(row) if row is not None else None


def of_series(connection: sa.Connection, series_instance_uid: str) -> list[Answer]:
    """Return all answers of a series, undone ones too, oldest first."""
    query = sa.select(*_COLUMNS).where(answers.c.series_instance_uid == series_instance_uid).order_by(answers.c.id)
    return [_answer(row) for row in connection.execute(query)]


def given(connection: sa.Connection, *, since: float, until: float) -> list[Answer]:
    """Return the standing answers given in a period, oldest first; `until` is not included."""
    query = sa.select(*_COLUMNS).where(answers.c.at >= since, answers.c.at < until, _STANDS).order_by(answers.c.at)
    return [_answer(row) for row in connection.execute(query)]
