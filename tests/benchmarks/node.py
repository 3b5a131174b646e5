"""`python -m tests.benchmarks.node`: from the last slice to the report, and memory of the receiver.

Rounds are interleaved, figures are medians, ratios are what counts: machines drift, pairs do not.
Both ends run with TCP_NODELAY=1; without it DCMTK and Orthanc wait 40 ms for a delayed ACK per instance.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import yaml

from mediqa_node import config
from mediqa_node.composition import resources
from tests.benchmarks import images
from tests.benchmarks.latency import latency
from tests.benchmarks.servers import ENVIRONMENT, Server, answers, free_port


def send(server: Server, *folders: Path) -> float:
    """Send folders, each over an association of its own, at once; return seconds until all are released."""
    start = time.perf_counter()
    senders = [
        subprocess.Popen(
            ["/usr/bin/storescu", "-R", "-aec", server.ae_title, "127.0.0.1", str(server.port), "+sd", str(folder)],
            env=ENVIRONMENT,
        )
        for folder in folders
    ]
    if any(sender.wait() for sender in senders):
        raise RuntimeError(f"{server.name} refused images")
    return time.perf_counter() - start


def _acknowledged(server: Server, folder: Path) -> float:
    """Send a folder at once; return when its association was released."""
    send(server, folder)
    return time.time()


def memory(folder: Path) -> Iterator[str]:
    """Start-up time and resident memory of the receiver process alone."""
    port = free_port()
    folder.mkdir()
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump({"node": {"port": port, "data_dir": "var"}, "retention": {"low_water_bytes": 0}}))
    resources.prepare(config.load(path, {}))
    big = folder / "big" / "0.dcm"
    big.parent.mkdir()
    images.write_multi_frame(big, 1000)
    command = [sys.executable, "-m", "mediqa_node", "-c", str(path), "process", "receiver"]
    start = time.perf_counter()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log)
    try:
        while not answers(port, "MEDIQA"):
            time.sleep(0.02)
        ready_s = time.perf_counter() - start
        time.sleep(1)
        idle_mb = psutil.Process(process.pid).memory_info().rss / 1e6
        send(Server("receiver", "MEDIQA", port, process), big.parent)
        peak_mb = _peak_mb(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=40)
    yield f"receiver: ready {ready_s:.2f} s after start; RSS {idle_mb:.0f} MB idle, at most {peak_mb:.0f} MB while"
    yield f"  an object of {big.stat().st_size / 1e6:.0f} MB arrives   bounds 3 s, 120 MB, 300 MB"


def _peak_mb(pid: int) -> float:
    """The high-water mark of resident memory, without pages of mapped files that the kernel may drop."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["latency", "memory"])
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    for part in chosen.parts:
        with tempfile.TemporaryDirectory(prefix="mediqa-bench-") as name:
            folder = Path(name) / part
            lines = {
                "latency": lambda f: latency(f, chosen.rounds, _acknowledged),
                "memory": memory,
            }[part](folder)
            for line in lines:
                print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
