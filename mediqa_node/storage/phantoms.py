"""Measurements of the site's phantoms, as recorded."""

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from mediqa_node.domain.phantom import PhantomMeasurement
from mediqa_node.storage.tables import phantom_measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomRow:
    """One measurement of a trend; units as in `domain.phantom`."""

    station_name: str
    rule: str
    modality: str
    acquired_at: str
    mean: float
    noise: float
    uniformity: float
    series_instance_uid: str


def save(connection: sa.Connection, measurement: PhantomMeasurement, *, at: float) -> None:
    """Replace the measurement of a phantom series."""
    uid = measurement.series_instance_uid
    forget(connection, uid)
    connection.execute(
        sa.insert(phantom_measurements).values(
            series_instance_uid=uid,
            modality=measurement.modality,
            station_name=measurement.station_name[:16],
            rule=measurement.rule,
            acquired_at=measurement.acquired_at,
            mean=measurement.mean,
            noise=measurement.noise,
            uniformity=measurement.uniformity,
            measurement=asdict(measurement),
            measured_at=at,
        )
    )


def forget(connection: sa.Connection, series_instance_uid: str) -> None:
    """Remove a series from the phantom trend."""
    here = phantom_measurements.c.series_instance_uid == series_instance_uid
    connection.execute(sa.delete(phantom_measurements).where(here))


def trend(connection: sa.Connection) -> list[PhantomRow]:
    """Return all measurements, by station, rule and modality, oldest acquisition first."""
    names = tuple(PhantomRow.__dataclass_fields__)
    columns = [phantom_measurements.c[name] for name in names]
    query = sa.select(*columns).order_by(*columns[:4], phantom_measurements.c.measured_at)
    return [PhantomRow(**row._mapping) for row in connection.execute(query)]
