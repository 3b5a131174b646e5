"""The content of the index in a form that can be verified."""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.series import ARRIVED, DeliveryState, SeriesState
from mediqa_node.storage.companions import UNANSWERED
from mediqa_node.storage.tables import companion_deliveries, companions, deliveries, instances, reports, series


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """A file that must exist, with its digest."""

    sop_instance_uid: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SentReport:
    """A report or companion that a destination has acknowledged."""

    destination: str
    study_instance_uid: str
    sr_series_instance_uid: str
    sop_instance_uid: str
    what: str = "report"


def kept_files(connection: sa.Connection) -> list[KeptFile]:
    """Return every file that the index names."""
    columns = (instances.c.sop_instance_uid, instances.c.path, instances.c.sha256)
    query = sa.select(*columns).where(instances.c.purged_at.is_(None)).order_by(instances.c.id)
    return [KeptFile(**row._mapping) for row in connection.execute(query)]


def paths_since(connection: sa.Connection, folder: str) -> set[str]:
    """Return the files that the index names in a spool folder and later ones."""
    query = sa.select(instances.c.path).where(instances.c.path >= folder, instances.c.purged_at.is_(None))
    return set(connection.execute(query).scalars())


def path_is_known(connection: sa.Connection, path: str) -> bool:
    """Whether the index names a file."""
    return connection.execute(sa.select(instances.c.id).where(instances.c.path == path)).first() is not None


def all_paths(connection: sa.Connection) -> set[str]:
    """Return every file that the index has ever named."""
    return set(connection.execute(sa.select(instances.c.path)).scalars())


def last_kept_path(connection: sa.Connection) -> str | None:
    """Return the file of the instance that was received last and is kept, or None."""
    query = sa.select(instances.c.path).where(instances.c.purged_at.is_(None)).order_by(instances.c.id.desc())
    return connection.execute(query.limit(1)).scalar_one_or_none()


def last_received_at(connection: sa.Connection) -> float | None:
    """Return when the instance that was entered last was received, or None."""
    query = sa.select(instances.c.received_at).order_by(instances.c.id.desc())
    return connection.execute(query.limit(1)).scalar_one_or_none()


def sent_reports(connection: sa.Connection) -> list[SentReport]:
    """Return every report that was sent."""
    query = (
        sa.select(
            deliveries.c.destination,
            reports.c.study_instance_uid,
            reports.c.sr_series_instance_uid,
            reports.c.sop_instance_uid,
        )
        .join(reports, reports.c.sop_instance_uid == deliveries.c.report_sop_instance_uid)
        .where(deliveries.c.state.in_(ARRIVED))
        .order_by(deliveries.c.id)
    )
    return [SentReport(**row._mapping) for row in connection.execute(query)]


def sent_companions(connection: sa.Connection) -> list[SentReport]:
    """Return every companion that was sent."""
    query = (
        sa.select(
            companion_deliveries.c.destination,
            companions.c.study_instance_uid,
            companions.c.companion_series_instance_uid.label("sr_series_instance_uid"),
            companions.c.sop_instance_uid,
        )
        .join(companions, companions.c.sop_instance_uid == companion_deliveries.c.sop_instance_uid)
        .where(companion_deliveries.c.status != UNANSWERED)
        .order_by(companion_deliveries.c.sent_at, companions.c.sop_instance_uid)
    )
    return [SentReport(**row._mapping, what="companion") for row in connection.execute(query)]


def broken_promises(connection: sa.Connection, *, now: float, patience_s: float) -> Iterator[str]:
    """Yield a sentence for every series and delivery that is stuck."""
    stuck = (SeriesState.RECEIVING,)
    query = sa.select(series.c.series_instance_uid, series.c.state, series.c.state_at).where(
        series.c.state.in_(stuck), series.c.state_at < now - patience_s, series.c.last_instance_at < now - patience_s
    )
    for row in connection.execute(query):
        yield f"series {row.series_instance_uid} has been {row.state} for {(now - row.state_at) / 60:.0f} minutes"
    overdue = sa.select(deliveries.c.id, deliveries.c.destination).where(
        deliveries.c.state == DeliveryState.WAITING, deliveries.c.not_before < now - patience_s
    )
    for delivery in connection.execute(overdue):
        yield f"delivery {delivery.id} to {delivery.destination} is overdue and has no job"
    with_delivery = sa.select(deliveries.c.series_instance_uid).where(deliveries.c.state.in_(ARRIVED))
    query = sa.select(series.c.series_instance_uid).where(
        series.c.state.in_((SeriesState.DELIVERED, SeriesState.CONFIRMED)),
        series.c.series_instance_uid.not_in(with_delivery),
    )
    for row in connection.execute(query):
        yield f"series {row.series_instance_uid} counts as delivered, and nothing was sent"
