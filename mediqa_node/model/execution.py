"""Execution: device, precision and batching. None of them changes what a score means.

On a CPU every image runs alone on one thread of a pool as wide as the machine. Results are bit-identical whatever else
is running, batches would not be faster, and the channel-attention maps of one image stay small. On a GPU the waiting
images of all series are put into batches of one fixed shape, so that the choice of kernels, and with it the last bits,
does not depend on what else is waiting.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import Queue
from threading import Barrier, Thread
from typing import Protocol

import structlog
import torch
from torch import Tensor, nn

from mediqa_node.domain.errors import CheckpointRefused
from mediqa_node.domain.execution import Execution, ModelChoice
from mediqa_node.model.network import MedIQA, NetworkOutput
from mediqa_node.model.tab import FoldedAttention, TransposedAttention
from mediqa_node.system.memory import keep_freed_memory

log = structlog.get_logger("model")

Forward = Callable[[Tensor, Tensor], NetworkOutput]


class Runner(Protocol):
    """Runs images of any number of series."""

    def __call__(self, images: Sequence[Tensor], prompts: Sequence[Tensor]) -> list[NetworkOutput]:
        """Return the output for each image (3, S, S) with its own prompt (64,): batches of one, on the CPU."""


def chosen_device(name: str) -> torch.device:
    """Return the device of that name; CheckpointRefused if it is not available."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in ("auto", "cpu"):
        return torch.device("cuda:0" if name == "auto" and found else "cpu")
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index.isdecimal() or (not index and name == "cuda")):
        raise CheckpointRefused(f"model.device {name!r}: must be auto, cpu, cuda or cuda:N")
    if int(index or 0) >= found:
        raise CheckpointRefused(f"the model was to run on {name}, but torch finds no CUDA device of that number")
    return torch.device("cuda", int(index or 0))


def for_worker(choice: ModelChoice, index: int) -> ModelChoice:
    """Give one of several workers of a host its share: a GPU in turn, or its group of the cores of a CPU.

    The thread that calls it, and those that it starts, run on these cores from then on.

    Args:
        index: of the worker, from 0.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if choice.device == "auto" and found:
        return replace(choice, device=f"cuda:{index % found}")
    cores = sorted(os.sched_getaffinity(0))
    if choice.workers > 1 and choice.device in ("auto", "cpu"):
        os.sched_setaffinity(0, cores[index :: choice.workers] or cores)
    return choice


def hardware(device: torch.device) -> str:
    """Return the name of the GPU, e.g. `NVIDIA H200`, which decides the kernels; "" for a CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def describe(execution: Execution, device: torch.device, runner: Runner) -> str:
    """Return the settings that can change a score, for reports: `cpu fp32`, `cuda bf16 batch-7 graph`.

    The shape of a batch decides the kernels, and with them the last bits.
    """
    batch = f"batch-{runner.batch_images}" if isinstance(runner, BatchingRunner) else ""
    flags = ("folded" * execution.fold_tab, "compiled" * execution.compile, "graph" * execution.cuda_graph)
    return " ".join(filter(None, (device.type, execution.precision, batch, *flags)))


def prepare(network: MedIQA, execution: Execution, device: torch.device) -> Runner:
    """Return a runner for `network`, which is modified in place: projections merged, the trunk laid out for the CPU.

    From here on the process keeps the memory that it frees.

    Raises:
        CheckpointRefused: bfloat16 on a CPU that only emulates it, or CUDA graphs without CUDA.
    """
    if execution.precision == "bf16" and device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        raise CheckpointRefused("model.precision bf16: this CPU has no AMX and would take four times as long as fp32")
    if execution.cuda_graph and device.type != "cuda":
        raise CheckpointRefused(f"model.cuda_graph: not available on {device.type}")
    keep_freed_memory()
    network.to(device).eval()
    if execution.fold_tab:
        fold(network)
    forward: Forward = mixed(network) if execution.precision == "bf16" else network
    if execution.compile:
        forward = torch.compile(forward, dynamic=False)
    if device.type == "cpu":
        if network.size.trunk is not None:
            network.trunk.to(memory_format=torch.channels_last)  # faster; scores move in their last bits
        return PooledRunner(forward, threads=execution.threads or len(os.sched_getaffinity(0)))
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if execution.cuda_graph:
        forward = GraphedForward(forward)
    return BatchingRunner(forward, device=device, batch_images=execution.batch_images)


def fold(network: nn.Module) -> None:
    """Replace every channel attention block by its folded form, in place."""
    for name, child in network.named_children():
        if isinstance(child, TransposedAttention):
            setattr(network, name, FoldedAttention(child))
        else:
            fold(child)


