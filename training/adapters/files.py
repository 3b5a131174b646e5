"""Helpers shared by adapters: reading tables and scores."""

import csv
from pathlib import Path

from mediqa_node.domain.errors import ConfigurationError


def here_or_below(root: Path) -> list[Path]:
    """Return a folder and its subfolders, because archives often unpack into a subfolder."""
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


def opinion(score: float | None, *, worst: float, best: float) -> float | None:
    """Scale a score to 0 (worst) .. 1 (best); None for a missing score or one outside of its scale.

    >>> opinion(2, worst=3, best=1)
    0.5
    >>> opinion(5, worst=0, best=4) is None
    True
    """
    share = None if score is None else (score - worst) / (best - worst)
    return share if share is not None and 0 <= share <= 1 else None


def number(cell: str | None) -> float | None:
    """Return a cell as a number, or None."""
    try:
        return float(cell or "")
    except ValueError:
        return None
