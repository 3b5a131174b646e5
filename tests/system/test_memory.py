"""Freed memory that is kept."""

import subprocess
import sys

SCRIPT = """
import resource, sys
import numpy as np
from mediqa_node.system.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        held = [np.ones(1 << 18) for _ in range(20)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def faults(which: str) -> int:
    out = subprocess.run([sys.executable, "-c", SCRIPT, which], capture_output=True, text=True, check=True, timeout=60)
    return int(out.stdout)


def test_large_arrays_do_not_get_new_pages_every_time():
    assert 20 * faults("keep") < faults("return")
