"""`python -m tests.benchmarks.node`: from association release to report, and memory of the receiver.

Rounds are interleaved, figures are medians, ratios are what counts: machines drift, pairs do not.
Both ends run with TCP_NODELAY=1; without it DCMTK and Orthanc wait 40 ms for a delayed ACK per instance.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psutil
import yaml

from mediqa_node import config
from mediqa_node.composition import resources
from tests.benchmarks import images
from tests.benchmarks.servers import ENVIRONMENT, Server, answers, events, free_port, node, orthanc


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


def latency(folder: Path, rounds: int) -> Iterator[str]:
    """Time from the release of the association to the report in Orthanc, in its parts."""
    parts: dict[str, list[float]] = {name: [] for name in ("ready", "judged", "sent")}
    inference: list[float] = []
    with orthanc(folder / "orthanc") as pacs, node(folder / "node", pacs) as server:
        _warm_up(folder, server, pacs)
        for i in range(rounds):
            source = folder / f"ct{i}"
            uid = images.write_ct_series(source, 100, seed=i)
            send(server, source)
            released = time.time()
            seen = _wait_for_reports(pacs, i + 2)
            stamps = _stamps(folder / "node", uid)
            inference.append(_inference_s(folder / "node", uid))
            marks = [released, stamps["series ready"], stamps["series assessed"], seen]
            for name, begin, end in zip(parts, marks[:-1], marks[1:], strict=True):
                parts[name].append(end - begin)
    inference_s = statistics.median(inference)
    total = [sum(values) for values in zip(*parts.values(), strict=True)]
    yield f"release → report in Orthanc, 100 slices 512 × 512, {rounds} rounds, median [s]"
    yield f"  until complete (contiguous)    {statistics.median(parts['ready']):6.2f}"
    judged_s = statistics.median(parts["judged"])
    yield f"  harvest, slices, score         {judged_s:6.2f}   of it inference {inference_s:.2f}"
    yield f"  report, identity, C-STORE      {statistics.median(parts['sent']):6.2f}"
    whole = statistics.median(total)
    yield f"  in all                         {whole:6.2f}   bound 3 s + inference = {3 + inference_s:.2f}"


def _warm_up(folder: Path, server: Server, pacs: Server) -> None:
    images.write_ct_series(folder / "warm", 8, size=128, seed=99)
    send(server, folder / "warm")
    _wait_for_reports(pacs, 1)


def _wait_for_reports(pacs: Server, count: int) -> float:
    deadline = time.monotonic() + 60
    query = {"Level": "Instance", "Query": {"Modality": "SR"}}
    while len(pacs.rest("/tools/find", query)) < count:
        if time.monotonic() > deadline:
            raise RuntimeError("no report within a minute")
        time.sleep(0.01)
    return time.time()


def _stamps(folder: Path, uid: str) -> dict[str, float]:
    """When each station was done with a series; the courier logs a moment after the report can be seen."""
    deadline = time.monotonic() + 10
    while True:
        found = {str(e["event"]): _seconds(e) for e in events(folder) if e.get("series") == uid}
        if "delivery" in found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _seconds(event: dict[str, str]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _inference_s(folder: Path, uid: str) -> float:
    """Seconds that the worker's network took for a series."""
    found = (event for event in events(folder) if event.get("series") == uid and "inference_ms" in event)
    return float(next(found)["inference_ms"]) / 1000


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
                "latency": lambda f: latency(f, chosen.rounds),
                "memory": memory,
            }[part](folder)
            for line in lines:
                print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
