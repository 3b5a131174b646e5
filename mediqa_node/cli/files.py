"""DICOM files among what a person points at."""

from collections.abc import Sequence
from pathlib import Path


def dicom_files(paths: Sequence[Path]) -> list[Path]:
    """Return the Part 10 files in files and folders, in order."""
    files = [
        file
        for path in paths
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file() and _is_part10(file)
    ]
    return list(dict.fromkeys(files))


def _is_part10(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False
