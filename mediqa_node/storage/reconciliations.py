"""What each destination holds of the studies that were forwarded to it, and which studies have to be looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.forward import ForwardGap, ForwardState, Reconciled
from mediqa_node.domain.series import InstanceStatus, parse_state
from mediqa_node.storage.database import Database
from mediqa_node.storage.forward_tables import forwards, reconciliations
from mediqa_node.storage.tables import instances

_AT_HAND = (ForwardState.SENT, ForwardState.CONFIRMED)
_UIDS_KEPT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """A study at a destination, compared with what senders were answered 0x0000 for.

    Attributes:
        missing: SOP Instance UIDs, the first hundred.
    """

    destination: str
    study_instance_uid: str
    checked_at: float
    outcome: Reconciled | str
    n_expected: int
    n_found: int
    missing: Sequence[str]
    message: str


_ROW = [reconciliations.c[name] for name in Reconciliation.__dataclass_fields__]


def keep(database: Database, row: Reconciliation) -> None:
    """Replace what is known of a study at a destination."""
    values = {name: getattr(row, name) for name in Reconciliation.__dataclass_fields__}
    values["missing"] = list(row.missing)[:_UIDS_KEPT]
    key = sa.and_(
        reconciliations.c.destination == row.destination,
        reconciliations.c.study_instance_uid == row.study_instance_uid,
    )
    with database.write() as connection:
        if not connection.execute(sa.update(reconciliations).where(key).values(**values)).rowcount:
            connection.execute(database.insert_or_ignore(reconciliations, **values))


def latest(connection: sa.Connection, *, only_gaps: bool = False, at_most: int = 200) -> list[Reconciliation]:
    """Return the studies that were looked at, the last first."""
    query = sa.select(*_ROW).order_by(reconciliations.c.checked_at.desc()).limit(at_most)
    if only_gaps:
        query = query.where(reconciliations.c.outcome != Reconciled.COMPLETE)
    rows = [dict(row._mapping) for row in connection.execute(query)]
    return [Reconciliation(**{**row, "outcome": parse_state(Reconciled, row["outcome"])}) for row in rows]


def gaps(connection: sa.Connection) -> list[ForwardGap]:
    """Return the destinations at which instances are missing."""
    query = (
        sa.select(
            reconciliations.c.destination,
            sa.func.count().label("n_studies"),
            sa.func.sum(reconciliations.c.n_expected - reconciliations.c.n_found).label("n_instances"),
        )
        .where(reconciliations.c.outcome == Reconciled.MISSING)
        .group_by(reconciliations.c.destination)
    )
    return [ForwardGap(**row._mapping) for row in connection.execute(query)]


def studies_due(
    connection: sa.Connection, destination: str, *, sent_after: float, sent_before: float, again_before: float
) -> list[str]:
    """Return the studies to look at: sent lately and not looked at since, or incomplete a while ago."""
    last = sa.func.max(forwards.c.done_at)
    known = reconciliations
    query = (
        sa.select(forwards.c.study_instance_uid)
        .outerjoin(
            known,
            sa.and_(
                known.c.destination == forwards.c.destination,
                known.c.study_instance_uid == forwards.c.study_instance_uid,
            ),
        )
        .where(
            forwards.c.destination == destination,
            forwards.c.state.in_(_AT_HAND),
            sa.or_(forwards.c.done_at >= sent_after, known.c.outcome == Reconciled.MISSING),
        )
        .group_by(forwards.c.study_instance_uid, known.c.checked_at, known.c.outcome)
        .having(
            sa.and_(
                last < sent_before,
                sa.or_(
                    known.c.checked_at.is_(None),
                    known.c.checked_at < last,
                    sa.and_(known.c.outcome != Reconciled.COMPLETE, known.c.checked_at < again_before),
                ),
            )
        )
        .order_by(last)
    )
    return list(connection.execute(query).scalars())


def destinations(connection: sa.Connection) -> list[str]:
    """Return every destination that something was forwarded to."""
    return list(connection.execute(sa.select(forwards.c.destination).distinct()).scalars())


def studies_sent(connection: sa.Connection, destination: str, *, since: float) -> list[str]:
    """Return the studies of which something was sent to a destination since a time."""
    query = (
        sa.select(forwards.c.study_instance_uid)
        .where(
            forwards.c.destination == destination,
            forwards.c.state.in_(_AT_HAND),
            forwards.c.done_at >= since,
        )
        .distinct()
    )
    return list(connection.execute(query).scalars())


def expected(connection: sa.Connection, destination: str, study_instance_uid: str) -> dict[str, list[str]]:
    """Return the instances of a study that a destination should hold, by series: no replaced or rejected ones."""
    query = (
        sa.select(forwards.c.series_instance_uid, instances.c.sop_instance_uid)
        .join(instances, instances.c.id == forwards.c.instance_id)
        .where(
            forwards.c.destination == destination,
            forwards.c.study_instance_uid == study_instance_uid,
            forwards.c.state.in_(_AT_HAND),
            instances.c.status == InstanceStatus.CURRENT,
        )
        .distinct()
        .order_by(forwards.c.series_instance_uid, instances.c.sop_instance_uid)
    )
    found: dict[str, list[str]] = {}
    for series, instance in connection.execute(query):
        found.setdefault(series, []).append(instance)
    return found


def sent_of(connection: sa.Connection, destination: str, sop_instance_uids: Sequence[str]) -> list[int]:
    """Return the forwards of these instances that were sent to a destination, and whose files are still there."""
    query = (
        sa.select(forwards.c.id)
        .join(instances, instances.c.id == forwards.c.instance_id)
        .where(
            forwards.c.destination == destination,
            forwards.c.state.in_(_AT_HAND),
            instances.c.sop_instance_uid.in_(sop_instance_uids),
            instances.c.status == InstanceStatus.CURRENT,
            instances.c.purged_at.is_(None),
        )
    )
    return list(connection.execute(query).scalars())
