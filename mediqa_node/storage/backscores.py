"""Sets of series that are back-scored: rows that the courier feeds to the worker, and what became of each series."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.backscore import (
    OPEN_SETS,
    WITH_A_SCORE,
    BackscoreSet,
    ItemState,
    Outcome,
    PauseReason,
    Progress,
    Selection,
    SetState,
)
from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.series import Reason
from mediqa_node.storage.backscore_selection import Page
from mediqa_node.storage.backscore_tables import UNDER_WAY, backscore_items, backscore_sets
from mediqa_node.storage.tables import deliveries, reports
from mediqa_node.storage.workbench_tables import worklist

_AT_ONCE = 1000
_RATE_OVER_S = 600.0
_LEAST_S = 10.0
"""A rate over a shorter time says nothing."""


def _set(row: sa.Row[*tuple[Any, ...]]) -> BackscoreSet:
    return BackscoreSet(
        selection=Selection(**row.selection),
        weights=Weights(name=row.weights_name, sha256=row.weights_sha256, card_sha256=row.card_sha256),
        state=SetState(row.state),
        pause_reason=PauseReason(row.pause_reason) if row.pause_reason else None,
        **{name: getattr(row, name) for name in _PLAIN},
    )


_PLAIN = ("id", "made_at", "made_by", "with_reports", "total", "n_taken", "cursor", "done_at")


def add(
    connection: sa.Connection,
    selection: Selection,
    weights: Weights,
    *,
    with_reports: bool,
    total: int,
    by: str,
    at: float,
) -> int:
    """Start a set; return its number."""
    values = {
        "made_at": at,
        "made_by": by[:64],
        "selection": asdict(selection),
        "weights_name": weights.name,
        "weights_sha256": weights.sha256,
        "card_sha256": weights.card_sha256,
        "with_reports": with_reports,
        "state": SetState.RUNNING,
        "total": total,
        "n_taken": 0,
        "cursor": "",
    }
    return int(
        connection.execute(sa.insert(backscore_sets).values(**values).returning(backscore_sets.c.id)).scalar_one()
    )


def all_sets(connection: sa.Connection) -> list[BackscoreSet]:
    """Return all sets, oldest first."""
    return [_set(row) for row in connection.execute(sa.select(backscore_sets).order_by(backscore_sets.c.id))]


def open_sets(connection: sa.Connection) -> list[BackscoreSet]:
    """Return the sets that run or are paused, oldest first."""
    query = sa.select(backscore_sets).where(backscore_sets.c.state.in_(OPEN_SETS)).order_by(backscore_sets.c.id)
    return [_set(row) for row in connection.execute(query)]


def find(connection: sa.Connection, number: int) -> BackscoreSet | None:
    """Return a set, or None."""
    row = connection.execute(sa.select(backscore_sets).where(backscore_sets.c.id == number)).one_or_none()
    return _set(row) if row is not None else None


def first_running(connection: sa.Connection) -> BackscoreSet | None:
    """Return the running set that was started first, or None."""
    query = sa.select(backscore_sets).where(backscore_sets.c.state == SetState.RUNNING)
    row = connection.execute(query.order_by(backscore_sets.c.id).limit(1)).one_or_none()
    return _set(row) if row is not None else None


def pause(connection: sa.Connection, number: int, reason: PauseReason) -> bool:
    """Pause a running set; False if it does not run. The series that is being scored is finished."""
    return _move(connection, number, (SetState.RUNNING,), state=SetState.PAUSED, pause_reason=reason)


def resume(connection: sa.Connection, number: int) -> bool:
    """Let a paused set run; False if it is not paused."""
    return _move(connection, number, (SetState.PAUSED,), state=SetState.RUNNING, pause_reason=None)


def finish(connection: sa.Connection, number: int, *, at: float) -> bool:
    """End a running set of which every series has its outcome."""
    return _move(connection, number, (SetState.RUNNING,), state=SetState.DONE, done_at=at)


def cancel(connection: sa.Connection, number: int, *, at: float) -> bool:
    """End a set for good; False if it has ended. Its scores stay; what is under way counts no more."""
    if not _move(connection, number, OPEN_SETS, state=SetState.CANCELLED, pause_reason=None, done_at=at):
        return False
    here = sa.update(backscore_items).where(backscore_items.c.set_id == number, sa.text(UNDER_WAY))
    connection.execute(here.values(state=ItemState.CANCELLED, job=None, done_at=at))
    return True


def _move(connection: sa.Connection, number: int, among: Sequence[SetState], **values: object) -> bool:
    here = sa.update(backscore_sets).where(backscore_sets.c.id == number, backscore_sets.c.state.in_(among))
    return bool(connection.execute(here.values(**values)).rowcount)


# ── the series of a set ──────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRow:
    """One series of a set."""

    set_id: int
    series_instance_uid: str
    generation: int
    state: ItemState
    job: str | None
    n_jobs: int


_ITEM = [backscore_items.c[name] for name in ItemRow.__dataclass_fields__]


def _items(connection: sa.Connection, *where: sa.ColumnElement[bool] | sa.TextClause) -> list[ItemRow]:
    rows = connection.execute(sa.select(*_ITEM).where(*where))
    return [ItemRow(**dict(row._mapping) | {"state": ItemState(row.state)}) for row in rows]


def find_item(connection: sa.Connection, number: int, series_instance_uid: str) -> ItemRow | None:
    """Return a series of a set, or None."""
    of_series = backscore_items.c.series_instance_uid == series_instance_uid
    return next(iter(_items(connection, backscore_items.c.set_id == number, of_series)), None)


def under_way(connection: sa.Connection) -> list[ItemRow]:
    """Return the series of all sets that were taken and have no outcome."""
    return _items(connection, sa.text(UNDER_WAY))


def take(connection: sa.Connection, one: BackscoreSet, page: Page) -> list[ItemRow]:
    """Take the series of a page and move the cursor past them; [] if the set has stopped, or another was faster."""
    here = sa.update(backscore_sets).where(
        backscore_sets.c.id == one.id,
        backscore_sets.c.state == SetState.RUNNING,
        backscore_sets.c.cursor == one.cursor,
    )
    if not connection.execute(here.values(cursor=page.cursor, n_taken=one.n_taken + len(page.series))).rowcount:
        return []
    items = [
        ItemRow(
            set_id=one.id, series_instance_uid=uid, generation=generation, state=ItemState.WAITING, job=None, n_jobs=0
        )
        for uid, generation in page.series
    ]
    if items:
        connection.execute(sa.insert(backscore_items), [asdict(item) for item in items])
    return items


def queue(connection: sa.Connection, item: ItemRow, job: str) -> bool:
    """Record which job works on a series that waits; False if it does not wait any more."""
    here = _here(item.set_id, item.series_instance_uid, ItemState.WAITING)
    values = {"state": ItemState.QUEUED, "job": job, "n_jobs": item.n_jobs + 1}
    return bool(connection.execute(here.values(**values)).rowcount)


def put_back(connection: sa.Connection, item: ItemRow) -> None:
    """Let a series wait for another job: this one has not scored it."""
    mine = _here(item.set_id, item.series_instance_uid, ItemState.QUEUED).where(backscore_items.c.job == item.job)
    connection.execute(mine.values(state=ItemState.WAITING, job=None))


def end(connection: sa.Connection, item: ItemRow, state: ItemState, reason: Reason | None = None, *, at: float) -> bool:
    """Record an outcome without a score; False if there is one already, or the set was cancelled."""
    why = {"reason_code": str(reason.code), "reason": reason.detail or None} if reason else {}
    mine = _here(item.set_id, item.series_instance_uid, ItemState.QUEUED)
    return bool(connection.execute(mine.values(state=state, job=None, done_at=at, **why)).rowcount)


def keep_score(
    connection: sa.Connection, item: ItemRow, state: ItemState, assessment: Assessment, *, at: float
) -> bool:
    """Record the score of a series; False if there is an outcome already, or the set was cancelled."""
    mine = _here(item.set_id, item.series_instance_uid, ItemState.QUEUED)
    values = {
        "revision": assessment.revision,
        "quality": assessment.quality,
        "verdict": assessment.verdict,
        "trained": assessment.checkpoint.trained,
    }
    return bool(connection.execute(mine.values(state=state, job=None, done_at=at, **values)).rowcount)


def _here(number: int, series_instance_uid: str, state: ItemState) -> sa.Update:
    return sa.update(backscore_items).where(
        backscore_items.c.set_id == number,
        backscore_items.c.series_instance_uid == series_instance_uid,
        backscore_items.c.state == state,
    )


def is_reported(connection: sa.Connection, series_instance_uid: str, revision: int) -> bool:
    """Return whether a report of a revision was built, sent, or is to be sent, even if it was given up."""
    of_revision = [
        sa.select(sa.literal(1)).where(table.c.series_instance_uid == series_instance_uid, table.c.revision == revision)
        for table in (deliveries, reports)
    ]
    return connection.execute(sa.union_all(*of_revision).limit(1)).first() is not None


# ── what there is to show ────────────────────────────────────────────────────


def progress(connection: sa.Connection, number: int, *, now: float) -> Progress:
    """Return how far a set is."""
    columns = (backscore_items.c.state, backscore_items.c.reason_code)
    counted = (
        sa.select(*columns, sa.func.count().label("n"))
        .where(backscore_items.c.set_id == number)
        .group_by(*columns)
        .order_by(*columns)
    )
    outcomes = [
        Outcome(state=ItemState(row.state), reason_code=row.reason_code, n=row.n) for row in connection.execute(counted)
    ]
    lately = (backscore_items.c.set_id == number, backscore_items.c.done_at >= now - _RATE_OVER_S)
    n, first = connection.execute(
        sa.select(sa.func.count(), sa.func.min(backscore_items.c.done_at)).where(*lately)
    ).one()
    took_s = now - first if first is not None else 0.0
    return Progress(outcomes=tuple(outcomes), per_minute=60 * n / took_s if took_s >= _LEAST_S else None)


def rows_of(connection: sa.Connection, number: int) -> Iterator[dict[str, Any]]:
    """Yield what is known of each series of a set, by UID, as `exchange.backscore_table` names it."""
    of_item = {name: backscore_items.c[name] for name in ("quality", "verdict", "revision", "done_at")}
    of_entry = {name: worklist.c[name] for name in ("acquired", "modality", "scanner", "protocol")}
    columns = {
        "study_instance_uid": worklist.c.study_instance_uid,
        "series_instance_uid": backscore_items.c.series_instance_uid,
        "outcome": backscore_items.c.state,
        "reason": backscore_items.c.reason_code,
        "weights_sha256": backscore_sets.c.weights_sha256,
        "own_quality": worklist.c.score,
        "own_weights_sha256": worklist.c.weights_sha256,
        **of_item,
        **of_entry,
    }
    query = (
        sa.select(*(column.label(name) for name, column in columns.items()))
        .select_from(backscore_items)
        .join(backscore_sets, backscore_sets.c.id == backscore_items.c.set_id)
        .join(worklist, worklist.c.series_instance_uid == backscore_items.c.series_instance_uid)
        .where(backscore_items.c.set_id == number)
        .order_by(backscore_items.c.series_instance_uid)
        .execution_options(yield_per=_AT_ONCE)
    )
    return (dict(row._mapping) for row in connection.execute(query))


@dataclass(frozen=True, slots=True, kw_only=True)
class BackScore:
    """A score that a set made of a series.

    Attributes:
        state: SCORED or ALONGSIDE.
        revision: the assessment that it made, or that it is kept alongside.
        generation: of the content that was scored.
    """

    set_id: int
    series_instance_uid: str
    state: ItemState
    revision: int
    generation: int
    quality: float
    verdict: str
    trained: bool
    weights_name: str
    weights_sha256: str
    done_at: float


def alongside(connection: sa.Connection, series_instance_uids: Sequence[str]) -> dict[tuple[str, int, int], BackScore]:
    """Return the newest score that is kept alongside the one of a series, by UID, generation and revision."""
    found = scores_of(connection, series_instance_uids)
    return {
        (one.series_instance_uid, one.generation, one.revision): one
        for one in found
        if one.state is ItemState.ALONGSIDE
    }


def scores_of(connection: sa.Connection, series_instance_uids: Sequence[str]) -> list[BackScore]:
    """Return the scores that sets made of series, oldest first."""
    columns = [
        (backscore_items if name in backscore_items.c else backscore_sets).c[name]
        for name in BackScore.__dataclass_fields__
    ]
    query = (
        sa.select(*columns)
        .join(backscore_sets, backscore_sets.c.id == backscore_items.c.set_id)
        .where(
            backscore_items.c.series_instance_uid.in_(list(series_instance_uids)),
            backscore_items.c.state.in_(WITH_A_SCORE),
        )
        .order_by(backscore_items.c.done_at)
    )
    return [BackScore(**dict(row._mapping) | {"state": ItemState(row.state)}) for row in connection.execute(query)]
