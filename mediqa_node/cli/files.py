"""DICOM files among what a person points at."""

from collections.abc import Sequence
from pathlib import Path

from mediqa_node.dicom.part10 import is_part10


def dicom_files(paths: Sequence[Path]) -> list[Path]:
    """Return the Part 10 files in files and folders, in order."""
    files = [
        file
        for path in paths
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file() and is_part10(file)
    ]
    return list(dict.fromkeys(files))
