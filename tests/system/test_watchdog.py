"""The watchdog, in processes of their own: it ends them."""

import subprocess
import sys

import pytest
from support.siblings import before_release

HANG = """
import ctypes, sys, threading, time
from mediqa_node.system.watchdog import Watchdog

dog = Watchdog(float(sys.argv[1]))

def work(seconds):
    with dog.watched():
        time.sleep(seconds)
"""
HANGS = {
    "waiting": "work(60)",
    "holding the interpreter": "with dog.watched(): ctypes.PyDLL(None).sleep(60)",
    "beside work that ends": "threading.Thread(target=work, args=(60,)).start()\nfor _ in range(600): work(0.1)",
}


def ended(then: str, within_s: float) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", f"{HANG}\n{then}", str(within_s)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("how", list(HANGS))
def test_work_that_hangs_ends_its_process_and_says_where_it_stood(how: str) -> None:
    process = ended(HANGS[how], 0.5)

    assert process.returncode == 1
    assert "Timeout" in process.stderr
    assert 'File "<string>", line' in process.stderr


@pytest.mark.parametrize(
    "then",
    ["work(0.1); time.sleep(1.5)", *before_release("for _ in range(8): work(0.2)")],
    ids=lambda then: "ends in time" if "1.5" in then else "again and again",
)
def test_work_that_ends_in_time_ends_nothing(then: str) -> None:
    process = ended(then, 1.0)

    assert (process.returncode, process.stderr) == (0, "")
