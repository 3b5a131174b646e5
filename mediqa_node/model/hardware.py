"""What torch finds on this machine, for `mediqa-node doctor`; only this package imports torch."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A CUDA device; `name` is the vendor's."""

    index: int
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFacts:
    """The hardware and libraries that compute a score.

    Attributes:
        threads: of torch itself; the node runs images in parallel instead (`model.execution`).
        capability: vector instructions that torch's kernels use: DEFAULT, AVX2, AVX512, ...
        amx: whether the CPU has matrix tiles; without them bf16 is only emulated.
        built_for: `CUDA 12.8`, or `CPU`.
        torchvision_fault: the error of calling one of its operators; None: it matches torch.
    """

    threads: int
    capability: str
    amx: bool
    built_for: str
    accelerators: tuple[Accelerator, ...]
    torchvision_fault: str | None


def torch_facts() -> TorchFacts:
    """Return these facts as torch reports them."""
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

    A torchvision from another package index than torch installs without a warning but fails at import or at the first
    call with `operator torchvision::nms does not exist`. timm imports it, so the network would not load.
    """
    try:
        from torchvision.ops import nms

        kept = nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    except Exception as error:  # whatever a mismatched library raises
        return f"{type(error).__name__}: {error}"
    return None if kept.tolist() == [0] else f"nms answered {kept.tolist()}"
