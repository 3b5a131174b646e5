"""Periodic sweeps: they only find work and enqueue it, so that running one twice is harmless."""

import time
from collections.abc import Callable, Mapping
from threading import Event, Thread

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from mediqa_node.decode.reader import FrameReader
from mediqa_node.domain.commands import CommandAction
from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.series import DeliveryReason, DeliveryState, InstanceStatus, Reason, ReasonCode, SeriesState
from mediqa_node.pipeline.assess import enqueue_due
from mediqa_node.pipeline.backscore import feeder
from mediqa_node.pipeline.checks import constancy
from mediqa_node.pipeline.clock_watch import ClockWatch
from mediqa_node.pipeline.commands import QUICK_ACTIONS, CommandSweep, Perform
from mediqa_node.pipeline.commitment_proxy import CommitmentSweep, is_wanted
from mediqa_node.pipeline.companions import send_due_companions
from mediqa_node.pipeline.completion_sweep import CompletionSweep
from mediqa_node.pipeline.copies import Copies, digest_for_retention
from mediqa_node.pipeline.deliver import update_series_state
from mediqa_node.pipeline.durable import DurableJobs, Gate
from mediqa_node.pipeline.export.nightly import NightlyExport
from mediqa_node.pipeline.heartbeat import Pulse
from mediqa_node.pipeline.move import send_due_moves
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.retraction import send_due_retractions
from mediqa_node.pipeline.trends import TrendSweep
from mediqa_node.pipeline.worklist import WorklistSweep
from mediqa_node.storage import (
    activity,
    assessments,
    clock,
    commitment_requests,
    commitments,
    companions,
    copies,
    forwards,
    index,
    outbox,
    procedure_steps,
    report_commitments,
    retention,
)
from mediqa_node.storage.database import Connection
from mediqa_node.storage.index import InstanceRow, SeriesRow
from mediqa_node.storage.outbox import DeliveryRow

log = structlog.get_logger("courier")

BUSY_ROUND_S, IDLE_ROUND_S = 0.05, 0.5
"""Pause between two rounds while something moves, and while nothing does."""
DUE_EVERY_S = 0.5
COMPANIONS_EVERY_S = 1.0
RETRACTIONS_EVERY_S = 2.0
COMMITMENT_EVERY_S = 2.0
COPIES_EVERY_S = 0.3
MOVES_EVERY_S = 0.5
COMMANDS_EVERY_S = 0.5
SLOW_COMMANDS_EVERY_S = 2.0
TRENDS_EVERY_S = 2.0
_MAY_TAKE_S = 60.0
"""How long a sweep may wait for peers or a decoder and still count as one that runs."""
LIVENESS_EVERY_S = 5.0
RETENTION_EVERY_S = 3600.0
CONSTANCY_EVERY_S = 600.0
TEMPORARY_OLDER_THAN_S = 2 * 3600.0
JOBS_KEPT_S = 7 * 86400.0


def schedule(
    node: NodeContext,
    jobs: DurableJobs,
    stopping: Callable[[], bool] = lambda: False,
    nightly: NightlyExport | None = None,
) -> BackgroundScheduler:
    """Return a scheduler, in memory, with what is done by the hour; the caller starts and stops it.

    It goes by the wall clock: see `rearm`. Everything faster goes by `Loop` and `Rounds`.

    Args:
        stopping: whether the process is about to end: a long run breaks off.
        nightly: the nightly export, or None.
    """
    scheduler = _scheduler(
        node.pulse,
        ("retention", RETENTION_EVERY_S, lambda: retain(node)),
        ("forget", RETENTION_EVERY_S, lambda: jobs.forget(ended_before=node.clock() - JOBS_KEPT_S)),
    )
    if nightly is not None and (at := nightly.rules.hour_and_minute) is not None:
        night = CronTrigger(hour=at[0], minute=at[1], timezone=nightly.time_zone)
        scheduler.add_job(_guarded("export", lambda: nightly.run(stopping)), night, id="export")
    return scheduler


def rearm(scheduler: BackgroundScheduler) -> None:
    """Have every job of a scheduler wait from now on: the wall clock was set."""
    for job in scheduler.get_jobs():
        trigger = job.trigger
        if isinstance(trigger, IntervalTrigger):  # which keeps the time at which it was made
            trigger = IntervalTrigger(seconds=int(trigger.interval.total_seconds()))
        job.reschedule(trigger)


class Loop(Thread):
    """A sweep in a thread of its own, some time apart whatever the wall clock does."""

    def __init__(self, pulse: Pulse, name: str, every_s: float, sweep: Callable[[], object], stop: Event) -> None:
        super().__init__(name=name, daemon=True)
        self._every_s = every_s
        self._sweep = pulse.timed(name, max(every_s, _MAY_TAKE_S), _guarded(name, sweep))
        self._stop_event = stop

    def run(self) -> None:
        """Sweep until the process stops."""
        while not self._stop_event.wait(self._every_s):
            self._sweep()


