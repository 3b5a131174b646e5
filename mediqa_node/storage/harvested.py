"""Every series with its harvested parameters: the source of exports."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from mediqa_node.domain.technique import FrameTechnique, Technique
from mediqa_node.storage import assessments, index
from mediqa_node.storage.database import Database
from mediqa_node.storage.index import SeriesRow
from mediqa_node.storage.tables import frame_techniques, instances, patient_links


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestedSeries:
    """A series and its harvested parameters.

    Attributes:
        technique: without frames; None where nothing was harvested.
        received_at: of its first instance, seconds since 1970; kept beyond retention.
    """

    row: SeriesRow
    technique: Technique | None
    received_at: float


def harvested(connection: sa.Connection) -> list[HarvestedSeries]:
    """Return every series, in order of its UID."""
    first = sa.select(instances.c.series_instance_uid, sa.func.min(instances.c.received_at).label("at"))
    received = {
        row.series_instance_uid: row.at for row in connection.execute(first.group_by(instances.c.series_instance_uid))
    }
    return [
        HarvestedSeries(
            row=row,
            technique=assessments.load_technique(connection, row.series_instance_uid),
            received_at=received.get(row.series_instance_uid, row.opened_at),
        )
        for row in sorted(index.series_in(connection), key=lambda row: row.series_instance_uid)
    ]


def frames_of(connection: sa.Connection, series_instance_uid: str) -> tuple[FrameTechnique, ...]:
    """Return the technique of each image of a series, in the order of the harvest."""
    query = sa.select(frame_techniques).where(frame_techniques.c.series_instance_uid == series_instance_uid)
    names = tuple(name for name in FrameTechnique.__dataclass_fields__ if name != "flags")
    return tuple(
        FrameTechnique(
            **{name: row._mapping[name] for name in names},
            flags=tuple(row.flags),
        )
        for row in connection.execute(query.order_by(frame_techniques.c.id))
    )


def remember_links(
    database: Database, seen: Mapping[tuple[str, str], float], *, withdrawn: Collection[tuple[str, str]] = ()
) -> dict[tuple[str, str], float]:
    """Keep the links between patients beyond the retention of their images; return all links.

    Args:
        seen: time of the first series, by link and patient key (pseudonyms); seconds since 1970.
        withdrawn: links that turned out to be wrong, and are forgotten.
    """
    with database.read() as connection:
        rows = connection.execute(
            sa.select(patient_links.c.link, patient_links.c.patient_key, patient_links.c.first_seen)
        )
        known = {(row.link, row.patient_key): row.first_seen for row in rows}
    new = [
        {"link": link, "patient_key": patient, "first_seen": at}
        for (link, patient), at in seen.items()
        if (link, patient) not in known
    ]
    wrong = known.keys() & set(withdrawn)
    if new or wrong:
        with database.write() as connection:
            for link, patient in sorted(wrong):
                this = (patient_links.c.link == link, patient_links.c.patient_key == patient)
                connection.execute(sa.delete(patient_links).where(*this))
            if new:
                connection.execute(database.insert_or_ignore(patient_links), new)
    return {bond: at for bond, at in {**seen, **known}.items() if bond not in wrong}
