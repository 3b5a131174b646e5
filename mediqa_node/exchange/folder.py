"""Write a folder atomically: under a temporary name, with a digest of every file, then renamed."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mediqa_node.domain.errors import ConfigurationError, StorageFailed
from mediqa_node.system.publish import publish

SUMS = "SHA256SUMS"
MARK = "provenance.json"
"""A folder with this file is an export, which another may replace."""
RESERVE_BYTES = 256 * 1024**2


def check_target(out: Path, *, replace: bool) -> None:
    """Raise ConfigurationError unless `out` may be written: new, empty or, on request, an older export."""
    if os.path.ismount(out):
        raise ConfigurationError(f"{out} is a mount point and cannot be replaced; name a folder inside it")
    out = out.absolute()
    # An export that was moved aside is restored by `_clear`, so it counts as existing.
    there = next((folder for folder in (out, _sibling(out, "old")) if folder.exists()), None)
    if there is None:
        return
    if not there.is_dir():
        raise ConfigurationError(f"{out} is a file; name a folder for the export")
    if not any(there.iterdir()):
        return
    if not (there / MARK).is_file():
        raise ConfigurationError(f"{out} holds files that are not an export; name a new folder")
    if not replace:
        raise ConfigurationError(f"{out} already holds an export; name another folder, or replace it with --force")


def check_room(out: Path, n_bytes: int, *, spare_bytes: int = 0) -> None:
    """Raise StorageFailed unless the filesystem of `out` has room for this many bytes and a reserve.

    Args:
        spare_bytes: space to leave free, in addition to our own reserve, so that the receiver keeps running.
    """
    parent = next(folder for folder in out.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if free < n_bytes + RESERVE_BYTES + spare_bytes:
        raise StorageFailed(
            f"no room for about {n_bytes / 1e6:,.0f} MB of images under {parent}: {free / 1e6:,.0f} MB are free, of "
            f"which {(RESERVE_BYTES + spare_bytes) / 1e6:,.0f} MB are kept for the receiver; "
            f"narrow the choice (--since, --modality, --scanner), or choose `--payload refs`"
        )


@dataclass(slots=True)
class Writing:
    """A folder being written; `sums` holds the digests of its files by relative path."""

    folder: Path
    spare_bytes: int = 0
    sums: dict[str, str] = field(default_factory=dict)
    n_bytes: int = 0

    def put(self, relative: str, content: bytes) -> None:
        """Write one file.

        Raises:
            StorageFailed: the write failed, or the disk has filled up meanwhile.
        """
        path = self.folder / relative
        check_room(path, len(content), spare_bytes=self.spare_bytes)
        with _refusals(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.sums[relative] = hashlib.sha256(content).hexdigest()
        self.n_bytes += len(content)

    def drop(self, relative: str) -> None:
        """Remove a file or folder that was written."""
        with _refusals(self.folder):
            for name in [name for name in self.sums if name == relative or name.startswith(f"{relative}/")]:
                self.n_bytes -= (self.folder / name).stat().st_size
                (self.folder / name).unlink()
                del self.sums[name]
            if (self.folder / relative).is_dir():
                (self.folder / relative).rmdir()


@contextmanager
def writing(out: Path, *, replace: bool, spare_bytes: int = 0) -> Iterator[Writing]:
    """Yield a temporary folder that replaces `out` at the end of the block, or is removed after an error.

    Raises:
        ConfigurationError: see `check_target`; another process writes there.
        StorageFailed: a write failed. Errors raised in the block are passed on unchanged.
    """
    check_target(out, replace=replace)
    out = out.absolute()
    part = _sibling(out, "part")
    with _locked(out):
        try:
            with _refusals(out):
                _clear(out)
                check_target(out, replace=replace)
                part.mkdir()
            found = Writing(part, spare_bytes)
            yield found
            lines = [f"{digest}  {name}\n" for name, digest in sorted(found.sums.items())]
            with _refusals(out):
                (part / SUMS).write_text("".join(lines), encoding="utf-8")
                publish(part, out, aside=_sibling(out, "old"))
        finally:
            with _refusals(out):
                _clear(out)


def clear(out: Path) -> None:
    """Remove the leftovers of a killed process, and restore the export that it had moved aside.

    Raises:
        ConfigurationError: another process writes there.
        StorageFailed: the disk refused.
    """
    with _locked(out), _refusals(out):
        _clear(out)


def remove(out: Path) -> None:
    """Delete an export atomically: a process killed meanwhile leaves nothing that looks like an export.

    Raises:
        ConfigurationError: another process writes there.
        StorageFailed: the disk refused.
    """
    with _locked(out), _refusals(out):
        _clear(out)
        part = _sibling(out, "part")
        out.rename(part)
        shutil.rmtree(part)


def _sibling(out: Path, what: str) -> Path:
    return out.with_name(f".{out.name}.{what}")


def _clear(out: Path) -> None:
    old = _sibling(out, "old")
    if old.exists() and not out.exists():
        old.rename(out)  # not replaced: a process was killed between two renames, or a rename failed
    for leftover in (_sibling(out, "part"), old):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the lock of the temporary folder of an export; the kernel releases it if this process dies."""
    path = _sibling(out, "lock")
    with _refusals(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    with lock:
        with _refusals(out):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.path.samestat(os.fstat(lock.fileno()), path.stat())
            except (BlockingIOError, FileNotFoundError):
                mine = False
        if not mine:  # held, or just deleted by its holder: a lock on a deleted file excludes no one
            raise ConfigurationError(f"another export is being written to {out}; wait for it, or name another folder")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _refusals(out: Path) -> Iterator[None]:
    """Raise a filesystem error as an error of the export, not of the spool."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"export to {out} could not be written: {error.strerror or error}; nothing was kept"
        ) from error


def secret_of(path: Path, n_bytes: int) -> bytes:
    """Return the secret in a file that only its owner may read, creating it on first use.

    Raises:
        ConfigurationError: others may read it, or it has been altered.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(os.urandom(n_bytes).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(half, path)  # never overwrites a key that another process has just created
        except FileExistsError:
            pass
        finally:
            half.unlink()
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path} may be read by others, who could undo every pseudonym: chmod 600 {path}")
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError as error:
        raise ConfigurationError(f"{path} is no key; restore it, or remove it to begin new pseudonyms") from error
    if len(secret) != n_bytes:
        raise ConfigurationError(f"{path} holds {len(secret)} bytes instead of {n_bytes}; restore it, or remove it")
    return secret
