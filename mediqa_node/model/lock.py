"""The lock file: the weights and cards that may be used, each pinned by its SHA-256. Nothing here imports torch.

It is YAML, one entry per name:

    default:
      seed: 5                     # weights made from a seed (untrained), or
      directory: models/chest     # weights.safetensors and card.json; relative to the lock file
      card: untrained.card.json   # only with a seed: the card, relative to the lock file
      sha256: 64 hex digits of the weights
      card_sha256: 64 hex digits of the card
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from mediqa_node.domain.errors import CheckpointRefused

DEFAULT_LOCK = Path(__file__).parents[1] / "defaults" / "models.lock"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
LOCK_FILE = "models.lock"
LONGEST_NAME = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """The place of one checkpoint and the digests of its files; see module."""

    sha256: str
    card_sha256: str
    directory: Path | None = None
    seed: int | None = None
    card: Path | None = None


def read_lock(path: Path = DEFAULT_LOCK) -> dict[str, LockEntry]:
    """Read a lock file; relative paths start at its folder.

    Raises:
        CheckpointRefused: the file is missing or not YAML, an entry has wrong keys, or `check_name` refuses a name.
    """
    try:
        entries = yaml.safe_load(path.read_text())
        return {check_name(name): _entry(raw, path.parent) for name, raw in entries.items()}
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointRefused(f"model lock {path} cannot be read: {error}") from error


def only_entry(path: Path) -> tuple[str, LockEntry]:
    """Return name and entry of a lock that names one checkpoint.

    Raises:
        CheckpointRefused: it names several or none; or see `read_lock`.
    """
    entries = read_lock(path)
    if len(entries) != 1:
        raise CheckpointRefused(f"{path} names {len(entries)} checkpoints; configure `model.lock` to choose")
    return next(iter(entries.items()))


def lock_of(name: str, entry: LockEntry) -> bytes:
    """Return the lock file that pins one checkpoint next to it."""
    pins = {"directory": ".", "sha256": entry.sha256, "card_sha256": entry.card_sha256}
    return yaml.safe_dump({check_name(name): pins}, sort_keys=False).encode()


def write_lock(folder: Path, name: str, entry: LockEntry) -> None:
    """Write the lock of a folder with one checkpoint."""
    (folder / LOCK_FILE).write_bytes(lock_of(name, entry))


def check_name(name: str) -> str:
    """Return the name of a checkpoint if it can be recorded with a decision.

    Raises:
        CheckpointRefused: it is not 1 to 128 printable characters.
    """
    if not (isinstance(name, str) and 1 <= len(name) <= LONGEST_NAME and name.isprintable()):
        raise CheckpointRefused(
            f"a checkpoint is called by 1 to {LONGEST_NAME} printable characters, not by {str(name)[:32]!r}"
        )
    return name


def _entry(raw: Mapping[str, object], folder: Path) -> LockEntry:
    places = {key: folder / str(raw[key]) for key in ("directory", "card") if key in raw}
    return LockEntry(**{**raw, **places})  # type: ignore[arg-type]


def digest(content: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def card_bytes(name: str, entry: LockEntry) -> bytes:
    """Return the card of an entry; CheckpointRefused: missing, or its digest differs."""
    path = entry.card or (entry.directory and entry.directory / CARD_FILE)
    if path is None:
        raise CheckpointRefused(f"checkpoint {name!r}: the lock gives neither a directory nor a card")
    return pinned(name, "card", read(name, path), entry.card_sha256)


def read(name: str, path: Path) -> bytes:
    """Return a file of the checkpoint `name`; CheckpointRefused: it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointRefused(f"checkpoint {name!r}: {path} cannot be read: {error.strerror}") from error


def pinned(name: str, what: str, content: bytes, expected: str) -> bytes:
    """Return `content` if it has the SHA-256 that the lock pins, else raise CheckpointRefused."""
    found = digest(content)
    if found != expected:
        raise CheckpointRefused(
            f"checkpoint {name!r}: its {what} have SHA-256 {found}, the model lock pins {expected}; "
            f"restore the file, or review the new one and change the lock"
        )
    return content
