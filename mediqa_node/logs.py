"""Structured logs: JSON lines, or readable text on a terminal, without patient data and control characters.

Values sent by a peer (AE titles, UIDs, comments) may appear; they are escaped and cut, so that a peer cannot forge a
line. A traceback has the places and the class of the error, but neither its message nor variables, which may quote a
header. The messages of `MediqaError` never do, and are logged.
"""

import logging
import sys
import traceback
import warnings
from collections.abc import MutableMapping
from typing import Any

import structlog

from mediqa_node.domain.errors import MediqaError

_LONGEST_VALUE = 512


def configure(*, level: str = "INFO", json_lines: bool | None = None) -> None:
    """Set up logging for this process, to standard error.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        json_lines: None chooses JSON unless standard error is a terminal.
    """
    as_json = not sys.stderr.isatty() if json_lines is None else json_lines
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=True)
    if not as_json:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exception,
            _escape,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # libraries quote values of headers in their messages and warnings
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr, force=True)
    # pydicom sets the level of its logger when it is imported, perhaps after this; the handler's level stays
    logging.getLogger().handlers[0].setLevel(logging.CRITICAL)
    for name in ("pynetdicom", "pydicom", "dbos", "apscheduler", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")


def _exception(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace `exc_info` by the class of the error and the places it passed."""
    if not event.pop("exc_info", None):
        return event
    error = sys.exc_info()[1]
    if error is not None:
        event["error"] = f"{type(error).__name__}: {error}" if isinstance(error, MediqaError) else type(error).__name__
        places = traceback.extract_tb(error.__traceback__)
        event["where"] = " < ".join(f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}" for place in reversed(places))
    return event


def _escape(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and key != "event":
            cut = value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "…"
            event[key] = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)
    return event
