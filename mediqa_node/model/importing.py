"""Import third-party weights, once and offline: convert a PyTorch state dict to a checkpoint that can be pinned.

Only tensors are read (`weights_only=True`, no fallback): a pickle of a whole model would execute its content. Names are
those of the release. An explicit list names the tensors that no score depends on; all others must be present, and no
further ones. The card records each choice that the file leaves open.
"""

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.preprocessing import IntensityRule, PreprocessSpec
from mediqa_node.model.card import DEFAULT_PREPROCESSING, Card, QualityMap, read_card
from mediqa_node.model.checkpoint import build, fill, is_dead, save_checkpoint
from mediqa_node.model.lock import check_name, write_lock
from mediqa_node.model.prompts import PromptCode

KINDS = ("mediqa", "maniqa")
_ZIP, _PICKLE = b"PK", b"\x80"
"""First bytes of what torch.save writes, now and before 1.6."""

AS_RELEASED = PreprocessSpec(
    size_px=224,
    slices=7,
    intensity={modality: IntensityRule(kind="dtype_range") for modality in ("CT", "MR", "OP")},
    slice_rule="released",
    geometry="stretch",
    colour_order="bgr",
)
"""What the public code of MedIQA shows its network: see image/released.py."""

AS_MANIQA = PreprocessSpec(
    size_px=224,
    slices=7,
    intensity=DEFAULT_PREPROCESSING.intensity,
    native_crops=3,
    output_range=(-1.0, 1.0),
)
"""MANIQA scores crops of photographs, (x - 0.5) / 0.5; the windows of medical images are this package's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Choices that a file of weights leaves open.

    Attributes:
        kind: of KINDS.
        scale: of Swin layers: 0.8, or 0.13 for MANIQA trained on PIPAL22.
        prompt_index: which of the 64 prompt inputs is 1; their meanings are not published.
        quality: map of raw scores to 0..1; None: raw scores only, which no node accepts.
        trained: False for weights that were never trained.
        size: row of the size table; the releases are b8.
    """

    kind: str
    size: str = "b8"
    scale: float = 0.8
    prompt_index: int | None = None
    quality: QualityMap | None = None
    trained: bool = True


def import_weights(source: Path, out: Path, name: str, provenance: Provenance) -> Card:
    """Convert a state dict to `out`: weights, card and a lock that pins both; return the card.

    Raises:
        CheckpointRefused: not a state dict, not of this network, or `out` already holds a checkpoint.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointRefused(f"{out} is not an empty folder; name another one, so that nothing is overwritten")
    check_name(name)
    state = read_state_dict(source)
    card = read_card(_card(name, provenance, source).to_json())  # refuse an invalid card before anything is written
    network = build(card)
    try:
        fill(network, state)
    except ValueError as error:
        raise CheckpointRefused(
            f"{source}: these are not weights of {provenance.kind}: {error}{_hint(state)}"
        ) from error
    try:
        entry = save_checkpoint(out, network, card)
        write_lock(out, name, entry)
    except OSError as error:
        raise CheckpointRefused(f"{out} cannot be written: {error.strerror or error}") from error
    return replace(card, weights_sha256=entry.sha256)


def read_state_dict(source: Path) -> dict[str, torch.Tensor]:
    """Read tensors by name from a file; nothing in it is executed.

    Raises:
        CheckpointRefused: the file is missing, truncated, a pickle of something else, or has other content.
    """
    try:
        with source.open("rb") as file:
            head = file.read(2)
        if not head.startswith((_ZIP, _PICKLE)):
            raise CheckpointRefused(f"{source} is not a PyTorch file, or is truncated")
        if head == _ZIP:
            _check_archive(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: such files are refused anyway
            content = torch.load(source, map_location="cpu", weights_only=True)
    except CheckpointRefused:
        raise
    except OSError as error:
        raise CheckpointRefused(f"{source} cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointRefused(
            f"{source} holds Python objects, not tensors alone (a whole pickled model?), and opening it could run "
            f"anything: refused. Its author can write the weights alone: torch.save(model.state_dict(), 'weights.pt')"
        ) from error
    except Exception as error:  # torch has no error class of its own for a broken file
        raise CheckpointRefused(f"{source} is not a PyTorch file, or is truncated ({type(error).__name__})") from error
    tensors = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(tensors, Mapping) or not tensors or not all(map(_is_named_tensor, tensors.items())):
        raise CheckpointRefused(f"{source} holds no state dict: a mapping of names to plain tensors is needed")
    return dict(tensors)


def _check_archive(source: Path) -> None:
    """Refuse a compressed archive, which could expand without limit: torch.save never compresses."""
    with zipfile.ZipFile(source) as archive:
        if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
            raise CheckpointRefused(f"{source} holds compressed records, which torch.save never writes; it is refused")


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    """Whether an entry is a named plain tensor: real, dense, in memory and fully stored."""
    name, value = item
    return (
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
        and (value.is_floating_point() or is_dead(name))
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _hint(state: Mapping[str, torch.Tensor]) -> str:
    """Return a hint on what the names look like, or nothing."""
    if all(name.startswith("module.") for name in state):
        return ". They were saved from a DistributedDataParallel wrapper: save model.module.state_dict()"
    return ". MLP1 and MLP2 are prompts: these may be weights of MedIQA" if "MLP1.weight" in state else ""


def _card(name: str, provenance: Provenance, source: Path) -> Card:
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    notes = [f"imported from a state dict with SHA-256 {digest}; what it was trained on is not known here"]
    prompt = None
    if provenance.kind == "mediqa":
        prompt = PromptCode(words={}, index=provenance.prompt_index or 0)
        given = "as given at import" if provenance.prompt_index is not None else "a guess"
        notes.append(f"prompt index {prompt.index}: {given}; the release's table of meanings is not published")
    return Card(
        name=name,
        size=provenance.size,
        trained=provenance.trained,
        weights_sha256="",
        preprocess=AS_RELEASED if provenance.kind == "mediqa" else AS_MANIQA,
        prompt=prompt,
        quality=provenance.quality,
        scale=provenance.scale,
        training_data="; ".join(notes),
    )