def courier_loops(
    node: NodeContext, jobs: DurableJobs, stop: Event, slow: Mapping[CommandAction, Perform] | None = None
) -> list[Loop]:
    """Return the sweeps of the courier that may wait for a peer or a decoder, and the one that looks after jobs.

    Args:
        slow: actions of pages that take long, and need what only the composition root has.
    """
    copies_waiting = Copies(node, stop.is_set)
    trends = TrendSweep(node.database, time_zone=node.time_zone, clock=node.clock)
    loops = [
        Loop(node.pulse, "companions", COMPANIONS_EVERY_S, lambda: send_due_companions(node, stop.is_set), stop),
        Loop(node.pulse, "retractions", RETRACTIONS_EVERY_S, lambda: send_due_retractions(node, stop.is_set), stop),
        Loop(node.pulse, "copies", COPIES_EVERY_S, copies_waiting.compare_waiting, stop),
        Loop(node.pulse, "commands", COMMANDS_EVERY_S, CommandSweep(node, QUICK_ACTIONS).run, stop),
        Loop(node.pulse, "slow commands", SLOW_COMMANDS_EVERY_S, CommandSweep(node, slow or {}).run, stop),
        Loop(node.pulse, "trends", TRENDS_EVERY_S, trends.run, stop),
        Loop(node.pulse, "liveness", LIVENESS_EVERY_S, lambda: look_after_jobs(node, jobs), stop),
        Loop(node.pulse, "backscore", feeder.FEED_EVERY_S, lambda: feeder.feed(node), stop),
        Loop(node.pulse, "backscore jobs", LIVENESS_EVERY_S, lambda: feeder.look_after(node, jobs), stop),
    ]
    if is_wanted(node):
        commitment = CommitmentSweep(node, stop.is_set)
        loops.append(Loop(node.pulse, "commitment", COMMITMENT_EVERY_S, commitment.run, stop))
    if node.receiver.query:
        loops.append(Loop(node.pulse, "moves", MOVES_EVERY_S, lambda: send_due_moves(node, stop.is_set), stop))
    return loops


class Rounds:
    """The fast sweeps of the courier: complete series and enqueue what is due. Neither waits for a peer.

    One thread runs them in turn, several times a second while there is work; an idle round is a single query and a look
    at the clocks.
    """

    def __init__(self, node: NodeContext, gate: Gate, stop: Event, watch: ClockWatch | None = None) -> None:
        self.node = node
        self._gate = gate
        self._stop = stop
        self._look_at_clocks = _guarded("clock", (watch or ClockWatch(node)).look)
        self._sweeps = (
            _Paced("complete", 0.0, CompletionSweep(node).run),
            _Paced("due", DUE_EVERY_S, lambda: enqueue_waiting(node)),
            _Paced("worklist", 0.0, WorklistSweep(node).run),
        )

    def run(self) -> None:
        """Do rounds until the process stops."""
        a_round = self.node.pulse.timed("rounds", IDLE_ROUND_S, self.round)
        while not self._stop.wait(BUSY_ROUND_S if a_round() else IDLE_ROUND_S):
            pass

    def round(self) -> bool:
        """Run the sweeps that are due, if there is work; return whether there is."""
        self._look_at_clocks()
        busy = keep_pace(self.node, self._gate)
        if busy:
            for sweep in self._sweeps:
                sweep.run_if_due(time.monotonic())
        return busy


class _Paced:
    """A sweep with a least time between two runs."""

    def __init__(self, name: str, every_s: float, sweep: Callable[[], object]) -> None:
        self._every_s = every_s
        self._run = _guarded(name, sweep)
        self._last = float("-inf")

    def run_if_due(self, now: float) -> None:
        """Run the sweep unless it has just run."""
        if now - self._last >= self._every_s:
            self._last = now
            self._run()


def keep_pace(node: NodeContext, gate: Gate) -> bool:
    """Open the gate while the node has work; return whether it has any, False if the database does not answer."""
    busy = False

    def look() -> None:
        nonlocal busy
        with node.database.read() as connection:
            busy = activity.is_busy(connection, soon=node.clock() + IDLE_ROUND_S)
        gate.is_open = busy

    _guarded("pace", look)()
    return busy


def worker_loop(node: NodeContext, stop: Event) -> Loop:
    """Return the worker's loop, which checks constancy when it is due."""
    return Loop(node.pulse, "constancy", CONSTANCY_EVERY_S, lambda: constancy.check_if_due(node), stop)


def _scheduler(pulse: Pulse, *sweeps: tuple[str, float, Callable[[], object]]) -> BackgroundScheduler:
    scheduler = BackgroundScheduler(job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None})
    for name, every_s, sweep in sweeps:
        timed = pulse.timed(name, every_s, _guarded(name, sweep))
        scheduler.add_job(timed, "interval", seconds=every_s, id=name)
    return scheduler


_failing: set[str] = set()
"""The sweeps of this process whose last run failed."""


