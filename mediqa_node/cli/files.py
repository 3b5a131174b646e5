"""The DICOM files in the files and folders of a command line."""

from collections.abc import Sequence
from pathlib import Path


def dicom_files(paths: Sequence[Path]) -> list[Path]:
    """Return the Part 10 files in files and folders, in order."""
    from mediqa_node.dicom.part10 import is_part10

    files = [
        file
        for path in paths
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file() and is_part10(file)
    ]
    return list(dict.fromkeys(files))
