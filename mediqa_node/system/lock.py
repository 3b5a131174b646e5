"""Locks between processes: files that the kernel unlocks when their holder dies."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class Locked(Exception):
    """Another process holds the lock.

    Attributes:
        pid: of the holder; None if unknown.
    """

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(f"{path} is locked by pid {pid or 'unknown'}")
        self.pid = pid


@contextmanager
def locked(path: Path, *, wait: Callable[[], bool] | None = None) -> Iterator[None]:
    """Hold a lock during the block; the file names the process that holds it.

    Args:
        wait: called while another process holds the lock; returns whether to try again. None: never.

    Raises:
        Locked: another process holds it, and `wait` gave up.
        OSError: the file cannot be created.
    """
    with path.open("a+") as file:
        while not _taken(file.fileno()):
            if wait is None or not wait():
                raise Locked(path, _pid(path))
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock."""
    try:
        with path.open() as file:
            return not _taken(file.fileno())
    except FileNotFoundError:
        return False


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(path: Path) -> int | None:
    text = path.read_text().strip()
    return int(text) if text.isdigit() else None
