"""What happens by the clock: jobs that only find work and enqueue it, so that firing twice is harmless."""

from collections.abc import Callable

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from mediqa_node.domain.errors import MediqaError
from mediqa_node.domain.exchange import SeriesState
from mediqa_node.pipeline import flow
from mediqa_node.pipeline.delivering import settle_series
from mediqa_node.pipeline.durable import DurableJobs
from mediqa_node.pipeline.judging import enqueue_due
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import index, reports, retention

log = structlog.get_logger("courier")

SETTLE_EVERY_S = 0.2
DUE_EVERY_S = 0.5
LIVENESS_EVERY_S = 5.0
RETENTION_EVERY_S = 3600.0
TEMPORARY_OLDER_THAN_S = 2 * 3600.0


def schedule(node: NodeContext, jobs: DurableJobs) -> BackgroundScheduler:
    """Return a scheduler, in memory, with all sweeps; the caller starts and stops it."""
    scheduler = BackgroundScheduler(job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None})
    for name, every_s, sweep in (
        ("settle", SETTLE_EVERY_S, flow.settle(node)),
        ("due", DUE_EVERY_S, lambda: enqueue_waiting(node)),
        ("liveness", LIVENESS_EVERY_S, lambda: park_failed(node, jobs)),
        ("retention", RETENTION_EVERY_S, lambda: retain(node)),
    ):
        scheduler.add_job(_guarded(name, sweep), "interval", seconds=every_s, id=name)
    return scheduler


def _guarded(name: str, sweep: Callable[[], object]) -> Callable[[], None]:
    """Keep one failed round from ending the sweep: the next finds the same work again."""

    def run() -> None:
        try:
            sweep()
        except MediqaError as error:
            log.warning("sweep postponed", sweep=name, reason=str(error))
        except Exception:
            log.exception("sweep failed", sweep=name)

    return run


def enqueue_waiting(node: NodeContext) -> int:
    """Give due deliveries, and series that a person has sent on, the job they lack."""
    with node.database.read() as connection:
        waiting = bool(reports.due_deliveries(connection, node.clock()))
        ready = [uid for uid, _ in index.without_job(connection)]
    if not waiting and not ready:
        return 0
    with node.database.write() as connection:
        count = enqueue_due(node, connection)
        for uid, generation in index.without_job(connection):
            job = f"score:{uid}:{generation}:{int(node.clock() * 1000)}"
            index.set_job(connection, uid, job)
            node.jobs.score(connection, job, uid, generation)
            count += 1
    return count


def park_failed(node: NodeContext, jobs: DurableJobs) -> int:
    """Make work that ended without a result visible as PARKED; return how much there was."""
    with node.database.read() as connection:
        ready = index.with_job(connection)
        waiting = [(row, row.job) for row in reports.deliveries_in(connection, "waiting") if row.job]
    failed = jobs.gone_wrong([job for _, job in ready] + [job for _, job in waiting if job])
    if not failed:
        return 0
    now = node.clock()
    with node.database.write() as connection:
        for row, job in ready:
            uid, reason = row.series_instance_uid, f"scoring: {failed.get(job)}"
            if job in failed and index.move(
                connection, uid, SeriesState.PARKED, at=now, generation=row.generation, reason=reason, job=None
            ):
                log.error("scoring parked", series=uid, reason=failed[job])
        for delivery, job in waiting:
            if job in failed and reports.find_delivery(connection, delivery.id) == delivery:
                reports.update_delivery(connection, delivery.id, state="parked", message=failed[job], job=None)
                settle_series(connection, delivery, now)
                log.error("delivery parked", delivery=delivery.id, reason=failed[job])
    return len(failed)


def retain(node: NodeContext) -> int:
    """Delete source instances whose time is up and whose series has reached an end; return how many."""
    before = node.clock() - node.retention.days * 86400
    count = 0
    while True:
        with node.database.read() as connection:
            expired = retention.expired(connection, before)
        if not expired:
            break
        for instance_id, path in expired:
            # the file first: a row that still names a deleted file is repaired by the next round, never the reverse
            node.spool.remove(path)
            with node.database.write() as connection:
                retention.mark_purged(connection, instance_id, at=node.clock())
        count += len(expired)
    node.spool.remove_empty_folders()
    node.spool.sweep_temporary(older_than_s=TEMPORARY_OLDER_THAN_S)
    if count:
        log.info("instances deleted after retention", instances=count, days=node.retention.days)
    return count
