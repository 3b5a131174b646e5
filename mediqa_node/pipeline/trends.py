"""The courier's sweep that keeps the trends: the points of each series that has changed, and the alarms of charts.

Points follow the worklist by its change numbers, so that none is passed over and an upgrade makes them all. A chart is
judged as a whole, since limits, phases and the EWMA rest on its history: some 60 ms for 10,000 points. So that a node
that catches up on a backlog does not judge a chart once for each of its series, charts wait until all points are made,
or a minute has passed.
"""

import time
from collections.abc import Callable
from datetime import tzinfo

import structlog

from mediqa_node.domain.trends import Source, Value, time_of, values_of
from mediqa_node.storage import trend_charts, trend_points
from mediqa_node.storage.database import Database

log = structlog.get_logger("courier")

_AT_ONCE = 100
_A_ROUND_S = 1.0
_JUDGED_EVERY_S = 60.0


def _values(source: Source) -> tuple[Value, ...]:
    """Return the points of a series; none where it cannot be understood, so that it holds up no other."""
    try:
        return tuple(values_of(source))
    except Exception:
        log.exception("series not charted", series=source.series)
        return ()


class TrendSweep:
    """Makes points and judges charts."""

    def __init__(self, database: Database, *, time_zone: tzinfo, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._zone = time_zone
        self._clock = clock
        self._judged = float("-inf")

    def run(self) -> int:
        """Make points and judge charts until there is nothing left or the round is over; return how many of both."""
        until, count = time.monotonic() + _A_ROUND_S, 0
        while time.monotonic() < until and (made := self._make_points()):
            count += made
        with self._database.read() as connection:
            behind = trend_points.is_behind(connection)
        if not behind or time.monotonic() - self._judged > _JUDGED_EVERY_S:
            count += self._judge(time.monotonic() + _A_ROUND_S)
        return count

    def _make_points(self) -> int:
        """Make the points of the next entries; return how many entries there were."""
        with self._database.read() as connection:
            if not trend_points.is_behind(connection):
                return 0
            after = trend_points.cursor(connection)
            change, sources = trend_points.changed(connection, after, at_most=_AT_ONCE)
        with self._database.write() as connection:
            writer = trend_points.PointWriter(connection)
            for source in sources:
                writer.replace(source, time_of(source, self._zone), _values(source))
            trend_points.move_cursor(connection, change)
        return len(sources)

    def _judge(self, until: float) -> int:
        count = 0
        with self._database.read() as connection:
            waiting = trend_charts.due(connection, at_most=_AT_ONCE)
        for chart in waiting:
            if time.monotonic() > until:
                return count
            with self._database.read() as connection:
                analysis = trend_charts.analyse(connection, chart)
            with self._database.write() as connection:
                trend_charts.save_alarms(connection, analysis, now=self._clock())
            count += 1
        self._judged = time.monotonic()
        return count
