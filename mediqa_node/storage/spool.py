"""The spool: received instances as Part 10 files under names that this node generates.

No path is ever derived from what a peer sent. A file is written under `tmp/`, made durable,
renamed into a folder named by the hour, and that folder made durable before a row may name it:

    write → fdatasync → rename → fsync of the folder → commit → answer

An `fsync` that fails is never retried on the same descriptor: the kernel may have dropped the
dirty pages and report success the second time.
"""

import contextlib
import errno
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.system.failpoint import reach


@dataclass(slots=True)
class Incoming:
    """A file that is being received: hashed as it is written."""

    fd: int
    path: Path
    prefix_bytes: int
    size_bytes: int = 0
    digest: Any = field(default_factory=sha256)

    def write(self, fragment: memoryview) -> None:
        """Append a fragment of the dataset.

        Raises:
            StorageFailed: the disk did not take all of it.
        """
        self.digest.update(fragment)
        self.size_bytes += len(fragment)
        reach("mid-write")
        try:
            _write_all(self.fd, fragment)
        except OSError as error:
            raise StorageFailed(f"no room to spool an instance: {error.strerror}; the sender keeps it") from error

    def dataset(self) -> "SpooledDataset":
        """Return the dataset received so far, to be read slice by slice."""
        return SpooledDataset(self.fd, self.prefix_bytes, self.size_bytes)


@dataclass(frozen=True, slots=True)
class SpooledDataset:
    """The encoded dataset of an open file; sliced like a memoryview.

    Read, not mapped: touched pages of a map of 500 MB would count as memory of this process.
    """

    fd: int
    begins_at: int
    size_bytes: int

    def __len__(self) -> int:
        return self.size_bytes

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.size_bytes)
        return os.pread(self.fd, max(0, stop - start), self.begins_at + start)


