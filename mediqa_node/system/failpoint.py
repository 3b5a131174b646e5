"""Named places where a test kills the process, to prove that nothing acknowledged is lost.

`MEDIQA_FAILPOINT=name@token` kills the process with SIGKILL, as the kernel or a power cut would,
when it reaches `name` and the file `token` is there; the file is removed first, so that the
restarted process passes. Without the variable a call costs one comparison.
"""

import os
import signal
from pathlib import Path

_NAME, _, _TOKEN = os.environ.get("MEDIQA_FAILPOINT", "").partition("@")

RECEIVER = (
    "temp-open",
    "mid-write",
    "before-fsync",
    "after-fsync",
    "after-rename",
    "after-folder-fsync",
    "before-commit",
    "after-commit",
    "before-answer",
)
WORKER = ("score-begin", "after-decode", "after-inference", "before-assessment-commit", "after-assessment-commit")
BACKSCORE = ("before-backscore-commit",)
COMMAND = ("before-rating-commit",)
FORWARDER = ("mid-forward", "after-forward-answer", "before-forward-commit")
COURIER = (
    "after-ready",
    "after-report-commit",
    "mid-store",
    "after-store",
    "before-companion",
    "commitment-begun",
    "commitment-asked",
)


def reach(name: str) -> None:
    """Kill the process here if a test requests it."""
    if name != _NAME:
        return
    try:
        Path(_TOKEN).unlink()
    except OSError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
