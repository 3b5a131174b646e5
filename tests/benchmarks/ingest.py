"""`python -m tests.benchmarks.ingest`: how fast instances are received and kept, compared with Orthanc and DCMTK.

Four receivers run side by side: the node with `receiver.durability: power-loss`, the node with `process-crash`,
Orthanc, and DCMTK's storescp, which syncs nothing. In each round every receiver gets its turn, the order rotates, and
what a turn has left unwritten goes to the disk, and what workers prepare is prepared, before the next: machines drift,
pairs do not. Both ends run with
TCP_NODELAY=1; without it DCMTK and Orthanc wait 40 ms for a delayed ACK per instance.

    speed     rates, ratios, and CPU time (the default part)
    profile   where the receiver's CPU time goes, thread by thread; `--profile` is short for it
    index     a node with a million instances compared with an empty one; `status`, `series` and the start
    soak      memory of the receiver over ten thousand instances
"""

import argparse
import contextlib
import os
import pstats
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from mediqa_node import config, logs
from mediqa_node.composition import resources
from mediqa_node.domain.peer import Peer
from tests.benchmarks import images
from tests.benchmarks.node import send
from tests.benchmarks.servers import Server, answers, free_port, node, orthanc, storescp, wait_until_it_scores
from tests.support.bench import Bench
from tests.support.many import multiply
from tests.support.series import ct_series

NEVER = {"quiet_after_s": 86_400, "contiguous_after_s": 86_400, "forced_after_s": 86_400}
"""No series is complete, so that nothing but receiving takes time."""
AT_ONCE = (1, 4)
POWER_LOSS, PROCESS_CRASH = "node, power-loss", "node, process-crash"
BOUNDS = {(POWER_LOSS, 1): (1.2, 3.0), (POWER_LOSS, 4): (1.15, 3.0)}
BOUNDS |= {(PROCESS_CRASH, 1): (1.8, 2.2), (PROCESS_CRASH, 4): (1.8, 2.2)}
"""At least so many times the rate of Orthanc, at most so many CPU-ms of the receiver process an instance."""
_SETTLES_WITHIN_S, _LOOK_S, _IDLE = 30.0, 0.5, 0.2
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
    receiver = server.role("receiver") if server.is_node else None
    before, mine = server.cpu_s(), _cpu_s(receiver)
    seconds, count = send(server, *folders), len(folders) * per_association
    return Turn(
        rate=count / seconds,
        cpu_ms=1000 * (server.cpu_s() - before) / count,
        receiver_cpu_ms=1000 * (_cpu_s(receiver) - mine) / count,
    )


def settle(*nodes: Server) -> None:
    """Wait until the workers have prepared what came before: they do so while a series is not complete."""
    deadline = time.monotonic() + _SETTLES_WITHIN_S
    while time.monotonic() < deadline:
        before = sum(one.cpu_s() for one in nodes)
        time.sleep(_LOOK_S)
        if sum(one.cpu_s() for one in nodes) - before < _IDLE * _LOOK_S:
            return


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
    ours = _fresh(folder), _fresh(folder)
    with (
        node(ours[0], name=POWER_LOSS, completion=NEVER) as durable,
        node(ours[1], name=PROCESS_CRASH, completion=NEVER, receiver={"durability": "process-crash"}) as quick,
        orthanc(_fresh(folder)) as pacs,
        storescp(_fresh(folder)) as plain,
    ):
        servers = [durable, quick, pacs, plain]
        for place in ours:
            wait_until_it_scores(place)
        for i in range(rounds):
            made = sources(folder / f"load{i}", i, per_association)
            for n, chosen in zip(AT_ONCE, (made[:1], made[1:]), strict=True):
                for server in servers:
                    settle(durable, quick)
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


