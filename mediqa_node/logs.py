"""Structured logs: JSON lines, or readable text on a terminal, without patient data and control characters.

Values sent by a peer (AE titles, UIDs, comments) may appear; they are escaped and cut, so that a peer cannot forge a
line. A traceback has the places and the class of the error, but neither its message nor variables, which may quote a
header. The messages of `MediqaError` never do, and are logged.

A line that a peer or a broken disk can repeat carries `hourly_for`, usually its sender: it is written once an hour for
each event and sender, and the next one counts those that were held back.
"""

import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Hashable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

import structlog

from mediqa_node.domain.errors import MediqaError

_LONGEST_VALUE = 512
_HOUR_S = 3600.0
_MOST_SENDERS = 1024
"""Of one event that have a line of their own; all others share one, so that no flood of names fills the log."""
_ALL_OTHERS = "all other senders"


class _Lines:
    """Writes each line by one `write`, its end included: the processes of a node share one file, often unbuffered.

    A line that cannot be written is lost: images are received and reported though the disk of the log is full.
    """

    _one_at_a_time = threading.Lock()

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._descriptor: int | None = None
        with suppress(OSError, ValueError):  # nothing that the system knows
            self._descriptor = file.fileno()

    def msg(self, line: str) -> None:
        """Write a line."""
        text = f"{line}\n"
        with self._one_at_a_time, suppress(OSError, ValueError):  # ValueError: the file was closed
            if self._descriptor is None:
                self._file.write(text)
                self._file.flush()
            else:  # past the buffer, in which a line that failed would stay, and fail again where others flush it
                os.write(self._descriptor, text.encode(errors="backslashreplace"))

    debug = info = warning = error = critical = exception = msg


def configure(*, level: str = "INFO", json_lines: bool | None = None) -> None:
    """Set up logging for this process, to standard error.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        json_lines: None chooses JSON unless standard error is a terminal.
    """
    file = sys.stderr
    as_json = not file.isatty() if json_lines is None else json_lines
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=True)
    if not as_json:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            OnceAnHour(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exception,
            _escape,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _Lines(file),
        cache_logger_on_first_use=True,
    )
    # libraries quote values of headers in their messages and warnings
    logging.basicConfig(level=logging.CRITICAL, stream=sys.stderr, force=True)
    # pydicom sets the level of its logger when it is imported, perhaps after this; the handler's level stays
    logging.getLogger().handlers[0].setLevel(logging.CRITICAL)
    for name in ("pynetdicom", "pydicom", "dbos", "apscheduler", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")


def log_uncaught() -> None:
    """Log in one line what ends a thread or this process, where Python would print a page and quote a header."""
    sys.excepthook = lambda _kind, error, _trace: _uncaught(error)
    threading.excepthook = lambda failed: _uncaught(failed.exc_value)


def _uncaught(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        structlog.get_logger("uncaught").critical("exception not caught", exc_info=error)


@dataclass(slots=True)
class _Line:
    written_at: float
    held_back: int = 0


class OnceAnHour:
    """A processor that holds back a line if the same event was written for the same sender within the last hour."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: dict[str, dict[Hashable, _Line]] = {}

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return the line to be written, with the number of those held back; raise DropEvent to hold it back."""
        if "hourly_for" not in event:
            return event
        with self._lock:
            now = self._clock()
            lines = self._lines_of(event["event"], now)
            sender = event.pop("hourly_for")
            if sender not in lines and len(lines) >= _MOST_SENDERS:
                sender = _ALL_OTHERS
            line = lines.get(sender)
            if line is not None and now - line.written_at < _HOUR_S:
                line.held_back += 1
                raise structlog.DropEvent
            lines[sender] = _Line(now)
        if line is not None and line.held_back:
            event["held_back"] = line.held_back
        return event

    def _lines_of(self, name: str, now: float) -> dict[Hashable, _Line]:
        lines = self._lines.setdefault(name, {})
        if len(lines) >= _MOST_SENDERS:
            lines = {sender: line for sender, line in lines.items() if now - line.written_at < _HOUR_S}
            self._lines[name] = lines
        return lines


def _exception(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace `exc_info` by the class of the error and the places it passed."""
    given = event.pop("exc_info", None)
    if not given:
        return event
    error = given if isinstance(given, BaseException) else sys.exc_info()[1]
    if error is not None:
        event["error"] = f"{type(error).__name__}: {error}" if isinstance(error, MediqaError) else type(error).__name__
        if error.__cause__ is not None:
            event["cause"] = type(error.__cause__).__name__
        places = traceback.extract_tb(error.__traceback__)
        event["where"] = " < ".join(f"{place.filename.rsplit('/', 1)[-1]}:{place.lineno}" for place in reversed(places))
    return event


def _escape(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and key != "event":
            cut = value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "…"
            event[key] = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)
    return event
