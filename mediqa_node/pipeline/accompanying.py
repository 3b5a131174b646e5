"""What a site wants beside the report: pictures and maps of the score, sent after it over the same association.

The report comes first and never waits: what a destination does not take, or what cannot be built, is noted
with the delivery. Only a destination that stops answering makes the delivery try again, with the same bytes.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import structlog
from pydicom import Dataset

from mediqa_node.assess.map_pictures import slice_picture
from mediqa_node.assess.overlay import ExplainedSlice
from mediqa_node.dicom.companions import COMPANION_CLASSES, CompanionRequest, companion_series_uid
from mediqa_node.dicom.report import report_bytes
from mediqa_node.domain.errors import MediqaError, PeerRefused
from mediqa_node.domain.failpoint import reach
from mediqa_node.network.sender import PeerLink
from mediqa_node.pipeline.assessing import read_headers
from mediqa_node.pipeline.mapping import caption, explained_slices
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.reporting import series_number
from mediqa_node.storage import companions, index, labels
from mediqa_node.storage.companions import CompanionRow
from mediqa_node.storage.reports import DeliveryRow

log = structlog.get_logger("courier")


class _Left(Exception):
    """There is nothing to send, and this is why."""


def accompany(node: NodeContext, delivery: DeliveryRow, link: PeerLink) -> str:
    """Send what goes with a report that the destination has just taken; return what is to be noted, or "".

    Raises:
        PeerUnavailable: the association broke, or the destination is out of resources.
        StorageFailed: our own database.
    """
    notes = []
    for kind in node.companions.wanted:
        try:
            _send(node, delivery, link, kind)
        except _Left as reason:
            notes.append(f"without {kind.replace('_', ' ')}: {reason}")
    for note in notes:
        log.warning(
            "report without companion", series=delivery.series_instance_uid, destination=link.peer.name, note=note
        )
    return "; ".join(notes)


def _send(node: NodeContext, delivery: DeliveryRow, link: PeerLink, kind: str) -> None:
    if not link.accepts(COMPANION_CLASSES[kind]):
        raise _Left(f"{link.peer.name} does not accept the class")
    rows = companions_for(node, delivery.series_instance_uid, delivery.revision, kind)
    with node.database.read() as connection:
        there = companions.taken(connection, delivery.destination, [row.sop_instance_uid for row in rows])
    for row in rows:
        if row.sop_instance_uid in there or row.part10 is None:
            continue
        reach("before-companion")
        try:
            status = link.store(row.part10)
        except PeerRefused as error:
            raise _Left(str(error)) from error
        with node.database.write() as connection:
            companions.note_taken(
                node.database,
                connection,
                row.sop_instance_uid,
                delivery.destination,
                status=status,
                at=node.clock(),
            )


def companions_for(node: NodeContext, series_instance_uid: str, revision: int, kind: str) -> list[CompanionRow]:
    """Return the companions of one kind, building and committing them the first time."""
    with node.database.read() as connection:
        known = companions.find(connection, series_instance_uid, revision, COMPANION_CLASSES[kind])
    if known:
        return known
    try:
        rows = _build(node, series_instance_uid, revision, kind)
    except FileNotFoundError as error:
        raise _Left("a spooled file is missing") from error
    except (MediqaError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, MediqaError) and error.retryable:
            raise
        log.error("companion not built", series=series_instance_uid, kind=kind, reason=type(error).__name__)
        raise _Left(f"it could not be built ({type(error).__name__})") from error
    with node.database.write() as connection:
        row = index.find_series(connection, series_instance_uid)
        if row is None or row.generation != labels.assessed_generation(connection, series_instance_uid, revision):
            raise _Left("the series has changed since")  # and its headers may name another patient now
        companions.save(node.database, connection, rows)
    return rows


def _build(node: NodeContext, series_instance_uid: str, revision: int, kind: str) -> list[CompanionRow]:
    with node.database.read() as connection:
        assessment = labels.load_assessment(connection, series_instance_uid, revision)
        maps = labels.load_maps(connection, series_instance_uid, revision)
        instances = index.current_instances(connection, series_instance_uid)
        series_uid = companion_series_uid(kind, assessment, node.device) if assessment is not None else ""
        first = companions.next_instance_number(connection, series_uid, revision)
    if assessment is None or maps is None or not instances:
        raise _Left("its maps or its images were not kept")
    if kind == "parametric_map" and assessment.modality == "OP":
        return []  # a photograph has no place in space: nothing is missing
    files = read_headers([node.spool.path(instance.path) for instance in instances])
    request = CompanionRequest(
        assessment=assessment,
        sources=files.headers,
        device=node.device,
        series_number=series_number(node, assessment.study_instance_uid, series_uid),
        first_instance_number=first,
        created_at=datetime.fromtimestamp(assessment.assessed_at.timestamp(), UTC),
        time_zone=node.time_zone,
    )
    built = _datasets(kind, request, explained_slices(files, assessment.primary, maps))
    return [
        CompanionRow(
            sop_instance_uid=str(dataset.SOPInstanceUID),
            series_instance_uid=series_instance_uid,
            study_instance_uid=assessment.study_instance_uid,
            revision=revision,
            sop_class_uid=COMPANION_CLASSES[kind],
            companion_series_instance_uid=series_uid,
            instance_number=int(dataset.InstanceNumber),
            part10=report_bytes(dataset),
            created_at=node.clock(),
        )
        for dataset in built
    ]


def _datasets(kind: str, request: CompanionRequest, slices: Sequence[ExplainedSlice]) -> list[Dataset]:
    if kind == "secondary_capture":
        from mediqa_node.dicom.secondary_capture import build_captures  # highdicom costs a second: only where wanted

        said = caption(request.assessment)
        pictures = [np.asarray(slice_picture(slices, index, said)) for index in range(len(slices))]
        return build_captures(request, pictures)
    from mediqa_node.dicom.parametric_map import build_parametric_map

    built = build_parametric_map(request, [part.map.quality for part in slices if part.map.quality is not None])
    if built is None:
        raise _Left("the headers do not say where the images lie")
    return [built]
