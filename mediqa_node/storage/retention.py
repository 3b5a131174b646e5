"""Which source instances may go: old, and of a series that has reached its end."""

import sqlalchemy as sa

from mediqa_node.domain.exchange import END_STATES, SeriesState
from mediqa_node.storage.tables import deliveries, instances, series


def expired(connection: sa.Connection, before: float, *, at_most: int = 1000) -> list[tuple[int, str]]:
    """Return id and path of instances received before a time, whose series is finished.

    Finished is delivered, confirmed, not scored, or assessed without any delivery that still
    waits. What is withheld or parked stays until a person has decided.
    """
    pending = sa.select(deliveries.c.series_instance_uid).where(
        deliveries.c.state.in_(("waiting", "parked", "withheld"))
    )
    finished = sa.or_(
        series.c.state.in_(END_STATES),
        sa.and_(series.c.state == SeriesState.ASSESSED, series.c.series_instance_uid.not_in(pending)),
    )
    query = (
        sa.select(instances.c.id, instances.c.path)
        .join(series, series.c.series_instance_uid == instances.c.series_instance_uid)
        .where(instances.c.purged_at.is_(None), instances.c.received_at < before, series.c.last_instance_at < before)
        .where(finished, instances.c.status != "candidate")
        .order_by(instances.c.id)
        .limit(at_most)
    )
    return [(row.id, row.path) for row in connection.execute(query)]


def mark_purged(connection: sa.Connection, instance_id: int, *, at: float) -> None:
    """Note that an instance's file is gone, and when."""
    row = connection.execute(
        sa.update(instances)
        .where(instances.c.id == instance_id)
        .values(purged_at=at)
        .returning(instances.c.series_instance_uid)
    ).one()
    connection.execute(
        sa.update(series).where(series.c.series_instance_uid == row.series_instance_uid).values(purged_at=at)
    )
