"""Fault F5: power lost at every moment of a receive, by a model of what a disk then still holds.

What the spool asks of the kernel is recorded, in order: files made, written, synced and renamed, folders synced,
transactions committed, instances acknowledged. After every one of these steps the power may fail. Then a disk holds
what was synced, and of the rest anything: none of it, all of it, some entries of a folder and not others, a part of a
file, zeros. The folder is built again as such a disk would hold it, recovery runs, and what senders were told has to be
true.

A commit of the database is one durable step (SQLite in WAL mode with `synchronous=FULL`).
"""

import contextlib
import hashlib
import os
import random
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.orthanc import dataset_digest
from support.outside import spooled

from mediqa_node.pipeline.recovery import recover
from mediqa_node.storage.database import Database, Kept
from mediqa_node.storage.spool import Spool

NOW = 1_800_000_000.0
MEMORY = Path("/dev/shm")
"""A disk that is never waited for, where there is one: hundreds of folders are built and recovered."""

Tree = dict[str, bytes | None]
"""What a folder holds: content by relative path, None for a folder."""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder on a fast disk."""
    with tempfile.TemporaryDirectory(prefix="power-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


# ── the disk ─────────────────────────────────────────────────────────────────


@dataclass(eq=False)
class Inode:
    """A file or a folder: what the kernel shows of it, and what is durable.

    Attributes:
        entries: the durable names of a folder.
        pending: later changes of names, in order; None: the name was removed.
    """

    content: bytearray | None = None
    durable: bytes = b""
    entries: dict[str, "Inode"] = field(default_factory=dict)
    pending: list[tuple[str, "Inode | None"]] = field(default_factory=list)


class Disk:
    """What a disk holds while steps are taken, and what it may hold after power was lost."""

    def __init__(self, tree: Tree) -> None:
        self.root = Inode()
        self.live: dict[str, Inode] = {".": self.root}
        for path in sorted(tree):
            content = tree[path]
            node = Inode() if content is None else Inode(bytearray(content), bytes(content))
            self._folder(path).entries[_name(path)] = self.live[path] = node

    def _folder(self, path: str) -> Inode:
        return self.live[str(Path(path).parent)]

    def _change(self, path: str, node: Inode | None) -> None:
        self._folder(path).pending.append((_name(path), node))
        if node is None:
            del self.live[path]
        else:
            self.live[path] = node

    def take(self, kind: str, *what: Any) -> None:
        """Take one recorded step."""
        if kind in ("create", "mkdir"):
            self._change(what[0], Inode(bytearray() if kind == "create" else None))
        elif kind == "write":
            node = self.live[what[0]]
            assert node.content is not None
            node.content += what[1]
        elif kind == "rename":
            node = self.live[what[0]]
            self._change(what[0], None)
            self._change(what[1], node)
        elif kind == "remove":
            self._change(what[0], None)
        elif kind == "sync":
            _sync(self.live[what[0]])

    def after(self, choose: "Choice") -> Tree:
        """Return what is found once power is back."""
        found: Tree = {}

        def walk(node: Inode, path: str) -> None:
            names = dict(node.entries)
            for name, entry in choose.entries(node.pending):
                names.pop(name, None)
                if entry is not None:
                    names[name] = entry
            for name, entry in names.items():
                at = f"{path}{name}"
                found[at] = None if entry.content is None else choose.content(entry.durable, bytes(entry.content))
                if entry.content is None:
                    walk(entry, f"{at}/")

        walk(self.root, "")
        return found


def _name(path: str) -> str:
    return Path(path).name


def _sync(node: Inode) -> None:
    if node.content is not None:
        node.durable = bytes(node.content)
        return
    for name, entry in node.pending:
        node.entries.pop(name, None)
        if entry is not None:
            node.entries[name] = entry
    node.pending.clear()


class Choice:
    """What of the unsynced is still there: nothing here."""

    def entries(self, pending: Sequence[tuple[str, Inode | None]]) -> list[tuple[str, Inode | None]]:
        """Return the changes of a folder that reached the disk."""
        return []

    def content(self, durable: bytes, written: bytes) -> bytes:
        """Return what a file holds."""
        return durable


class Everything(Choice):
    """All of it, as after the death of a process."""

    def entries(self, pending: Sequence[tuple[str, Inode | None]]) -> list[tuple[str, Inode | None]]:
        return list(pending)

    def content(self, durable: bytes, written: bytes) -> bytes:
        return written


class Some(Choice):
    """Some of it, by chance: a file system promises no order between what was not synced."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def entries(self, pending: Sequence[tuple[str, Inode | None]]) -> list[tuple[str, Inode | None]]:
        if self.chance.random() < 0.3:
            return list(pending[: self.chance.randint(0, len(pending))])
        return [change for change in pending if self.chance.random() < 0.5]

    def content(self, durable: bytes, written: bytes) -> bytes:
        rest = written[len(durable) :]
        part = rest[: self.chance.randint(0, len(rest))]
        return durable + self.chance.choice((b"", rest, part, bytes(len(rest)), part + bytes(len(rest) - len(part))))


