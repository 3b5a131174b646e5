"""The trials that take minutes, a disk of their own, or whole processes."""

import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import Phase
from pydicom.data import get_testdata_files
from support import trial
from support.forwarding import Forwarding
from support.orthanc import dataset_digest
from support.outside import spooled
from support.proxy import Proxy
from support.receiver_process import stand_alone
from support.receiving import CT, EXPLICIT, Aborted, Listening, Rejected, Scu, ct, encode, encoded_dataset
from support.scripted import ABORT, ScriptedPacs, scripted
from support.waiting import until

from mediqa_node.dicom.report import build as report_builder
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules
from mediqa_node.domain.rules import ForwardRule
from mediqa_node.network import statuses
from mediqa_node.storage import outbox
from trials.series_machine import run_machine

pytestmark = pytest.mark.acceptance

MEGABYTE = 1024**2


# ── F3 ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_small_disk_fills_up_and_goes_on_once_there_is_room(small_disk: Path) -> None:
    answers = Counter[int]()
    told: set[str] = set()

    def send(port: int, numbers: range) -> None:
        for number in numbers:
            instance = ct(number, size_px=512)
            with suppress(Rejected, ConnectionError), Scu(port, timeout_s=60) as scu:
                status = scu.store_dataset(instance)
                answers[status] += 1
                if status == 0x0000:
                    told.add(str(instance.SOPInstanceUID))

    with stand_alone(small_disk) as (port, process, _):
        send(port, range(1, 61))
        n_kept = len(told)
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        until(lambda: _echoes(port), "it accepts callers again")
        time.sleep(1.1)  # free space is looked at once a second
        send(port, range(61, 81))
        assert process.is_running()

    assert 10 < n_kept < 60, "it was full in between"
    assert set(answers) <= {0x0000, 0xA700}
    assert len(told) == n_kept + 20, "and goes on without a restart"
    assert set(spooled(small_disk / "var" / "spool")) == told


def _echoes(port: int) -> bool:
    try:
        with Scu(port, calling=b"MONITOR") as scu:
            return scu.echo() == 0x0000
    except (Rejected, OSError):
        return False


# ── F7 ───────────────────────────────────────────────────────────────────────


def test_a_damaged_database_is_refused_at_start_and_says_so(tmp_path: Path) -> None:
    with stand_alone(tmp_path) as (port, _, _), Scu(port) as scu:
        assert scu.store_dataset(ct()) == 0x0000
    database = tmp_path / "var" / "node.db"
    content = bytearray(database.read_bytes())
    content[:200] = b"\x5a" * 200
    database.write_bytes(content)

    command_line = [sys.executable, "-m", "mediqa_node", "--config", str(tmp_path / "node.yaml"), "serve"]
    ended = subprocess.run(command_line, capture_output=True, text=True, timeout=300, check=False)

    assert ended.returncode not in (0, None)
    assert "database" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


# ── F6, forwards ─────────────────────────────────────────────────────────────

QUICKLY = DeliveryRules(retry_first_s=0.1, retry_at_most_s=0.5, timeout_s=2.0)


STATUSES = {"out of resources": [0xA700] * 3, "aborts": [ABORT] * 3, "warns": [0xB000, 0xB006, 0xB007]}


class Archive(ScriptedPacs):
    """An archive with what goes wrong between it and the node: `sick` begins it, `well` ends it."""

    def __init__(self) -> None:
        super().__init__(classes=(CT,))
        self.proxy = Proxy(self.port)

    def sick(self, how: str) -> None:
        """Begin to be ill."""
        if how == "down":
            self.proxy.refusing = True
        elif how == "silent":
            self.proxy.stalled = True
        elif how == "slow":
            self.proxy.delay_s = 0.2
        elif how == "1 byte a second":
            self.proxy.bytes_per_s = 1.0
        elif how == "its answers are lost":
            self.proxy.swallow = 3
        elif how == "cut off":
            self.proxy.cut_after_bytes = 1500
        elif how == "rejects for now":
            self.entity.maximum_associations = 0
        else:
            self.statuses = list(STATUSES[how])

    def well(self) -> None:
        """Be well again."""
        self.proxy.refusing = self.proxy.stalled = False
        self.proxy.bytes_per_s = None
        self.proxy.delay_s, self.proxy.cut_after_bytes, self.entity.maximum_associations = 0.0, None, 10


@pytest.mark.parametrize(
    "how",
    ["down", "silent", "slow", "1 byte a second", "its answers are lost", "cut off", "rejects for now", *STATUSES],
)
def test_forwards_outlive_whatever_an_archive_does(how: str, tmp_path: Path) -> None:
    chance = trial.dice("forwards", how)
    ill = Archive()
    with scripted(classes=(CT,), ae_title="OTHER") as other:
        peers = [
            Peer(name="ILL", ae_title="SCRIPTED", host="127.0.0.1", port=ill.proxy.port),
            Peer(name="OTHER", ae_title="OTHER", host="127.0.0.1", port=other.port),
        ]
        node = Forwarding(tmp_path / "node", peers, [ForwardRule(to=("ILL", "OTHER"))], delivery=QUICKLY)
        instances = [
            ct(i, size_px=chance.choice((16, 64)), SeriesInstanceUID=f"1.2.826.0.1.3680043.2.1125.8.{i % 3}")
            for i in range(1, chance.randint(6, 20))
        ]
        try:
            ill.sick(how)
            node.start()
            with Scu(node.node.port) as scu:
                assert {scu.store_dataset(one) for one in instances} == {0x0000}
                scu.release()
            until(lambda: len(other.received) == len(instances), "the other archive has all, meanwhile")
            if chance.random() < 0.5:
                node.pause()
                node.start()
            ill.well()
            node.all_are("sent")
        finally:
            node.close()
            ill.proxy.stop()
            ill.stop()

    wanted = {encode(one) for one in instances}
    assert set(ill.received) == wanted, "all of it, and each as it was received"
    assert sorted(other.received) == sorted(map(encode, instances)), "once each"


