"""The courier's side: takes the next series of a set and enqueues them, few at a time.

A million series are never a million jobs: some seconds of work are enqueued for each worker, in one short transaction
with the cursor. Live and pulled series go first. Nothing is fed while as many of them arrive or wait as there are
workers, jobs of a set have the lowest priority, and one that starts all the same gives way: a live series waits for the
one series that a worker is scoring, at most.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog

from mediqa_node.domain.backscore import BackscoreSet, ItemState
from mediqa_node.domain.series import Reason, ReasonCode
from mediqa_node.pipeline.durable import BACKSCORE, DurableJobs
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import activity, backscore_selection, backscores, heartbeats
from mediqa_node.storage.backscore_selection import Page
from mediqa_node.storage.backscores import ItemRow
from mediqa_node.storage.database import Connection

log = structlog.get_logger("courier")

FEED_EVERY_S = 0.5
AT_WORK_AT_MOST = 8
"""Series enqueued for each worker: it takes at most five in a second, and finds more before it runs out."""
_ARRIVING_S = 5.0
"""A series is arriving if its last image is not older; one that waits for its timer may be overtaken."""
_LOOK_FOR_S = 0.2
_RECORDS_KEPT_S = 600.0


def feed(node: NodeContext) -> int:
    """Enqueue the next series of the running set that was started first; return how many."""
    with node.database.read() as connection:
        one = backscores.first_running(connection)
        if one is None or gives_way(node, connection):
            return 0
        known = backscores.under_way(connection)
        room = AT_WORK_AT_MOST * _n_workers(node, connection) - sum(item.state is ItemState.QUEUED for item in known)
        mine = [item for item in known if item.set_id == one.id]
        waiting = [item for item in mine if item.state is ItemState.WAITING][: max(0, room)]
        page = _next_page(connection, one, at_most=room - len(waiting)) if room > len(waiting) else None
    if page is not None and page.is_last and not mine:
        return _finish(node, one)
    return _enqueue(node, one, waiting, page)


def _next_page(connection: Connection, one: BackscoreSet, *, at_most: int) -> Page:
    """Return the next series, after some time the place up to which there are none."""
    until = time.monotonic() + _LOOK_FOR_S
    page = backscore_selection.next_page(connection, one, at_most=at_most)
    while not page.series and not page.is_last and time.monotonic() < until:
        page = backscore_selection.next_page(connection, replace(one, cursor=page.cursor), at_most=at_most)
    return page


def _enqueue(node: NodeContext, one: BackscoreSet, waiting: Sequence[ItemRow], page: Page | None) -> int:
    if not waiting and (page is None or page.cursor == one.cursor):
        return 0
    count = 0
    with node.database.write() as connection:
        taken = backscores.take(connection, one, page) if page is not None else []
        for item in (*waiting, *taken):
            job = f"backscore:{item.set_id}:{item.series_instance_uid}:{item.n_jobs + 1}"
            if backscores.queue(connection, item, job):
                node.jobs.backscore(connection, job, item.set_id, item.series_instance_uid)
                count += 1
    return count


def _finish(node: NodeContext, one: BackscoreSet) -> int:
    with node.database.write() as connection:
        if backscores.finish(connection, one.id, at=node.clock()):
            log.info("back-scoring done", set=one.id, series=one.n_taken)
    return 0


def gives_way(node: NodeContext, connection: Connection) -> bool:
    """Return whether every worker may be wanted by a series that arrives, or waits for its first assessment."""
    wanted = activity.n_wanting_a_score(connection, arriving_since=node.clock() - _ARRIVING_S)
    return wanted >= _n_workers(node, connection)


def _n_workers(node: NodeContext, connection: Connection) -> int:
    """Return how many workers run on all hosts, at least one: without any, jobs wait."""
    now, beats = node.clock(), heartbeats.read_heartbeats(connection)
    return max(1, sum(beat.kind == "worker" and beat.is_alive(now) for beat in beats))


def look_after(node: NodeContext, jobs: DurableJobs) -> int:
    """Let series wait again whose job has left them undone, and end those with a failed job; return the number.

    The engine's records of ended jobs go soon: a set makes more of them in an hour than everything else in a week.
    """
    with node.database.read() as connection:
        queued = {item.job: item for item in backscores.under_way(connection) if item.job is not None}
        is_running = backscores.first_running(connection) is not None
    ended = jobs.ended(list(queued))
    if is_running:
        jobs.forget(ended_before=node.clock() - _RECORDS_KEPT_S, kind=BACKSCORE)
    if not ended:
        return 0
    with node.database.write() as connection:
        for job, why in ended.items():
            item = queued[job]
            if why is None:
                backscores.put_back(connection, item)
                continue
            failed = Reason(ReasonCode.SCORING_FAILED, why)
            if backscores.end(connection, item, ItemState.FAILED, failed, at=node.clock()):
                log.error("back-score failed", set=item.set_id, series=item.series_instance_uid, reason=why)
    return len(ended)
