"""Irradiation events of dose reports for the images of their study: of documents in use, for their own patient only."""

from dataclasses import asdict
from functools import reduce

import structlog

from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.technique.dose_sr import DOSE_REPORTS, DoseEvent, dose_events
from mediqa_node.domain.errors import fault_of
from mediqa_node.domain.identity import Identity, is_same_patient, merged
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.score import SeriesFiles
from mediqa_node.storage import dose_events as stored
from mediqa_node.storage.dose_events import StatedEvent
from mediqa_node.storage.index import InstanceRow, SeriesRow

log = structlog.get_logger("worker")


def read_again(node: NodeContext, series_instance_uid: str) -> list[str]:
    """Bring the events up to date with the dose reports in use; return the studies that may have changed.

    These are those of the dose reports of a series, and those from which a correction has taken one. No study for a
    series without a dose report.

    Raises:
        OSError: a file cannot be read.
    """
    with node.database.read() as connection:
        studies = stored.studies_of(connection, series_instance_uid, DOSE_REPORTS)
    for study in studies:
        with node.database.read() as connection:
            documents = stored.documents(connection, study, DOSE_REPORTS)
        stated = [event for one in documents if one.purged_at is None for event in _stated(node, one)]
        gone = {one.sop_instance_uid for one in documents if one.purged_at is not None}
        with node.database.write() as connection:
            stored.replace(node.database, connection, study, stated, gone=gone)
    return studies


def _stated(node: NodeContext, document: InstanceRow) -> list[StatedEvent]:
    try:
        header = read_header(node.spool.path(document.path))
        found = dose_events(header)
    except OSError:
        raise
    except Exception as error:  # one broken document must not hide the others
        log.warning("dose report not read", instance=document.sop_instance_uid, reason=fault_of(error))
        return []
    identity = document.identity or identity_of(header)
    return [
        StatedEvent(
            irradiation_event_uid=event.irradiation_event_uid,
            calling_ae_title=document.calling_ae_title,
            document=document.sop_instance_uid,
            identity=identity,
            event=asdict(event),
        )
        for event in found
    ]


def events_for(node: NodeContext, row: SeriesRow, files: SeriesFiles) -> dict[str, DoseEvent]:
    """Return the irradiation events that dose reports state for the patient of a series, by their UID."""
    with node.database.read() as connection:
        known = stored.of_study(connection, row.study_instance_uid, sender=row.calling_ae_title)
    if not known:
        return {}
    patient = reduce(merged, map(identity_of, files.headers))
    return {one.irradiation_event_uid: DoseEvent(**one.event) for one in known if _is_about(patient, one)}


def _is_about(patient: Identity, stated: StatedEvent) -> bool:
    return stated.identity is None or is_same_patient(stated.identity, patient)
