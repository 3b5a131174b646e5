"""Read by Python at start of every process of a node on trial: where that process is to die next.

A file `receiver`, `worker` or `courier` in $MEDIQA_TRIAL_FOLDER holds the value of MEDIQA_FAILPOINT, so
that one running node can be killed at one place after another.
"""

import os
import sys
from pathlib import Path

_folder = os.environ.get("MEDIQA_TRIAL_FOLDER")
if _folder and sys.orig_argv[-2:-1] == ["process"]:
    _wanted = Path(_folder) / sys.orig_argv[-1]
    if _wanted.is_file():
        os.environ["MEDIQA_FAILPOINT"] = _wanted.read_text()
