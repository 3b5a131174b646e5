"""Faults F3 and F7 under a whole node: a database that is held, without room, without its log or not to be written.

And a log of the node's own on a full disk.
"""

import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from crash.test_kill import assert_promise_kept, load, send_until_acknowledged
from support.node import Node
from support.orthanc import Orthanc
from support.outside import Sent
from support.senders import answered, start_storescu, storescu
from support.waiting import until

pytestmark = [pytest.mark.peers, pytest.mark.acceptance, pytest.mark.timeout(900)]

HELD_S = 60.0


def assert_nothing_died(node: Node) -> None:
    assert node.log("process ended and is started again") == []


@contextmanager
def held(database: Path, seconds: float) -> Iterator[threading.Event]:
    """Hold the database for some time as another program would; give what is set once it was let go."""
    free = threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            taken.set()
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        free.set()

    taken = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(60)
    yield free
    thread.join()


def test_a_database_held_for_a_minute_costs_repetitions_and_no_process(
    new_node: Callable[..., Node], pacs: Orthanc, tmp_path: Path
) -> None:
    node, sent, answers = new_node().start(), Sent(), Counter[int]()
    before = load(tmp_path, "before", n_series=1)
    send_until_acknowledged(node, before, sent)
    waiting = load(tmp_path, "held", n_series=2)

    with held(node.folder / "var" / "node.db", HELD_S) as free:
        while not free.is_set():
            for paths in waiting:
                statuses = storescu(node.port, paths)
                sent.note(paths, statuses)
                answers.update(statuses.values())
            time.sleep(1.0)
    send_until_acknowledged(node, waiting, sent)

    assert set(answers) <= {0x0000, 0xA700}
    assert answers[0xA700] > 0, "it was held while they sent"
    assert_promise_kept(node, pacs, sent)
    assert_nothing_died(node)


@pytest.mark.parametrize("reported", [False, True], ids=["on the way", "reported"])
def test_a_log_that_was_removed_costs_nothing_that_was_acknowledged(
    reported: bool, new_node: Callable[..., Node], pacs: Orthanc, tmp_path: Path
) -> None:
    node, sent = new_node().start(), Sent()
    series = load(tmp_path, f"reported {reported}")
    send_until_acknowledged(node, series, sent)
    if reported:
        assert_promise_kept(node, pacs, sent)

    node.kill_group()
    for name in ("node.db-wal", "node.db-shm"):
        (node.folder / "var" / name).unlink()
    node.start()

    assert_promise_kept(node, pacs, sent)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB for the database alone."""
    folder = tmp_path / "database"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_database_without_room_goes_on_once_there_is_some(
    disk: Path, new_node: Callable[..., Node], pacs: Orthanc, tmp_path: Path
) -> None:
    node, sent, answers = new_node(database={"url": f"sqlite:///{disk / 'node.db'}"}), Sent(), Counter[int]()
    node.start()
    series = load(tmp_path, "no room", n_series=2)
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass

    def refused() -> bool:
        for paths in series:
            statuses = answered(start_storescu(node.port, paths))
            sent.note(paths, statuses)
            answers.update(statuses.values())
        return answers[0xA700] > 0

    until(refused, "the database has no room", every_s=0.5)
    time.sleep(10)  # all its sweeps meet the full disk
    filler.unlink()
    send_until_acknowledged(node, series, sent)

    assert set(answers) <= {0x0000, 0xA700}
    assert_promise_kept(node, pacs, sent)
    assert_nothing_died(node)


def test_a_database_that_cannot_be_written_is_refused_at_start_and_says_so(
    disk: Path, new_node: Callable[..., Node]
) -> None:
    node = new_node(database={"url": f"sqlite:///{disk / 'node.db'}"}).start()
    node.stop()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    ended = subprocess.run(node.command_line("serve"), capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode not in (0, None)
    assert "database" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_log_on_a_full_disk_stops_nothing(new_node: Callable[..., Node], pacs: Orthanc, tmp_path: Path) -> None:
    node, sent = new_node(), Sent()
    node.log_file.symlink_to("/dev/full")
    node.start(ready=False)
    until(node.answers_echo, "the receiver is up")
    send_until_acknowledged(node, load(tmp_path, "unlogged", n_series=1), sent)

    assert_promise_kept(node, pacs, sent)
    assert node.stop() == 0
