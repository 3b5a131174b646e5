"""Headings and tables of the statement, in Markdown."""

from collections.abc import Iterable, Iterator


def section(title: str, level: int = 2) -> tuple[str, str, str]:
    """Return the lines of a heading."""
    return "", f"{'#' * level} {title}", ""


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
