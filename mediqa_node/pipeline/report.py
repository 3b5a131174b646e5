"""The bytes of a report: built once per revision and SOP class, kept, and re-sent unchanged."""

import hashlib
from datetime import UTC, datetime
from io import BytesIO

import pydicom

from mediqa_node.dicom.report.build import build_report, report_bytes
from mediqa_node.dicom.report.request import SOP_CLASSES, ReportRequest
from mediqa_node.domain.baseline import Group
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.score import read_headers
from mediqa_node.storage import assessments, baselines, index, measures, outbox, retractions
from mediqa_node.storage.outbox import ReportRow

_CLASS_NAMES = {uid: name for name, uid in SOP_CLASSES.items()}


def report_for(node: NodeContext, series_instance_uid: str, revision: int, sop_class_uid: str) -> ReportRow:
    """Return the report of a revision in a SOP class, building and committing it the first time.

    Raises:
        LookupError: there is no such assessment, or its instances are gone.
    """
    with node.database.read() as connection:
        known = outbox.find_report(connection, series_instance_uid, revision, sop_class_uid)
        assessment = assessments.load_assessment(connection, series_instance_uid, revision)
        instances = index.current_instances(connection, series_instance_uid)
        predecessor = outbox.last_report(connection, series_instance_uid, sop_class_uid)
        sent_in = predecessor.sr_series_instance_uid if predecessor else ""
        generation = assessments.assessed_generation(connection, series_instance_uid, revision)
        measured = measures.load(connection, series_instance_uid, generation) if generation is not None else None
        usual = baselines.active_usual(connection, Group.of(measured)) if measured is not None else []
        last_number = retractions.last_instance_number(connection, sent_in)
    if known is not None:
        return known
    if assessment is None or not instances:
        raise LookupError(f"series {series_instance_uid} has no assessment {revision}, or its instances were deleted")
    files = read_headers([node.spool.path(instance.path) for instance in instances])
    number = series_number(node, assessment.study_instance_uid, series_instance_uid)
    instance_number = last_number + 1
    dataset = build_report(
        ReportRequest(
            assessment=assessment,
            sources=files.headers,
            device=node.device,
            series_number=number,
            instance_number=instance_number,
            created_at=datetime.fromtimestamp(assessment.assessed_at.timestamp(), UTC),
            predecessor=pydicom.dcmread(BytesIO(predecessor.part10)) if predecessor else None,
            sop_class=_CLASS_NAMES[sop_class_uid],
            time_zone=node.time_zone,
            predicted_parameters=node.report.predicted_parameters,
            measured=measured,
            usual=usual,
        )
    )
    part10 = report_bytes(dataset)
    row = ReportRow(
        sop_instance_uid=dataset.SOPInstanceUID,
        series_instance_uid=series_instance_uid,
        study_instance_uid=dataset.StudyInstanceUID,
        revision=revision,
        sop_class_uid=sop_class_uid,
        sr_series_instance_uid=dataset.SeriesInstanceUID,
        series_number=number,
        instance_number=instance_number,
        sha256=hashlib.sha256(part10).hexdigest(),
        part10=part10,
        created_at=node.clock(),
    )
    with node.database.write() as connection:
        return outbox.save_report(node.database, connection, row)


def series_number(node: NodeContext, study_instance_uid: str, series_instance_uid: str) -> int:
    """Allocate a Series Number (0020,0011) that is unused in the study.

    Args:
        series_instance_uid: of the images for a report; of the companion series for companions.
    """
    with node.database.write() as connection:
        return outbox.series_number(node.database, connection, study_instance_uid, series_instance_uid)
