"""Passwords: argon2id (RFC 9106), a few at a time.

One hash takes 64 MiB and a good part of a second of processor time on purpose. Sign-ins that come in parallel queue
for it, and beyond a short queue they are turned away: a flood of them would otherwise take the memory of the scorer.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from mediqa_node.domain.errors import MediqaError

SHORTEST_PASSWORD = 10


class Busy(MediqaError):
    """More passwords wait to be checked than will be; the same request works a little later."""


class Passwords:
    """Hashes and checks passwords.

    Args:
        hasher: its cost; None: the library's, RFC 9106 for little memory.
        at_once: hashes that are computed in parallel.
        waiting: requests that are computed or wait; one more is refused.
    """

    def __init__(self, hasher: PasswordHasher | None = None, *, at_once: int = 2, waiting: int = 8) -> None:
        self._hasher = hasher or PasswordHasher()
        self._computing = threading.BoundedSemaphore(at_once)
        self._queue = threading.BoundedSemaphore(waiting)
        self._of_nobody: str | None = None

    def hash(self, password: str) -> str:
        """Return the hash to keep.

        Raises:
            Busy: too many are being computed.
        """
        with self._turn():
            return self._hasher.hash(password)

    def is_right(self, kept: str | None, password: str) -> bool:
        """Return whether a password is the one whose hash is kept.

        Args:
            kept: None for a name that does not exist: it takes as long, so that time does not tell which names do.

        Raises:
            Busy: too many are being computed.
        """
        with self._turn():
            if self._of_nobody is None:  # with the first check of all, whichever name it is for
                self._of_nobody = self._hasher.hash("nobody has this password")
            try:
                return self._hasher.verify(kept or self._of_nobody, password) and kept is not None
            except (VerificationError, InvalidHashError):
                return False

    def is_outdated(self, kept: str) -> bool:
        """Return whether a hash was computed with another cost than today's."""
        return self._hasher.check_needs_rehash(kept)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._queue.acquire(blocking=False):
            raise Busy("too many passwords are being checked")
        try:
            with self._computing:
                yield
        finally:
            self._queue.release()
