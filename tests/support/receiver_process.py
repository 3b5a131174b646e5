"""The receiver process of a node, alone."""

import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from mediqa_node.composition import resources
from mediqa_node.config import load
from support.receiving import IMPLICIT, VERIFICATION, Scu
from support.waiting import PATIENCE_S, free_port, until


@contextmanager
def stand_alone(folder: Path, **receiver: Any) -> Iterator[tuple[int, psutil.Process, float]]:
    """Run the receiver process; give its port, itself, and how long it took to answer. It logs to `receiver.log`.

    Args:
        receiver: settings of the section of that name.
    """
    port = free_port()
    configuration = folder / "node.yaml"
    section = f"receiver: {json.dumps(receiver)}\n" if receiver else ""
    configuration.write_text(
        f"node: {{port: {port}, data_dir: var}}\nretention: {{low_water_bytes: 1000000}}\n{section}"
    )
    resources.prepare(load(configuration))
    started = time.monotonic()
    with (folder / "receiver.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mediqa_node", "--config", str(configuration), "process", "receiver"],
            stdin=subprocess.PIPE,
            stderr=log,
        )
    try:
        until(lambda: echoes(port), "the receiver answers", every_s=0.01)
        yield port, psutil.Process(process.pid), time.monotonic() - started
    finally:
        process.terminate()
        assert process.wait(timeout=600) == 0


def echoes(port: int) -> bool:
    """Return whether a C-ECHO is answered."""
    try:
        with Scu(port, calling=b"MONITOR") as scu:
            return scu.echo() == 0x0000
    except OSError:
        return False


@contextmanager
def echoing(port: int, process: psutil.Process) -> Iterator[tuple[list[float], list[float]]]:
    """Verify again and again; give the durations in seconds, and the memory of the process in MB at the same time."""
    took: list[float] = []
    memory: list[float] = []
    stop = threading.Event()

    def verify() -> None:
        while not stop.wait(0.05):
            started = time.monotonic()
            with Scu(port, calling=b"MONITOR", contexts={5: (VERIFICATION, [IMPLICIT])}) as scu:
                assert scu.echo() == 0x0000
                scu.release()
            took.append(time.monotonic() - started)
            memory.append(process.memory_info().rss / 1024**2)

    with ThreadPoolExecutor(1) as pool:
        verifying = pool.submit(verify)
        try:
            yield took, memory
        finally:
            stop.set()
            verifying.result()


WAITS_S = 2.0
"""How long a scanner may have to wait for a receiver that starts again, on an idle machine."""


def waiting_callers(calls: Sequence[tuple[int, ssl.SSLContext | None]]) -> list[float]:
    """Verify at several ports at once; return how long each caller waited. One that is refused raises."""

    def call(port: int, tls: ssl.SSLContext | None) -> float:
        started = time.monotonic()
        with Scu(port, tls=tls, calling=b"MONITOR", timeout_s=PATIENCE_S) as scu:
            assert scu.echo() == 0x0000
        return time.monotonic() - started

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda one: call(*one), calls))
