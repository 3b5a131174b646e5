"""Publish a folder whole or not at all, even if the power is lost: sync, rename, sync the parent."""

import os
from pathlib import Path


def publish(half: Path, place: Path, *, aside: Path | None = None) -> None:
    """Move a written folder to its place on the same filesystem.

    Args:
        aside: where an existing folder at `place` is moved; it may be deleted afterwards.

    Raises:
        OSError: the disk refused; a folder that was moved aside still exists.
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
