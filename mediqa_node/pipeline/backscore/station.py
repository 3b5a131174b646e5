"""The worker's side: score one series of a set.

The score becomes an assessment of the series' own where there is no report of it; otherwise it is kept alongside, so
that the reported score stays the one that pages show and a later revision follows the report that the archive has. A
series that is refused stays as it was.
"""

import structlog

from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.backscore import BackscoreSet, ItemState, PauseReason, SetState
from mediqa_node.domain.errors import NotScorable, StorageFailed
from mediqa_node.domain.series import Reason, ReasonCode, SeriesState
from mediqa_node.pipeline import assess, policy
from mediqa_node.pipeline.backscore.feeder import gives_way
from mediqa_node.pipeline.checks import constancy
from mediqa_node.pipeline.kept_files import FileChanged, require_same
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.score import SeriesFiles, data_errors, read_headers
from mediqa_node.storage import assessments, backscores, index, series_changes
from mediqa_node.storage.backscores import ItemRow
from mediqa_node.storage.database import Connection
from mediqa_node.storage.index import SeriesRow
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("worker")

_TAKES_A_SCORE = (SeriesState.ASSESSED, SeriesState.NOT_SCORED)


def backscore_series(node: NodeContext, number: int, series_instance_uid: str) -> str:
    """Score a series for a set, unless the set has stopped or a live series waits; return the outcome in one word."""
    with node.database.read() as connection:
        one = backscores.find(connection, number)
        item = backscores.find_item(connection, number, series_instance_uid)
        row = index.find_series(connection, series_instance_uid)
        is_reported = row is not None and backscores.is_reported(connection, series_instance_uid, row.revision)
        waits = gives_way(node, connection)
    if one is None or item is None or item.state is not ItemState.QUEUED:
        return "over"
    if one.state is not SetState.RUNNING or waits:
        return _put_back(node, item)
    if (obstacle := _obstacle(node, one)) is not None:
        return _pause(node, one, item, obstacle)
    if row is None or row.generation != item.generation or row.state in (SeriesState.RECEIVING, SeriesState.READY):
        return _end(node, item, ItemState.CHANGED)
    return _attempt(node, one, item, row, is_own=one.with_reports or (row.state in _TAKES_A_SCORE and not is_reported))


def _attempt(node: NodeContext, one: BackscoreSet, item: ItemRow, row: SeriesRow, *, is_own: bool) -> str:
    try:
        files = _files(node, row)
        assessment = _score(node, row, files, revision=row.revision + is_own)
        return _keep(node, one, item, row, files, assessment, is_own=is_own)
    except NotScorable as refused:
        return _end(node, item, ItemState.REFUSED, refused.reason)
    except FileChanged as changed:
        return _end(node, item, ItemState.FAILED, Reason(ReasonCode.FILE_CHANGED, str(changed)))
    except FileNotFoundError:
        with node.database.read() as connection:
            is_purged = index.is_purged(connection, row.series_instance_uid)  # since the rows were read
        return (
            _end(node, item, ItemState.REFUSED, Reason(ReasonCode.PURGED))
            if is_purged
            else _end(node, item, ItemState.FAILED, Reason(ReasonCode.FILE_MISSING))
        )
    except OSError as error:
        raise StorageFailed(f"files of series {row.series_instance_uid} cannot be read: {error.strerror}") from error


def _obstacle(node: NodeContext, one: BackscoreSet) -> PauseReason | None:
    """Return why this process must not score for a set, or None."""
    if node.assessor is None:
        raise RuntimeError("this process has no model")
    checkpoint = node.assessor.scorer.checkpoint
    if (checkpoint.sha256, checkpoint.card_sha256) != (one.weights.sha256, one.weights.card_sha256):
        return PauseReason.OTHER_CHECKPOINT
    if not checkpoint.trained and not node.allow_untrained:
        return PauseReason.UNTRAINED
    return PauseReason.CONSTANCY if constancy.reason_to_withhold(node) is not None else None


def _files(node: NodeContext, row: SeriesRow) -> SeriesFiles:
    """Return the files of a series, as they were received.

    Raises:
        NotScorable: some were deleted after retention, or all were rejected, or a header cannot be read.
        FileChanged, FileNotFoundError: as `require_same`.
    """
    with node.database.read() as connection:
        instances = index.current_instances(connection, row.series_instance_uid)
        is_purged = index.is_purged(connection, row.series_instance_uid)
    if is_purged or not instances:
        raise NotScorable(ReasonCode.PURGED if is_purged else ReasonCode.REJECTED)
    require_same(node, instances)
    return read_headers([node.spool.path(instance.path) for instance in instances])