class Spool:
    """Part 10 files of received instances under one root folder, on one filesystem, which several hosts may share.

    Args:
        owner: id of the host; its files begin with it, so that what a dead receiver has left behind is known by name.
    """

    def __init__(self, root: Path, *, owner: str | None = None, durable: bool = True, low_water_bytes: int = 0) -> None:
        self.root = root
        self.owner = owner
        self.durable = durable
        self.low_water_bytes = low_water_bytes
        self._tmp = root / "tmp"
        self._quarantine = root / "quarantine"
        self._tmp.mkdir(parents=True, exist_ok=True)
        self._quarantine.mkdir(exist_ok=True)
        if durable:
            _fsync_folder(root)
            _fsync_folder(root.parent)
        self._durable_folders: set[str] = set()
        self._folders_lock = threading.Lock()
        self._free_checked_at = -1.0
        self._has_room = True

    def has_room(self) -> bool:
        """Return whether more than `low_water_bytes` are free; checked at most once a second."""
        now = time.monotonic()
        if now - self._free_checked_at > 1.0:
            try:
                self._has_room = self.free_bytes() > self.low_water_bytes
            except OSError:
                self._has_room = False
            self._free_checked_at = now
        return self._has_room

    def free_bytes(self) -> int:
        """Return the free space of the spool's filesystem."""
        return shutil.disk_usage(self.root).free

    def begin(self, prefix: bytes) -> Incoming:
        """Open a temporary file and write preamble and file meta.

        Raises:
            StorageFailed: below the watermark, or the file cannot be created.
        """
        if not self.has_room():
            raise StorageFailed("free space is below `retention.low_water_bytes`; the sender keeps its copy")
        incoming = Incoming(-1, self._tmp / self._new_name(), len(prefix))
        try:
            incoming.fd = os.open(incoming.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            _write_all(incoming.fd, memoryview(prefix))
            reach("temp-open")
        except OSError as error:
            self.discard(incoming)
            raise StorageFailed(f"cannot create a spool file: {error.strerror}; the sender keeps its copy") from error
        return incoming

    def place(self, incoming: Incoming) -> str:
        """Make the file durable, rename it to its final name, close it; return its relative path.

        The folder is not yet synced: `sync_folders` does that once for a whole batch.
        """
        folder = datetime.now(UTC).strftime("%Y%m%d-%H")
        relative = f"{folder}/{self._new_name()}.dcm"
        try:
            reach("before-fsync")
            if self.durable:
                os.fdatasync(incoming.fd)
            reach("after-fsync")
            self._rename(incoming.path, folder, f"{self.root}/{relative}")
            reach("after-rename")
        except OSError as error:
            raise StorageFailed(f"spool file could not be made durable: {error.strerror}") from error
        finally:
            _close(incoming)
        return relative

    def _rename(self, path: Path, folder: str, final: str) -> None:
        """Move a file into its folder, which retention may have removed meanwhile."""
        if folder not in self._durable_folders:
            self._make_folder(folder)
        try:
            path.rename(final)
        except FileNotFoundError:
            self._make_folder(folder)
            path.rename(final)

    def _new_name(self) -> str:
        return uuid.uuid4().hex if self.owner is None else f"{self.owner}-{uuid.uuid4().hex}"

    def claim(self, relative: str) -> str:
        """Give a file of a dead receiver a second name, that of a file of this host, durably; return it.

        A receiver that was stopped and wakes may remove its own name: what is entered is the other.

        Raises:
            OSError: it is gone, or the filesystem has no links.
        """
        folder = relative.partition("/")[0]
        claimed = f"{folder}/{self._new_name()}.dcm"
        os.link(self.root / relative, self.root / claimed)
        self.sync_folders([claimed])
        return claimed

    def _make_folder(self, folder: str) -> None:
        """Create the folder durably: each process that writes into it syncs its entry in the root once.

        An existing folder proves nothing: another thread or a killed receiver may have created it
        without syncing the root.
        """
        with self._folders_lock:
            (self.root / folder).mkdir(exist_ok=True)
            if self.durable:
                _fsync_folder(self.root)
            self._durable_folders.add(folder)

    def sync_folders(self, relative_paths: Iterable[str]) -> None:
        """Make the renames of these files durable, each folder once."""
        if not self.durable:
            return
        try:
            for folder in {relative.partition("/")[0] for relative in relative_paths}:
                _fsync_folder(self.root / folder)
        except OSError as error:
            raise StorageFailed(f"spool folder could not be made durable: {error.strerror}") from error

    def discard(self, incoming: Incoming, *, keep_copy: bool = False) -> None:
        """Remove what was received; with `keep_copy`, keep it in a bounded quarantine for inspection."""
        _close(incoming)
        with contextlib.suppress(OSError):
            if keep_copy and incoming.size_bytes <= 64 * 1024**2 and self.has_room():
                incoming.path.rename(self._quarantine / f"{time.time_ns()}.dcm")
                self._trim_quarantine()
            else:
                incoming.path.unlink(missing_ok=True)

    def _trim_quarantine(self, most_files: int = 200, most_bytes: int = 512 * 1024**2) -> None:
        kept = 0
        for i, path in enumerate(sorted(self._quarantine.iterdir(), reverse=True)):
            kept += path.stat().st_size
            if i >= most_files or kept > most_bytes:
                path.unlink(missing_ok=True)

    def path(self, relative: str) -> Path:
        """Return the absolute path of a spooled file."""
        return self.root / relative

    def has(self, relative: str) -> bool:
        """Return whether a spooled file exists."""
        return (self.root / relative).is_file()

    def remove(self, relative: str) -> None:
        """Delete a spooled file."""
        (self.root / relative).unlink(missing_ok=True)

    def remove_empty_folders(self) -> None:
        """Remove empty folders of past hours, except the two newest, which may be in use."""
        folders = sorted(path for path in self.root.iterdir() if path.is_dir() and path.name[0].isdigit())
        for folder in folders[:-2]:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def files(self, since: str = "") -> Iterator[str]:
        """Return the relative paths of all spooled files, in order.

        Args:
            since: name of the first folder that is looked into; a full spool has a million files.
        """
        for folder in sorted(self.root.iterdir()):
            if folder.name[0].isdigit() and folder.name >= since and folder.is_dir() and not folder.is_symlink():
                yield from (f"{folder.name}/{path.name}" for path in sorted(folder.iterdir()))

    def sweep_temporary(self, *, older_than_s: float) -> int:
        """Delete temporary files that are too old for any receiver to be writing them; return how many."""
        now = time.time()
        return self._drop_temporary(lambda path: now - path.stat().st_mtime >= older_than_s)

    def drop_temporary(self, owner: str | None) -> int:
        """Delete the temporary files of a host whose receiver is dead; return how many."""
        return self._drop_temporary(lambda path: owner_of(path.name) == owner)

    def _drop_temporary(self, is_dead: Callable[[Path], bool]) -> int:
        count = 0
        for path in self._tmp.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if is_dead(path):
                    path.unlink()
                    count += 1
        return count


def owner_of(name: str) -> str | None:
    """Return the id of the host whose receiver has written a file.

    >>> owner_of("20261130-09/north-1-0f3a.dcm"), owner_of("20261130-09/0f3a.dcm")
    ('north-1', None)
    """
    return name.rpartition("/")[2].rpartition("-")[0] or None


def _write_all(fd: int, data: memoryview) -> None:
    """Write all of the data: a nearly full disk accepts a part before it refuses."""
    while data:
        written = os.write(fd, data)
        if not written:
            raise OSError(errno.EIO, "nothing was written")
        data = data[written:]


def _close(incoming: Incoming) -> None:
    fd, incoming.fd = incoming.fd, -1
    if fd >= 0:
        with contextlib.suppress(OSError):  # everything durable was synced before
            os.close(fd)


def _fsync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
