"""Whether any station of this node has work: the one query that an idle node runs."""

import sqlalchemy as sa

from mediqa_node.domain.series import DeliveryState, InstanceStatus, SeriesState
from mediqa_node.storage.backscore_tables import UNDER_WAY, backscore_items
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
_BACKSCORING = sa.select(sa.literal(1)).where(sa.text(UNDER_WAY), backscore_items.c.job.is_not(None))
_ANY = (_MOVING, _COMPARING, _UNREAD, _SENDING, _UNLISTED, _BACKSCORING)
_QUERY = sa.select(sa.or_(*(one.exists() for one in _ANY)))


def is_busy(connection: sa.Connection, *, soon: float) -> bool:
    """Return whether a series is arriving, ready or changed, a copy or document waits, a delivery is due, or a
    job back-scores.

    Args:
        soon: until when a delivery counts as due, seconds since 1970.
    """
    return bool(connection.execute(_QUERY, {"soon": soon}).scalar_one())


def n_wanting_a_score(connection: sa.Connection, *, arriving_since: float) -> int:
    """Return how many series wait for their assessment, or are arriving: live ones, and pulled ones.

    Args:
        arriving_since: a series is arriving if an image of it was received after this, seconds since 1970.
    """
    moving = series.c.state.in_((SeriesState.RECEIVING, SeriesState.READY))  # which an index serves
    wanting = sa.or_(series.c.state == SeriesState.READY, series.c.last_instance_at >= arriving_since)
    return int(connection.execute(sa.select(sa.func.count()).select_from(series).where(moving, wanting)).scalar_one())
