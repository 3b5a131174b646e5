"""Which series of the index a set takes: the whole condition is one query, so that a count is what will be taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from mediqa_node.domain.backscore import NEVER_SCORED, BackscoreSet, ItemState, Selection
from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.series import InstanceStatus, SeriesState
from mediqa_node.storage.backscore_tables import backscore_items, backscore_sets
from mediqa_node.storage.tables import assessments, instances, series
from mediqa_node.storage.workbench_tables import worklist

LOOKED_AT_AT_ONCE = 1000
"""Series of the index that one query looks at: so few that it takes milliseconds, however sparse the selection is."""
_UNDER_WAY = (SeriesState.RECEIVING, SeriesState.READY)
_DAY = len("2026-11-30")


@dataclass(frozen=True, slots=True)
class Page:
    """The next series of a set.

    Attributes:
        series: UID and generation of each, by UID.
        cursor: UID up to which the index was read.
        is_last: nothing follows.
    """

    series: Sequence[tuple[str, int]]
    cursor: str
    is_last: bool


def count(connection: sa.Connection, selection: Selection, weights: Weights, *, before: float) -> int:
    """Return how many series a set would take that is started now.

    Args:
        before: only series whose first image was received before this, seconds since 1970.
    """
    query = sa.select(sa.func.count()).select_from(_JOINED).where(*_selected(selection, weights, before))
    found = int(connection.execute(query).scalar_one())
    return found if selection.at_most is None else min(found, selection.at_most)


def next_page(connection: sa.Connection, one: BackscoreSet, *, at_most: int) -> Page:
    """Return the series that a set takes next; an empty page that is not the last only moves the cursor on."""
    at_most = at_most if one.left_to_take is None else min(at_most, one.left_to_take)
    if at_most == 0:
        return Page((), one.cursor, is_last=one.left_to_take == 0)
    uid = series.c.series_instance_uid
    window = sa.select(uid).where(uid > one.cursor).order_by(uid).limit(LOOKED_AT_AT_ONCE).subquery()
    n, end = connection.execute(sa.select(sa.func.count(), sa.func.max(window.c.series_instance_uid))).one()
    if not n:
        return Page((), one.cursor, is_last=True)
    query = (
        sa.select(uid, series.c.generation)
        .select_from(_JOINED)
        .where(uid > one.cursor, uid <= end, *_selected(one.selection, one.weights, one.made_at))
        .order_by(uid)
        .limit(at_most)
    )
    found = [(row.series_instance_uid, row.generation) for row in connection.execute(query)]
    return Page(found, found[-1][0] if len(found) == at_most else end, is_last=False)


_JOINED = series.join(worklist, worklist.c.series_instance_uid == series.c.series_instance_uid)


def _selected(selection: Selection, weights: Weights, before: float) -> list[sa.ColumnElement[bool]]:
    where = [
        series.c.state.not_in(_UNDER_WAY),
        sa.or_(series.c.reason_code.is_(None), series.c.reason_code.not_in(NEVER_SCORED)),
        worklist.c.received_at < before,
        _is_kept(),
        *_named(selection),
    ]
    return where if selection.with_score else [*where, sa.not_(_has_score(weights)), sa.not_(_is_alongside(weights))]


def _named(selection: Selection) -> list[sa.ColumnElement[bool]]:
    columns = {
        series.c.modality: selection.modality,
        worklist.c.scanner: selection.station,
        series.c.calling_ae_title: selection.calling_ae,
    }
    where = [column == value for column, value in columns.items() if value]
    day = sa.func.substr(worklist.c.acquired, 1, _DAY)
    where += [_taken(day, selection.since, ">=")] if selection.since else []
    where += [_taken(day, selection.until, "<=")] if selection.until else []
    return where


def _taken(day: sa.ColumnElement[str], limit: str, comparison: str) -> sa.ColumnElement[bool]:
    """Compare the day of acquisition, in place of it the time of reception where no header states one."""
    first = datetime.strptime(limit, "%Y-%m-%d").replace(tzinfo=UTC)
    edge = first if comparison == ">=" else first + timedelta(days=1)
    received = worklist.c.received_at
    undated = received >= edge.timestamp() if comparison == ">=" else received < edge.timestamp()
    return sa.case((worklist.c.acquired == "", undated), else_=day.op(comparison)(limit))


def _is_kept() -> sa.ColumnElement[bool]:
    """Whether the first current image of a series is in the spool; images of one series are deleted together.

    Where some are gone and others not yet, the worker finds out.
    """
    first = (
        sa.select(instances.c.purged_at.is_(None))
        .where(
            instances.c.series_instance_uid == series.c.series_instance_uid,
            instances.c.status == InstanceStatus.CURRENT,
        )
        .order_by(instances.c.id)
        .limit(1)
    )
    return sa.func.coalesce(first.scalar_subquery(), sa.false())


def _has_score(weights: Weights) -> sa.ColumnElement[bool]:
    """Whether the last assessment of a series is by a checkpoint, and of the images that it has now."""
    card = assessments.c.assessment[("checkpoint", "card_sha256")].as_string()
    return (
        sa.select(sa.literal(1))
        .where(
            assessments.c.series_instance_uid == series.c.series_instance_uid,
            assessments.c.revision == series.c.revision,
            assessments.c.generation == series.c.generation,
            assessments.c.weights_sha256 == weights.sha256,
            card == weights.card_sha256,
        )
        .exists()
    )


def _is_alongside(weights: Weights) -> sa.ColumnElement[bool]:
    """Whether a score by a checkpoint is kept alongside the last assessment of a series."""
    return (
        sa.select(sa.literal(1))
        .join(backscore_sets, backscore_sets.c.id == backscore_items.c.set_id)
        .where(
            backscore_items.c.series_instance_uid == series.c.series_instance_uid,
            backscore_items.c.state == ItemState.ALONGSIDE,
            backscore_items.c.revision == series.c.revision,
            backscore_items.c.generation == series.c.generation,
            backscore_sets.c.weights_sha256 == weights.sha256,
            backscore_sets.c.card_sha256 == weights.card_sha256,
        )
        .exists()
    )
