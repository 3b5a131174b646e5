"""CPU time that checking one instance may take.

It grows with the bytes received, so that neither a header of a million real elements is refused nor a small bomb keeps
others waiting. Beyond it the sender is answered 0xC000, not 0xA700: the check would take as long a second time, and a
lack of resources is what senders repeat for days.
"""

import threading
import time
from collections import deque
from typing import Self

from mediqa_node.domain.errors import InvalidInstance

_CPU_S, _BYTES_PER_CPU_S, _MOST_CPU_S = 1.5, 2_000_000, 20.0
"""Every check may take the first; one second more for so many bytes received; at most the last."""
_LONG_CHECK_S, _TURN_S = 0.02, 0.05
"""A check that has taken the first waits for its turn, and passes the turn on after every second of these."""


class _Turns:
    """One turn at a time, for whoever has waited the longest; a lock would mostly go back to who released it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self.is_taken = False

    def take(self) -> None:
        """Wait for a turn."""
        with self._lock:
            if not self.is_taken:
                self.is_taken = True
                return
            mine = self._wait()
        mine.acquire()

    def give_back(self) -> None:
        """End it."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self.is_taken = False

    def pass_on(self) -> None:
        """Let all who wait have their turns first."""
        with self._lock:
            if not self._waiting:
                return
            following = self._waiting.popleft()
            mine = self._wait()
            following.release()
        mine.acquire()

    def _wait(self) -> threading.Lock:
        mine = threading.Lock()
        mine.acquire()
        self._waiting.append(mine)
        return mine


_turns = _Turns()
"""Of the checks that take long: Python runs one thread, and C-ECHO waits for its turn among all."""


class CpuBudget:
    """CPU time of one check."""

    def __init__(self, received_bytes: int) -> None:
        self._started = time.thread_time()
        self._limit_s = min(_CPU_S + received_bytes / _BYTES_PER_CPU_S, _MOST_CPU_S)
        self._turn_began_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._turn_began_s is not None:
            _turns.give_back()

    def check(self) -> None:
        """Refuse the instance if its time is used up; checks that take long take turns."""
        used = time.thread_time() - self._started
        if used > self._limit_s:
            raise InvalidInstance(f"checking its elements takes more than {self._limit_s:.1f} s of CPU time")
        if self._turn_began_s is None:
            if used > _LONG_CHECK_S:
                _turns.take()
                self._turn_began_s = used
        elif used - self._turn_began_s > _TURN_S:
            self._turn_began_s = used
            _turns.pass_on()