@contextmanager
def _receiver(
    folder: Path, name: str = POWER_LOSS, module: Sequence[str] = ("mediqa_node",)
) -> Iterator[tuple[Server, float]]:
    """Run the receiver process of a node alone; yield it, and after how many seconds it answered."""
    folder.mkdir(exist_ok=True)
    port, path = free_port(), folder / "node.yaml"
    settings = {
        "node": {"port": port, "data_dir": "var"},
        "retention": {"low_water_bytes": 0},
        "receiver": {"durability": name.removeprefix("node, ")},
    }
    path.write_text(yaml.safe_dump(settings))
    resources.prepare(config.load(path, {}))
    command = [sys.executable, "-m", *module, "-c", str(path), "process", "receiver"]
    began = time.perf_counter()
    with (folder / "receiver.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log)
    try:
        while not answers(port, "MEDIQA"):
            if process.poll() is not None:
                raise RuntimeError((folder / "receiver.log").read_text()[-2000:])
            time.sleep(0.02)
        yield Server(name, "MEDIQA", port, process), time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(timeout=40)


# ── profile ──────────────────────────────────────────────────────────────────

LIMITS = {
    "update": "SHA-256 of every byte: the processor",
    "posix.write": "copy into the page cache: memory",
    "recv_into": "copy from the socket: memory",
    "posix.fdatasync": "the bytes to the disk; its CPU time is that of the kernel",
    "posix.fsync": "the name to the disk",
    "'commit'": "pages of the index to its log, and a sync in power-loss",
    "posix.open": "a new inode",
    "posix.rename": "an entry in a folder",
    "'execute'": "SQLite itself",
    "sendall": "the answer to the socket",
}
_LINES = 25


def profile(folder: Path, per_association: int) -> Iterator[str]:
    """Where the CPU time of the receiver goes, by thread and function."""
    for name in (POWER_LOSS, PROCESS_CRASH):
        for n in AT_ONCE:
            place = _fresh(folder)
            statistics_at = place.parent / "statistics"
            statistics_at.mkdir()
            made = [place.parent / f"load{k}" for k in range(n)]
            for k, source in enumerate(made):
                images.write_ct_series(source, per_association, seed=k)
            with _receiver(place, name, ("tests.benchmarks.profiled", str(statistics_at))) as (server, _):
                for early in statistics_at.iterdir():
                    early.unlink()  # of the C-ECHOs until it answered
                send(server, *made)
            yield f"{name}, {n} association{'s' * (n > 1)}: CPU-ms an instance and calls an instance, as profiled"
            yield from _functions(statistics_at, n * per_association)


def _functions(folder: Path, count: int) -> Iterator[str]:
    total = pstats.Stats(*(str(path) for path in folder.iterdir()))
    yield f"  in all {1000 * total.total_tt / count:.2f} ms, of which the profiler itself is a good part"
    found = sorted(total.stats.items(), key=lambda item: -item[1][2])
    for (file, line, function), (_, calls, own_s, _, _) in found[:_LINES]:
        limit = next((limit for part, limit in LIMITS.items() if file == "~" and part in function), "Python")
        where = function if file == "~" else f"{Path(file).name}:{line} {function}"
        yield f"  {1000 * own_s / count:7.4f} ms {calls / count:7.1f} ×  {where:<55} {limit}"


# ── a million instances ──────────────────────────────────────────────────────

INDEXED, IMAGES = 1_000_000, (100, 300)


def index(folder: Path, rounds: int, per_association: int) -> Iterator[str]:
    """A node with a million instances compared with an empty one."""
    full, empty = _fresh(folder), _fresh(folder)
    yield _fill(full)
    with _receiver(full) as (_, ready_s):
        yield f"  receiver answers {ready_s:.2f} s after start   bound 3 s"
    with node(full, name="full", completion=NEVER) as ours, node(empty, name="empty", completion=NEVER) as other:
        for place in (full, empty):
            wait_until_it_scores(place)
        for name in ("status", "series"):
            yield _command(full, name)
        turns: dict[tuple[str, int], list[Turn]] = {}
        for i in range(rounds):
            made = sources(folder / f"load{i}", i, per_association)
            for n, chosen in zip(AT_ONCE, (made[:1], made[1:]), strict=True):
                for server in (ours, other) if i % 2 else (other, ours):
                    turns.setdefault((server.name, n), []).append(take_turn(server, chosen, per_association))
    for n in AT_ONCE:
        yield _compared(turns["full", n], turns["empty", n], f"{n} association{'s' * (n > 1)}")


def _compared(full: Sequence[Turn], empty: Sequence[Turn], what: str) -> str:
    rate, reference = (statistics.median(turn.rate for turn in turns) for turns in (full, empty))
    pairs = [one.rate / other.rate for one, other in zip(full, empty, strict=True)]
    cpu = [statistics.median(turn.receiver_cpu_ms for turn in turns) for turns in (full, empty)]
    line = (
        f"  {what}: {rate:.0f}/s, {rate / reference:.2f} × empty of medians, {statistics.median(pairs):.2f} of rounds"
    )
    return f"{line} ({_range(pairs, '.2f')}), receiver {cpu[0]:.2f} and {cpu[1]:.2f} CPU-ms   bound 0.90 ×"


def _fill(folder: Path) -> str:
    """Give a node a year of reported series; return how much that is."""
    folder.mkdir()
    bench = Bench(folder / "var", peers=(Peer(name="PACS", ae_title="PACS", host="127.0.0.1", port=104),))
    bench.now = time.time() - 400 * 86_400
    for i in range(6):
        bench.receive_all(ct_series(folder / f"ct{i}", f"ct{i}", slices=range(8), pixels=f"p{i}"), association=f"a{i}")
        bench.pass_time(5)
    bench.lister.run()
    bench.close()
    database = folder / "var" / "node.db"
    multiply(database, INDEXED // (sum(IMAGES) // 2), now=time.time() - 60, images=IMAGES)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE series SET state = 'DELIVERED', reason_code = NULL, reason = NULL, job = NULL")
        connection.execute("UPDATE deliveries SET state = 'sent', job = NULL")
        [counts] = connection.execute("SELECT (SELECT count(*) FROM series), (SELECT count(*) FROM instances)")
        lately = connection.execute("SELECT path FROM instances ORDER BY id DESC LIMIT 20000").fetchall()
    one = next((folder / "ct0").iterdir()).read_bytes()
    for (path,) in lately:  # a start looks for the files of the last hours, and `series` into those of the last series
        file = folder / "var" / "spool" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(one)
    n_series, n_instances = counts
    size_mb = database.stat().st_size / 1e6
    return f"{n_series:,} series of {IMAGES[0]} to {IMAGES[1]}, {n_instances:,} instances, database of {size_mb:.0f} MB"


def _command(folder: Path, name: str) -> str:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        command = [sys.executable, "-m", "mediqa_node", "-c", str(folder / "node.yaml"), name]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        took.append(time.perf_counter() - began)
    return f"  mediqa-node {name:<7}{statistics.median(took):5.2f} s ({_range(took, '.2f')})   bound 1 s"


# ── memory ───────────────────────────────────────────────────────────────────

SOAKED, SOAK_STEP = 10_000, 1_000


def soak(folder: Path) -> Iterator[str]:
    """Resident memory of the receiver over ten thousand instances."""
    with _receiver(_fresh(folder)) as (server, _):
        process = psutil.Process(server.process.pid)
        time.sleep(1)
        yield f"  at start {process.memory_info().rss / 1e6:6.0f} MB"
        for i in range(SOAKED // SOAK_STEP):
            source = folder / "load"
            images.write_ct_series(source, SOAK_STEP, seed=i)
            send(server, source)
            shutil.rmtree(source)
            yield f"  {(i + 1) * SOAK_STEP:8,} {process.memory_info().rss / 1e6:6.0f} MB"


def main() -> None:
    """Print the figures of the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["speed"])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--instances", type=int, default=100, help="of an association")
    chosen = parser.parse_args()
    logs.configure(level="ERROR")
    parts = {
        "speed": lambda folder: speed(folder, chosen.rounds, chosen.instances),
        "profile": lambda folder: profile(folder, chosen.instances),
        "index": lambda folder: index(folder, chosen.rounds, chosen.instances),
        "soak": soak,
    }
    for part in ["profile"] if chosen.profile else chosen.parts:
        with tempfile.TemporaryDirectory(prefix="mediqa-bench-") as name:
            for line in parts[part](Path(name)):
                print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
