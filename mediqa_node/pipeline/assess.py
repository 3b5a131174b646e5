"""The worker's station: harvest and score a complete series, and create its deliveries.

One transaction at the end commits the assessment, the new state and every job that follows: a process
killed at any point leaves either all of it or nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from pydicom import Dataset

from mediqa_node.dicom.header import text
from mediqa_node.dicom.technique.dose_sr import dose_events
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import NotScorable, StorageFailed
from mediqa_node.domain.phantom import PhantomMeasurement
from mediqa_node.domain.series import Completed, Reason, ReasonCode, SeriesState
from mediqa_node.domain.technique import Technique
from mediqa_node.pipeline import dose_reports, policy
from mediqa_node.pipeline.checks import constancy
from mediqa_node.pipeline.copies import fill_identities
from mediqa_node.pipeline.identity import identities
from mediqa_node.pipeline.kept_files import FileChanged, require_same
from mediqa_node.pipeline.measures import measure_series, with_dose
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.parts import part, timed
from mediqa_node.pipeline.prepared import Prepared, prepared_of
from mediqa_node.pipeline.reject_notes import may_be_replaced, take_back
from mediqa_node.pipeline.score import SeriesFiles, assess, data_errors, harvest_series, read_headers, require_scorable
from mediqa_node.pipeline.sources import Sources
from mediqa_node.storage import (
    assessments,
    calibrations,
    companions,
    copies,
    index,
    measures,
    outbox,
    phantoms,
    rejections,
    retractions,
)
from mediqa_node.storage.database import Connection
from mediqa_node.storage.index import InstanceRow, SeriesRow
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("worker")


class _OtherReconstruction(NotScorable):
    """Another reconstruction of the same acquisition is scored."""

    def __init__(self, scored: str) -> None:
        super().__init__(ReasonCode.OTHER_RECONSTRUCTION, scored)
        self.scored = scored


def assess_series(node: NodeContext, series_instance_uid: str, generation: int) -> str:
    """Harvest and score a series as it was at `generation`; return the outcome in one word."""
    reach("score-begin")
    with node.database.read() as connection:
        row = index.find_series(connection, series_instance_uid)
        if row is None or row.generation != generation:
            return "superseded"
        if assessments.assessed_generation(connection, series_instance_uid, row.revision) == generation:
            return "already assessed"
    try:
        with timed("assess", series_instance_uid), prepared_of(node, series_instance_uid) as prepared:
            return _assess(node, row, prepared)
    except NotScorable as refused:
        scored_instead = refused.scored if isinstance(refused, _OtherReconstruction) else None
        return _not_scored(node, row, refused.reason, scored_instead=scored_instead)
    except FileChanged as changed:
        return _park(node, row, Reason(ReasonCode.FILE_CHANGED, str(changed)))
    except FileNotFoundError:
        return _park(node, row, Reason(ReasonCode.FILE_MISSING))
    except OSError as error:
        raise StorageFailed(f"files of series {series_instance_uid} cannot be read: {error.strerror}") from error


def _assess(node: NodeContext, row: SeriesRow, prepared: Prepared) -> str:
    fill_identities(node, row.series_instance_uid)
    instances = _instances(node, row)
    with part("verify"):
        require_same(node, instances, prepared.digest)
    with part("headers"):
        files = prepared.read_headers([node.spool.path(instance.path) for instance in instances])
    with part("harvest"):
        _read_documents(node, row, files.headers)
        technique = harvest(node, row, files)
    with part("measures"):
        _keep_measures(node, row, files, technique)
    with data_errors():
        rule = policy.phantom_rule(node, row, files.headers[0])
    if rule is not None:
        return _measure(node, row, files, technique, rule.name)
    assessment = _score(node, row, files, technique)
    with part("commit"):
        return _keep(node, row, assessment, files)


def harvest(node: NodeContext, row: SeriesRow, files: SeriesFiles) -> Technique:
    """Harvest the parameters of a series, with the dose events known of its study, and keep them."""
    technique = harvest_series(files, dose_reports.events_for(node, row, files))
    with node.database.write() as connection:
        assessments.save_technique(connection, row.series_instance_uid, technique)
    return technique


def _keep_measures(node: NodeContext, row: SeriesRow, files: SeriesFiles, technique: Technique) -> None:
    """Measure the pixels of a series, scored or not, and keep the measures with the content they are of."""
    if node.assessor is None:
        return
    measured = measure_series(files, technique, node.assessor.prompts, node.score.measured)
    if measured is not None:
        with node.database.write() as connection:
            measures.save(connection, measured, generation=row.generation)


def _instances(node: NodeContext, row: SeriesRow) -> list[InstanceRow]:
    """Return the current instances of a series; without any, its dose reports count no more.

    Raises:
        NotScorable: some were deleted after retention, or all were rejected.
    """
    series_instance_uid = row.series_instance_uid
    with node.database.write() as connection:
        rejections.apply(connection, series_instance_uid, Sources(node, connection).counts)
        instances = index.current_instances(connection, series_instance_uid)
        purged = index.is_purged(connection, series_instance_uid)
    if purged:
        log.error("late instance of a series whose source was deleted", series=series_instance_uid)
        raise NotScorable("purged", "the other instances were deleted after retention; the last report stands")
    if not instances:
        _read_dose_reports(node, row)
        raise NotScorable("rejected", "every instance was rejected, or none is kept")
    return instances


def _measure(node: NodeContext, row: SeriesRow, files: SeriesFiles, technique: Technique, rule: str) -> str:
    """Measure a phantom series; one that names several patients is withheld instead."""
    if (reason := open_identity(node, row, files)) is not None:
        return _not_scored(node, row, reason, state=SeriesState.WITHHELD)
    from mediqa_node.pipeline.phantom import measure  # imports scipy, which the courier does not need

    with data_errors():
        measured = measure(files, technique, rule)
    return _not_scored(node, row, Reason(ReasonCode.PHANTOM, measured.finding()), measured)


def _score(node: NodeContext, row: SeriesRow, files: SeriesFiles, technique: Technique) -> Assessment:
    require_scorable(technique)
    with data_errors():
        key = policy.check_scored(node, row, files.headers)
    if key is not None:
        with node.database.write() as connection:
            chosen = assessments.claim_acquisition(node.database, connection, key, row.series_instance_uid)
        if chosen != row.series_instance_uid:
            raise _OtherReconstruction(chosen)
    return score(node, files, technique, revision=row.revision + 1)


def score(node: NodeContext, files: SeriesFiles, technique: Technique, *, revision: int) -> Assessment:
    """Score a series now, with the calibrations that are approved now.

    Raises:
        NotScorable: as `pipeline.score.assess`.
    """
    if node.assessor is None:
        raise RuntimeError("this process has no model")
    with node.database.read() as connection:
        approved = calibrations.active(connection)  # read for each series: an approval needs no restart
    at = datetime.fromtimestamp(node.clock(), UTC)
    return assess(files, technique, replace(node.assessor, calibrations=approved), revision=revision, assessed_at=at)


def _read_documents(node: NodeContext, row: SeriesRow, headers: tuple[Dataset, ...]) -> None:
    """Apply dose reports to the series of their study.

    Raises:
        NotScorable: the series is a report or companion of this node.
    """
    with node.database.read() as connection:
        uid = row.series_instance_uid
        own = (outbox.is_own_report, companions.is_own, retractions.is_own)
        if any(is_own(connection, uid) for is_own in own):
            raise NotScorable("own_report", "sent back to the node that wrote it")
    _read_dose_reports(node, row)
    with data_errors():  # a dose report that cannot be read refuses its series, where `read_again` leaves it out
        for header in headers:
            dose_events(header)


def _read_dose_reports(node: NodeContext, row: SeriesRow) -> None:
    """Harvest the series again to whose studies the dose reports of a series belong."""
    for study in dose_reports.read_again(node, row.series_instance_uid):
        for uid in _harvested_series(node, study):
            harvest_again(node, uid)


def _harvested_series(node: NodeContext, study_instance_uid: str) -> set[str]:
    with node.database.read() as connection:
        return {
            other.series_instance_uid
            for other in index.series_of_study(connection, study_instance_uid)
            if assessments.load_technique(connection, other.series_instance_uid) is not None
        }


def harvest_again(node: NodeContext, series_instance_uid: str) -> None:
    """Harvest a series again because a dose report arrived after its images, or is gone; its score stays."""
    with node.database.read() as connection:
        row = index.find_series(connection, series_instance_uid)
        instances = index.current_instances(connection, series_instance_uid)
        if row is None or not instances:
            return
    technique = harvest(node, row, read_headers([node.spool.path(instance.path) for instance in instances]))
    with node.database.write() as connection:
        measured = measures.load(connection, series_instance_uid, row.generation)
        again = with_dose(measured, technique) if measured is not None else None
        if again is not None:
            measures.save(connection, again, generation=row.generation)


def _not_scored(
    node: NodeContext,
    row: SeriesRow,
    reason: Reason,
    measured: PhantomMeasurement | None = None,
    *,
    state: SeriesState = SeriesState.NOT_SCORED,
    scored_instead: str | None = None,
) -> str:
    """End a series without a score, and drop its earlier phantom measurement unless only the source was purged."""
    now = node.clock()
    with node.database.write() as connection:
        moved = index.move(
            connection,
            row.series_instance_uid,
            state,
            at=now,
            generation=row.generation,
            reason=reason,
            scored_instead=scored_instead,
            job=None,
        )
        if moved:
            if reason.code is not ReasonCode.PURGED and may_be_replaced(node, connection, row.series_instance_uid):
                index.release_acquisition(connection, row.series_instance_uid, at=now)
            outbox.supersede_deliveries(connection, row.series_instance_uid, reason="not scored", now=now)
            take_back(node, connection, row.series_instance_uid)
            if measured is not None:
                phantoms.save(connection, measured, at=now)
            elif reason.code is not ReasonCode.PURGED:
                phantoms.forget(connection, row.series_instance_uid)
    log.info("series not scored", series=row.series_instance_uid, reason=str(reason))
    return state.value.replace("_", " ").lower()


def _park(node: NodeContext, row: SeriesRow, reason: Reason) -> str:
    """Park a series; the deliveries of its last revision keep their state."""
    now = node.clock()
    with node.database.write() as connection:
        uid = row.series_instance_uid
        if index.move(connection, uid, SeriesState.PARKED, at=now, generation=row.generation, reason=reason, job=None):
            index.release_acquisition(connection, uid, at=now)
    log.error("series parked", series=row.series_instance_uid, reason=str(reason))
    return "parked"


def _keep(node: NodeContext, row: SeriesRow, assessment: Assessment, files: SeriesFiles) -> str:
    """Commit the assessment, the new state and the deliveries."""
    now = node.clock()
    withheld = _withheld(node, row, assessment, files)
    state = SeriesState.WITHHELD if withheld else SeriesState.ASSESSED
    destinations = () if withheld else policy.destinations(node, row, files.headers[0], assessment)
    unsent = Reason(ReasonCode.PULLED if row.pulled else ReasonCode.NO_DESTINATION)
    reason = withheld or (None if destinations else unsent)
    with node.database.write() as connection:
        moved = index.move(
            connection,
            row.series_instance_uid,
            state,
            at=now,
            generation=row.generation,
            reason=reason,
            revision=assessment.revision,
            job=None,
        )
        if not moved:
            return "superseded"
        question = copies.open_question(connection, row.series_instance_uid)
        if withheld and withheld.code is ReasonCode.IDENTITY and question is None:
            # any other reason applies to every reconstruction, and so does a patient who is in question
            index.release_acquisition(connection, row.series_instance_uid, at=now)
        assessments.save_assessment(connection, assessment, generation=row.generation)
        phantoms.forget(connection, row.series_instance_uid)
        to_deliver(node, connection, row, files, assessment.revision, destinations)
        reach("before-assessment-commit")
    reach("after-assessment-commit")
    _log(assessment, withheld)
    return "withheld" if withheld else "assessed"


def to_deliver(
    node: NodeContext,
    connection: Connection,
    row: SeriesRow,
    files: SeriesFiles,
    revision: int,
    destinations: Sequence[tuple[str, float]],
) -> None:
    """Replace the unfinished deliveries of a series by those of a new revision, each with the seconds to wait there."""
    uid, now = row.series_instance_uid, node.clock()
    outbox.supersede_deliveries(connection, uid, reason="a newer revision", now=now)
    if not destinations:
        take_back(node, connection, uid)
    leaves_at = _leaves_at(node, row, files, outbox.last_sent_at(connection, uid), now)
    for name, wait_s in destinations:
        outbox.add_delivery(
            node.database,
            connection,
            series_instance_uid=uid,
            revision=revision,
            destination=name,
            not_before=leaves_at,
            wait_for_study_until=leaves_at + wait_s,
            now=now,
        )
    enqueue_due(node, connection)


def open_identity(node: NodeContext, row: SeriesRow, files: SeriesFiles) -> Reason | None:
    """Return why nothing may be delivered because of whom the images name, or None."""
    differing = identities(files.headers)
    if differing:
        return Reason(ReasonCode.IDENTITY, f"images of this series name different {', '.join(differing)}")
    if not node.delivery.allow_empty_patient_id and not all(text(header, "PatientID") for header in files.headers):
        return Reason(ReasonCode.NO_PATIENT_ID, "Patient ID (0010,0020) is empty")
    with node.database.read() as connection:
        return copies.open_question(connection, row.series_instance_uid)


def _withheld(node: NodeContext, row: SeriesRow, assessment: Assessment, files: SeriesFiles) -> Reason | None:
    if (reason := open_identity(node, row, files)) is not None:
        return reason
    if not assessment.checkpoint.trained and not node.allow_untrained:
        return Reason(ReasonCode.UNTRAINED, "the weights were never trained; the score has no meaning")
    return constancy.reason_to_withhold(node)


def _leaves_at(node: NodeContext, row: SeriesRow, files: SeriesFiles, last_sent_at: float | None, now: float) -> float:
    """Return the earliest time of delivery: now if completeness is certain, and revisions some time apart."""
    sure = row.completion in (Completed.ANNOUNCED, Completed.CONTIGUOUS)
    rules = policy.completion_rules(node, row, files.headers[0])
    earliest = now if sure else min(row.last_instance_at, now) + rules.deliver_after_s
    # a report that was sent before the clock was set back has not been sent in the future
    apart = now if last_sent_at is None else min(last_sent_at, now) + node.delivery.revisions_apart_s
    return max(earliest, now, apart)


def enqueue_due(node: NodeContext, connection: Connection) -> int:
    """Enqueue a job for every due delivery, in the caller's transaction; return how many."""
    due = outbox.due_deliveries(connection, node.clock())
    for delivery in due:
        job = f"deliver:{delivery.id}:{delivery.jobs + 1}"
        if outbox.claim_delivery(connection, delivery, job):  # unless the other process was faster
            node.jobs.deliver(connection, job, delivery.id, delivery.destination)
    return len(due)


def _log(assessment: Assessment, withheld: Reason | None) -> None:
    log.info(
        "series assessed",
        series=assessment.series_instance_uid,
        revision=assessment.revision,
        quality=round(assessment.quality, 4),
        verdict=assessment.verdict,
        slices=len(assessment.primary.slices),
        inference_ms=round(1000 * sum(part.inference_s for part in (assessment.primary, *assessment.others))),
        trained=assessment.checkpoint.trained,
        weights=assessment.checkpoint.sha256[:16],
        withheld=str(withheld) if withheld else None,
    )
