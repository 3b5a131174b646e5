"""Queries and actions for people: status, one series in full, retry."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.baseline import Group, usual_of, what_stands_out
from mediqa_node.domain.measures import by_name
from mediqa_node.domain.series import (
    HELD,
    CopyDecision,
    DeliveryState,
    ReasonCode,
    SeriesState,
)
from mediqa_node.storage import backscores, baselines, copies, decisions, index, measures, outbox, retractions
from mediqa_node.storage.companions import UNANSWERED
from mediqa_node.storage.index import SeriesRow
from mediqa_node.storage.tables import (
    OPEN_COPIES,
    assessments,
    companion_deliveries,
    companions,
    deliveries,
    instances,
    series,
    techniques,
)

_RETRIED_PARKED = (ReasonCode.SCORING_FAILED, ReasonCode.FILE_MISSING, ReasonCode.FILE_CHANGED)
_WAITS_ANEW = {"state": DeliveryState.WAITING, "reason_code": None, "unanswered_since": None, "job": None}
_RETRIED_WITHHELD = (
    ReasonCode.UNTRAINED,
    ReasonCode.IDENTITY,
    ReasonCode.NO_PATIENT_ID,
    ReasonCode.CONSTANCY_DRIFT,
    ReasonCode.CONSTANCY_UNKNOWN,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Counts of what the node holds and does."""

    last_at: float | None
    last_from: str | None
    n_series: int
    n_instances: int
    n_bytes: int
    n_receiving: int
    n_ready: int
    n_waiting: int
    ended: tuple[tuple[str, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "ended": dict(self.ended)}


def facts(connection: sa.Connection) -> Facts:
    """Return the counts."""
    states = {
        row.state: int(row.n)
        for row in connection.execute(sa.select(series.c.state, sa.func.count().label("n")).group_by(series.c.state))
    }
    kept = connection.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(instances.c.size_bytes), 0)).where(
            instances.c.purged_at.is_(None)
        )
    ).one()
    last = connection.execute(
        sa.select(instances.c.received_at, instances.c.calling_ae_title).order_by(instances.c.id.desc()).limit(1)
    ).one_or_none()
    open_states = (SeriesState.RECEIVING, SeriesState.READY)
    ended = [state for state in SeriesState if state not in open_states]
    return Facts(
        last_at=last.received_at if last else None,
        last_from=last.calling_ae_title if last else None,
        n_series=sum(states.values()),
        n_instances=int(kept[0]),
        n_bytes=int(kept[1]),
        n_receiving=states.get(SeriesState.RECEIVING, 0),
        n_ready=states.get(SeriesState.READY, 0),
        n_waiting=_count(connection, deliveries, deliveries.c.state == DeliveryState.WAITING),
        ended=tuple((state.value.replace("_", " "), states[state]) for state in ended if state in states),
    )


def _count(connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(condition)).scalar_one())


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """Kept copies of a series' instances that differ from the current ones."""

    series_instance_uid: str
    status: str
    n_copies: int


def disputes(connection: sa.Connection) -> list[Dispute]:
    """Return the series with differing copies that await a decision."""
    columns = (instances.c.series_instance_uid, instances.c.status)
    query = (
        sa.select(*columns, sa.func.count().label("n"))
        .where(sa.text(OPEN_COPIES))
        .group_by(*columns)
        .order_by(*columns)
    )
    return [
        Dispute(series_instance_uid=row.series_instance_uid, status=row.status, n_copies=int(row.n))
        for row in connection.execute(query)
    ]


