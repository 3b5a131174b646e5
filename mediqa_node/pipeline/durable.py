"""The stations as durable jobs on DBOS: a committed job runs even if processes die in between.

Jobs carry names and numbers, never images: a job reads everything from the database when it runs,
and does nothing if its series has changed. `score` runs one at a time in each
worker (several on a GPU); `deliver` is partitioned by destination, so that a PACS that is down delays no other.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
import structlog
from dbos import DBOS, DBOSClient, DBOSPortableJSONSerializer, EnqueueOptions, WorkflowStatus, _workflow_commands
from dbos._schemas.system_database import SystemSchema

from mediqa_node.domain.errors import JobFailed, MediqaError, fault_of
from mediqa_node.storage.database import Database

PIPELINE_VERSION = "pipeline-1"
"""Raised by hand when queued work of an older version could not run. By default DBOS hashes the source,
which would strand the queue at every upgrade."""

log = structlog.get_logger("jobs")

POSTPONED = "postponed"
SCORE, DELIVER = "score", "deliver"
BACKSCORE = "backscore"
"""A kind of job in the queue of `SCORE`: its place is that of a worker."""
POLL_S, IDLE_POLL_ROUND_S = 0.05, 0.2
"""How often the engine looks for jobs while the node is busy, and while it is not. A hand-over takes half of it."""
IDLE_POLL_S = 10.0
"""How often an idle node does, in case that `storage/activity.py` has missed something."""
_SCORE_ATTEMPTS = 3
_DELIVERIES_AT_ONCE = 8
_JOBS = SystemSchema.workflow_status.c
_QUEUED = sa.select(
    sa.select(sa.literal(1)).where(_JOBS.queue_name == sa.bindparam("queue"), _JOBS.status == "ENQUEUED").exists()
)
_CAN_WAIT, _LAST = 10, 20
"""Priorities of work that is in no hurry, and of back-scores. That of other work is 0; the lowest number goes first."""


class DurableJobs:
    """Enqueues jobs inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._client = DBOSClient(
            system_database_engine=database.engine, serializer=DBOSPortableJSONSerializer(), lazy=True
        )

    def score(
        self, connection: sa.Connection, job: str, series_instance_uid: str, generation: int, *, can_wait: bool = False
    ) -> None:
        """Enqueue the assessment of a series; the same job twice is one job.

        Args:
            can_wait: every other series goes first.
        """
        options = _options(SCORE, job)
        if can_wait:
            options["priority"] = _CAN_WAIT
        self._client.enqueue_in_transaction(connection, options, series_instance_uid, generation)

    def backscore(self, connection: sa.Connection, job: str, number: int, series_instance_uid: str) -> None:
        """Enqueue the score of a series for a set of that number: every other series goes first."""
        options = _options(SCORE, job)
        options["workflow_name"], options["priority"] = BACKSCORE, _LAST
        self._client.enqueue_in_transaction(connection, options, number, series_instance_uid)

    def deliver(self, connection: sa.Connection, job: str, delivery_id: int, destination: str) -> None:
        """Enqueue one attempt to send a report."""
        options = _options(DELIVER, job)
        options["queue_partition_key"] = destination
        self._client.enqueue_in_transaction(connection, options, delivery_id)

    def ended(self, jobs: Sequence[str]) -> dict[str, str | None]:
        """Return the jobs that have ended, each with the reason of its failure, or None."""
        if not jobs:
            return {}
        over = ["SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED"]
        found = self._client.list_workflows(workflow_ids=list(jobs), status=over, load_input=False)
        return {workflow.workflow_id: _why(workflow) for workflow in found}

    def take_back(self, executor_id: str | None = None) -> int:
        """Return the jobs that a dead process has begun to their queues; return how many.

        Args:
            executor_id: its name in the engine; None: those of all processes, while none runs.
        """
        begun = self._client.list_workflows(
            status="PENDING", executor_id=executor_id, load_input=False, load_output=False
        )
        system = self._client._sys_db  # a version of DBOS without this method fails `tests/pipeline/test_take_over.py`
        return sum(
            system.reenqueue_for_recovery(job.workflow_id, [str(job.executor_id)], str(job.queue_name))
            for job in begun
            if job.queue_name in (SCORE, DELIVER)
        )

    def forget(self, *, ended_before: float, kind: str | None = None, at_most: int = 1000) -> int:
        """Delete the engine's records of jobs that ended before a time; return how many.

        Args:
            kind: only jobs of this kind, such as BACKSCORE.
        """
        before = datetime.fromtimestamp(ended_before, UTC).isoformat()
        over = ["SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED"]
        old = self._client.list_workflows(
            status=over, name=kind, end_time=before, limit=at_most, load_input=False, load_output=False
        )
        self._client.delete_workflows([workflow.workflow_id for workflow in old])
        return len(old)


def _why(workflow: WorkflowStatus) -> str | None:
    if workflow.status == "SUCCESS":
        return None
    if workflow.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
        return "it ended its process again and again"
    return str(workflow.error or workflow.status.lower())  # the engine keeps the message of an error, not its class


def _options(name: str, job: str) -> EnqueueOptions:
    return EnqueueOptions(workflow_name=name, queue_name=name, workflow_id=job, app_version=PIPELINE_VERSION)


