"""Small checkpoints of seeded weights, as `mediqa-train` and `mediqa-node model import` leave them in a folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mediqa_node.model.card import Card, QualityMap
from mediqa_node.model.checkpoint import save_checkpoint
from mediqa_node.model.lock import write_lock
from mediqa_node.model.network import MedIQA
from mediqa_node.model.sizes import SIZES

CARD = Card(name="", size="n16", trained=True, weights_sha256="", quality=QualityMap(kind="logistic", a=0.0, b=4.0))


def checkpoint(folder: Path, name: str, *, seed: int, **card: Any) -> Path:
    """Write weights, card and lock into `folder / name`; the card says that they were trained, unless told else."""
    torch.manual_seed(seed)
    made = replace(CARD, name=name, **card)
    entry = save_checkpoint(folder / name, MedIQA(SIZES[made.size]).eval(), made)
    write_lock(folder / name, name, entry)
    return folder / name
