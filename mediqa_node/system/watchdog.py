"""A watchdog: ends this process when one piece of work takes too long, even if nothing written in Python runs any more.

A thread of Python could not do it: a native library that hangs may hold the interpreter. The timer of `faulthandler` is
a thread of C; it writes where every thread stood to standard error, without the values of anything, and ends the
process with status 1.
"""

import faulthandler
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Watchdog:
    """Watches pieces of work, several at once. There can be one in a process: it has one timer.

    Args:
        within_s: what each piece of work may take, in seconds.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._lock = threading.Lock()
        self._deadlines: dict[object, float] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End the process unless the block ends in time."""
        work = object()
        with self._lock:
            self._deadlines[work] = time.monotonic() + self._within_s
            self._arm()
        try:
            yield
        finally:
            with self._lock:
                del self._deadlines[work]
                self._arm()

    def _arm(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._deadlines:
            left_s = min(self._deadlines.values()) - time.monotonic()
            faulthandler.dump_traceback_later(max(0.001, left_s), exit=True)
