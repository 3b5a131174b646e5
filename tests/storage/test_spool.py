"""The spool: in what order things become durable, and what a failing disk leaves behind."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.receiving import Answer, Listening, Scu, ct, encode

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.storage import spool as spool_room
from mediqa_node.storage.spool import Spool

UID = str(ct().SOPInstanceUID)
TESTS = Path(__file__).parents[1]


# ── order ────────────────────────────────────────────────────────────────────

STAND_ALONE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.receiving import Listening
node = Listening(Path(sys.argv[2]))
print(node.port, flush=True)
sys.stdin.read()
node.stop()
"""


@pytest.mark.peers
def test_the_kernel_is_asked_in_the_order_that_the_answer_promises(tmp_path: Path, peer: Callable[[str], str]) -> None:
    trace = tmp_path / "trace"
    calls = "openat,write,fdatasync,fsync,rename,renameat2,sendto"
    strace = [peer("strace"), "-f", "-y", "-e", f"trace={calls}", "-o", str(trace)]
    command = [*strace, sys.executable, "-c", STAND_ALONE, str(TESTS), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with Scu(port) as scu:
            for number in (1, 2):
                assert scu.store_dataset(ct(number)) == 0x0000
            scu.release()
        process.stdin.close()
        process.wait(timeout=600)

    lines = trace.read_text(errors="replace").splitlines()
    for wanted in (_first_in_its_folder(), _next_in_its_folder()):
        lines = lines[_walk(lines, wanted) :]


def _next_in_its_folder() -> list[str]:
    return [
        r"openat\(.*/spool/tmp/[0-9a-f]{32}\".*O_EXCL",
        r"write\(\d+<.*/spool/tmp/[0-9a-f]{32}>",
        r"fdatasync\(\d+<.*/spool/tmp/[0-9a-f]{32}>",
        r"rename\(\".*/spool/tmp/[0-9a-f]{32}\", \".*/spool/\d{8}-\d\d/[0-9a-f]{32}\.dcm\"",
        r"fsync\(\d+<.*/spool/\d{8}-\d\d>",
        r"f(data)?sync\(\d+<.*/node\.db-wal>",
        r"sendto\(\d+<",
    ]


def _first_in_its_folder() -> list[str]:
    return [*_next_in_its_folder()[:3], r"fsync\(\d+<.*/spool>", *_next_in_its_folder()[3:]]


def _walk(lines: list[str], wanted: list[str]) -> int:
    """Find each pattern after the one before, nothing answered in between; return where the last was."""
    position = 0
    for pattern in wanted:
        for i, line in enumerate(lines[position:]):
            if re.search(pattern, line):
                position += i + 1
                break
            early = "sendto(" in line and "openat" not in pattern
            assert not early, f"answered before {pattern}: {line}"
        else:
            pytest.fail(f"never asked: {pattern}")
    return position


def test_a_folder_made_by_a_receiver_that_died_is_synced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    sync = spool_room._fsync_folder
    monkeypatch.setattr(spool_room, "_fsync_folder", lambda path: (synced.append(path), sync(path)))
    first, second = Spool(tmp_path), Spool(tmp_path)
    synced.clear()

    first.place(first.begin(b"head"))
    assert synced == [tmp_path]
    first.place(first.begin(b"head"))
    assert synced == [tmp_path]
    second.place(second.begin(b"head"))
    assert synced == [tmp_path, tmp_path]


def test_without_durability_nothing_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", None)
    monkeypatch.setattr(os, "fdatasync", None)
    spool = Spool(tmp_path, durable=False)

    path = spool.place(spool.begin(b"head"))
    spool.sync_folders([path])

    assert spool.has(path)


# ── faults ───────────────────────────────────────────────────────────────────


class FaultyDisk:
    """The operating system as the spool sees it, whose n-th call of one kind goes wrong."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, number: int, fault: Callable[..., Any]) -> None:
        self.hit = False
        self._count, self._number = 0, number
        owner = Path if call == "rename" else spool_room.os
        right = getattr(owner, call)

        def faulty(*arguments: Any) -> Any:
            if call == "write" and not _in_spool(arguments[0]):
                return right(*arguments)
            self._count += 1
            if self._count == self._number:
                self.hit = True
                return fault(right, *arguments)
            return right(*arguments)

        monkeypatch.setattr(owner, call, faulty)


def _in_spool(fd: int) -> bool:
    return "/spool/tmp/" in str(Path(f"/proc/self/fd/{fd}").readlink())


def _eio(_right: Callable[..., Any], *_: Any) -> Any:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _full_after_a_part(right: Callable[..., Any], fd: int, data: memoryview) -> Any:
    right(fd, data[: len(data) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _part(right: Callable[..., Any], fd: int, data: memoryview) -> Any:
    return right(fd, data[: max(1, len(data) // 3)])


def _store_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, fault: Any
) -> tuple[bool, Answer]:
    """Store one instance on a disk with one fault; check that a refusal left nothing and that life goes on."""
    node = Listening(tmp_path / f"{call}{number}{fault.__name__}")
    data = encode(ct(size_px=128))
    try:
        with Scu(node.port) as scu, monkeypatch.context() as patched:
            disk = FaultyDisk(patched, call, number, fault)
            answer = scu.store(UID, data)
            patched.undo()
            if answer.status != 0x0000:
                assert node.rows() == []
                assert node.files() == []
                assert node.temporary() == []
                assert scu.store(UID, data).status == 0x0000
            [path] = node.files()
            assert path.read_bytes().endswith(data)
            assert len(node.rows()) == 1
        return disk.hit, answer
    finally:
        node.stop()


@pytest.mark.parametrize(
    ("call", "fault", "at_least"),
    [
        ("write", _eio, 4),
        ("write", _full_after_a_part, 4),
        ("fdatasync", _eio, 1),
        ("fsync", _eio, 2),
        ("rename", _eio, 1),
    ],
)
def test_every_call_that_fails_leaves_the_copy_with_the_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fault: Any, at_least: int
) -> None:
    number = 1
    while True:
        hit, answer = _store_on(tmp_path, monkeypatch, call, number, fault)
        if not hit:
            break
        assert answer.status == 0xA700, f"{call} number {number}"
        number += 1

    assert number > at_least


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    hit, answer = _store_on(tmp_path, monkeypatch, "write", number, _part)

    assert hit
    assert answer.status == 0x0000


def test_a_write_of_nothing_is_a_failure_not_an_endless_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hit, answer = _store_on(tmp_path, monkeypatch, "write", 2, lambda *_: 0)

    assert hit
    assert answer.status == 0xA700


def test_a_folder_that_vanished_is_made_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = spool.place(spool.begin(b"a"))
    spool.remove(first)
    (tmp_path / first).parent.rmdir()

    second = spool.place(spool.begin(b"b"))

    assert spool.has(second)


def test_files_are_looked_for_from_a_folder_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for folder in ("20260101-08", "20260101-09", "20260101-10"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.dcm").touch()

    assert list(spool.files("20260101-09")) == ["20260101-09/1.dcm", "20260101-10/1.dcm"]
    assert len(list(spool.files())) == 3


def test_a_spool_that_is_gone_has_no_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", low_water_bytes=1)
    for folder in ("tmp", "quarantine", ""):
        (tmp_path / "spool" / folder).rmdir()

    assert not spool.has_room()
    with pytest.raises(StorageFailed):
        spool.begin(b"head")


def test_nothing_is_quarantined_on_a_full_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    incoming = spool.begin(b"head")
    incoming.write(memoryview(b"x"))
    spool.low_water_bytes, spool._free_checked_at = 1 << 62, -10.0

    spool.discard(incoming, keep_copy=True)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_was_received_is_read_back_slice_by_slice(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    incoming = spool.begin(b"head")
    incoming.write(memoryview(b"0123456789"))

    dataset = incoming.dataset()

    assert len(dataset) == 10
    assert (dataset[0:4], dataset[8:100], dataset[10:12]) == (b"0123", b"89", b"")
    spool.discard(incoming)
