"""A limit of attempts for each address."""

from collections import OrderedDict, deque
from threading import Lock

_ADDRESSES = 4096


class Throttle:
    """Admits so many attempts in a period from each address; the addresses that were seen last are known.

    >>> throttle = Throttle(at_most=2, per_s=10)
    >>> [throttle.admits("a", at) for at in (0, 1, 2, 11.5)]
    [True, True, False, True]

    A clock that is set back locks nobody out.
    """

    def __init__(self, *, at_most: int, per_s: float) -> None:
        self._at_most, self._per_s = at_most, per_s
        self._attempts: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def admits(self, address: str, now: float) -> bool:
        """Return whether one more attempt is within the limit, and count it if so."""
        with self._lock:
            attempts = self._attempts.setdefault(address, deque())
            self._attempts.move_to_end(address)
            while len(self._attempts) > _ADDRESSES:
                self._attempts.popitem(last=False)
            while attempts and abs(now - attempts[0]) > self._per_s:
                attempts.popleft()
            if len(attempts) >= self._at_most:
                return False
            attempts.append(now)
            return True
