"""`python -m tests.benchmarks.idle`: what a node costs while nothing arrives, and how fast jobs are handed over.

Processor time of all processes of `serve` over a minute, as a share of one core; then the time from one station's
commit to the start of the next, for series that are sent at intervals, from the log.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psutil

from tests.benchmarks import images
from tests.benchmarks.node import send
from tests.benchmarks.servers import events, node, orthanc, wait_until_it_scores


def processor_s(folder: Path) -> dict[str, float]:
    """Return the processor seconds of the node in a folder, by process."""
    mine = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or ()) and "mediqa_node" in process.info["cmdline"]
    ]
    found = {}
    for process in mine:
        times = process.cpu_times()
        found[process.info["cmdline"][-1]] = times.user + times.system
    return found


def hand_overs(folder: Path) -> dict[str, list[float]]:
    """Return the seconds from the commit of one station to the start of the next."""
    committed: dict[str, datetime] = {}
    found: dict[str, list[float]] = {"complete to assess": [], "assess to deliver": []}
    for line in sorted(events(folder), key=lambda line: str(line["timestamp"])):
        at = datetime.fromisoformat(str(line["timestamp"]))
        if line["event"] == "series ready":
            committed["score"] = at
        elif line["event"] == "series assessed":
            committed["deliver"] = at
        elif line["event"] == "job started" and line["job"] in committed:
            name = {"score": "complete to assess", "deliver": "assess to deliver"}[line["job"]]
            found[name].append((at - committed.pop(line["job"])).total_seconds())
    return found


def measure(seconds: float, n_series: int) -> Iterator[str]:
    """Yield idle shares and hand-overs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with orthanc(folder / "orthanc") as pacs, node(folder / "node", pacs, log_level="DEBUG") as server:
            wait_until_it_scores(folder / "node")
            time.sleep(10)  # and for what starting leaves to do
            before = processor_s(folder / "node")
            time.sleep(seconds)
            after = processor_s(folder / "node")
            shares = {role: (after[role] - before[role]) / seconds for role in after}
            parts = ", ".join(f"{role} {share:.2%}" for role, share in sorted(shares.items()))
            yield (f"idle, {seconds:.0f} s: {sum(shares.values()):.2%} of one core ({parts})")
            for number in range(n_series):
                source = folder / f"ct{number}"
                images.write_ct_series(source, 20, seed=number)
                send(server, source)
                time.sleep(8)
            for queue, seconds in sorted(hand_overs(folder / "node").items()):
                line = f"hand-over, {queue}: median {1000 * statistics.median(seconds):.0f} ms, n = {len(seconds)}"
                yield (f"{line}, longest {1000 * max(seconds):.0f} ms")


def main() -> None:
    """Print idle shares and hand-overs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--series", type=int, default=8)
    arguments = parser.parse_args()
    for line in measure(arguments.seconds, arguments.series):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
