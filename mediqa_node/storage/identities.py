"""Whom the images of a series name."""

import sqlalchemy as sa

from mediqa_node.domain.identity import Identity
from mediqa_node.domain.series import InstanceStatus
from mediqa_node.storage.tables import instances


def of_series(connection: sa.Connection, series_instance_uid: str) -> Identity | None:
    """Return patient and visit that the first current image of a series names, or None."""
    query = sa.select(instances.c.identity).where(
        instances.c.series_instance_uid == series_instance_uid,
        instances.c.status == InstanceStatus.CURRENT,
        instances.c.identity.is_not(None),
    )
    stored = connection.execute(query.order_by(instances.c.id).limit(1)).scalar_one_or_none()
    return Identity(**stored) if stored is not None else None
