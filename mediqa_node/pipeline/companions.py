"""Companions: pictures and maps of the score, sent after the report has arrived.

A companion never parks a report and never causes it to be sent again. One sweep of the courier builds and
sends companions, one series at a time, over separate associations. An interrupted attempt is repeated at the
times below, then abandoned.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import structlog
from pydicom import Dataset

from mediqa_node.dicom.companions.request import COMPANION_CLASSES, CompanionRequest, companion_series_uid
from mediqa_node.dicom.report.build import report_bytes
from mediqa_node.domain.errors import MediqaError, OutOfResources, PeerRefused, PeerUnavailable, QueryUnanswered
from mediqa_node.domain.series import CompanionState, DeliveryReason, DeliveryState
from mediqa_node.image.maps.overlay import ExplainedSlice
from mediqa_node.image.maps.pictures import slice_picture
from mediqa_node.network.peer_link import Link
from mediqa_node.network.sender import open_link, report_contexts
from mediqa_node.pipeline.deliver import obstacle_in
from mediqa_node.pipeline.heartbeat import goes_on
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.peer_identity import Outcome, identity_check
from mediqa_node.pipeline.report import series_number
from mediqa_node.pipeline.score import read_headers
from mediqa_node.pipeline.score_maps import caption, explained_slices
from mediqa_node.storage import assessments, companions, health, index, outbox
from mediqa_node.storage.companions import CompanionRow
from mediqa_node.storage.outbox import DeliveryRow
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("courier")

TRIES_AFTER_S = (0.0, 300.0, 1800.0)
"""When companions are attempted, seconds after the report arrived."""
_PATIENCE_S = 15.0
"""Time-out for a silent destination, since the next series waits meanwhile."""


class _Left(MediqaError):
    """Nothing will be sent, for the reason given."""


class _Later(_Left):
    """Nothing can be sent yet."""

    retryable = True


def send_due_companions(node: NodeContext, stopping: Callable[[], bool] = lambda: False) -> int:
    """Send the companions that are due; return for how many reports they were attempted."""
    with node.database.read() as connection:
        due = outbox.companions_due(connection, node.clock())
    silent: set[str] = set()
    tried = 0
    for delivery in due:
        if stopping():
            break
        _begin(node, delivery)
        _end(node, delivery, _send_companions(node, delivery, silent))
        tried += 1
        goes_on()
    return tried


def _begin(node: NodeContext, delivery: DeliveryRow) -> None:
    """Commit the time of the next attempt first: an attempt that ends the process is not repeated at once."""
    now = node.clock()
    times = (delivery.done_at + after for after in TRIES_AFTER_S) if delivery.done_at is not None else ()
    again_at = next((at for at in times if at > now), None)
    with node.database.write() as connection:
        outbox.update_delivery(connection, delivery.id, companions_at=again_at, companions_note="not finished")


def _end(node: NodeContext, delivery: DeliveryRow, problems: list[tuple[str, Exception]]) -> None:
    note = "; ".join(f"without {kind.replace('_', ' ')}: {_reason(error)}" for kind, error in problems)
    state = CompanionState.INCOMPLETE if problems else CompanionState.SENT
    values: dict[str, object] = {"companions": state, "companions_note": note or None}
    if not any(_may_pass(error) for _, error in problems):
        values["companions_at"] = None
    with node.database.write() as connection:
        outbox.update_delivery(connection, delivery.id, **values)
    if note:
        facts = {"series": delivery.series_instance_uid, "destination": delivery.destination}
        log.warning("report without companion", **facts, note=note)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "a spooled file is missing"
    return str(error) if isinstance(error, MediqaError) else f"it could not be built or sent ({type(error).__name__})"


def _may_pass(error: Exception) -> bool:
    """Return whether another attempt could succeed: not if the same code would fail on the same files."""
    if isinstance(error, MediqaError):
        return error.retryable
    return isinstance(error, (OSError, MemoryError)) and not isinstance(error, FileNotFoundError)


def _send_companions(node: NodeContext, delivery: DeliveryRow, silent: set[str]) -> list[tuple[str, Exception]]:
    """Send the companions of one report; return the kinds that failed, with the errors.

    Args:
        silent: destinations that did not answer in this round; extended here.
    """
    problems: list[tuple[str, Exception]] = []
    was_silent = delivery.destination in silent
    built = _built(node, delivery, problems)
    try:
        if any(built.values()):
            with _link(node, delivery, silent) as link:
                _send_all(node, delivery, link, built, problems)
    except Exception as error:  # the report has already arrived
        problems.append(("companions", error))
    for kind, problem in problems:
        if isinstance(problem, PeerUnavailable):
            silent.add(delivery.destination)
        elif not isinstance(problem, MediqaError):
            log.error("companion failed", series=delivery.series_instance_uid, kind=kind, exc_info=problem)
    if any(built.values()) and not was_silent:
        _note_answer(node, delivery, [problem for _, problem in problems])
    return problems


def _note_answer(node: NodeContext, delivery: DeliveryRow, problems: list[Exception]) -> None:
    """Keep for `status` whether the destination answers, if the attempt shows it."""
    dead = next((error for error in problems if isinstance(error, PeerUnavailable)), None)
    if (problems and dead is None) or isinstance(dead, QueryUnanswered | OutOfResources):
        return
    code, message = (DeliveryReason.NO_ANSWER, str(dead)) if dead is not None else (None, "")
    with node.database.write() as connection:
        health.note_attempt(node.database, connection, delivery.destination, code, message, at=node.clock())


def _built(
    node: NodeContext, delivery: DeliveryRow, problems: list[tuple[str, Exception]]
) -> dict[str, list[CompanionRow]]:
    """Build everything before associating: peers end idle associations."""
    built = {}
    for kind in node.companions.wanted:
        try:
            _check(node, delivery)
            built[kind] = companions_for(node, delivery.series_instance_uid, delivery.revision, kind)
        except Exception as error:  # the other kind may succeed
            problems.append((kind, error))
    return built


def _send_all(
    node: NodeContext,
    delivery: DeliveryRow,
    link: Link,
    built: dict[str, list[CompanionRow]],
    problems: list[tuple[str, Exception]],
) -> None:
    for kind, rows in built.items():
        try:
            if rows and not link.accepts(COMPANION_CLASSES[kind]):
                raise _Left(f"{link.peer.name} does not accept the class")
            _send(node, delivery, link, rows)
        except Exception as error:  # the other kind may succeed
            problems.append((kind, error))


@contextmanager
def _link(node: NodeContext, delivery: DeliveryRow, silent: set[str]) -> Iterator[Link]:
    """Open an association with the destination, if its study still names the same patient."""
    peer = node.peer(delivery.destination)
    if peer is None:
        raise PeerRefused(f"{delivery.destination} is no longer a configured peer")
    if peer.name in silent:
        raise PeerUnavailable(f"{peer.name} did not accept those of another series just now")
    contexts = report_contexts(peer, [COMPANION_CLASSES[kind] for kind in node.companions.wanted])
    timeout_s = min(node.delivery.timeout_s, _PATIENCE_S)
    with open_link(peer, contexts, ae_title=node.device.ae_title, timeout_s=timeout_s) as link:
        try:
            obstacle, _ = identity_check(node, delivery, link)
        except QueryUnanswered:
            if delivery.reason_code is not DeliveryReason.IDENTITY_NOT_CHECKED:
                raise
            obstacle = None  # the report went without an answer, and its companions follow it
        if obstacle is not None and obstacle.state is DeliveryState.WITHHELD:
            raise _Left(obstacle.message)
        yield link


def _send(node: NodeContext, delivery: DeliveryRow, link: Link, rows: Sequence[CompanionRow]) -> None:
    with node.database.read() as connection:
        there = companions.taken(connection, delivery.destination, [row.sop_instance_uid for row in rows])
    left = [row for row in rows if row.sop_instance_uid not in there]
    for sent, row in enumerate(left):
        try:
            _send_one(node, delivery, link, row)
        except MediqaError as error:  # the same error, with how much is missing
            raise type(error)(f"{error} ({len(left) - sent} of {len(rows)} not sent)") from error


def _check(node: NodeContext, delivery: DeliveryRow) -> None:
    """Raise if the series has changed since it was scored: its headers may name another patient."""
    with node.database.read() as connection:
        _require(obstacle_in(node, connection, delivery))


def _require(obstacle: Outcome | None) -> None:
    if obstacle is not None:
        raise (_Later if obstacle.state is DeliveryState.WAITING else _Left)(obstacle.message)


def _send_one(node: NodeContext, delivery: DeliveryRow, link: Link, row: CompanionRow) -> None:
    if row.part10 is None:
        raise _Left("the bytes were deleted after retention")
    which = (row.sop_instance_uid, delivery.destination)
    with node.database.write() as connection:
        index.lock_series(connection, delivery.series_instance_uid)
        _require(obstacle_in(node, connection, delivery))
        # committed before the first byte leaves: from here on it may be at the peer
        is_first = companions.note_begun(node.database, connection, *which, at=node.clock())
    reach("before-companion")
    try:
        status = link.store(row.part10, was_sent=delivery.companions_note is not None)
    except (PeerRefused, OutOfResources):
        if is_first:
            with node.database.write() as connection:
                companions.note_refused(connection, *which)
        raise
    with node.database.write() as connection:
        companions.note_taken(connection, *which, status=status, at=node.clock())


def companions_for(node: NodeContext, series_instance_uid: str, revision: int, kind: str) -> list[CompanionRow]:
    """Return the companions of one kind, building and committing them the first time."""
    with node.database.read() as connection:
        known = companions.find(connection, series_instance_uid, revision, COMPANION_CLASSES[kind])
    if known:
        return known
    rows = _build(node, series_instance_uid, revision, kind)
    with node.database.write() as connection:
        row = index.find_series(connection, series_instance_uid)
        if row is None or row.generation != assessments.assessed_generation(connection, series_instance_uid, revision):
            raise _Left("the series has changed since")  # its headers may name another patient
        companions.save(node.database, connection, rows)
    return rows


def _build(node: NodeContext, series_instance_uid: str, revision: int, kind: str) -> list[CompanionRow]:
    with node.database.read() as connection:
        assessment = assessments.load_assessment(connection, series_instance_uid, revision)
        maps = assessments.load_maps(connection, series_instance_uid, revision)
        instances = index.current_instances(connection, series_instance_uid)
        series_uid = companion_series_uid(kind, assessment, node.device) if assessment is not None else ""
        first = companions.next_instance_number(connection, series_uid, revision)
    if assessment is None or maps is None or not instances:
        raise _Left("its maps or its images were not kept")
    if kind == "parametric_map" and assessment.modality == "OP":
        return []  # a photograph has no position in the patient
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
        from mediqa_node.dicom.companions.secondary_capture import (
            build_captures,  # highdicom costs a second: only where wanted
        )

        said = caption(request.assessment)
        pictures = [np.asarray(slice_picture(slices, index, said)) for index in range(len(slices))]
        return build_captures(request, pictures)
    from mediqa_node.dicom.companions.parametric_map import build_parametric_map

    built = build_parametric_map(request, [part.map.quality for part in slices if part.map.quality is not None])
    if built is None:
        raise _Left("the headers do not say where the images lie")
    return [built]
