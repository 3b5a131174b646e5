"""One process as a member of its node: its lock on this machine, its lease among all hosts, its heartbeat."""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

from mediqa_node.composition.resources import open_database
from mediqa_node.config import Settings
from mediqa_node.domain.cluster import ONE_FOR_ALL, RENEW_EVERY_S, TAKE_OVER_EVERY_S, Member
from mediqa_node.domain.errors import StorageFailed
from mediqa_node.pipeline.heartbeat import Beat, Pulse
from mediqa_node.service.roles import RESTART, WEB
from mediqa_node.storage.database import Database, Fence
from mediqa_node.storage.heartbeats import runs_without_lease
from mediqa_node.storage.leases import Held, Leases

log = structlog.get_logger("serve")


@dataclass(slots=True)
class Process:
    """A process that may work: what it has opened, and what tells it to stop.

    Attributes:
        alive_at: when the process before it under the same lease still ran, by the clock of the database; None: it was
            stopped, or there was none.
    """

    settings: Settings
    member: Member
    stop: threading.Event
    database: Database
    pulse: Pulse = field(default_factory=Pulse)
    alive_at: float | None = None
    beat: Beat = field(init=False)
    leases: Leases = field(init=False)

    def __post_init__(self) -> None:
        self.beat = Beat(self.database, self.member.name, self.pulse)
        self.leases = Leases(self.database, self.member.name)

    def show(self) -> None:
        """Let `status` know what this process does now, without waiting for the next heartbeat."""
        with contextlib.suppress(StorageFailed):
            self.beat.write()


@contextlib.contextmanager
def joined(settings: Settings, role: str, stop: threading.Event) -> Iterator[Process | None]:
    """Be a member of the node during the block, once no other process has the lease; None: asked to stop before that.

    Raises:
        StorageFailed: the database does not answer.
    """
    member = Member(settings.node.host_id, role)
    process = Process(settings, member, stop, open_database(settings, member))
    threading.Thread(target=process.beat.run, args=(stop,), name="heartbeat", daemon=True).start()
    try:
        held = None if role == WEB else _wait_for_lease(process)
        if held is None:
            yield process if role == WEB else None
            return
        process.database.fence(held.fence)
        over = threading.Event()
        threading.Thread(target=_renew, args=(process.leases, held.fence, over), name="lease", daemon=True).start()
        try:
            yield process
        finally:
            over.set()
            with contextlib.suppress(StorageFailed):  # it runs out by itself
                process.leases.give_back(held.fence)
    finally:
        process.database.close()


def _wait_for_lease(process: Process) -> Held | None:
    """Take the lease of a process, as soon as it is free; None if the process is asked to stop before."""
    lease = process.member.lease
    while not process.stop.is_set():
        if lease not in process.leases.held_by_others() and not _is_filled_without_lease(process):
            held = process.leases.take(lease)
            if held is not None:
                process.beat.stands_by = False
                process.alive_at = held.lapsed_at or None
                return held
        if not process.beat.stands_by:
            process.beat.stands_by = True
            process.show()
            log.info("standing by", process=process.member.name, lease=lease)
        process.stop.wait(TAKE_OVER_EVERY_S)
    return None


def _is_filled_without_lease(process: Process) -> bool:
    """Whether a courier or forwarder of a version before leases still runs: two of them would send twice."""
    if process.database.is_sqlite or process.member.role not in ONE_FOR_ALL:
        return False
    with process.database.read() as connection:
        return runs_without_lease(connection, process.member.role, now=process.beat.clock())


def _renew(leases: Leases, fence: Fence, over: threading.Event) -> None:
    """Renew the lease until all work is over; end the process at once if another one has taken it.

    Its commits are refused from then on, and its supervisor starts another, which waits for its turn.
    """
    if leases.database.is_sqlite:
        return
    while not over.wait(RENEW_EVERY_S):
        try:
            if not leases.renew(fence) and not over.is_set():
                log.error("lease lost: this process was silent for too long, and ends", lease=fence.name)
                os._exit(RESTART)
        except StorageFailed as error:
            log.warning("lease not renewed", lease=fence.name, reason=str(error), hourly_for=None)
