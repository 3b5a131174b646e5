"""Two hosts, killed and paused by turns while scanners send to both: nothing lost, nothing twice, and how long it took.

`pytest -m acceptance tests/acceptance/test_fallen_hosts.py -s` prints the times of every take-over.
"""

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
import sqlalchemy as sa
import yaml
from support.cluster import Host, two_hosts
from support.orthanc import Orthanc, dataset_digest
from support.outside import Sent, differences
from support.senders import answered, start_storescu
from support.series import ct_series
from support.waiting import free_port, need, stop, until

from mediqa_node.storage.heartbeats import processes
from mediqa_node.storage.leases import read_leases
from mediqa_node.storage.tables import associations, reports

pytestmark = pytest.mark.acceptance
ROUNDS = 20
PAUSE_S = 60.0
TAKE_OVER_WITHIN_S = 10.0
_PATIENT = ("-to", "5", "-ta", "10", "-td", "10")


@dataclass
class Scanners:
    """Scanners that send series now to one host, now to the other, and again what was not acknowledged."""

    folder: Path
    ports: tuple[int, int]
    sent: Sent = field(default_factory=Sent)
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, name: str) -> None:
        """Send until told to stop; a series that was begun is finished."""
        draw, number = random.Random(name), 0
        while not self.stop.is_set():
            series = f"{name}-{number}"
            paths = ct_series(self.folder / series, series, slices=range(6), patient_id=series)
            self._send(paths, draw, name)
            number += 1

    def _send(self, paths: list[Path], draw: random.Random, name: str) -> None:
        left = paths
        while left:
            some = start_storescu(draw.choice(self.ports), left, aet=name.upper(), options=_PATIENT)
            statuses = answered(some)
            with self.lock:
                self.sent.note(left, statuses)
            left = [path for path in left if statuses.get(path) != 0x0000]
            self.stop.wait(0.2 if not left else 1.0)


@pytest.fixture
def pacs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Orthanc]:
    need(request.config, "/usr/sbin/Orthanc", "/usr/bin/storescu")
    running = Orthanc(tmp_path / "pacs").start()
    yield running
    running.stop()


@pytest.fixture
def hosts(tmp_path: Path, url: str, pacs: Orthanc) -> Iterator[tuple[Host, Host]]:
    peers = {"PACS": {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port}}
    with two_hosts(tmp_path, url, peers=peers) as both:
        for host in both:
            host.start()
        yield both


def taken(host: Host, of: Host, since: float) -> float | None:
    """Return when a host had taken over all that another one held, seconds since 1970; None: not yet."""
    own = [line for line in host.log() if _at(line) >= since]
    receiver, worker = (
        next(
            (_at(line) for line in own if line.get("process") == f"{of.host_id}/{role}" and "took" in line["event"]),
            None,
        )
        for role in ("receiver", "worker")
    )
    return max(receiver, worker) if receiver and worker else None


def _at(line: dict[str, str]) -> float:
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def working_again(host: Host) -> bool:
    """Whether all processes of a host have written a heartbeat since they began again, and answer."""
    with host.database.read() as connection:
        rows = connection.execute(sa.select(processes.c.name, processes.c.at)).all()
    fresh = {row.name for row in rows if time.time() - row.at < 15}
    return {f"{host.host_id}/{role}" for role in ("receiver", "worker", "courier")} <= fresh and host.answers_echo()


