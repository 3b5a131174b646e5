"""Tables and DICOM series as public data sets have them: read for adapters, with the node's own rules."""

import csv
from pathlib import Path

from pydicom import Dataset

from mediqa_node.domain.errors import ConfigurationError

Series = tuple[tuple[Path, ...], tuple[Dataset, ...]]


def here_or_below(root: Path) -> list[Path]:
    """Return a folder and those in it: archives unpack to a folder of their own."""
    return [root, *sorted(path for path in root.iterdir() if path.is_dir())]


def table(path: Path, *, delimiter: str = ",") -> list[dict[str, str]]:
    """Return the rows of a CSV, by column in lower case, cells stripped.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            return [
                {(name or "").strip().lower(): (cell or "").strip() for name, cell in row.items() if name is not None}
                for row in csv.DictReader(lines, delimiter=delimiter)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"table {path} cannot be read: {error}") from error


def number(cell: str | None) -> float | None:
    """Return a cell as a number; None where it is none."""
    try:
        return float(cell or "")
    except ValueError:
        return None
