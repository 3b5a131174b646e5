"""A folder that is there whole or not at all: written beside its place, with a digest of every file, then renamed."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mediqa_node.domain.errors import ConfigurationError, StorageFailed

SUMS = "SHA256SUMS"
MARK = "provenance.json"
"""A folder with this file is an export, which another may replace."""
RESERVE_BYTES = 256 * 1024**2


def check_target(out: Path, *, replace: bool) -> None:
    """Raise ConfigurationError unless an export may be written to `out`: new, empty, or, if asked, an older export."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigurationError(f"{out} is a file; name a folder for the export")
    if not any(out.iterdir()):
        return
    if not (out / MARK).is_file():
        raise ConfigurationError(f"{out} holds other files and is no export; name a new folder")
    if not replace:
        raise ConfigurationError(f"{out} holds an export already; name another folder, or --force replaces it")


def check_room(out: Path, n_bytes: int) -> None:
    """Raise StorageFailed unless the filesystem of `out` has room for so many bytes and some to spare."""
    parent = next(folder for folder in out.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if free < n_bytes + RESERVE_BYTES:
        raise StorageFailed(
            f"no room for about {n_bytes / 1e6:,.0f} MB of images under {parent}: {free / 1e6:,.0f} MB are free; "
            f"narrow the choice (--since, --modality, --scanner), or choose `--payload refs`"
        )


@dataclass(slots=True)
class Writing:
    """A folder that is being written; `sums` are the digests of its files by relative path."""

    folder: Path
    sums: dict[str, str] = field(default_factory=dict)
    n_bytes: int = 0

    def put(self, relative: str, content: bytes) -> None:
        """Write one file."""
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.sums[relative] = hashlib.sha256(content).hexdigest()
        self.n_bytes += len(content)

    def drop(self, relative: str) -> None:
        """Take back what was written under a path, a file or a folder of files."""
        for name in [name for name in self.sums if name == relative or name.startswith(f"{relative}/")]:
            (self.folder / name).unlink()
            del self.sums[name]
        if (self.folder / relative).is_dir():
            (self.folder / relative).rmdir()


@contextmanager
def writing(out: Path, *, replace: bool) -> Iterator[Writing]:
    """Give a folder beside `out`; at the end of the block it takes its place, after an error nothing of it is left.

    Raises:
        ConfigurationError: see `check_target`.
        StorageFailed: the disk refused.
    """
    check_target(out, replace=replace)
    out = out.absolute()
    part, old = (out.with_name(f".{out.name}.{what}") for what in ("part", "old"))
    try:
        if old.exists() and not out.exists():
            old.rename(out)  # a process was killed between the two renames below
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        found = Writing(part)
        yield found
        lines = [f"{digest}  {name}\n" for name, digest in sorted(found.sums.items())]
        (part / SUMS).write_text("".join(lines), encoding="utf-8")
        if out.exists():
            out.rename(old)
        part.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StorageFailed(f"export to {out} could not be written: {error.strerror}; nothing was kept") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def secret_of(path: Path, n_bytes: int) -> bytes:
    """Return the secret of a file that only its owner may read, made once.

    Raises:
        ConfigurationError: others may read it, or it is not as it was made.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(os.urandom(n_bytes).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(half, path)  # never over a key that another process has just made
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
