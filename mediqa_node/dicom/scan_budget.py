"""CPU time that checking one instance may take.

It grows with the bytes received, so that neither a header of a million real elements is refused nor a small bomb keeps
others waiting. Beyond it the sender is answered 0xC000, not 0xA700: the check would take as long a second time, and a
lack of resources is what senders repeat for days.
"""

import threading
import time
from typing import Self

from mediqa_node.domain.errors import InvalidInstance

_CPU_S, _BYTES_PER_CPU_S, _MOST_CPU_S = 1.5, 2_000_000, 20.0
"""Every check may take the first; one second more for so many bytes received; at most the last."""
_LONG_CHECK_S = 0.02
_long_check = threading.Lock()
"""Held by the one check at a time that takes long: Python runs one thread, and C-ECHO waits for its turn among all."""


class CpuBudget:
    """CPU time of one check."""

    def __init__(self, received_bytes: int) -> None:
        self._started = time.thread_time()
        self._limit_s = min(_CPU_S + received_bytes / _BYTES_PER_CPU_S, _MOST_CPU_S)
        self._is_long = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_long:
            _long_check.release()

    def check(self) -> None:
        """Refuse the instance if its time is used up; a check that takes long waits for others that do."""
        used = time.thread_time() - self._started
        if used > self._limit_s:
            raise InvalidInstance(f"checking its elements takes more than {self._limit_s:.1f} s of CPU time")
        if used > _LONG_CHECK_S and not self._is_long:
            self._is_long = _long_check.acquire()
