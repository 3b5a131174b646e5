"""A process that renders pictures for the pages, so that the one that talks to browsers never parses an image.

It starts with the first picture and ends when none was asked for in a while. If it dies, the next one starts another.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Protocol

from mediqa_node.domain.errors import MediqaError

IDLE_S = 60.0
_KEPT = 600
"""Thumbnails in memory, a few kilobytes each."""


class Maker(Protocol):
    """Renders pictures in the process that it is made in."""

    def make(self, what: str, arguments: Mapping[str, object]) -> bytes:
        """Return the bytes of a picture."""
        ...


_maker: Maker | None = None


def _open(factory: Callable[[], Maker]) -> None:
    global _maker  # noqa: PLW0603 (the state of the child)
    _maker = factory()


def _make(what: str, arguments: Mapping[str, object]) -> bytes | MediqaError:
    """Return a picture, or the error that explains why there is none."""
    assert _maker is not None
    try:
        return _maker.make(what, arguments)
    except MediqaError as error:
        return MediqaError(str(error))


class NoPicture(MediqaError):
    """There is nothing to show; the message says why."""


class PictureProcess:
    """Renders pictures in one child process.

    Args:
        factory: makes the maker in the child; it has to survive pickling.
    """

    def __init__(self, factory: Callable[[], Maker]) -> None:
        self._factory = factory
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._last = 0.0
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()

    def render(self, what: str, arguments: Mapping[str, object]) -> bytes:
        """Return a picture.

        Raises:
            NoPicture: there is none, or rendering it has ended the child.
        """
        key = (what, *arguments.values())
        if (known := self._kept.get(key)) is not None:
            return known
        self._last = time.monotonic()
        try:
            found = self._running().submit(_make, what, dict(arguments)).result(timeout=60)
        except (BrokenProcessPool, CancelledError, TimeoutError, RuntimeError) as error:
            # it died or hangs, or was ended meanwhile, by another request or because it was idle
            self.close(at_once=isinstance(error, TimeoutError))
            raise NoPicture("the picture could not be rendered") from error
        if isinstance(found, MediqaError):
            raise NoPicture(str(found))
        if what == "thumb":
            self._kept[key] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def _running(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    1, mp_context=get_context("spawn"), initializer=_open, initargs=(self._factory,)
                )
                threading.Thread(target=self._end_when_idle, daemon=True, name="pictures").start()
            return self._pool

    def _end_when_idle(self) -> None:
        while (left := self._last + IDLE_S - time.monotonic()) > 0:
            time.sleep(left)
        self.close()

    def close(self, *, at_once: bool = False) -> None:
        """End the child.

        Args:
            at_once: even in the middle of a picture, which would otherwise be finished first, or never.
        """
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            children = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children if at_once else ():
                child.kill()
