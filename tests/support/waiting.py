"""Waiting with a deadline: nothing here sleeps and hopes."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")

PATIENCE_S = 600.0
"""How long a test waits for what must happen: a busy machine is slow, and only a failure waits this long."""


def until(look: Callable[[], T], what: str, *, within_s: float = PATIENCE_S, every_s: float = 0.05) -> T:
    """Return the first truthy answer of `look`, or fail saying what did not happen."""
    deadline = time.monotonic() + within_s
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s:.0f} s: {what}; last seen: {found!r}", pytrace=True)
        time.sleep(every_s)


_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port that nobody listens on, and that was not given away before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def stop(process: subprocess.Popen[bytes], *, within_s: float = PATIENCE_S) -> int:
    """End a process that we started: SIGTERM, then SIGKILL; return its exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


PACKAGES = {
    "/usr/bin/storescu": "dcmtk",
    "/usr/bin/dsrdump": "dcmtk",
    "/usr/sbin/Orthanc": "orthanc",
    "/usr/bin/dcentvfy": "dicom3tools",
    "/usr/bin/faketime": "faketime",
    "/usr/sbin/haproxy": "haproxy",
}
"""Peers by the Debian package that installs them. `storescu` of pynetdicom would be no peer."""


def need(config: pytest.Config, *programs: str) -> None:
    """Skip unless the programs are there, saying what to install; with --require-peers fail instead."""
    missing = sorted({PACKAGES[program] for program in programs if shutil.which(program) is None})
    if not missing:
        return
    advice = f"apt-get install {' '.join(missing)}"
    if config.getoption("--require-peers", default=False):
        pytest.fail(f"peers are missing: {advice}")
    pytest.skip(advice)
