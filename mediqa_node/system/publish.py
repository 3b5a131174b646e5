"""A folder appears whole or not at all, even if the power is lost: it is synced, renamed, and then its name is."""

import os
from pathlib import Path


def publish(half: Path, place: Path, *, aside: Path | None = None) -> None:
    """Give a written folder its place on the same filesystem.

    Args:
        aside: where a folder that stands at `place` goes; it may be deleted when this returns.

    Raises:
        OSError: the disk refused; a folder that was put aside is then still there.
    """
    for path in (*half.rglob("*"), half):
        _sync(path)
    if aside is not None and place.exists():
        place.rename(aside)
    half.rename(place)
    _sync(place.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
