"""Checkpoints: weights as safetensors, a card as JSON, both pinned by SHA-256 in a lock file (`model.lock`).

Only checkpoints named in the lock are loaded, and only if their digests match. Nothing is unpickled or downloaded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import save as save_numpy
from safetensors.torch import load as load_torch
from safetensors.torch import save as save_torch

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.model.card import Card, read_card
from mediqa_node.model.lock import (
    CARD_FILE,
    DEFAULT_LOCK,
    LOCK_FILE,
    WEIGHTS_FILE,
    LockEntry,
    card_bytes,
    digest,
    only_entry,
    pinned,
    read,
    read_lock,
    write_lock,
)
from mediqa_node.model.network import REBUILT, UNUSED, MedIQA
from mediqa_node.model.seeded import seeded_state
from mediqa_node.model.statistics_regressor import PREFIX, StatisticsRegressor, regressors_of

OPTIONAL = frozenset({"slice_weight.weight", "slice_weight.bias"})
"""Parameters that weights may lack: zero then, so that every slice counts the same, as in the public code."""


Regressors = Mapping[str, Mapping[str, StatisticsRegressor]]
"""By modality and output; see `statistics_regressor`."""


def load_checkpoint(name: str, lock: Path | Mapping[str, LockEntry] = DEFAULT_LOCK) -> tuple[MedIQA, Card]:
    """Return the network in evaluation mode with the weights of `name`, and its card; see `load_whole`."""
    return load_whole(name, lock)[:2]


def load_whole(name: str, lock: Path | Mapping[str, LockEntry] = DEFAULT_LOCK) -> tuple[MedIQA, Card, Regressors]:
    """Return the network in evaluation mode with the weights of `name`, its card, and its regressors.

    Raises:
        CheckpointRefused: not in the lock, a file missing, a digest differs, an unsupported card, or weights that do
            not fit the network named in the card.
    """
    entries = lock if isinstance(lock, Mapping) else read_lock(lock)
    if name not in entries:
        raise CheckpointRefused(f"no checkpoint {name!r} in the model lock; it has: {', '.join(entries) or 'none'}")
    entry = entries[name]
    card = read_card(card_bytes(name, entry))
    network = build(card)
    weights = _weights(name, entry, network)
    if card.weights_sha256 != entry.sha256:
        raise CheckpointRefused(f"checkpoint {name!r}: its card belongs to other weights ({card.weights_sha256})")
    regressors = _fill(network, weights, card, name)
    return network.eval(), card, regressors


def checkpoint_files(name: str, entry: LockEntry) -> tuple[bytes, bytes]:
    """Return weights and card of an entry as files, checked against their digests; seeded weights are generated.

    Raises:
        CheckpointRefused: see `load_checkpoint`.
    """
    card = card_bytes(name, entry)
    return _weights(name, entry, build(read_card(card))), card


def build(card: Card) -> MedIQA:
    """Return the network that a card describes, before its weights are loaded."""
    parameters = [parameter.name for parameter in card.parameters]
    return MedIQA(card.network_size, parameters=parameters, prompted=card.prompt is not None)


def save_checkpoint(
    directory: Path, network: MedIQA, card: Card, regressors: Regressors | None = None, *, half: bool = False
) -> LockEntry:
    """Write weights and card (its digest filled in) and return the entry to pin them with.

    Args:
        half: store the network's weights as float16; inference still uses float32.
    """
    kept = torch.float16 if half else torch.float32
    tensors = {key: value.contiguous().cpu().to(kept) for key, value in network.state_dict().items()}
    for modality, outputs in (regressors or {}).items():
        for output, regressor in outputs.items():
            tensors |= regressor.tensors(modality, output)
    weights = save_torch(tensors)
    content = replace(card, weights_sha256=digest(weights)).to_json()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / WEIGHTS_FILE).write_bytes(weights)
    (directory / CARD_FILE).write_bytes(content)
    return LockEntry(directory=directory, sha256=digest(weights), card_sha256=digest(content))


def amend_card(directory: Path, amended: Callable[[Card], Card]) -> None:
    """Rewrite the card of the only checkpoint in a folder and its digest in the lock; the weights stay."""
    name, entry = only_entry(directory / LOCK_FILE)
    content = amended(read_card(card_bytes(name, entry))).to_json()
    (directory / CARD_FILE).write_bytes(content)
    write_lock(directory, name, replace(entry, card_sha256=digest(content)))


def seeded_weights(network: MedIQA, seed: int) -> bytes:
    """Return a safetensors file of untrained weights for `network`: same seed, same bytes, everywhere."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return save_numpy(seeded_state(shapes, seed))


def _weights(name: str, entry: LockEntry, network: MedIQA) -> bytes:
    if entry.directory is not None:
        content = read(name, entry.directory / WEIGHTS_FILE)
    elif entry.seed is not None:
        content = seeded_weights(network, entry.seed)
    else:
        raise CheckpointRefused(f"checkpoint {name!r}: the lock gives neither a directory nor a seed")
    return pinned(name, "weights", content, entry.sha256)


def _fill(network: MedIQA, weights: bytes, card: Card, name: str) -> Regressors:
    try:
        state = load_torch(weights)
        regressors = regressors_of(state)
        fill(network, {key: value.float() for key, value in state.items() if not key.startswith(PREFIX)})
        for modality, outputs in card.fusion.items():
            if missing := [
                one for one in outputs if outputs[one].statistics and one not in regressors.get(modality, {})
            ]:
                raise ValueError(f"no statistics of {modality} for {', '.join(missing)}")
    except (SafetensorError, ValueError) as error:
        raise CheckpointRefused(f"checkpoint {name!r}: weights do not fit {network.size.name}: {error}") from error
    return regressors


def fill(network: MedIQA, state: Mapping[str, torch.Tensor]) -> None:
    """Load weights by name, strictly: only names without effect on a score are skipped, only `OPTIONAL` may be missing.

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
    shown = ", ".join(ascii(name)[1:-1][:80] for name in names[:3])  # a file may contain any name
    return f"{what} {len(names)}: {shown}{', ...' if len(names) > 3 else ''}; "


def is_dead(key: str) -> bool:
    """Whether no score depends on a released name, or it is a buffer that is computed here."""
    return key.startswith(UNUSED) or key.rpartition(".")[2] in REBUILT
