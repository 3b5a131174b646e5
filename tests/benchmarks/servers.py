"""The node and its peers as child processes, with the CPU time and memory they use."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
"""Servers run in folders of their own: they have to import the node that these benchmarks belong to."""
ORTHANC = json.loads((Path(__file__).parents[1] / "orthanc.json").read_text())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running receiver of images."""

    name: str
    ae_title: str
    port: int
    process: "subprocess.Popen[bytes]"
    http_port: int = 0

    def _family(self) -> list[psutil.Process]:
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def cpu_s(self) -> float:
        """CPU seconds of the process, its children, and those of its children that have ended."""
        total = 0.0
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    @property
    def is_node(self) -> bool:
        """Whether it has a receiver process."""
        return self.ae_title == "MEDIQA"

    def role(self, name: str) -> psutil.Process:
        """The node's process of that role."""
        return next(process for process in self._family() if process.cmdline()[-1:] == [name])

    def rest(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Orthanc's REST interface."""
        data = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", data, timeout=10) as answer:
            return json.load(answer)


def answers(port: int, ae_title: str) -> bool:
    echo = ["/usr/bin/echoscu", "-to", "2", "-aec", ae_title, "127.0.0.1", str(port)]
    return subprocess.run(echo, env=ENVIRONMENT, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def running(
    name: str, ae_title: str, port: int, command: list[str], folder: Path, http_port: int = 0
) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not answers(port, ae_title):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not answer: {(folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield Server(name, ae_title, port, process, http_port)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=40)
        process.kill()


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Server]:
    port, http_port = free_port(), free_port()
    folder.mkdir(parents=True)
    settings = {**ORTHANC, "DicomPort": port, "HttpPort": http_port, "Plugins": [], "DicomModalities": {}}
    (folder / "orthanc.json").write_text(json.dumps(settings))
    command = [shutil.which("Orthanc") or "/usr/sbin/Orthanc", "orthanc.json"]
    with running("Orthanc", ORTHANC["DicomAet"], port, command, folder, http_port) as server:
        yield server


@contextlib.contextmanager
def storescp(folder: Path) -> Iterator[Server]:
    port = free_port()
    (folder / "out").mkdir(parents=True)
    command = ["/usr/bin/storescp", "--fork", "-aet", "STORESCP", "-od", "out", str(port)]
    with running("storescp --fork", "STORESCP", port, command, folder) as server:
        yield server


@contextlib.contextmanager
def node(
    folder: Path,
    pacs: Server | None = None,
    *,
    name: str = "mediqa-node",
    log_level: str = "INFO",
    host_id: str | None = None,
    data_dir: Path | str = "var",
    **sections: Any,
) -> Iterator[Server]:
    port = free_port()
    settings: dict[str, Any] = {
        "node": {"port": port, "data_dir": str(data_dir), "host_id": host_id},
        "retention": {"low_water_bytes": 0},
        **sections,
        "model": {"allow_untrained": True, **sections.get("model", {})},
    }
    if pacs is not None:
        settings["peers"] = {"PACS": {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.port}}
        settings["returns"] = [{"from": "*", "to": ["PACS"]}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "node.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "mediqa_node", "-c", str(folder / "node.yaml"), "--log-level", log_level, "serve"]
    with running(name, "MEDIQA", port, command, folder) as server:
        yield server


def events(folder: Path) -> list[dict[str, Any]]:
    """The node's log so far."""
    return [json.loads(line) for line in (folder / "log").read_text().splitlines() if line.startswith("{")]


def wait_until_it_scores(folder: Path) -> None:
    """Wait until the worker has checked its checkpoint, which takes both cores of a small machine for a while."""
    while not {"scoring", "delivering"} <= {line.get("event") for line in events(folder)}:
        time.sleep(0.5)
