"""Publish a folder whole or not at all, even if the power is lost: sync, rename, sync the parent."""

from pathlib import Path

from mediqa_node.system.atomic import sync


def publish(half: Path, place: Path, *, aside: Path | None = None) -> None:
    """Move a written folder to its place on the same filesystem.

    Args:
        aside: where an existing folder at `place` is moved; it may be deleted afterwards.

    Raises:
        OSError: the disk refused; a folder that was moved aside still exists.
    """
    for path in (*half.rglob("*"), half):
        sync(path)
    if aside is not None and place.exists():
        place.rename(aside)
    half.rename(place)
    sync(place.parent)
