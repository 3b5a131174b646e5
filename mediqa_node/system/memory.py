"""Memory of a process that needs the same large arrays again and again."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt(3)."""
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
