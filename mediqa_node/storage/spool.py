"""The spool: received instances as Part 10 files under names that this node makes.

No path is ever built from what a peer sent. A file is written under `tmp/`, made durable,
renamed into a folder named by the hour, and that folder made durable before a row may name it:

    write → fdatasync → rename → fsync of the folder → commit → answer

An `fsync` that fails is never retried on the same descriptor: the kernel may have dropped the
dirty pages and report success the second time.
"""

import contextlib
import mmap
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.failpoint import reach


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
            StorageFailed: the disk took less than all of it.
        """
        self.digest.update(fragment)
        self.size_bytes += len(fragment)
        reach("mid-write")
        while fragment:
            try:
                written = os.write(self.fd, fragment)
            except OSError as error:
                raise StorageFailed(f"no room to spool an instance: {error.strerror}; the sender keeps it") from error
            fragment = fragment[written:]

    @contextlib.contextmanager
    def dataset(self) -> Iterator[memoryview]:
        """Map the dataset received so far, without copying it."""
        if not self.size_bytes:
            yield memoryview(b"")
            return
        with (
            mmap.mmap(self.fd, 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
            view[self.prefix_bytes :] as dataset,
        ):
            yield dataset


class Spool:
    """Part 10 files of received instances under one root folder, on one filesystem."""

    def __init__(self, root: Path, *, durable: bool = True, low_water_bytes: int = 0) -> None:
        self.root = root
        self.durable = durable
        self.low_water_bytes = low_water_bytes
        self._tmp = root / "tmp"
        self._quarantine = root / "quarantine"
        self._tmp.mkdir(parents=True, exist_ok=True)
        self._quarantine.mkdir(exist_ok=True)
        self._free_checked_at = -1.0
        self._has_room = True

    def has_room(self) -> bool:
        """Whether more than `low_water_bytes` are free; looked up at most once a second."""
        now = time.monotonic()
        if now - self._free_checked_at > 1.0:
            self._has_room = self.free_bytes() > self.low_water_bytes
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
        path = self._tmp / uuid.uuid4().hex
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
            os.write(fd, prefix)
            reach("temp-open")
        except OSError as error:
            raise StorageFailed(f"cannot create a spool file: {error.strerror}; the sender keeps its copy") from error
        return Incoming(fd, path, len(prefix))

    def place(self, incoming: Incoming) -> str:
        """Make the file durable, rename it to its final name, close it; return its relative path.

        The folder is not yet synced: `sync_folders` does that once for a whole batch.
        """
        folder = datetime.now(UTC).strftime("%Y%m%d-%H")
        relative = f"{folder}/{uuid.uuid4().hex}.dcm"
        try:
            reach("before-fsync")
            if self.durable:
                os.fdatasync(incoming.fd)
            reach("after-fsync")
            self._make_folder(folder)
            incoming.path.rename(self.root / relative)
            reach("after-rename")
        except OSError as error:
            raise StorageFailed(f"spool file could not be made durable: {error.strerror}") from error
        finally:
            os.close(incoming.fd)
            incoming.fd = -1
        return relative

    def _make_folder(self, folder: str) -> None:
        path = self.root / folder
        if not path.is_dir():
            path.mkdir(exist_ok=True)
            if self.durable:
                _fsync_folder(self.root)

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
        """Remove what was received; with `keep_copy` a bounded quarantine keeps it for a person to look at."""
        if incoming.fd >= 0:
            os.close(incoming.fd)
            incoming.fd = -1
        with contextlib.suppress(OSError):
            if keep_copy and incoming.size_bytes <= 64 * 1024**2:
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
        """Whether a spooled file is there."""
        return (self.root / relative).is_file()

    def remove(self, relative: str) -> None:
        """Delete a spooled file."""
        (self.root / relative).unlink(missing_ok=True)

    def remove_empty_folders(self) -> None:
        """Remove folders of past hours that hold nothing; the two newest may still be in use."""
        folders = sorted(path for path in self.root.iterdir() if path.is_dir() and path.name[0].isdigit())
        for folder in folders[:-2]:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def files(self) -> Iterator[str]:
        """Return the relative paths of all spooled files, in order."""
        for folder in sorted(self.root.iterdir()):
            if folder.name not in ("tmp", "quarantine") and folder.is_dir():
                yield from (f"{folder.name}/{path.name}" for path in sorted(folder.iterdir()))

    def sweep_temporary(self, *, older_than_s: float) -> int:
        """Delete temporary files that no running receiver can own; return how many."""
        count = 0
        for path in self._tmp.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= older_than_s:
                    path.unlink()
                    count += 1
        return count


def _fsync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
