"""Checkpoints: weights as safetensors, a card as JSON, both pinned by SHA-256 in a lock file.

Nothing is loaded that the lock does not name, and nothing whose digest differs from the lock.
There is no pickle and no download anywhere.

The lock is YAML, one entry per name:

    default:
      seed: 5                     # weights made from a seed (untrained), or
      directory: models/chest     # weights.safetensors and card.json; relative to the lock file
      card: default.card.json     # only with a seed: the card, relative to the lock file
      sha256: 64 hex digits of the weights
      card_sha256: 64 hex digits of the card
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError
from safetensors.numpy import save as save_numpy
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.model.card import Card, read_card
from mediqa_node.model.network import REBUILT, UNUSED, MedIQA
from mediqa_node.model.seeded import seeded_state

DEFAULT_LOCK = Path(__file__).parents[1] / "defaults" / "models.lock"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
LOCK_FILE = "models.lock"
OPTIONAL = frozenset({"slice_weight.weight", "slice_weight.bias"})
"""Parameters that weights may lack: zero then, every slice counts alike, as in the public code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """Where one checkpoint lies and what its files must hash to; see module."""

    sha256: str
    card_sha256: str
    directory: Path | None = None
    seed: int | None = None
    card: Path | None = None


def read_lock(path: Path = DEFAULT_LOCK) -> dict[str, LockEntry]:
    """Read a lock file; relative paths start at its folder.

    Raises:
        CheckpointRefused: no file, no YAML, or an entry with other keys than the module names.
    """
    try:
        entries = yaml.safe_load(path.read_text())
        return {name: _entry(raw, path.parent) for name, raw in entries.items()}
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointRefused(f"model lock {path} cannot be read: {error}") from error


def _entry(raw: Mapping[str, object], folder: Path) -> LockEntry:
    places = {key: folder / str(raw[key]) for key in ("directory", "card") if key in raw}
    return LockEntry(**{**raw, **places})  # type: ignore[arg-type]


def load_checkpoint(name: str, lock: Path | Mapping[str, LockEntry] = DEFAULT_LOCK) -> tuple[MedIQA, Card]:
    """Return the network in evaluation mode with the weights of `name`, and its card.

    Raises:
        CheckpointRefused: not in the lock, files missing, digest differs, card not understood,
            or the weights do not fit the network that the card names.
    """
    entries = lock if isinstance(lock, Mapping) else read_lock(lock)
    if name not in entries:
        raise CheckpointRefused(f"no checkpoint {name!r} in the model lock; it has: {', '.join(entries) or 'none'}")
    entry = entries[name]
    card = read_card(_card_bytes(name, entry))
    network = build(card)
    weights = _weights(name, entry, network)
    if card.weights_sha256 != entry.sha256:
        raise CheckpointRefused(f"checkpoint {name!r}: its card belongs to other weights ({card.weights_sha256})")
    _fill(network, weights, name)
    return network.eval(), card


def build(card: Card) -> MedIQA:
    """Return the network that a card describes, its weights still to come."""
    parameters = [parameter.name for parameter in card.parameters]
    return MedIQA(card.network_size, parameters=parameters, prompted=card.prompt is not None)


def save_checkpoint(directory: Path, network: MedIQA, card: Card) -> LockEntry:
    """Write weights and card (its digest filled in) and return the entry to pin them with."""
    weights = save_torch({key: value.contiguous().cpu() for key, value in network.state_dict().items()})
    content = replace(card, weights_sha256=digest(weights)).to_json()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / WEIGHTS_FILE).write_bytes(weights)
    (directory / CARD_FILE).write_bytes(content)
    return LockEntry(directory=directory, sha256=digest(weights), card_sha256=digest(content))


def seeded_weights(network: MedIQA, seed: int) -> bytes:
    """Return a safetensors file of untrained weights for `network`: same seed, same bytes, everywhere."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return save_numpy(seeded_state(shapes, seed))


def digest(content: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def _card_bytes(name: str, entry: LockEntry) -> bytes:
    path = entry.card or (entry.directory and entry.directory / CARD_FILE)
    if path is None:
        raise CheckpointRefused(f"checkpoint {name!r}: the lock gives neither a directory nor a card")
    return _pinned(name, "card", _read(name, path), entry.card_sha256)


def _weights(name: str, entry: LockEntry, network: MedIQA) -> bytes:
    if entry.directory is not None:
        content = _read(name, entry.directory / WEIGHTS_FILE)
    elif entry.seed is not None:
        content = seeded_weights(network, entry.seed)
    else:
        raise CheckpointRefused(f"checkpoint {name!r}: the lock gives neither a directory nor a seed")
    return _pinned(name, "weights", content, entry.sha256)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointRefused(f"checkpoint {name!r}: {path} cannot be read: {error.strerror}") from error


def _pinned(name: str, what: str, content: bytes, expected: str) -> bytes:
    found = digest(content)
    if found != expected:
        raise CheckpointRefused(
            f"checkpoint {name!r}: its {what} have SHA-256 {found}, the model lock pins {expected}; "
            f"restore the file, or review the new one and change the lock"
        )
    return content


def _fill(network: MedIQA, weights: bytes, name: str) -> None:
    try:
        fill(network, load_torch(weights))
    except (SafetensorError, ValueError) as error:
        raise CheckpointRefused(f"checkpoint {name!r}: weights do not fit {network.size.name}: {error}") from error


def fill(network: MedIQA, state: Mapping[str, torch.Tensor]) -> None:
    """Load weights by name, strictly: only what no score depends on is left out, only `OPTIONAL` may be missing.

    Raises:
        ValueError: names or shapes differ, or a value is not finite.
    """
    used = {key: value for key, value in state.items() if not is_dead(key)}
    for key in OPTIONAL - used.keys():
        used[key] = torch.zeros_like(network.state_dict()[key])
    own = network.state_dict()
    missing, unexpected = sorted(own.keys() - used.keys()), sorted(used.keys() - own.keys())
    if missing or unexpected:
        raise ValueError(f"{_some('missing', missing)}{_some('unexpected', unexpected)}".rstrip("; "))
    for key, value in used.items():
        if value.shape != own[key].shape:
            raise ValueError(f"{key} has shape {tuple(value.shape)}, expected {tuple(own[key].shape)}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{key} holds NaN or infinity")
    network.load_state_dict(used, strict=True)


def _some(what: str, names: Sequence[str]) -> str:
    """`missing 316 names (a, b, c, ...); `, or nothing."""
    if not names:
        return ""
    shown = ", ".join(ascii(name)[1:-1][:80] for name in names[:3])  # a file may hold any name
    return f"{what} {len(names)}: {shown}{', ...' if len(names) > 3 else ''}; "


def is_dead(key: str) -> bool:
    """Whether a released name is one that no score depends on, or a buffer that is computed here."""
    return key.startswith(UNUSED) or key.rpartition(".")[2] in REBUILT
