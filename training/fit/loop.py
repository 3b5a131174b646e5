"""The training loop: draw a batch, forward, loss, step, and save a state that survives a kill.

Everything at a step is a pure function of seed and step (the batch, the augmentation, the dropout, the learning
rate), so a killed run resumes from its last state and continues the same curve. Weights, optimizer and step are in one
safetensors file that is replaced atomically. Several processes (`torchrun`) share each batch: DistributedDataParallel.
"""

import csv
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mediqa_node.domain.errors import ConfigurationError, MediqaError
from mediqa_node.system.atomic import replacing, write_atomically
from mediqa_node.system.memory import keep_freed_memory
from training.data.batches import Batch

STATE, CURVE, SETTINGS = "state.safetensors", "curve.csv", "settings.json"

Loss = Callable[[nn.Module, Batch], Mapping[str, Tensor]]
"""Network and batch to the parts of the loss; their sum is minimised."""


class Diverged(MediqaError):
    """The loss is no longer finite; the settings or the labels have to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of the loop.

    Attributes:
        steps: of the whole run.
        optimizer: `adam` (the paper) or `adamw`.
        learning_rate: at its highest.
        trunk_learning_rate: the same for a pretrained trunk; None: `learning_rate`.
        schedule: `constant` (the paper) or `cosine`, after a warm-up of `warmup` steps.
        clip: largest norm of the gradient; 0: no clipping.
        seed: of batches, augmentation and dropout.
        save_every: steps between saved states, the most that a kill can lose.
        threads: torch threads per process.
        precision: of matrix products: `fp32`, or `bf16` (autocast) where the processor supports it; weights,
            losses and optimizer steps are always float32.
    """

    steps: int
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    trunk_learning_rate: float | None = None
    weight_decay: float = 0.02
    schedule: str = "cosine"
    warmup: int = 50
    clip: float = 1.0
    seed: int = 0
    save_every: int = 100
    threads: int = 1
    precision: str = "fp32"


