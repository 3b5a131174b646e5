"""What torch finds on this machine, for `mediqa-node doctor`: only this room may ask it."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A CUDA device. `name` as its maker calls it."""

    index: int
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFacts:
    """What a score is computed with.

    Attributes:
        threads: of torch itself; the node runs images side by side instead (`model.execution`).
        capability: vector instructions that torch's kernels use: DEFAULT, AVX2, AVX512, ...
        amx: whether matrix tiles are there, without which bf16 on a CPU is only emulated.
        built_for: `CUDA 12.8`, or `CPU`.
        torchvision_fault: what happened when one of its operators was called; None: it fits torch.
    """

    threads: int
    capability: str
    amx: bool
    built_for: str
    accelerators: tuple[Accelerator, ...]
    torchvision_fault: str | None


def torch_facts() -> TorchFacts:
    """Ask torch; nothing is changed."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    properties = [(index, torch.cuda.get_device_properties(index)) for index in devices]
    return TorchFacts(
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        amx=bool(torch.cpu._is_amx_tile_supported()),
        built_for=f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU",
        accelerators=tuple(
            Accelerator(index=index, name=found.name, memory_bytes=found.total_memory) for index, found in properties
        ),
        torchvision_fault=torchvision_fault(),
    )


def torchvision_fault() -> str | None:
    """Call a compiled operator of torchvision; return what went wrong, or None.

    A torchvision of another index than torch's installs without a word, and dies at import or at the first
    call with `operator torchvision::nms does not exist`; timm imports it, and with it the network is gone.
    """
    try:
        from torchvision.ops import nms

        kept = nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except Exception as error:  # whatever a mismatched library raises
        return f"{type(error).__name__}: {error}"
    return None if kept.tolist() == [0] else f"nms answered {kept.tolist()}"
