"""The heartbeat of a process: which of its sweeps ran when, written to the database for `status`."""

import os
import socket
import time
from collections.abc import Callable
from threading import Event, local
from typing import TypeVar

import structlog

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.health import HEARTBEAT_EVERY_S, Heartbeat, Sweep
from mediqa_node.storage.database import Database
from mediqa_node.storage.heartbeats import write_heartbeat

log = structlog.get_logger("heartbeat")

_Result = TypeVar("_Result")


class _Running(local):
    """The sweep that runs in this thread."""

    note: Callable[[], None] | None = None


_running = _Running()


def goes_on() -> None:
    """Note that the sweep of this thread has done one of many things: it does not hang."""
    if _running.note is not None:
        _running.note()


class Pulse:
    """When each sweep of this process last ended or went on, by the monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended: dict[str, tuple[float, float]] = {}

    def timed(self, name: str, every_s: float, sweep: Callable[[], _Result]) -> Callable[[], _Result]:
        """Return a sweep that notes when it ends, or when it `goes_on`; it is expected every `every_s` from now on."""
        self._ended[name] = every_s, self._clock()

        def note() -> None:
            self._ended[name] = every_s, self._clock()

        def run() -> _Result:
            _running.note = note
            try:
                return sweep()
            finally:
                _running.note = None
                note()

        return run

    def sweeps(self) -> dict[str, Sweep]:
        """Return the period and the age of each sweep."""
        now = self._clock()
        return {name: Sweep(every_s=every_s, age_s=now - ended) for name, (every_s, ended) in self._ended.items()}


class Beat:
    """Writes the row of one process until it stops.

    Args:
        name: of this process, `domain.cluster.Member.name`.
        associations: how many are open and how many may be, for the receiver.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        pulse: Pulse,
        *,
        associations: Callable[[], tuple[int, int]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database, self._name, self._pulse = database, name, pulse
        self.associations, self.clock = associations, clock
        self._started_at = clock()
        self.stands_by = False

    def run(self, stop: Event) -> None:
        """Write the row at once, then every `HEARTBEAT_EVERY_S`, and at the end that it was asked to stop."""
        while True:
            try:
                self.write(ends=stop.is_set())
            except StorageFailed as error:
                log.warning("heartbeat not written", process=self._name, reason=str(error))
            if stop.is_set():
                return
            stop.wait(HEARTBEAT_EVERY_S)

    def write(self, *, ends: bool = False) -> None:
        """Write the row once."""
        n_open, at_most = self.associations() if self.associations else (None, None)
        beat = Heartbeat(
            name=self._name,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            at=self.clock(),
            sweeps=self._pulse.sweeps(),
            n_associations=n_open,
            max_associations=at_most,
            stands_by=self.stands_by,
            ended_at=self.clock() if ends else None,
        )
        write_heartbeat(self._database, beat)