def launch(
    database: Database,
    *,
    executor_id: str,
    score: Callable[[str, int], str] | None = None,
    backscore: Callable[[int, str], str] | None = None,
    scores_at_once: int = 1,
    deliver: Callable[[int], str] | None = None,
) -> "Gate":
    """Start the engine in this process for the given stations; return the gate that holds it back, open.

    Args:
        executor_id: stable and unique among the processes of all hosts; after a crash the process with the same name
            resumes its unfinished jobs.
        backscore: runs in the queue of `score`, only along with it.
        scores_at_once: series assessed concurrently by this process. More than one pays on a GPU: while one series is
            decoded another is scored, and their images share batches.
    """
    config: Any = {
        "name": "mediqa-node",
        "system_database_url": database.url,
        "system_database_engine": database.engine,
        "application_version": PIPELINE_VERSION,
        "executor_id": executor_id,
        "serializer": DBOSPortableJSONSerializer(),
        "log_level": "CRITICAL",  # it would print pages; what its jobs raise is logged here
        "run_migrations": False,
        "scheduler_polling_interval_sec": 3600.0,
    }
    engine = DBOS(config=config)
    _slow_down(engine)
    if score is not None:
        DBOS.workflow(name=SCORE, max_recovery_attempts=_SCORE_ATTEMPTS)(_as_step(score, SCORE))
    if backscore is not None:
        DBOS.workflow(name=BACKSCORE, max_recovery_attempts=_SCORE_ATTEMPTS)(_as_step(backscore, BACKSCORE))
    if deliver is not None:
        DBOS.workflow(name=DELIVER, max_recovery_attempts=100)(_as_step(deliver, DELIVER))
    DBOS.listen_queues([name for name, station in ((SCORE, score), (DELIVER, deliver)) if station is not None])
    DBOS.launch()
    if score is not None:
        DBOS.register_queue(SCORE, worker_concurrency=scores_at_once, polling_interval_sec=POLL_S)
    if deliver is not None:
        DBOS.register_queue(
            DELIVER,
            partition_worker_concurrency=1,
            worker_concurrency=_DELIVERIES_AT_ONCE,
            polling_interval_sec=POLL_S,
        )
    return Gate(engine._sys_db, {SCORE: scores_at_once, DELIVER: _DELIVERIES_AT_ONCE})


def _slow_down(engine: DBOS) -> None:
    """Look seldom for resumed, forked, delayed and timed-out workflows: the node has none of them.

    There is no setting for it; a version of DBOS without these attributes fails `tests/pipeline/test_pace.py`.
    """
    engine._registry.get_internal_queue()._polling_interval_sec = 60.0
    _workflow_commands._BACKGROUND_JOBS_INTERVAL_SEC = 60.0


def _as_step(station: Callable[..., str], name: str) -> Callable[..., str]:
    """Return a workflow of one step; the recorded result keeps a finished job from running again.

    When the local disk or database fails, the job ends as postponed and frees its place in the queue;
    the liveness sweep enqueues the work again.
    """

    def guarded(*arguments: Any) -> str:
        log.debug("job started", job=name, arguments=list(arguments))
        try:
            return station(*arguments)
        except MediqaError as error:
            if not error.retryable:
                raise
            log.warning("job postponed", job=name, reason=str(error), hourly_for=(name, type(error)))
            return POSTPONED
        except Exception as error:
            log.exception("job failed", job=name, arguments=list(arguments))
            raise JobFailed(f"internal error: {fault_of(error)}") from error

    step = DBOS.step(name=f"{name}-step")(guarded)

    def workflow(*arguments: Any) -> str:
        return step(*arguments)

    workflow.__qualname__ = name
    return workflow


class Gate:
    """Lets the engine look for jobs while the node has work, and seldom while it has none.

    The engine polls its queues with several queries each time, and cannot be woken: an interval that was raised falls
    by only a tenth with each poll, so that the first job after a pause would wait. Its interval therefore stays short,
    and the queries are held back here: all of them while the gate is closed, and all but one while no job is queued. A
    version of DBOS without these methods fails `tests/pipeline/test_pace.py`.
    """

    def __init__(self, system: Any, at_once: Mapping[str, int]) -> None:
        self.is_open = True
        self._at_once = at_once
        self._engine = system.engine
        self._dequeue_scopes, self._get_queue = system.dequeue_scopes, system.get_queue
        self._queues: dict[str, Any] = {}
        self._looked = 0.0
        system.dequeue_scopes, system.get_queue = self._scopes, self._queue

    def _scopes(self, queue: str) -> list[str | None]:
        now = time.monotonic()
        passes = self._is_queued(queue) if self.is_open else now - self._looked >= IDLE_POLL_S
        if self.is_open or passes:
            self._looked = now
        found: list[str | None] = self._dequeue_scopes(queue) if passes else []
        return found

    def _is_queued(self, queue: str) -> bool:
        with self._engine.connect() as connection:
            return bool(connection.execute(_QUEUED, {"queue": queue}).scalar_one())

    def _queue(self, name: str, **options: Any) -> Any:
        if name not in self._queues:
            self._queues[name] = self._get_queue(name, **options)
        queue = self._queues[name]
        if queue is not None:
            # the engine keeps one value for the workers of all hosts
            queue._worker_concurrency = self._at_once.get(name, queue._worker_concurrency)
            queue._polling_interval_sec = POLL_S if self.is_open else IDLE_POLL_ROUND_S
        return queue


def shut_down(*, within_s: int) -> None:
    """Finish running jobs, then stop the engine; the rest resumes at the next start."""
    DBOS.destroy(workflow_completion_timeout_sec=within_s)


def migrate(database: Database) -> None:
    """Migrate the engine's tables. Call it once, before any process starts."""
    DBOS.migrate(database.url)
