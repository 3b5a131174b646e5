"""Work that waits for a person: deliveries and series, with the number of the series in pages."""

from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.series import ARRIVED, HELD, DeliveryReason, DeliveryState, SeriesState
from mediqa_node.storage.tables import deliveries as deliveries_table
from mediqa_node.storage.tables import series as series_table
from mediqa_node.storage.workbench_tables import worklist

_AT_MOST = 200
_PERMANENT = (
    DeliveryReason.REFUSED,
    DeliveryReason.NO_REPORT_CLASS,
    DeliveryReason.NOT_CONFIGURED,
    DeliveryReason.FILE_MISSING,
    DeliveryReason.NOT_BUILT,
    DeliveryReason.NOT_COMMITTED,
)
"""Reasons that a retry alone does not mend: somebody has to change something first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDelivery:
    """A delivery that is parked, withheld or waits.

    Attributes:
        number: of the series in pages; None until it is listed.
        is_permanent: it fails again until somebody has changed something.
    """

    id: int
    number: int | None
    description: str
    scanner: str
    destination: str
    state: str
    reason_code: str | None
    message: str | None
    status: int | None
    attempts: int
    created_at: float
    not_before: float

    @property
    def is_permanent(self) -> bool:
        """Whether it fails again until somebody has changed something."""
        return self.reason_code in _PERMANENT


def deliveries(connection: sa.Connection) -> list[HeldDelivery]:
    """Return the deliveries that are parked or withheld, then those that wait, the oldest first."""
    own = [name for name in HeldDelivery.__dataclass_fields__ if name in deliveries_table.c]
    query = (
        sa.select(
            *(deliveries_table.c[name] for name in own),
            worklist.c.id.label("number"),
            sa.func.coalesce(worklist.c.description, "").label("description"),
            sa.func.coalesce(worklist.c.scanner, "").label("scanner"),
        )
        .outerjoin(worklist, worklist.c.series_instance_uid == deliveries_table.c.series_instance_uid)
        .where(deliveries_table.c.state.in_((*HELD, DeliveryState.WAITING)))
        .order_by(sa.case((deliveries_table.c.state == DeliveryState.WAITING, 1), else_=0), deliveries_table.c.id)
        .limit(_AT_MOST)
    )
    return [HeldDelivery(**row._mapping) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedSeries:
    """A series that is parked or withheld, and not because of a delivery."""

    series_instance_uid: str
    number: int | None
    description: str
    scanner: str
    state: str
    reason_code: str | None
    reason: str | None
    state_at: float


def series(connection: sa.Connection) -> list[StoppedSeries]:
    """Return the series that wait for a person, the oldest first."""
    own = [name for name in StoppedSeries.__dataclass_fields__ if name in series_table.c]
    query = (
        sa.select(
            *(series_table.c[name] for name in own),
            worklist.c.id.label("number"),
            sa.func.coalesce(worklist.c.description, "").label("description"),
            sa.func.coalesce(worklist.c.scanner, "").label("scanner"),
        )
        .outerjoin(worklist, worklist.c.series_instance_uid == series_table.c.series_instance_uid)
        .where(
            series_table.c.state.in_((SeriesState.PARKED, SeriesState.WITHHELD)),
            sa.func.coalesce(series_table.c.reason_code, "") != "delivery",
        )
        .order_by(series_table.c.state_at)
        .limit(_AT_MOST)
    )
    return [StoppedSeries(**row._mapping) for row in connection.execute(query)]


def last_sent(connection: sa.Connection) -> dict[str, tuple[int, float]]:
    """Return how many reports each destination has taken, and when the last."""
    query = (
        sa.select(
            deliveries_table.c.destination,
            sa.func.count().label("n"),
            sa.func.max(deliveries_table.c.done_at).label("at"),
        )
        .where(deliveries_table.c.state.in_(ARRIVED))
        .group_by(deliveries_table.c.destination)
    )
    return {row.destination: (int(row.n), float(row.at or 0.0)) for row in connection.execute(query)}
