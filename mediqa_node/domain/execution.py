"""How the network is run, and with which weights, as a site configures it."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

_STRICT: dict[str, str] = {"extra": "forbid"}
MAY_TAKE_AT_LEAST_S = 10.0
WORKERS_AT_MOST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How the network is run. What can move a score is off by default, and named in every report.

    Attributes:
        device: `auto` (CUDA if there is one, else CPU), `cpu`, `cuda`, `cuda:1`.
        threads: images at once on a CPU; None: as many as this process may use cores.
        batch_images: images at once on a GPU, always so many: what is missing is black, so that the bits do not
            depend on who else waits. The bound of its memory; halved when it runs out.
        precision: `fp32`, or `bf16` for everything but the heads (GPU, or a CPU with AMX).
        fold_tab: merge two of the three projections of channel attention; moves a score by about 5e-7.
        compile: let torch.compile fuse the network; costs half a minute at the start.
        cuda_graph: record the kernels of a batch once and replay them (GPU).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    device: str = "auto"
    threads: int | None = None
    batch_images: int = 7
    precision: Literal["fp32", "bf16"] = "fp32"
    fold_tab: bool = False
    compile: bool = False
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.batch_images < 1 or (self.threads is not None and self.threads < 1):
            raise ValueError("batch_images and threads must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice(Execution):
    """Which weights, and how they are run.

    Attributes:
        checkpoint: entry of the lock.
        lock: the site's own list of pinned checkpoints, relative to this file; None: that of the package.
        classifier: entry of the lock that tells region and type from the image where headers do not; None: off.
        allow_untrained: lets weights that were never trained report; for a demo only.
        workers: processes that score on this host: one for each GPU, or for a group of the cores of a CPU.
        hangs_after_s: how long a worker may take for one series. One that takes longer hangs: it is ended and started
            again, and a series with which that happens again and again is parked.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT

    checkpoint: str = "default"
    lock: Path | None = None
    classifier: str | None = None
    allow_untrained: bool = False
    workers: int = 1
    hangs_after_s: float = 600.0

    def __post_init__(self) -> None:
        Execution.__post_init__(self)  # `super()` does not find its class in one with slots
        if not 1 <= self.workers <= WORKERS_AT_MOST:
            raise ValueError(f"workers must be 1 to {WORKERS_AT_MOST}")
        if self.hangs_after_s < MAY_TAKE_AT_LEAST_S:
            raise ValueError(f"hangs_after_s must be at least {MAY_TAKE_AT_LEAST_S:g}: a slow series is no hung worker")
