"""Days on the command line."""

from datetime import UTC, datetime

import typer


def day(given: str | None, option: str) -> float | None:
    """Return the first second of a day, seconds since 1970 UTC; None for None.

    Raises:
        typer.BadParameter: it is no day.
    """
    try:
        return datetime.strptime(given, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() if given else None
    except ValueError:
        raise typer.BadParameter(f"{given!r}: must be a day such as 2026-11-30", param_hint=option) from None
