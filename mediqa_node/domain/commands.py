"""Actions that a page asks for and the courier carries out."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class CommandAction(StrEnum):
    """What is asked for."""

    RETRY = "retry"
    CANCEL = "cancel"
    ECHO = "echo"
    PREVIEW = "preview"
    EXPORT = "export"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    SHADOW = "shadow"
    UNSHADOW = "unshadow"


class CommandState(StrEnum):
    """How far it is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One action on record; `result` is for people."""

    id: int
    at: float
    by: str
    action: CommandAction
    arguments: Mapping[str, Any]
    state: CommandState
    started_at: float | None
    done_at: float | None
    progress: float | None
    result: str
