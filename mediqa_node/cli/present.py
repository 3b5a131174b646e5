"""How facts look on a terminal."""

import math
import re
from collections.abc import Sequence
from typing import Any

import typer


def ago(seconds: float) -> str:
    """Return a span of time in one unit: `12 s ago`."""
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{max(seconds, 0) / length:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} days ago"


def size(n_bytes: float) -> str:
    """Return a number of bytes with a decimal unit: `141 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def count(n: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: `1 delivery`, `3 deliveries`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; numbers to the right."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    right = [all(_is_number(row[i]) for row in rows) and bool(rows) for i in range(len(heads))]
    for row in [heads, *rows]:
        cells = [text.rjust(w) if r else text.ljust(w) for text, w, r in zip(row, widths, right, strict=True)]
        typer.echo("  ".join(cells).rstrip())


def finite(value: Any) -> Any:
    """Return nested lists and mappings with null for what is no finite number: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: finite(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(text: str) -> bool:
    return text == "–" or re.fullmatch(r"[-+]?[\d,]+(\.\d+)?(e[-+]\d+)?", text) is not None
