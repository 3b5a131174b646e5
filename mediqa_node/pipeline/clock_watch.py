"""Notice when the wall clock is set, and let everything that waits go on as if it had not been.

Only the courier does this. A step is a change of wall clock minus boot clock; after a start of the machine there is
nothing to compare with, except that time cannot have gone back.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage import clock
from mediqa_node.storage.clock import ClockRow
from mediqa_node.storage.database import Connection
from mediqa_node.system.clock import boot_id, wall_offset_s

log = structlog.get_logger("courier")

STEP_S = 5.0
"""A smaller change is slewing, or of no consequence."""
_SLEWED_S = 1.0
_KEEP_EVERY_S = 10.0
_AWAY_AT_MOST_S = 600.0
_DOUBTFUL_S = 3600.0
"""After a longer step forward nothing is deleted or given up until somebody has confirmed it, or a day has passed."""
PAUSE_S = 24 * 3600.0


def was_set_unnoticed(node: NodeContext) -> bool:
    """Whether the wall clock was set, and what waits has not been moved yet: no age can be trusted."""
    with node.database.read() as connection:
        known = clock.load(connection)
    return known is not None and known.boot_id == boot_id() and abs(wall_offset_s() - known.offset_s) >= STEP_S


def is_doubtful(node: NodeContext) -> bool:
    """Whether the clock was set forward lately, or unnoticed: nothing is deleted, given up or too old because of it."""
    with node.database.read() as connection:
        if clock.is_paused(connection, now=node.clock()):
            return True
    return was_set_unnoticed(node)


class ClockWatch:
    """Compares the clocks, several times a second.

    Args:
        stepped: called after a step, when the stored times have been moved.
        offset_s: wall clock minus boot clock, seconds.
        boot: what names this start of the machine.
    """

    def __init__(
        self,
        node: NodeContext,
        stepped: Callable[[], None] = lambda: None,
        *,
        offset_s: Callable[[], float] = wall_offset_s,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        self.node = node
        self._stepped = stepped
        self._offset_s = offset_s
        self._boot_id = boot()
        self._known: float | None = None
        self._kept_at = self._looked_at = float("-inf")

    def look(self) -> None:
        """Compare the clocks; move stored times if the wall clock was set since the last look."""
        offset = self._offset_s()
        since_s, self._looked_at = time.monotonic() - self._looked_at, time.monotonic()
        fresh = time.monotonic() - self._kept_at < _KEEP_EVERY_S
        if self._known is not None and abs(offset - self._known) < _SLEWED_S and fresh:
            return
        with self.node.database.write() as connection:
            step_s = self._follow(connection, offset, since_s)
        self._known, self._kept_at = offset, time.monotonic()
        if step_s:
            log.warning("the clock was set", seconds=round(step_s, 1))
            self._stepped()

    def _follow(self, connection: Connection, offset: float, since_s: float) -> float:
        """Move stored times by the step since the last look, and keep what is known; return the step, or 0.

        Args:
            since_s: time since the last look of this process.
        """
        now = self.node.clock()
        known = clock.load(connection)
        seen = ClockRow(boot_id=self._boot_id, offset_s=offset, seen_at=now)
        if known is None:
            clock.save(self.node.database, connection, seen)
            return 0.0
        step_s = self._step(known, offset, now)
        row = replace(known, boot_id=seen.boot_id, offset_s=offset, seen_at=now)
        if step_s:
            if known.boot_id == self._boot_id:  # another process may have looked later than this one, which has begun
                since_s = min(since_s, max(0.0, (now - offset) - (known.seen_at - known.offset_s)))
            clock.shift(connection, step_s, now=now, window_s=min(since_s, _AWAY_AT_MOST_S) + _SLEWED_S)
            row = replace(row, step_s=step_s, stepped_at=now)
            if row.paused_until is not None:
                row = replace(row, paused_until=row.paused_until + step_s)
            if step_s > _DOUBTFUL_S:
                row = replace(row, paused_until=now + PAUSE_S, confirmed_by=None)
        clock.save(self.node.database, connection, row)
        return step_s

    def _step(self, known: ClockRow, offset: float, now: float) -> float:
        # after a start of the machine: it was off for a while, and nobody knows how long
        step_s = offset - known.offset_s if known.boot_id == self._boot_id else min(now - known.seen_at, 0.0)
        return step_s if abs(step_s) >= STEP_S else 0.0
