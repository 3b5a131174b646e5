"""`python -m tests.benchmarks.idle`: what a node costs while nothing arrives, and how fast jobs are handed over.

Processor time of all processes of `serve` over a minute, as a share of one core; then the time from a job's commit to
its start, as the durable engine records it, for series that are sent at intervals.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
import sqlalchemy as sa

from mediqa_node.storage.database import Database
from tests.benchmarks import images
from tests.benchmarks.node import send
from tests.benchmarks.servers import node, orthanc


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
    """Return the seconds from commit to start of every job, by queue."""
    database = Database(f"sqlite:///{folder / 'var' / 'node.db'}")
    with database.read() as connection:
        rows = connection.execute(
            sa.text("SELECT queue_name, created_at, started_at_epoch_ms FROM workflow_status WHERE queue_name IS NOT NULL")
        ).all()
    database.close()
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.started_at_epoch_ms is not None:
            found.setdefault(row.queue_name, []).append((row.started_at_epoch_ms - row.created_at) / 1000)
    return found


def main() -> None:
    """Print idle shares and hand-overs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--series", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with orthanc(folder / "orthanc") as pacs, node(folder / "node", pacs) as server:
            time.sleep(10)  # what starting left to do
            before = processor_s(folder / "node")
            time.sleep(arguments.seconds)
            after = processor_s(folder / "node")
            shares = {role: (after[role] - before[role]) / arguments.seconds for role in after}
            parts = ", ".join(f"{role} {share:.2%}" for role, share in sorted(shares.items()))
            print(f"idle, {arguments.seconds:.0f} s: {sum(shares.values()):.2%} of one core ({parts})")
            for number in range(arguments.series):
                source = folder / f"ct{number}"
                images.write_ct_series(source, 20, seed=number)
                send(server, source)
                time.sleep(8)
            for queue, seconds in sorted(hand_overs(folder / "node").items()):
                line = f"hand-over `{queue}`: median {1000 * statistics.median(seconds):.0f} ms, n = {len(seconds)}"
                print(f"{line}, longest {1000 * max(seconds):.0f} ms")


if __name__ == "__main__":
    sys.exit(main())