# ── the recording ────────────────────────────────────────────────────────────


@dataclass
class Recording:
    """The steps of a run, from a folder as it was.

    Attributes:
        steps: in the order in which they took effect; of a commit, the database after it; of an acknowledgement, the
            key of the instance.
    """

    folder: Path
    before: Tree
    database: bytes
    steps: list[tuple[Any, ...]] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)
    files: dict[int, str] = field(default_factory=dict)

    def note(self, *step: Any) -> None:
        """Note a step."""
        with self.lock:
            self.steps.append(step)

    def below(self, path: Any) -> str | None:
        """Return a path relative to the folder, or None if it lies elsewhere or belongs to the database."""
        if isinstance(path, int):
            return None
        where = Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 (a link is not followed)
        if not where.is_relative_to(self.folder) or where.name.startswith("node.db"):
            return None
        return str(where.relative_to(self.folder))


def tree_of(folder: Path) -> Tree:
    """Return what a folder holds, without its database."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if not path.name.startswith("node.db")
    }


def database_of(folder: Path) -> bytes:
    """Return the committed content of the database of a folder; empty without one."""
    if not (folder / "node.db").exists():
        return b""
    with contextlib.closing(sqlite3.connect(folder / "node.db", timeout=60)) as connection:
        return connection.serialize()


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[Recording]:
    """Record what this process does to a folder; fail if the model did not see all of it."""
    recording = Recording(folder, tree_of(folder), database_of(folder))
    with pytest.MonkeyPatch.context() as patched:
        _watch_files(patched, recording)
        _watch_names(patched, recording)
        _watch_commits(patched, recording)
        yield recording
    disk = Disk(recording.before)
    for step in recording.steps:
        disk.take(*step)
    assert disk.after(Everything()) == tree_of(folder), "the spool uses a call that the model does not know"


def _watch_files(patched: pytest.MonkeyPatch, recording: Recording) -> None:
    """Note what is opened, written and synced."""
    right_open, right_write, right_close = os.open, os.write, os.close

    def opened(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        where = recording.below(path)
        if where is None:
            return right_open(path, flags, *arguments, **named)
        with recording.lock:
            is_new = not Path(path).exists()
            fd = right_open(path, flags, *arguments, **named)
            recording.files[fd] = where
            if is_new:
                recording.note("create", where)
            return fd

    def written(fd: int, data: Any) -> int:
        if fd not in recording.files:
            return right_write(fd, data)
        with recording.lock:
            count = right_write(fd, data)
            recording.note("write", recording.files[fd], bytes(data[:count]))
            return count

    def closed(fd: int) -> None:
        with recording.lock:
            recording.files.pop(fd, None)
            right_close(fd)

    patched.setattr(os, "open", opened)
    patched.setattr(os, "write", written)
    patched.setattr(os, "close", closed)
    for name in ("fsync", "fdatasync"):
        patched.setattr(os, name, _syncing(recording, getattr(os, name)))


def _syncing(recording: Recording, right: Callable[[int], None]) -> Callable[[int], None]:
    def synced(fd: int) -> None:
        with recording.lock:
            right(fd)
            if fd in recording.files:
                recording.note("sync", recording.files[fd])

    return synced


def _watch_names(patched: pytest.MonkeyPatch, recording: Recording) -> None:
    """Note what is made, renamed and removed; an open file keeps its name up to date."""

    def renaming(right: Callable[..., None]) -> Callable[..., None]:
        def renamed(source: Any, target: Any, **named: Any) -> None:
            old, new = recording.below(source), recording.below(target)
            if old is None or new is None:
                return right(source, target, **named)
            with recording.lock:
                right(source, target, **named)
                recording.note("rename", old, new)
                for fd, name in recording.files.items():
                    if name == old:
                        recording.files[fd] = new
            return None

        return renamed

    def noting(kind: str, right: Callable[..., None]) -> Callable[..., None]:
        def done(path: Any, *arguments: Any, **named: Any) -> None:
            where = recording.below(path)
            with recording.lock:
                right(path, *arguments, **named)
                if where is not None:
                    recording.note(kind, where)

        return done

    for name in ("rename", "replace"):
        patched.setattr(os, name, renaming(getattr(os, name)))
    for name, kind in (("mkdir", "mkdir"), ("unlink", "remove"), ("remove", "remove"), ("rmdir", "remove")):
        patched.setattr(os, name, noting(kind, getattr(os, name)))


def _watch_commits(patched: pytest.MonkeyPatch, recording: Recording) -> None:
    """Note the database after each transaction. One thread at a time writes, so nothing comes between the two."""
    right = Database.write

    @contextlib.contextmanager
    def write(database: Database, kept: Kept | None = None) -> Iterator[Any]:
        with right(database, kept) as connection:
            yield connection
        recording.note("commit", database_of(recording.folder))

    patched.setattr(Database, "write", write)


# ── the judgement ────────────────────────────────────────────────────────────

Key = tuple[str, str]
"""SOP Instance UID and SHA-256 of the encoded dataset."""


@dataclass
class Survey:
    """What was found after losing power at every step of a recording.

    Attributes:
        crashes: how many different disks were recovered.
        broken: each broken promise, with the step after which power was lost.
    """

    crashes: int = 0
    broken: list[str] = field(default_factory=list)


def lose_power_everywhere(
    recording: Recording,
    sent: set[Key],
    chance: random.Random,
    *,
    acknowledged: frozenset[Key] = frozenset(),
    some: int = 2,
    again: float = 0.0,
    only_first: bool = False,
) -> Survey:
    """Lose power after every step, with nothing, all and some of the unsynced kept, and look after recovery.

    Args:
        sent: everything that was tried.
        acknowledged: what was acknowledged before the first step.
        some: how often a part of the unsynced is drawn for each step.
        again: for which share of these disks power is lost during recovery as well.
        only_first: stop at the first broken promise.
    """
    disk, database, told = Disk(recording.before), recording.database, set(acknowledged)
    survey, seen = Survey(), set[bytes]()
    for i, step in enumerate([("start",), *recording.steps]):
        kind = step[0]
        database = step[1] if kind == "commit" else database
        if kind == "acknowledge":
            told.add(step[1])
        disk.take(*step)
        for choice in (Choice(), Everything(), *[Some(chance)] * some):
            tree = disk.after(choice)
            key = _fingerprint(tree, database, told)
            if key in seen:
                continue
            seen.add(key)
            survey.crashes += 1
            where = f"step {i} ({' '.join(map(str, step[:2])) if kind != 'commit' else kind})"
            found = _recovered(tree, database, sent, frozenset(told), chance, again)
            survey.broken += [f"{where}, {type(choice).__name__.lower()} kept: {line}" for line in found]
            if survey.broken and only_first:
                return survey
    return survey


def _fingerprint(tree: Tree, database: bytes, told: set[Key]) -> bytes:
    digest = hashlib.sha256(repr((sorted(tree), sorted(told))).encode())
    for path in sorted(tree):
        digest.update(tree[path] or b"")
    digest.update(database)
    return digest.digest()


def _recovered(
    tree: Tree, database: bytes, sent: set[Key], told: frozenset[Key], chance: random.Random, again: float
) -> list[str]:
    """Build a folder, recover it, and return each broken promise; sometimes lose power during that, too."""
    with scratch() as folder:
        _build(folder, tree, database)
        if chance.random() < again:
            with recorded(folder) as recording:
                _start(folder)
            inner = lose_power_everywhere(recording, sent, chance, acknowledged=told, some=1)
            return [f"in recovery, {line}" for line in inner.broken]
        _start(folder)
        found = broken_promises(folder, sent, told)
        second = _start(folder)
        if any(second.values()):
            found.append(f"a second recovery still finds {second}")
        return found


def _build(folder: Path, tree: Tree, database: bytes) -> None:
    (folder / "node.db").write_bytes(database)
    for path in sorted(tree):
        content = tree[path]
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
            _was_written_in_the_hour_of_its_folder(folder / path)


def _was_written_in_the_hour_of_its_folder(path: Path) -> None:
    """Give a file its time back: recovery goes by it."""
    if path.parent.name[:1].isdigit():
        hour = datetime.strptime(path.parent.name, "%Y%m%d-%H").replace(tzinfo=UTC).timestamp()
        os.utime(path, (hour, hour))


def _start(folder: Path) -> dict[str, int]:
    """Do what a receiver does before it listens."""
    database = Database(f"sqlite:///{folder / 'node.db'}")
    try:
        with capture_logs():
            return recover(database, Spool(folder / "spool"), now=NOW)
    finally:
        database.close()


def broken_promises(folder: Path, sent: set[Key], told: frozenset[Key]) -> list[str]:
    """Return what is untrue of what senders were told, and what is there in part; uses nothing of the node."""
    with contextlib.closing(sqlite3.connect(folder / "node.db")) as connection:
        rows = connection.execute("SELECT sop_instance_uid, sha256, path, calling_ae_title FROM instances").fetchall()
    spool = folder / "spool"
    entered = {(uid, digest) for uid, digest, *_ in rows}
    found = [f"…{uid[-6:]} was acknowledged and has no row" for uid, _ in told - entered]
    of_sender = Counter((uid, digest, calling) for uid, digest, _, calling in rows)  # a copy of somebody else may count
    found += [f"…{uid[-6:]} of {calling} has {n} rows" for (uid, _, calling), n in of_sender.items() if n > 1]
    for uid, digest, path, _ in rows:
        if (uid, digest) not in sent:
            found.append(f"a row for …{uid[-6:]} has a digest that was never sent")
        if not (spool / path).is_file():
            found.append(f"the row of …{uid[-6:]} has no file")
        elif _digest(spool / path) != digest:
            found.append(f"the file of …{uid[-6:]} is not what was sent")
    named = {path for _, _, path, _ in rows}
    for path in spool.rglob("*.dcm"):
        if path.parent.name != "quarantine" and str(path.relative_to(spool)) not in named:
            found.append(f"{path.name} lies in the spool without a row")
    found += [f"temporary file left: {path.name}" for path in (spool / "tmp").iterdir()]
    if not found:
        kept = {(uid, digest) for uid, digests in spooled(spool).items() for digest in digests}
        found += [f"…{uid[-6:]} was acknowledged and is not in the spool" for uid, _ in told - kept]
    return found


def _digest(path: Path) -> str:
    try:
        return dataset_digest(path.read_bytes())
    except (AssertionError, IndexError):
        return "no Part 10 file"
