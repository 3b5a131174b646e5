"""Read by Python at start of every process of a node on trial: how that process is to fail.

A file `receiver`, `worker` or `courier` in $MEDIQA_TRIAL_FOLDER holds the value of MEDIQA_FAILPOINT, so that one
running node can be killed at one place after another. A file `worker-falls` names a series and how the worker fails
with it.
"""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any


def _fall(how: str) -> None:
    if how == "hangs":
        ctypes.PyDLL(None).sleep(3600)  # within a library that holds the interpreter
    ctypes.string_at(0)  # a segmentation fault


def _fall_with(falls: Path) -> None:
    """Fail as the file says when the series that it names is assessed."""
    from mediqa_node.pipeline import flow

    assess = flow.assess

    def assess_or_fall(node: Any, series_instance_uid: str, generation: int) -> str:
        uid, how = falls.read_text().split()
        if series_instance_uid == uid:
            _fall(how)
        return assess(node, series_instance_uid, generation)

    flow.assess = assess_or_fall


_folder = os.environ.get("MEDIQA_TRIAL_FOLDER")
if _folder and sys.orig_argv[-2:-1] == ["process"]:
    _wanted = Path(_folder) / sys.orig_argv[-1]
    if _wanted.is_file():
        os.environ["MEDIQA_FAILPOINT"] = _wanted.read_text()
    if sys.orig_argv[-1] == "worker" and (_falls := Path(_folder) / "worker-falls").is_file():
        _fall_with(_falls)