def world() -> tuple[int, int]:
    """Return the rank of this process and the number of processes, set by `torchrun`; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def train(
    network: nn.Module,
    batch_at: Callable[[int, int, int], Batch],
    loss: Loss,
    settings: Settings,
    folder: Path,
    *,
    made_by: Mapping[str, Any] | None = None,
    advance: Callable[[int, int, float], None] = lambda *_: None,
) -> nn.Module:
    """Train a network in place, from the state in `folder` if there is one; return it in evaluation mode.

    Args:
        batch_at: returns the share of a process: step, rank, processes.
        made_by: further settings that the run depends on; a state with other settings is not resumed.
        advance: called with the step, the number of steps and the loss.

    Raises:
        ConfigurationError: the folder holds a run with other settings.
        Diverged: the loss is not finite.
    """
    rank, processes = world()
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu")
    bf16 = settings.precision == "bf16" and _has_bf16(device)
    _agree(folder, {**asdict(settings), **(made_by or {}), "processes": processes, "bf16": bf16}, rank)
    network.to(device).train()
    optimizer = _optimizer(network, settings)
    start = _load(folder / STATE, network, optimizer)
    wrapped = _shared(network, processes)
    curve = _Curve(folder / CURVE, start) if rank == 0 else None
    for step in range(start, settings.steps):
        torch.manual_seed((settings.seed << 24) + step * processes + rank)
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, settings) * group["share"]
        batch = _moved(batch_at(step, rank, processes), device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            parts = loss(wrapped, batch)
        total = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(total):
            raise Diverged(
                f"step {step} of {settings.steps}: the loss is {total.item()}; the last state in {folder} is kept. "
                f"Lower `learning_rate` ({settings.learning_rate:g}), or look for a label that is not a number"
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        if settings.clip:
            nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        if curve is not None:
            values = {name: float(part.detach()) for name, part in parts.items()}
            curve.add(step, float(total.detach()), values, _rate(step, settings))
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
                curve.flush()
                _save(folder / STATE, network, optimizer, step + 1)
            advance(step + 1, settings.steps, float(total.detach()))
    if processes > 1:
        torch.distributed.barrier()
    return network.eval()


def _has_bf16(device: torch.device) -> bool:
    return device.type == "cuda" or bool(torch.cpu._is_amx_tile_supported())  # else emulated, four times slower


def _shared(network: nn.Module, processes: int) -> nn.Module:
    if processes == 1:
        return network
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)


def _agree(folder: Path, settings: Mapping[str, Any], rank: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file, text = folder / SETTINGS, json.dumps(settings, indent=1, sort_keys=True, default=str) + "\n"
    if (folder / STATE).exists() and file.exists() and file.read_text() != text:
        raise ConfigurationError(f"{folder} holds a run with other settings ({SETTINGS}); choose another folder")
    if rank == 0 and not (file.exists() and file.read_text() == text):
        write_atomically(file, text.encode())


def _optimizer(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    if settings.optimizer not in ("adam", "adamw"):
        raise ConfigurationError(f"optimizer {settings.optimizer!r}: must be adam or adamw")
    if settings.optimizer == "adam":
        return torch.optim.Adam(_groups(network, settings, decay=False), lr=settings.learning_rate)
    return torch.optim.AdamW(_groups(network, settings, decay=True), lr=settings.learning_rate)


def _groups(network: nn.Module, settings: Settings, *, decay: bool) -> list[dict[str, Any]]:
    """Return the trained parameters by learning rate, a `share` of the highest, and by weight decay."""
    trunk = (settings.trunk_learning_rate or settings.learning_rate) / settings.learning_rate
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, one in network.named_parameters():
        if one.requires_grad:
            key = (trunk if name.startswith("trunk.") else 1.0, settings.weight_decay * (decay and one.ndim > 1))
            found.setdefault(key, []).append(one)
    return [{"params": of, "share": share, "weight_decay": decayed} for (share, decayed), of in found.items()]


def _rate(step: int, settings: Settings) -> float:
    if settings.schedule == "constant":
        return settings.learning_rate
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def _moved(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    return Batch(**{name: getattr(batch, name).to(device) for name in Batch.__dataclass_fields__})


# ── saved state ────────────────────────────────────────────────


def _save(file: Path, network: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"network.{name}": value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value.detach().cpu() for name, value in state.items()}
    with replacing(file) as part:
        save_file(tensors, part, metadata={"step": str(step)})


def _load(file: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Fill network and optimizer from a state; return the step to resume with, 0 without one."""
    if not file.exists():
        return 0
    with safe_open(file, "pt") as state:
        tensors = {name: state.get_tensor(name) for name in state.keys()}  # noqa: SIM118 (no mapping)
        step = int(state.metadata()["step"])
    network.load_state_dict({name.removeprefix("network."): t for name, t in tensors.items() if name[0] == "n"})
    kept = optimizer.state_dict()
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".")
            kept["state"].setdefault(int(number), {})[key] = value
    optimizer.load_state_dict(kept)
    return step


class _Curve:
    """`curve.csv`: a line for each step, cut back to the state that a run resumes from."""

    def __init__(self, file: Path, start: int) -> None:
        self._file, self._lines = file, list[str]()
        self._started = time.monotonic()
        kept: list[str] = []
        with suppress(FileNotFoundError):
            kept = file.read_text().splitlines(keepends=True)[: start + 1]
        write_atomically(file, "".join(kept).encode())
        self._header = bool(kept)

    def add(self, step: int, loss: float, parts: Mapping[str, float], rate: float) -> None:
        if not self._header:
            self._lines.append(",".join(["step", "loss", *parts, "learning_rate", "seconds"]) + "\n")
            self._header = True
        values = [f"{step}", *(f"{value:.9g}" for value in (loss, *parts.values(), rate))]
        self._lines.append(",".join([*values, f"{time.monotonic() - self._started:.2f}"]) + "\n")

    def flush(self) -> None:
        with self._file.open("a") as file:
            file.writelines(self._lines)
            file.flush()
            os.fsync(file.fileno())
        self._lines.clear()


def read_curve(folder: Path) -> list[dict[str, float]]:
    """Return the curve of a run: step, loss, its parts, learning rate and seconds."""
    with (folder / CURVE).open(newline="") as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