def _score(node: NodeContext, row: SeriesRow, files: SeriesFiles, *, revision: int) -> Assessment:
    """Score a series whatever its age; the other rules of the site hold."""
    if (reason := assess.open_identity(node, row, files)) is not None:
        raise NotScorable(reason.code, reason.detail)
    with data_errors():
        if (rule := policy.phantom_rule(node, row, files.headers[0])) is not None:
            raise NotScorable(ReasonCode.PHANTOM, rule.name)
        policy.check_rules(node, row, files.headers[0])
        key = policy.claim_of(node, row, files.headers)
    with node.database.read() as connection:
        chosen = assessments.scored_of_acquisition(connection, key) if key is not None else None
        technique = assessments.load_technique(connection, row.series_instance_uid)
    if chosen not in (None, row.series_instance_uid):
        raise NotScorable(ReasonCode.OTHER_RECONSTRUCTION, str(chosen))
    return assess.score(node, files, technique or assess.harvest(node, row, files), revision=revision)


def _keep(
    node: NodeContext,
    one: BackscoreSet,
    item: ItemRow,
    row: SeriesRow,
    files: SeriesFiles,
    assessment: Assessment,
    *,
    is_own: bool,
) -> str:
    """Commit the score and the outcome, unless the series has changed while it was scored.

    Raises:
        NotScorable: another reconstruction of the acquisition was scored meanwhile.
    """
    uid, now = row.series_instance_uid, node.clock()
    state = ItemState.SCORED if is_own else ItemState.ALONGSIDE
    destinations = policy.destinations(node, row, files.headers[0], assessment) if one.with_reports else ()
    key = policy.claim_of(node, row, files.headers) if is_own else None
    with node.database.write() as connection:
        index.lock_series(connection, uid)
        if index.find_series(connection, uid) != row:
            backscores.put_back(connection, item)
            return "put back"
        if not backscores.keep_score(connection, item, state, assessment, at=now):
            return "over"
        if key is not None and (chosen := assessments.claim_acquisition(node.database, connection, key, uid)) != uid:
            raise NotScorable(ReasonCode.OTHER_RECONSTRUCTION, chosen)
        if is_own:
            _replace(connection, one, row, assessment, now=now, is_sent=bool(destinations))
        else:
            series_changes.note(connection, uid)
        if one.with_reports:
            assess.to_deliver(node, connection, row, files, assessment.revision, destinations)
        reach("before-backscore-commit")
    log.info("series back-scored", series=uid, set=one.id, quality=round(assessment.quality, 4), kept=str(state))
    return str(state)


def _replace(
    connection: Connection, one: BackscoreSet, row: SeriesRow, assessment: Assessment, *, now: float, is_sent: bool
) -> None:
    """Make an assessment the last one of its series."""
    unsent = ReasonCode.NO_DESTINATION if one.with_reports else ReasonCode.BACK_SCORED
    index.move(
        connection,
        row.series_instance_uid,
        SeriesState.ASSESSED,
        at=now,
        generation=row.generation,
        reason=None if is_sent else Reason(ReasonCode.PULLED if row.pulled else unsent),
        revision=assessment.revision,
        job=None,
    )
    assessments.save_assessment(connection, assessment, generation=row.generation)


def _put_back(node: NodeContext, item: ItemRow) -> str:
    with node.database.write() as connection:
        backscores.put_back(connection, item)
    return "put back"


def _pause(node: NodeContext, one: BackscoreSet, item: ItemRow, reason: PauseReason) -> str:
    with node.database.write() as connection:
        backscores.put_back(connection, item)
        if backscores.pause(connection, one.id, reason):
            log.warning("back-scoring paused", set=one.id, reason=str(reason))
    return "put back"


def _end(node: NodeContext, item: ItemRow, state: ItemState, reason: Reason | None = None) -> str:
    with node.database.write() as connection:
        backscores.end(connection, item, state, reason, at=node.clock())
    log.info("series not back-scored", series=item.series_instance_uid, set=item.set_id, reason=str(reason or state))
    return str(state)