def _guarded(name: str, sweep: Callable[[], object]) -> Callable[[], None]:
    """Log the failure of a sweep, once an hour, instead of ending it: the next run finds the same work."""

    def run() -> None:
        try:
            sweep()
        except MediqaError as error:
            log.warning("sweep postponed", sweep=name, reason=str(error), hourly_for=(name, type(error)))
            _failing.add(name)
        except Exception as error:
            log.exception("sweep failed", sweep=name, hourly_for=(name, type(error)))
            _failing.add(name)
        else:
            if name in _failing:
                _failing.discard(name)
                log.info("sweep works again", sweep=name, hourly_for=name)

    return run


def enqueue_waiting(node: NodeContext) -> int:
    """Enqueue jobs for due deliveries and for ready series without one."""
    with node.database.read() as connection:
        waiting = bool(outbox.due_deliveries(connection, node.clock()))
        ready = index.without_job(connection)
    if not waiting and not ready:
        return 0
    with node.database.write() as connection:
        count = enqueue_due(node, connection)
        for uid, generation, pulled in index.without_job(connection):
            job = f"score:{uid}:{generation}:{int(node.clock() * 1000)}"
            index.set_job(connection, uid, job)
            node.jobs.score(connection, job, uid, generation, can_wait=pulled)
            count += 1
    return count


def look_after_jobs(node: NodeContext, jobs: DurableJobs) -> int:
    """Park work with a failed job and requeue work that its job left undone; return the number of both."""
    with node.database.read() as connection:
        ready = index.with_job(connection)
        waiting = [(row, row.job) for row in outbox.deliveries_in(connection, DeliveryState.WAITING) if row.job]
    ended = jobs.ended([job for _, job in ready] + [job for _, job in waiting if job])
    if not ended:
        return 0
    with node.database.write() as connection:
        for row, job in ready:
            if job in ended and index.find_series(connection, row.series_instance_uid) == row:  # else its job did it
                _after_scoring(node, connection, row, ended[job])
        for delivery, job in waiting:
            if job in ended and outbox.find_delivery(connection, delivery.id) == delivery:
                _after_delivery(node, connection, delivery, ended[job])
    return len(ended)


def _after_scoring(node: NodeContext, connection: Connection, row: SeriesRow, why: str | None) -> None:
    uid, now = row.series_instance_uid, node.clock()
    if why is None:
        index.move(connection, uid, SeriesState.READY, at=now, generation=row.generation, job=None)
    elif index.move(
        connection,
        uid,
        SeriesState.PARKED,
        at=now,
        generation=row.generation,
        reason=Reason(ReasonCode.SCORING_FAILED, why),
        job=None,
    ):
        index.release_acquisition(connection, uid, at=now)
        log.error("scoring parked", series=uid, reason=why)


def _after_delivery(node: NodeContext, connection: Connection, delivery: DeliveryRow, why: str | None) -> None:
    if why is None:
        again_at = node.clock() + node.delivery.retry_first_s
        outbox.update_delivery(connection, delivery.id, job=None, not_before=again_at)
        return
    outbox.update_delivery(
        connection,
        delivery.id,
        state=DeliveryState.PARKED,
        reason_code=DeliveryReason.JOB_FAILED,
        message=why,
        job=None,
    )
    update_series_state(connection, delivery, node.clock())
    log.error("delivery parked", delivery=delivery.id, reason=why)


def _purge(node: NodeContext, row: InstanceRow, before: float, now: float, reader: FrameReader) -> bool:
    """Delete the file of an expired instance; keep what further copies are compared with."""
    digest = row.content_digest
    if digest is None and row.status in (InstanceStatus.CURRENT, InstanceStatus.REJECTED):
        digest = digest_for_retention(node.spool.path(row.path), reader)
    with node.database.write() as connection:
        gone = retention.purge(connection, row.id, before, at=now)
        if gone and digest is not None:
            copies.keep_digest(connection, row.id, digest)
    if gone:
        node.spool.remove(row.path)
    return gone


def retain(node: NodeContext) -> int:
    """Delete expired instances of finished series; return how many. Nothing, while the clock is in doubt."""
    now = node.clock()
    before = now - node.retention.days * 86400
    count = 0
    with node.database.write() as connection:
        forwards.forget_unasked(connection, [peer.name for peer in node.peers if peer.commitment])
    with node.database.read() as connection:
        if clock.is_paused(connection, now=now):
            return 0
        leftover = retention.purged_paths(connection, since=now - 2 * 86400)
    for path in leftover:  # the process ended between the commit and the deletion
        node.spool.remove(path)
    while True:
        with node.database.read() as connection:
            expired = retention.expired(connection, before)
        with FrameReader() as reader:
            count += sum(_purge(node, row, before, now, reader) for row in expired)
        if not expired:
            break
    with node.database.write() as connection:
        companions.forget_bytes(connection, before)
        assessments.forget_maps(connection)
        for kept in (commitments, commitment_requests, report_commitments, procedure_steps):
            kept.forget(connection, before)
    node.spool.remove_empty_folders()
    node.spool.sweep_temporary(older_than_s=TEMPORARY_OLDER_THAN_S)
    if count:
        log.info("instances deleted after retention", instances=count, days=node.retention.days)
    return count