def whole_series(connection: sa.Connection, row: SeriesRow) -> dict[str, Any]:
    """Return everything recorded about one series as plain values."""
    uid = row.series_instance_uid
    technique = connection.execute(
        sa.select(techniques.c.technique).where(techniques.c.series_instance_uid == uid)
    ).scalar_one_or_none()
    assessment = connection.execute(
        sa.select(assessments.c.assessment).where(
            assessments.c.series_instance_uid == uid, assessments.c.revision == row.revision
        )
    ).scalar_one_or_none()
    statuses = connection.execute(
        sa.select(instances.c.status, sa.func.count()).where(instances.c.series_instance_uid == uid).group_by("status")
    )
    measured = measures.load(connection, uid, row.generation)
    usual = usual_of(measured, baselines.active_usual(connection, Group.of(measured))) if measured is not None else {}
    return {
        **row.as_dict(),
        "copies": {status: int(n) for status, n in statuses},
        "technique": technique,
        "assessment": assessment,
        "measures": by_name(measured.measures) if measured is not None else {},
        "usual": {name: {key: getattr(one, key) for key in ("median", "spread", "n")} for name, one in usual.items()},
        "stands_out": [one.in_words() for one in what_stands_out(measured.measures if measured else (), usual)],
        "back_scores": [asdict(one) for one in backscores.scores_of(connection, [uid])],
        "companions": _companions(connection, row),
        "deliveries": [asdict(delivery) for delivery in outbox.deliveries_of(connection, uid)],
        "undecided": copies.proposal(connection, uid, CopyDecision.KEEP_FIRST) is not None,
        "corrections": [correction.as_dict() for correction in decisions.corrections_of(connection, uid)],
        "retractions": [row.as_dict() for row in retractions.of_series(connection, uid)],
    }


def _companions(connection: sa.Connection, row: SeriesRow) -> list[dict[str, Any]]:
    """Return the companions of the current revision, each with its destination."""
    here = (companions.c.series_instance_uid == row.series_instance_uid, companions.c.revision == row.revision)
    columns = (companions.c.sop_instance_uid, companions.c.sop_class_uid, companion_deliveries.c.destination)
    query = (
        sa.select(*columns)
        .outerjoin(
            companion_deliveries,
            sa.and_(
                companion_deliveries.c.sop_instance_uid == companions.c.sop_instance_uid,
                companion_deliveries.c.status != UNANSWERED,
            ),
        )
        .where(*here)
        .order_by(companions.c.sop_class_uid, companions.c.instance_number, companion_deliveries.c.destination)
    )
    return [dict(found._mapping) for found in connection.execute(query)]


def retry(connection: sa.Connection, which: Sequence[str], *, now: float) -> tuple[int, int]:
    """Retry held deliveries and retractions, and stopped series; return how many of each, retractions as deliveries.

    A series with copies that disagree stays: `copies.proposal` has the ways to settle it.

    Args:
        which: delivery ids or series UIDs; empty: all.
    """
    ids = [int(name) for name in which if name.isascii() and name.isdecimal() and len(name) < 12]
    disputed = sa.select(instances.c.series_instance_uid).where(sa.text(OPEN_COPIES))
    held = sa.update(deliveries).where(deliveries.c.state.in_(HELD))
    stopped = sa.or_(
        sa.and_(series.c.state == SeriesState.PARKED, series.c.reason_code.in_(_RETRIED_PARKED)),
        sa.and_(
            series.c.state == SeriesState.WITHHELD,
            series.c.reason_code.in_(_RETRIED_WITHHELD),
            series.c.series_instance_uid.not_in(disputed),
        ),
    )
    mine: sa.ColumnElement[bool] = sa.true()
    if which:
        held = held.where(sa.or_(deliveries.c.id.in_(ids), deliveries.c.series_instance_uid.in_(which)))
        mine = series.c.series_instance_uid.in_(which)
    with_delivery = sa.select(deliveries.c.series_instance_uid).where(
        deliveries.c.revision == series.c.revision, deliveries.c.state.in_(HELD)
    )
    n_series = index.assess_again(connection, stopped, mine, series.c.series_instance_uid.not_in(with_delivery), at=now)
    n_deliveries = connection.execute(held.values(**_WAITS_ANEW, not_before=now, created_at=now)).rowcount
    n_retractions = retractions.retry(connection, tuple(which), now=now)
    return int(n_deliveries) + n_retractions, n_series


def assess_again(connection: sa.Connection, code: ReasonCode, *, now: float) -> int:
    """Have the series that are withheld for a reason assessed again; return how many."""
    return index.assess_again(connection, series.c.state == SeriesState.WITHHELD, series.c.reason_code == code, at=now)
