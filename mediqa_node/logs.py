"""Structured logs: JSON lines, or readable on a terminal; never a patient, never a raw control character.

What a peer sent (AE titles, UIDs, comments) may appear; it is escaped and cut, so that nobody can
forge a line. Tracebacks carry no local variables: those may hold headers.
"""

import logging
import sys
from typing import Any

import structlog

_LONGEST_VALUE = 512


def configure(*, level: str = "INFO", json_lines: bool | None = None) -> None:
    """Set up logging for this process, to standard error.

    Args:
        json_lines: None chooses JSON unless standard error is a terminal.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    as_json = not sys.stderr.isatty() if json_lines is None else json_lines
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=True)
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _escape,
    ]
    structlog.configure(
        processors=[*shared, *([structlog.processors.format_exc_info] if as_json else []), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # libraries log through the standard library; pynetdicom and DBOS speak of every message they handle
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s", force=True)
    for name in ("pynetdicom", "pydicom", "dbos", "apscheduler", "highdicom"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _escape(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and key not in ("event", "exception"):
            cut = value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "…"
            event[key] = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)
    return event
