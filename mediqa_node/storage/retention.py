"""Which source instances may go: old, and of a series that has reached its end."""

import sqlalchemy as sa

from mediqa_node.domain.forward import UNSENT
from mediqa_node.domain.series import END_STATES, UNFINISHED, InstanceStatus, SeriesState
from mediqa_node.storage.copies import OPEN
from mediqa_node.storage.forward_tables import forwards
from mediqa_node.storage.index import INSTANCE, InstanceRow, instance_row
from mediqa_node.storage.reading_tables import reading_cases, reading_examples, reading_studies
from mediqa_node.storage.tables import deliveries, instances, series


def _may_go(before: float) -> sa.ColumnElement[bool]:
    """The condition on an instance: finished is delivered, confirmed, not scored, or assessed without any
    delivery that still waits. What is withheld or parked, and every series with an image of which another copy is in
    question, stays until a person has decided; the cases and examples of an open reading study stay while it is read,
    and an instance stays until every archive that it is forwarded to has it, and has committed to it where asked.
    """
    copies, open_copies = instances.alias(), instances.alias()
    in_question = (
        sa.select(copies.c.series_instance_uid)
        .join(open_copies, open_copies.c.sop_instance_uid == copies.c.sop_instance_uid)
        .where(open_copies.c.status.in_(OPEN))
    )
    pending = sa.select(deliveries.c.series_instance_uid).where(deliveries.c.state.in_(UNFINISHED))
    finished = sa.select(series.c.series_instance_uid).where(
        series.c.last_instance_at < before,
        sa.or_(
            series.c.state.in_(END_STATES),
            sa.and_(series.c.state == SeriesState.ASSESSED, series.c.series_instance_uid.not_in(pending)),
        ),
    )
    return sa.and_(
        instances.c.purged_at.is_(None),
        instances.c.received_at < before,
        instances.c.status != InstanceStatus.CANDIDATE,
        instances.c.series_instance_uid.in_(finished),
        instances.c.series_instance_uid.not_in(in_question),
        *(instances.c.series_instance_uid.not_in(read) for read in _being_read()),
        instances.c.id.not_in(
            sa.select(forwards.c.instance_id).where(
                sa.or_(forwards.c.state.in_(UNSENT), forwards.c.ask_at.is_not(None))
            )
        ),
    )


def _being_read() -> tuple[sa.Select[tuple[str]], ...]:
    """The series that readers of open studies still have to see."""
    is_open = reading_studies.c.closed_at.is_(None)
    return tuple(
        sa.select(table.c.series_instance_uid)
        .join(reading_studies, reading_studies.c.id == table.c.study_id)
        .where(is_open)
        for table in (reading_cases, reading_examples)
    )


def expired(connection: sa.Connection, before: float, *, at_most: int = 1000) -> list[InstanceRow]:
    """Return the instances received before a time, whose series is finished."""
    query = sa.select(*INSTANCE).where(_may_go(before)).order_by(instances.c.id).limit(at_most)
    return [instance_row(row) for row in connection.execute(query)]


def purge(connection: sa.Connection, instance_id: int, before: float, *, at: float) -> bool:
    """Mark an instance as deleted if it may still go; False if its series was opened again meanwhile."""
    statement = sa.update(instances).where(instances.c.id == instance_id, _may_go(before)).values(purged_at=at)
    return bool(connection.execute(statement).rowcount)


def purged_paths(connection: sa.Connection, *, since: float) -> list[str]:
    """Return the files of instances that were marked as deleted after a time."""
    return list(connection.execute(sa.select(instances.c.path).where(instances.c.purged_at >= since)).scalars())
