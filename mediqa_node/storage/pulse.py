"""What a node does at this moment, in a few numbers that cost one query."""

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from mediqa_node.domain.series import DeliveryState, SeriesState
from mediqa_node.storage.tables import associations, deliveries, instances, series


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """Numbers for the head of a page.

    Attributes:
        last_image_at: when the last image came, seconds since 1970; None without any.
        n_parked: deliveries that need a person, parked or withheld.
    """

    last_image_at: float | None
    n_receiving: int
    n_scoring: int
    n_waiting: int
    n_parked: int


def read(connection: sa.Connection) -> dict[str, float | int | None]:
    """Return the numbers by name."""

    def series_in(state: SeriesState) -> sa.ScalarSelect[int]:
        return sa.select(sa.func.count()).select_from(series).where(series.c.state == state).scalar_subquery()

    def deliveries_in(*states: DeliveryState) -> sa.ScalarSelect[int]:
        return (
            sa.select(sa.func.count()).select_from(deliveries).where(deliveries.c.state.in_(states)).scalar_subquery()
        )

    last = sa.select(instances.c.received_at).order_by(instances.c.id.desc()).limit(1).scalar_subquery()
    row = connection.execute(
        sa.select(
            last,
            series_in(SeriesState.RECEIVING),
            series_in(SeriesState.READY),
            deliveries_in(DeliveryState.WAITING),
            deliveries_in(DeliveryState.PARKED, DeliveryState.WITHHELD),
        )
    ).one()
    return asdict(Vitals(**dict(zip(Vitals.__dataclass_fields__, row, strict=True))))


def open_associations(connection: sa.Connection) -> int:
    """Return how many associations that stored something are open."""
    query = sa.select(sa.func.count()).select_from(associations).where(associations.c.closed_at.is_(None))
    return int(connection.execute(query).scalar_one())
