"""Format facts for a terminal, a pipe, and JSON."""

import json
import math
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import typer

from mediqa_node.domain.health import span

_UNLIMITED = 10_000


def width() -> int:
    """Return the width of the terminal in columns; unlimited without a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNLIMITED


def ago(seconds: float) -> str:
    """Return a span of time in one unit: `12 s ago`."""
    return f"{span(seconds)} ago"


def date(at: float | None) -> str:
    """Return seconds since 1970 as a date.

    >>> date(0)
    '1970-01-01 00:00 UTC'
    """
    return "–" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def since(at: float | None) -> str:
    """Return seconds since 1970 as a date and as an age."""
    return "–" if at is None else f"{date(at)}, {ago(time.time() - at)}"


def size(n_bytes: float) -> str:
    """Return a number of bytes with a decimal unit.

    >>> size(141e9)
    '141 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def count(n: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun.

    >>> count(1, "delivery", "deliveries"), count(3000, "series", "series")
    ('1 delivery', '3,000 series')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def fact(name: str, text: str, *, indent: int = 12) -> None:
    """Print a fact in the column after its name; on a terminal long text is wrapped in that column."""
    lines = textwrap.wrap(text, max(20, width() - indent), break_long_words=False, break_on_hyphens=False) or [""]
    for i, line in enumerate(lines):
        typer.echo(f"{name if i == 0 else '':<{indent}}{line}".rstrip())


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns, numbers to the right, that fit the terminal; cells are wrapped between words."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    columns = [[row[i] for row in [heads, *rows]] for i in range(len(heads))]
    words = [max(len(word) for cell in cells for word in [*cell.split(), ""]) for cells in columns]
    whole = sum(words) + 2 * len(words) <= width()
    for head, cells, longest in zip(heads, columns, words, strict=True):
        is_number = bool(rows) and all(_is_number(cell) for cell in cells[1:])
        justify: Literal["left", "right"] = "right" if is_number else "left"
        grid.add_column(Text(head), justify=justify, overflow="fold", min_width=longest if whole else None)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(width=width(), color_system=None, force_terminal=False, highlight=False)
    with console.capture() as printed:
        console.print(grid)
    for line in printed.get().splitlines():
        typer.echo(line.rstrip())


def held_step(delivery_id: int, destination: str, state: str, reason_code: str | None) -> str:
    """Return what a person does about a delivery that is held; no retry alone where it could only fail again."""
    from mediqa_node.domain.series import DeliveryReason, DeliveryState

    retry = f"mediqa-node retry {delivery_id}"
    if state == DeliveryState.WITHHELD:  # the destination answers
        return retry
    first = {
        DeliveryReason.NOT_CONFIGURED: f"add {destination} to `peers` again",
        DeliveryReason.NOT_BUILT: "correct the images at their source and send them again, or mend the configuration",
        DeliveryReason.FILE_MISSING: "mediqa-node verify",
        DeliveryReason.NOT_COMMITTED: f"ask why {destination} does not keep it",
    }
    before = first.get(DeliveryReason(reason_code)) if reason_code else None
    before = before or f"mediqa-node echo {destination}"
    return f"{before}, then {retry}"


def as_json(value: Any) -> None:
    """Print JSON; numbers that are not finite become null."""
    typer.echo(json.dumps(finite(value), indent=2, ensure_ascii=False))


def finite(value: Any) -> Any:
    """Return nested lists and mappings with None for each number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(text: str) -> bool:
    return text in ("", "–") or re.fullmatch(r"[-+]?[\d,]+(\.\d+)?(e[-+]\d+)?", text) is not None
