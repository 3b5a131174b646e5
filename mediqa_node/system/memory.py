"""How a process gets and gives back memory: one that needs large arrays again and again, and one of many threads."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt(3)."""
_ARENAS = -8
_LARGEST_KEPT = 32 << 20
"""The most that every glibc of a 64-bit machine accepts."""
_KEPT = 128 << 20


def keep_freed_memory() -> None:
    """Keep freed arrays of up to 32 MiB for the next ones, up to 128 MiB together; for the whole process.

    glibc soon returns such memory to the system. Scoring one image frees many large arrays, and getting the next ones,
    page by page, takes a good part of its time. Results do not change. Without glibc nothing happens.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        if libc.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT):  # alone, the other option would make it worse
            libc.mallopt(_TRIM_THRESHOLD, _KEPT)


def share_memory_between_threads() -> None:
    """Have all threads get their memory from two places, instead of one for each thread; for the whole process.

    What many threads have freed, each from its own place, is not given back: a process that serves pages would stay as
    large as its busiest minute. Without glibc nothing happens.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_ARENAS, 2)


def give_back_freed_memory() -> None:
    """Return freed memory to the system, as far as whole pages are free. Without glibc nothing happens."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
