"""Whether any station of this node has work: the one query that an idle node runs."""

import sqlalchemy as sa

from mediqa_node.domain.series import DeliveryState, InstanceStatus, SeriesState
from mediqa_node.storage.tables import deliveries, instances, series
from mediqa_node.storage.workbench_tables import series_changes

_MOVING = sa.select(sa.literal(1)).where(series.c.state.in_((SeriesState.RECEIVING, SeriesState.READY)))
_COMPARING = sa.select(sa.literal(1)).where(instances.c.status == InstanceStatus.CANDIDATE)
_UNREAD = sa.select(sa.literal(1)).where(instances.c.unread)
_SOON: sa.BindParameter[float] = sa.bindparam("soon", type_=sa.Float)
_SENDING = sa.select(sa.literal(1)).where(
    sa.or_(
        sa.and_(
            deliveries.c.state == DeliveryState.WAITING,
            sa.or_(deliveries.c.job.is_not(None), deliveries.c.not_before <= _SOON),
        ),
        sa.and_(deliveries.c.state == DeliveryState.SENT, deliveries.c.companions_at <= _SOON),
    )
)
_UNLISTED = sa.select(series_changes.c.id)
_QUERY = sa.select(
    sa.or_(_MOVING.exists(), _COMPARING.exists(), _UNREAD.exists(), _SENDING.exists(), _UNLISTED.exists())
)


def is_busy(connection: sa.Connection, *, soon: float) -> bool:
    """Return whether a series is arriving, ready or changed, a copy or document waits, or a delivery is due.

    Args:
        soon: until when a delivery counts as due, seconds since 1970.
    """
    return bool(connection.execute(_QUERY, {"soon": soon}).scalar_one())
