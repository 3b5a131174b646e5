"""Memory of a process that needs the same large arrays again and again."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Options of glibc's mallopt(3)."""
_KEPT_BYTES = 128 << 20


def keep_freed_memory() -> None:
    """Reuse freed memory, up to 128 MiB at a time, instead of returning it to the system; for the whole process.

    glibc returns every array of more than 128 KiB when it is freed. Scoring one image frees a hundred of them, and
    getting the next ones, page by page, takes a quarter of its time. Results do not change. Without glibc nothing
    happens.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
