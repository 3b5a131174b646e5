"""How long the parts of a station take, for its log at level DEBUG.

A station opens `timed`; what it calls marks its `part`s, which cost nothing outside of a station.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

from mediqa_node.system.failpoint import reach

log = structlog.get_logger("time")

_spent: ContextVar[dict[str, float] | None] = ContextVar("spent", default=None)


@contextmanager
def timed(station: str, series_instance_uid: str) -> Iterator[None]:
    """Log at the end of the block how long each of its parts took, and the whole."""
    spent: dict[str, float] = {}
    token, started = _spent.set(spent), time.perf_counter()
    try:
        yield
    finally:
        _spent.reset(token)
        ms = {name: round(1000 * seconds) for name, seconds in spent.items()}
        log.debug("parts", station=station, series=series_instance_uid, **ms, all=_ms_since(started))


@contextmanager
def part(name: str) -> Iterator[None]:
    """Count the block as a part of the station that runs in this thread; parts of one name add up."""
    spent, started = _spent.get(), time.perf_counter()
    try:
        yield
    finally:
        if spent is not None:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - started


def reach_in_station(name: str) -> None:
    """Let a test kill the process here while a station runs, not while its series is prepared."""
    if _spent.get() is not None:
        reach(name)


def _ms_since(started: float) -> int:
    return round(1000 * (time.perf_counter() - started))
