"""The node's own copies of checkpoints, so that a promotion does not depend on the folder it came from.

Each folder is named by digest and holds weights, card and a lock that pins both, as `mediqa-node model import` writes
them. It is written atomically and never modified; a damaged one is replaced as a whole. Nothing here imports torch.
"""

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.promotion import Weights
from mediqa_node.model.lock import (
    CARD_FILE,
    LOCK_FILE,
    WEIGHTS_FILE,
    LockEntry,
    check_name,
    digest,
    lock_of,
    only_entry,
)
from mediqa_node.system.publish import publish

_HALF = ".half-"
_HALF_OLDER_THAN_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One checkpoint of the store."""

    weights: Weights
    directory: Path
    size_bytes: int
    trained: bool


class ModelStore:
    """Checkpoints under one folder, which is created with the first one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, name: str, weights: bytes, card: bytes) -> Stored:
        """Store a checkpoint under a name; an existing one is left alone unless it is damaged.

        Raises:
            CheckpointRefused: the name is invalid or belongs to another checkpoint, or the folder cannot be written.
        """
        wanted = Weights(name=check_name(name), sha256=digest(weights), card_sha256=digest(card))
        folder = self._folder(wanted)
        if _is_whole(folder, wanted):
            return _stored(folder)
        try:
            if folder.exists():  # damaged, and a rename cannot replace a folder
                shutil.rmtree(folder)
        except OSError as error:
            raise CheckpointRefused(f"{folder} is damaged and cannot be removed: {error.strerror}") from error
        for known in self.all():
            if known.weights.name == name and known.weights != wanted:
                raise CheckpointRefused(
                    f"checkpoint {name!r}: the model store has another of that name ({known.weights.sha256[:12]}); "
                    f"give this one a name of its own with `--name`"
                )
        lock = lock_of(name, LockEntry(sha256=wanted.sha256, card_sha256=wanted.card_sha256))
        try:
            self._write(folder, {WEIGHTS_FILE: weights, CARD_FILE: card, LOCK_FILE: lock})
        except OSError as error:
            raise CheckpointRefused(f"{self.root} cannot be written: {error.strerror or error}") from error
        return self.find(wanted)

    def remove(self, stored: Stored) -> None:
        """Remove an unusable checkpoint; files that cannot be removed stay."""
        shutil.rmtree(stored.directory, ignore_errors=True)

    def all(self) -> list[Stored]:
        """Return the checkpoints of the store, by name; files and hidden folders are ignored.

        Raises:
            CheckpointRefused: a folder has changed since it was written.
        """
        inside = self.root.iterdir() if self.root.is_dir() else ()
        folders = [folder for folder in inside if folder.is_dir() and not folder.name.startswith(".")]
        return sorted((_stored(folder) for folder in folders), key=lambda stored: stored.weights.name)

    def find(self, weights: Weights) -> Stored:
        """Return a checkpoint of the store.

        Raises:
            CheckpointRefused: it is gone, or its folder pins other digests.
        """
        folder = self._folder(weights)
        if not folder.is_dir() or (found := _stored(folder)).weights != weights:
            raise CheckpointRefused(
                f"checkpoint {weights.label} is not in {self.root} as it was promoted; restore that folder, or "
                f"promote it again"
            )
        return found

    def _folder(self, weights: Weights) -> Path:
        return self.root / f"{weights.sha256[:32]}-{weights.card_sha256[:16]}-{digest(weights.name.encode())[:8]}"

    def _write(self, folder: Path, content: dict[str, bytes]) -> None:
        """Write a folder atomically: into a temporary folder, which is synced and renamed."""
        self.root.mkdir(parents=True, exist_ok=True)
        for left in self.root.glob(f"{_HALF}*"):  # left by a process that was killed here
            if time.time() - left.stat().st_mtime > _HALF_OLDER_THAN_S:
                shutil.rmtree(left, ignore_errors=True)
        half = Path(tempfile.mkdtemp(prefix=_HALF, dir=self.root))
        try:
            for name, data in content.items():
                (half / name).write_bytes(data)
            half.chmod(0o755)
            publish(half, folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)


def _stored(folder: Path) -> Stored:
    name, entry = only_entry(folder / LOCK_FILE)
    try:
        size = sum((folder / file).stat().st_size for file in (WEIGHTS_FILE, CARD_FILE))
        trained = bool(json.loads((folder / CARD_FILE).read_bytes())["trained"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointRefused(f"{folder} is no whole checkpoint: {error}; restore it, or remove it") from error
    weights = Weights(name=name, sha256=entry.sha256, card_sha256=entry.card_sha256)
    return Stored(weights=weights, directory=folder, size_bytes=size, trained=trained)


def _is_whole(folder: Path, weights: Weights) -> bool:
    """Return whether a folder holds these weights and this card, byte for byte."""
    try:
        found = tuple(digest((folder / name).read_bytes()) for name in (WEIGHTS_FILE, CARD_FILE))
        return found == (weights.sha256, weights.card_sha256) and _stored(folder).weights == weights
    except (OSError, CheckpointRefused):
        return False
