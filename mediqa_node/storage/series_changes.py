"""Series that have changed since their entry in the worklist was made."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.series import SeriesState
from mediqa_node.storage.tables import instances, series
from mediqa_node.storage.workbench_tables import series_changes, worklist


@dataclass(frozen=True, slots=True)
class Changed:
    """A series to make the entry of, and the notes that are done with it."""

    series_instance_uid: str
    notes: tuple[int, ...]


def oldest(connection: sa.Connection, *, at_most: int) -> list[Changed]:
    """Return the series whose change was noted first."""
    query = sa.select(series_changes.c.id, series_changes.c.series_instance_uid).order_by(series_changes.c.id)
    notes: dict[str, list[int]] = {}
    for row in connection.execute(query.limit(at_most)):
        notes.setdefault(row.series_instance_uid, []).append(row.id)
    return [Changed(uid, tuple(ids)) for uid, ids in notes.items()]


def note(connection: sa.Connection, series_instance_uid: str) -> None:
    """Have the entry of a series made anew."""
    connection.execute(sa.insert(series_changes).values(series_instance_uid=series_instance_uid))


def forget(connection: sa.Connection, notes: Sequence[int]) -> None:
    """Delete notes: the entries have been made since they were read."""
    connection.execute(sa.delete(series_changes).where(series_changes.c.id.in_(notes)))


def growing(connection: sa.Connection) -> list[str]:
    """Return the series that are being received and have more images than their entries state."""
    query = (
        sa.select(series.c.series_instance_uid)
        .join(worklist, worklist.c.series_instance_uid == series.c.series_instance_uid)
        .where(series.c.state == SeriesState.RECEIVING, series.c.n_instances != worklist.c.n_images)
    )
    return list(connection.execute(query).scalars())


def first_image_at(connection: sa.Connection, series_instance_uid: str) -> float | None:
    """Return when the first image of a series was received, or None."""
    query = sa.select(sa.func.min(instances.c.received_at)).where(
        instances.c.series_instance_uid == series_instance_uid
    )
    return connection.execute(query).scalar_one_or_none()
