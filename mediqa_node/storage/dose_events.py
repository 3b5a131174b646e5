"""Irradiation events of dose reports, by study and sender: what the documents in use state, and of which patient."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from mediqa_node.domain.identity import Identity
from mediqa_node.domain.series import InstanceStatus
from mediqa_node.storage.database import Database
from mediqa_node.storage.index import INSTANCE, InstanceRow, instance_row
from mediqa_node.storage.tables import dose_events, instances


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedEvent:
    """An irradiation event as one document states it.

    Attributes:
        document: SOP Instance UID; None: kept before this was.
        identity: whom the document names; None: kept before this was.
        event: plain values of `dicom.technique.dose_sr.DoseEvent`.
    """

    irradiation_event_uid: str
    calling_ae_title: str
    document: str | None
    identity: Identity | None
    event: dict[str, Any]


def studies_of(connection: sa.Connection, series_instance_uid: str, sop_classes: Collection[str]) -> list[str]:
    """Return the studies to which any copy of a series' documents of these classes belongs, or belonged."""
    query = sa.select(instances.c.study_instance_uid).where(
        instances.c.series_instance_uid == series_instance_uid, instances.c.sop_class_uid.in_(sop_classes)
    )
    return list(connection.execute(query.distinct().order_by(instances.c.study_instance_uid)).scalars())


def documents(connection: sa.Connection, study_instance_uid: str, sop_classes: Collection[str]) -> list[InstanceRow]:
    """Return the documents in use of these classes in a study, in order of arrival; their files may be gone."""
    query = sa.select(*INSTANCE).where(
        instances.c.study_instance_uid == study_instance_uid,
        instances.c.sop_class_uid.in_(sop_classes),
        instances.c.status == InstanceStatus.CURRENT,
    )
    return [instance_row(row) for row in connection.execute(query.order_by(instances.c.id))]


def replace(
    database: Database,
    connection: sa.Connection,
    study_instance_uid: str,
    stated: Sequence[StatedEvent],
    *,
    gone: Collection[str],
) -> None:
    """Replace the events of a study by those of its documents; keep those of documents in use whose files are gone."""
    kept = [
        one for one in of_study(connection, study_instance_uid) if one.document in gone or (gone and not one.document)
    ]
    connection.execute(sa.delete(dose_events).where(dose_events.c.study_instance_uid == study_instance_uid))
    by_key: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in (*kept, *stated):
        value = {
            "document": one.document,
            "identity": asdict(one.identity) if one.identity is not None else None,
            "event": one.event,
        }
        by_key.setdefault((one.irradiation_event_uid, one.calling_ae_title), []).append(value)
    for (uid, calling_ae_title), values in by_key.items():
        connection.execute(
            database.insert_or_ignore(
                dose_events,
                irradiation_event_uid=uid,
                study_instance_uid=study_instance_uid,
                calling_ae_title=calling_ae_title,
                event=values,
            )
        )


def of_study(connection: sa.Connection, study_instance_uid: str, *, sender: str = "") -> list[StatedEvent]:
    """Return the events known of a study; those that are believed more come later: of this sender, and newer ones."""
    query = sa.select(dose_events).where(dose_events.c.study_instance_uid == study_instance_uid)
    own = sa.case((dose_events.c.calling_ae_title == sender, 1), else_=0)
    found = []
    for row in connection.execute(query.order_by(own, dose_events.c.calling_ae_title)):
        before = {"document": None, "identity": None, "event": row.event}  # one event, kept alone
        for value in row.event if isinstance(row.event, list) else [before]:
            known = value["identity"]
            found.append(
                StatedEvent(
                    irradiation_event_uid=row.irradiation_event_uid,
                    calling_ae_title=row.calling_ae_title,
                    document=value["document"],
                    identity=Identity(**known) if known is not None else None,
                    event=value["event"],
                )
            )
    return found