def mixed(network: MedIQA) -> Forward:
    """Return a forward pass in bfloat16 whose branches and heads are float32."""

    def forward(images: Tensor, prompts: Tensor) -> NetworkOutput:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, cache_enabled=False):
            features = network.encode(images)
            refined = network.refine(features, prompts)
        return network.read(features.float(), refined.float())

    return forward


class PooledRunner:
    """Runs images one at a time, each on its own thread, so that results do not depend on other images.

    torch's own threads would split one image: slower for small networks, and scores move by 4e-7.
    """

    def __init__(self, forward: Forward, *, threads: int) -> None:
        torch.set_num_threads(1)
        self._forward = forward
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="model")
        all_there = Barrier(threads)  # all begin here: they inherit the priority of the thread that they are begun by
        list(self._pool.map(lambda _: all_there.wait(), range(threads)))

    def __call__(self, images: Sequence[Tensor], prompts: Sequence[Tensor]) -> list[NetworkOutput]:
        """See Runner."""
        return list(self._pool.map(self._one, images, prompts))

    @torch.inference_mode()
    def _one(self, image: Tensor, prompt: Tensor) -> NetworkOutput:
        return self._forward(image[None], prompt[None])


@dataclass(slots=True)
class _Waiting:
    """One image in the queue."""

    image: Tensor
    prompt: Tensor
    answer: "Future[NetworkOutput]"


class BatchingRunner:
    """Runs images of all callers in batches of one shape, on the only thread that uses the device.

    A batch that is not full is filled with black images. If the device runs out of memory the batch size is halved
    permanently; any other failure is confined to the image that causes it.
    """

    def __init__(self, forward: Forward, *, device: torch.device, batch_images: int) -> None:
        self.batch_images = batch_images
        self._forward = forward
        self._device = device
        self._queue: Queue[_Waiting] = Queue()
        Thread(target=self._serve, name="model", daemon=True).start()

    def __call__(self, images: Sequence[Tensor], prompts: Sequence[Tensor]) -> list[NetworkOutput]:
        """See Runner."""
        waiting = [_Waiting(*pair, Future()) for pair in zip(images, prompts, strict=True)]
        for one in waiting:
            self._queue.put(one)
        return [one.answer.result() for one in waiting]

    def _serve(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < self.batch_images and not self._queue.empty():
                batch.append(self._queue.get())
            self._answer(batch)

    def _answer(self, batch: list[_Waiting]) -> None:
        failure: Exception | None = None
        try:
            answers = self._run(batch)
        except Exception as error:  # any error is passed on to the caller waiting for this image
            failure = error.with_traceback(None)  # frames would keep the failed batch in the device's memory
        if failure is None:
            for one, answer in zip(batch, answers, strict=True):
                one.answer.set_result(answer)
        elif isinstance(failure, torch.OutOfMemoryError) and self.batch_images > 1:
            self.batch_images //= 2
            log.warning("device out of memory, smaller batches from now on", images=self.batch_images)
            while batch:  # the batch size may shrink again on the way
                head, batch = batch[: self.batch_images], batch[self.batch_images :]
                self._answer(head)
        elif len(batch) == 1:
            batch[0].answer.set_exception(failure)
        else:
            for one in batch:
                self._answer([one])

    @torch.inference_mode()
    def _run(self, batch: list[_Waiting]) -> list[NetworkOutput]:
        missing = max(0, self.batch_images - len(batch))
        images = torch.stack([one.image for one in batch] + [torch.zeros_like(batch[0].image)] * missing)
        prompts = torch.stack([one.prompt for one in batch] + [torch.zeros_like(batch[0].prompt)] * missing)
        answer = self._forward(images.to(self._device), prompts.to(self._device))
        whole = [part.cpu() for part in answer]
        return [NetworkOutput(*(part[i : i + 1] for part in whole)) for i in range(len(batch))]


class GraphedForward:
    """The kernels of one batch shape recorded once (CUDA graph) and replayed: hundreds of launches become one."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor, NetworkOutput]] = {}

    def __call__(self, images: Tensor, prompts: Tensor) -> NetworkOutput:
        """Score a batch; the next batch of this shape overwrites the memory of the output."""
        with torch.cuda.device(images.device):  # streams and graphs belong to the current device
            return self._replay(images, prompts)

    def _replay(self, images: Tensor, prompts: Tensor) -> NetworkOutput:
        if images.shape not in self._recorded:
            self._recorded[images.shape] = self._record(images.clone(), prompts.clone())
        graph, held_images, held_prompts, answer = self._recorded[images.shape]
        held_images.copy_(images)
        held_prompts.copy_(prompts)
        graph.replay()
        return answer

    def _record(self, images: Tensor, prompts: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, NetworkOutput]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries allocate and choose kernels before anything is recorded
            for _ in range(3):
                self._forward(images, prompts)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            answer = self._forward(images, prompts)
        return graph, images, prompts, answer
