"""Which delivered reports an archive has still to commit to keep."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.health import Uncommitted
from mediqa_node.domain.series import DeliveryState
from mediqa_node.storage import outbox
from mediqa_node.storage.commitment_tables import report_commitments
from mediqa_node.storage.companions import UNANSWERED
from mediqa_node.storage.correction_tables import retractions
from mediqa_node.storage.database import Database
from mediqa_node.storage.outbox import DeliveryRow
from mediqa_node.storage.tables import companion_deliveries, companions, deliveries, reports

_SENT = (
    deliveries.c.state == DeliveryState.SENT,
    deliveries.c.report_sop_instance_uid.is_not(None),
    ~sa.exists().where(
        retractions.c.report_sop_instance_uid == deliveries.c.report_sop_instance_uid,
        retractions.c.destination == deliveries.c.destination,
    ),
)
"""Reports that their destination took, and that nobody has asked back since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """A delivered report, and the instances that have to be committed with it.

    Attributes:
        pairs: SOP Class UIDs by SOP Instance UID: the report and its companions.
    """

    delivery: DeliveryRow
    pairs: dict[str, str]


def due(connection: sa.Connection, peer: str, *, now: float, sent_after: float, at_most: int) -> list[Owed]:
    """Return the reports about which a destination is to be asked, or asked again, the oldest first.

    Args:
        sent_after: those sent before are left alone.
    """
    query = (
        sa.select(deliveries.c.id)
        .outerjoin(report_commitments, report_commitments.c.delivery_id == deliveries.c.id)
        .where(
            *_SENT,
            deliveries.c.destination == peer,
            deliveries.c.companions_at.is_(None),
            deliveries.c.done_at >= sent_after,
            sa.or_(report_commitments.c.delivery_id.is_(None), report_commitments.c.ask_at <= now),
        )
        .order_by(deliveries.c.done_at, deliveries.c.id)
        .limit(at_most)
    )
    found = [outbox.find_delivery(connection, number) for number in connection.execute(query).scalars().all()]
    return [Owed(delivery=row, pairs=pairs_of(connection, row)) for row in found if row is not None]


def pairs_of(connection: sa.Connection, delivery: DeliveryRow) -> dict[str, str]:
    """Return the SOP Class UIDs by SOP Instance UID of a report and of the companions that its destination took."""
    report = sa.select(reports.c.sop_instance_uid, reports.c.sop_class_uid).where(
        reports.c.sop_instance_uid == delivery.report_sop_instance_uid
    )
    followed = (
        sa.select(companions.c.sop_instance_uid, companions.c.sop_class_uid)
        .join(companion_deliveries, companion_deliveries.c.sop_instance_uid == companions.c.sop_instance_uid)
        .where(
            companions.c.series_instance_uid == delivery.series_instance_uid,
            companions.c.revision == delivery.revision,
            companion_deliveries.c.destination == delivery.destination,
            companion_deliveries.c.status != UNANSWERED,
        )
    )
    rows = [*connection.execute(report), *connection.execute(followed)]
    return {row.sop_instance_uid: row.sop_class_uid for row in rows}


def sent_with(
    connection: sa.Connection, peer: str, sop_instance_uids: Collection[str], *, sent_by: float
) -> list[DeliveryRow]:
    """Return the reports of a destination, sent by a time, that are among some instances."""
    query = sa.select(deliveries.c.id).where(
        *_SENT,
        deliveries.c.destination == peer,
        deliveries.c.done_at <= sent_by,
        deliveries.c.report_sop_instance_uid.in_(list(sop_instance_uids)),
    )
    found = [outbox.find_delivery(connection, number) for number in connection.execute(query).scalars().all()]
    return [row for row in found if row is not None]


def note(database: Database, connection: sa.Connection, delivery_ids: Collection[int], **values: Any) -> None:
    """Write columns of the rows of some deliveries, which are made where there are none; `since` of those only."""
    for number in delivery_ids:
        new = {"since": values.get("since", 0.0), "ask_at": None, "n_failures": 0}
        connection.execute(database.insert_or_ignore(report_commitments, delivery_id=number, **new))
    changed = {name: value for name, value in values.items() if name != "since"}
    mine = report_commitments.c.delivery_id.in_(list(delivery_ids))
    connection.execute(sa.update(report_commitments).where(mine).values(**changed))


def n_failures(connection: sa.Connection, delivery_id: int) -> int:
    """Return how often a destination has answered that it does not keep a report."""
    query = sa.select(report_commitments.c.n_failures).where(report_commitments.c.delivery_id == delivery_id)
    return connection.execute(query).scalar_one_or_none() or 0


def uncommitted(connection: sa.Connection, *, before: float) -> list[Uncommitted]:
    """Return, by destination, the reports whose commitment was first asked for before a time and has not come."""
    query = (
        sa.select(
            deliveries.c.destination.label("name"),
            sa.func.count().label("n"),
            sa.func.min(report_commitments.c.since).label("oldest_at"),
        )
        .join(report_commitments, report_commitments.c.delivery_id == deliveries.c.id)
        .where(*_SENT, report_commitments.c.ask_at.is_not(None), report_commitments.c.since < before)
        .group_by(deliveries.c.destination)
        .order_by(deliveries.c.destination)
    )
    return [Uncommitted(**row._mapping) for row in connection.execute(query)]


def forget(connection: sa.Connection, before: float) -> None:
    """Delete what is known about deliveries that were first asked about before a time."""
    connection.execute(sa.delete(report_commitments).where(report_commitments.c.since < before))
