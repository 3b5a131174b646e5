"""Modality Performed Procedure Steps, and what they announce about a series."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from mediqa_node.domain.procedure_step import StepStatus
from mediqa_node.storage.database import Database
from mediqa_node.storage.procedure_step_tables import procedure_step_instances as listed
from mediqa_node.storage.procedure_step_tables import procedure_steps as steps
from mediqa_node.storage.tables import instances

Lists = Mapping[str, Collection[str]]
"""SOP Instance UIDs by Series Instance UID."""


def create(
    database: Database, connection: sa.Connection, uid: str, *, calling_ae_title: str, series: Lists, at: float
) -> bool:
    """Keep a step that has begun; False if there is one of this UID."""
    values = {"calling_ae_title": calling_ae_title, "status": StepStatus.IN_PROGRESS, "created_at": at}
    new = database.insert_or_ignore(steps, sop_instance_uid=uid, **values).returning(steps.c.sop_instance_uid)
    if connection.execute(new).first() is None:
        return False
    _list(connection, uid, series)
    return True


def n_open(connection: sa.Connection, calling_ae_title: str) -> int:
    """Return how many steps of a modality have not ended."""
    mine = (steps.c.calling_ae_title == calling_ae_title, steps.c.status == StepStatus.IN_PROGRESS)
    return int(connection.execute(sa.select(sa.func.count()).select_from(steps).where(*mine)).scalar_one())


def find(connection: sa.Connection, uid: str) -> tuple[str, str] | None:
    """Return who created a step, and its status, both locked until the transaction ends; None if there is none."""
    query = sa.select(steps.c.calling_ae_title, steps.c.status).where(steps.c.sop_instance_uid == uid)
    row = connection.execute(query.with_for_update()).one_or_none()
    return (row.calling_ae_title, row.status) if row is not None else None


def update(connection: sa.Connection, uid: str, *, status: StepStatus | None, series: Lists | None, at: float) -> None:
    """Take over the attributes that an N-SET has; None leaves one as it is."""
    if series is not None:
        connection.execute(sa.delete(listed).where(listed.c.step_uid == uid))
        _list(connection, uid, series)
    if status is not None:
        ended_at = None if status is StepStatus.IN_PROGRESS else at
        connection.execute(
            sa.update(steps).where(steps.c.sop_instance_uid == uid).values(status=status, ended_at=ended_at)
        )


def _list(connection: sa.Connection, uid: str, series: Lists) -> None:
    rows = [
        {"step_uid": uid, "series_instance_uid": name, "sop_instance_uid": instance}
        for name, names in series.items()
        for instance in sorted(set(names))
    ]
    if rows:
        connection.execute(sa.insert(listed), rows)


def announced(connection: sa.Connection, series_instance_uid: str) -> bool | None:
    """Return whether a series has exactly the instances that completed steps list; False: some are missing.

    Only steps of AE titles that have sent images of the series count: anybody can list what they like.

    Returns:
        None if nothing is announced: no step lists the series, one that does was not completed, or the series has
        instances that no step lists, so that the lists are not all of it.
    """
    senders = sa.select(instances.c.calling_ae_title).where(instances.c.series_instance_uid == series_instance_uid)
    counts = (listed.c.series_instance_uid == series_instance_uid, steps.c.calling_ae_title.in_(senders))
    joined = steps.join(listed, listed.c.step_uid == steps.c.sop_instance_uid)
    states = sa.select(steps.c.status).select_from(joined).where(*counts).distinct()
    if set(connection.execute(states).scalars()) != {StepStatus.COMPLETED}:
        return None
    of_series = sa.select(listed.c.sop_instance_uid).select_from(joined).where(*counts)
    there = sa.select(instances.c.sop_instance_uid).where(instances.c.series_instance_uid == series_instance_uid)
    missing = set(connection.execute(of_series).scalars())
    more = set(connection.execute(there).scalars())
    if more - missing:
        return None
    return missing <= more


def listed_by_ended(connection: sa.Connection, *, since: float) -> set[str]:
    """Return the series that steps list which have ended since a time."""
    joined = steps.join(listed, listed.c.step_uid == steps.c.sop_instance_uid)
    query = sa.select(listed.c.series_instance_uid).select_from(joined).where(steps.c.ended_at >= since).distinct()
    return set(connection.execute(query).scalars())


def n_listed(connection: sa.Connection, series_instance_uid: str) -> int:
    """Return how many instances steps list for a series, whoever has created them, and whatever became of them."""
    count = sa.func.count(sa.distinct(listed.c.sop_instance_uid))
    query = sa.select(count).where(listed.c.series_instance_uid == series_instance_uid)
    return int(connection.execute(query).scalar_one())


def forget(connection: sa.Connection, before: float) -> None:
    """Delete the steps created before a time."""
    old = sa.select(steps.c.sop_instance_uid).where(steps.c.created_at < before)
    connection.execute(sa.delete(listed).where(listed.c.step_uid.in_(old)))
    connection.execute(sa.delete(steps).where(steps.c.created_at < before))