def test_hosts_that_are_killed_or_paused_lose_nothing_and_do_nothing_twice(
    hosts: tuple[Host, Host], pacs: Orthanc, tmp_path: Path
) -> None:
    scanners = Scanners(tmp_path / "scanners", (hosts[0].port, hosts[1].port))
    threads = [threading.Thread(target=scanners.run, args=(f"ct{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    took: dict[str, list[float]] = {"killed": [], "paused": []}
    try:
        for number in range(ROUNDS):
            how, victim, other = ("killed", "paused")[number % 2], hosts[number // 2 % 2], hosts[1 - number // 2 % 2]
            until(lambda who=victim: working_again(who), f"host {victim.host_id} works")
            time.sleep(random.Random(number).uniform(0, 3))
            began = time.time()
            if how == "killed":
                victim.kill_group()
            else:
                victim.pause()
            at = until(lambda who=other, of=victim, t=began: taken(who, of, t), f"{other.host_id} takes over")
            took[how].append(at - began)
            print(f"round {number + 1}: {victim.host_id} {how}, taken over after {at - began:.1f} s", flush=True)  # noqa: T201
            if how == "killed":
                victim.start()
            else:
                time.sleep(max(0.0, PAUSE_S - (time.time() - began)))
                victim.wake()
    finally:
        scanners.stop.set()
        for thread in threads:
            thread.join()

    for series in sorted(scanners.sent.series):
        hosts[0].reaches(series, "DELIVERED")
    found = pacs.reports()
    problems = differences(scanners.sent, hosts[0].spool, found)
    print(f"{len(scanners.sent.series)} series, {len(scanners.sent.acknowledged)} instances, {len(found)} reports")  # noqa: T201
    print({how: [round(s, 1) for s in sorted(times)] for how, times in took.items()})  # noqa: T201
    assert problems == []
    assert _not_as_built(hosts[0], pacs) == []
    assert max(max(times) for times in took.values()) < TAKE_OVER_WITHIN_S


def _not_as_built(host: Host, pacs: Orthanc) -> list[str]:
    """Return the reports at the archive whose bytes are not those that the node has kept."""
    with host.database.read() as connection:
        kept = {row.sop_instance_uid: bytes(row.part10) for row in connection.execute(sa.select(reports))}
    there = {found["MainDicomTags"]["SOPInstanceUID"]: found["ID"] for found in pacs.find("Instance", Modality="SR")}
    return [
        uid
        for uid, resource in there.items()
        if uid not in kept or dataset_digest(pacs.file(resource)) != dataset_digest(kept[uid])
    ]


def test_a_database_that_is_away_for_a_while_makes_nobody_dead(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    with hosts[0].database.read() as connection:
        before = {row.name: row.token for row in read_leases(connection)}
        folder = connection.exec_driver_sql("SHOW data_directory").scalar_one()
    server = psutil.Process(int(Path(folder, "postmaster.pid").read_text().split()[0]))
    processes = [server, *server.children(recursive=True)]
    for process in processes:
        process.suspend()
    time.sleep(20)
    for process in processes:
        process.resume()
    paths = ct_series(tmp_path / "ct", "afterwards", slices=range(5))

    assert set(answered(start_storescu(hosts[0].port, paths, options=_PATIENT)).values()) == {0x0000}
    time.sleep(10)

    with hosts[0].database.read() as connection:
        after = {row.name: row.token for row in read_leases(connection)}
    assert after == before
    assert not [line for host in hosts for line in host.log() if line["event"].startswith(("lease lost", "took over"))]


# ── behind a balancer ────────────────────────────────────────────────────────

_BALANCER = """
defaults
  mode tcp
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  option redispatch
listen dicom
  bind 127.0.0.1:{port}
  balance roundrobin
{servers}
"""


@pytest.fixture
def balanced(
    tmp_path: Path, url: str, pacs: Orthanc, request: pytest.FixtureRequest
) -> Iterator[tuple[Host, Host, int]]:
    """Two hosts behind HAProxy, and its port; rules see the caller, whose address is that of this machine."""
    need(request.config, "/usr/sbin/haproxy")
    peers = {"PACS": {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port}}
    with two_hosts(tmp_path, url, peers=peers, receiver={"proxies": ["127.0.0.1"]}) as both:
        for host in both:
            host.start(ready=False)
        port, file = free_port(), tmp_path / "haproxy.cfg"
        servers = [f"  server {host.host_id} 127.0.0.1:{host.port} send-proxy-v2 check inter 500" for host in both]
        file.write_text(_BALANCER.format(port=port, servers="\n".join(servers)))
        balancer = subprocess.Popen(["/usr/sbin/haproxy", "-f", str(file)])
        try:
            until(lambda: all(host.log("scoring") and host.log("receiving") for host in both), "both hosts work")
            yield *both, port
        finally:
            stop(balancer)


def test_scanners_that_call_a_balancer_do_not_notice_that_a_host_falls(
    balanced: tuple[Host, Host, int], pacs: Orthanc, tmp_path: Path
) -> None:
    a, b, port = balanced
    scanners = Scanners(tmp_path / "scanners", (port, port))
    threads = [threading.Thread(target=scanners.run, args=(f"ct{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: all(_associations(host) > 2 for host in (a, b)), "both hosts receive")
        a.kill_group()
        before = _associations(b)
        until(lambda: _associations(b) > before + 10, "b receives alone")
    finally:
        scanners.stop.set()
        for thread in threads:
            thread.join()

    for series in sorted(scanners.sent.series):
        b.reaches(series, "DELIVERED")
    assert differences(scanners.sent, b.spool, pacs.reports()) == []
    with b.database.read() as connection:
        assert set(connection.execute(sa.select(associations.c.address)).scalars()) <= {"127.0.0.1", ""}


def _associations(host: Host) -> int:
    with host.database.read() as connection:
        query = sa.select(sa.func.count()).where(associations.c.host_id == host.host_id)
        return int(connection.execute(query).scalar_one())


# ── from the version before ──────────────────────────────────────────────────

BEFORE_LEASES = "a4dfaf7fb5e8"
"""The last commit whose version knows neither hosts nor leases."""


class OldNode(Host):
    """A node of the version before hosts, from its own source, on the same database and folder."""

    def __init__(self, folder: Path, source: Path, **settings: Any) -> None:
        super().__init__(folder, "unused", **settings)
        tree = yaml.safe_load(self.configuration.read_text())
        del tree["node"]["host_id"]
        self.configuration.write_text(yaml.safe_dump(tree))
        self.source = source

    def start(self, **_: Any) -> Self:
        path = os.pathsep.join((str(self.source), str(self.source / "tests")))
        return super().start(environment={"PYTHONPATH": path, "PYTHONSAFEPATH": "1"})


@pytest.fixture
def old_source(tmp_path: Path) -> Path:
    """The source of the version before."""
    root = Path(__file__).parents[2]
    found = subprocess.run(["git", "archive", BEFORE_LEASES], cwd=root, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"needs the history of the project: git has no {BEFORE_LEASES}")
    folder = tmp_path / "old source"
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=found.stdout, check=True)
    return folder


def test_hosts_of_this_version_follow_one_of_the_version_before_under_load(
    old_source: Path, url: str, pacs: Orthanc, tmp_path: Path
) -> None:
    peers = {"PACS": {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port}}
    shared = tmp_path / "shared"
    old = OldNode(tmp_path / "old", old_source, shared=shared, url=url, peers=peers)
    with two_hosts(tmp_path, url, peers=peers) as (a, b):
        old.start()
        scanners = Scanners(tmp_path / "scanners", (old.port, b.port))
        threads = [threading.Thread(target=scanners.run, args=(f"ct{n}",)) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: scanners.sent.acknowledged, "the old node receives")
            b.start()
            assert "delivering" not in {line["event"] for line in b.log()}  # the old courier still sends
            before = len(scanners.sent.acknowledged)
            until(lambda: len(scanners.sent.acknowledged) > before + 60, "both receive on the tables of this version")
            assert old.process.poll() is None
            assert not [line for line in old.log() if "Traceback" in str(line) or line["level"] == "critical"]
            old.stop()
            scanners.ports = (a.port, b.port)
            a.start()
            until(lambda: {"delivering"} & {line["event"] for line in (*a.log(), *b.log())}, "a new courier delivers")
            before = len(scanners.sent.acknowledged)
            until(lambda: len(scanners.sent.acknowledged) > before + 60, "both new hosts receive")
        finally:
            scanners.stop.set()
            for thread in threads:
                thread.join()
            if old.process is not None:
                old.kill_group()
        for series in sorted(scanners.sent.series):
            a.reaches(series, "DELIVERED")
        found = pacs.reports()
        print(f"{len(scanners.sent.series)} series, {len(found)} reports")  # noqa: T201
        assert differences(scanners.sent, shared / "spool", found) == []
        assert _not_as_built(a, pacs) == []