# ── F11 ──────────────────────────────────────────────────────────────────────


def test_sigterm_under_ten_associations_drains_them_within_30_seconds(tmp_path: Path) -> None:
    data, uid = encode(ct(size_px=256)), str(ct().SOPInstanceUID)
    told: list[str] = []

    def scan(port: int, scanner: int) -> None:
        with suppress(Aborted, OSError), Scu(port, calling=f"CT_{scanner}".encode(), timeout_s=60) as scu:
            for number in range(10_000):
                mine = f"{uid[:-9]}.1{scanner:03}{number:04}"
                if scu.store(mine, data.replace(uid.encode(), mine.encode(), 1)).status == 0x0000:
                    told.append(mine)

    with stand_alone(tmp_path) as (port, process, _):
        threads = [threading.Thread(target=scan, args=(port, i), daemon=True) for i in range(10)]
        for thread in threads:
            thread.start()
        until(lambda: len(told) > 30, "all of them are sending")
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=120)
        took_s = time.monotonic() - started
        for thread in threads:
            thread.join(timeout=60)

    assert status == 0
    assert took_s <= 30
    assert set(told) <= set(spooled(tmp_path / "var" / "spool")), "acknowledged, and not kept"
    assert list((tmp_path / "var" / "spool" / "tmp").iterdir()) == []


# ── L2 ───────────────────────────────────────────────────────────────────────


def test_ten_thousand_small_instances_do_not_make_the_receiver_large(tmp_path: Path) -> None:
    data, uid = encode(ct(size_px=70)), str(ct().SOPInstanceUID)
    latencies: list[float] = []

    def scan(port: int, scanner: int) -> None:
        with Scu(port, calling=f"CT_{scanner}".encode(), timeout_s=120) as scu:
            for number in range(2500):
                mine = f"{uid[:-9]}.1{scanner:03}{number:04}"
                started = time.monotonic()
                assert scu.store(mine, data.replace(uid.encode(), mine.encode(), 1)).status == 0x0000
                latencies.append(time.monotonic() - started)
            scu.release()

    with stand_alone(tmp_path) as (port, process, _):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda scanner: scan(port, scanner), range(4)))
        megabytes = process.memory_info().rss / MEGABYTE

    assert len(latencies) == 10_000
    assert sorted(latencies)[9_900] < 2.0
    assert megabytes <= 300


# ── B1 ───────────────────────────────────────────────────────────────────────


def test_every_file_of_pydicom_is_answered_from_the_table(listening: Any) -> None:
    node: Listening = listening()
    told: dict[str, set[str]] = {}
    answers = Counter[int]()
    for name in get_testdata_files():
        path = Path(name)
        try:
            data, syntax = encoded_dataset(path)
            header = pydicom.dcmread(path, stop_before_pixels=True)
            sop_class, uid = str(header.SOPClassUID), str(header.SOPInstanceUID)
        except Exception:  # no Part 10 file, or none that names itself: no sender could propose it
            continue
        with Scu(node.port, associate=False, timeout_s=60) as scu:
            if 1 not in accepted(scu.associate(contexts={1: (sop_class, [syntax]), 3: (CT, [EXPLICIT])})):
                continue  # a class or a syntax that the node does not offer
            status = scu.store(uid, data, sop_class=sop_class).status
            answers[status] += 1
            if status == 0x0000:
                told.setdefault(uid, set()).add(dataset_digest(path.read_bytes()))
            assert scu.store("1.2.3.4", encode(ct(SOPInstanceUID="1.2.3.4")), context=3).status == 0x0000

    kept = spooled(node.spool.root)
    assert set(answers) <= {0x0000, 0xA900, 0xC000}
    assert answers[0x0000] >= 40
    assert all(digests <= set(kept[uid]) for uid, digests in told.items())
    assert node.temporary() == []


def accepted(body: bytes) -> set[int]:
    """Return the IDs of the accepted contexts of an A-ASSOCIATE-AC (PS3.8 9.3.3.2)."""
    found, at = set(), 68
    while at < len(body):
        kind, length = body[at], int.from_bytes(body[at + 2 : at + 4], "big")
        if kind == 0x21 and body[at + 6] == 0:
            found.add(body[at + 4])
        at += 4 + length
    return found


# ── D3, D4 ───────────────────────────────────────────────────────────────────


def random_report_uids(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(report_builder, "_instance_uid", lambda *_: f"2.25.{uuid.uuid4().int}")
    patched.setattr(outbox, "find_report", lambda *_: None)  # built anew each time, as without an outbox
    patched.setattr(outbox, "save_report", lambda _database, _connection, row: row)


def status_ignored(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(statuses, "STORED", frozenset(range(0x10000)))


@pytest.mark.parametrize("plant", [random_report_uids, status_ignored])
def test_the_state_machine_finds_a_broken_node_out(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)

    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_machine(max_examples=60, steps=20, phases=[Phase.generate])
