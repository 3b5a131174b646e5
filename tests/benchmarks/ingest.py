"""`python -m tests.benchmarks.ingest`: how fast instances are received and kept, compared with Orthanc and DCMTK.

Four receivers run side by side: the node with `receiver.durability: power-loss`, the node with `process-crash`,
Orthanc, and DCMTK's storescp, which syncs nothing. In each round every receiver gets its turn, the order rotates, and
what a turn has left unwritten goes to the disk before the next: machines drift, pairs do not. Both ends run with
TCP_NODELAY=1; without it DCMTK and Orthanc wait 40 ms for a delayed ACK per instance.

    speed     rates, ratios, and CPU time (the default part)
    profile   where the receiver's CPU time goes, thread by thread; `--profile` is short for it
    index     a node with a million instances compared with an empty one; `status`, `series` and the start
    soak      memory of the receiver over ten thousand instances
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks import images
from tests.benchmarks.node import send
from tests.benchmarks.servers import Server, node, orthanc, storescp

NEVER = {"quiet_after_s": 86_400, "contiguous_after_s": 86_400, "forced_after_s": 86_400}
"""No series is complete, so that nothing but receiving takes time."""
AT_ONCE = (1, 4)
POWER_LOSS, PROCESS_CRASH = "node, power-loss", "node, process-crash"
BOUNDS = {(POWER_LOSS, 1): (1.2, 3.0), (POWER_LOSS, 4): (1.15, 3.0)}
BOUNDS |= {(PROCESS_CRASH, 1): (1.8, 2.2), (PROCESS_CRASH, 4): (1.8, 2.2)}
"""At least so many times the rate of Orthanc, at most so many CPU-ms of the receiver process an instance."""
_TRIES, _PROBES, _CHEAP_S = 50, 20, 0.0002


@dataclass(frozen=True)
class Turn:
    """What one receiver did in one round."""

    rate: float
    cpu_ms: float
    receiver_cpu_ms: float


def take_turn(server: Server, folders: Sequence[Path], per_association: int) -> Turn:
    """Send folders at once, each over an association of its own."""
    os.sync()  # what others have left unwritten would be written, and paid for, now
    receiver = server.role("receiver") if server.name.startswith("node") else None
    before, mine = server.cpu_s(), _cpu_s(receiver)
    seconds, count = send(server, *folders), len(folders) * per_association
    return Turn(
        rate=count / seconds,
        cpu_ms=1000 * (server.cpu_s() - before) / count,
        receiver_cpu_ms=1000 * (_cpu_s(receiver) - mine) / count,
    )


def _cpu_s(process: psutil.Process | None) -> float:
    times = process.cpu_times() if process is not None else None
    return times.user + times.system if times is not None else 0.0


def sources(folder: Path, seed: int, per_association: int) -> list[Path]:
    """Write a series of new instances of 0.5 MB for each of one and of four associations."""
    made = [folder / str(k) for k in range(sum(AT_ONCE))]
    for k, source in enumerate(made):
        images.write_ct_series(source, per_association, seed=10 * seed + k)
    return made


def speed(folder: Path, rounds: int, per_association: int) -> Iterator[str]:
    """Rates and CPU time of four receivers, interleaved."""
    turns: dict[tuple[str, int], list[Turn]] = {}
    with (
        node(_fresh(folder), name=POWER_LOSS, completion=NEVER) as durable,
        node(_fresh(folder), name=PROCESS_CRASH, completion=NEVER, receiver={"durability": "process-crash"}) as quick,
        orthanc(_fresh(folder)) as pacs,
        storescp(_fresh(folder)) as plain,
    ):
        servers = [durable, quick, pacs, plain]
        for i in range(rounds):
            made = sources(folder / f"load{i}", i, per_association)
            for n, chosen in zip(AT_ONCE, (made[:1], made[1:]), strict=True):
                for server in servers:
                    turns.setdefault((server.name, n), []).append(take_turn(server, chosen, per_association))
            servers = servers[1:] + servers[:1]
    yield f"0.5 MB CT instances, {rounds} interleaved rounds of {per_association} an association; medians (spread)"
    for n in AT_ONCE:
        yield f"{n} association{'s' * (n > 1)}"
        for name in (POWER_LOSS, PROCESS_CRASH, "Orthanc", "storescp --fork"):
            yield _line(name, turns[name, n], turns["Orthanc", n], BOUNDS.get((name, n)))


def _line(name: str, turns: Sequence[Turn], reference: Sequence[Turn], bounds: tuple[float, float] | None) -> str:
    rates = [turn.rate for turn in turns]
    ratio = statistics.median(rates) / statistics.median(turn.rate for turn in reference)
    pairs = [turn.rate / other.rate for turn, other in zip(turns, reference, strict=True)]
    line = f"  {name:<20}{statistics.median(rates):5.0f}/s ({_range(rates, '.0f')})"
    line += f"  × Orthanc: {ratio:.2f} of medians, {statistics.median(pairs):.2f} of rounds ({_range(pairs, '.2f')})"
    line += f"  CPU-ms {statistics.median(turn.cpu_ms for turn in turns):.1f}"
    if bounds is None:
        return line
    least, most = bounds
    own = [turn.receiver_cpu_ms for turn in turns]
    line += f", receiver {statistics.median(own):.2f} ({_range(own, '.2f')})"
    return f"{line}   bounds {least:.2f} ×, {most:.1f} CPU-ms"


def _range(values: Sequence[float], how: str) -> str:
    return f"{min(values):{how}}–{max(values):{how}}"


def _fresh(folder: Path) -> Path:
    """Return a new folder in which creating files is cheap.

    ext4 passes over inodes that were freed within the last minutes. Where a thousand files have just been deleted, such
    as those of an earlier run, that takes a millisecond for each new file, whoever creates it.
    """
    subprocess.run(
        ["chattr", "+T", str(folder)], capture_output=True, check=False
    )  # each subfolder in a place of its own
    for number in range(_TRIES):
        fresh = folder / f"{len(list(folder.iterdir()))}-{number}"
        fresh.mkdir()
        began = time.thread_time()
        for i in range(_PROBES):
            (fresh / f"probe{i}").touch()
        if time.thread_time() - began < _PROBES * _CHEAP_S:
            break
    return fresh / "data"


def main() -> None:
    """Print the figures of the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["speed"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--instances", type=int, default=50, help="of an association")
    chosen = parser.parse_args()
    for part in chosen.parts:
        with tempfile.TemporaryDirectory(prefix="mediqa-bench-") as name:
            lines = {"speed": lambda f: speed(f, chosen.rounds, chosen.instances)}[part](Path(name))
            for line in lines:
                print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
