"""`python -m tests.benchmarks.model`: what a score costs, beside the same network run naively and a matrix product.

CPU seconds at one thread unless said otherwise, measured in turns in one process: machines drift, pairs do not.
A GPU is measured where there is one.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mediqa_node import config
from mediqa_node.composition import checkpoints
from mediqa_node.domain.execution import Execution
from mediqa_node.domain.preprocessing import NetworkInput, PreprocessSpec, View
from mediqa_node.domain.prompt import Prompt, PromptTerm
from mediqa_node.domain.range_position import RangePosition
from mediqa_node.domain.recall import Recall
from mediqa_node.domain.scoring import CheckpointId, ScoredSlices
from mediqa_node.image.measure.quality_statistics import quality_statistics
from mediqa_node.model.card import DEFAULT_PREPROCESSING, Card, QualityMap
from mediqa_node.model.execution import fold, prepare
from mediqa_node.model.network import MedIQA
from mediqa_node.model.parity import Case, recipe_image, recipe_network
from mediqa_node.model.predict import NetworkScorer
from mediqa_node.model.sizes import SIZES
from mediqa_node.pipeline import score
from tests.benchmarks import images
from tests.benchmarks.naive import Naive

SLICES = 7
_WORDS = {"dimension": "3D", "modality": "CT", "region": "chest", "type": "soft"}
PROMPT = Prompt(**{name: PromptTerm(value=word, source="data", confidence=1.0) for name, word in _WORDS.items()})
MATMUL = 2048
"""Edge of the square product that b8 is held against: as large as its own largest products."""


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turns(rounds: int, **works: Callable[[], object]) -> dict[str, list[float]]:
    """CPU seconds of each work, called in turns, after one call that does not count."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(cpu_s(work))
    return taken


def ratio(ones: list[float], others: list[float]) -> float:
    """Median of the ratios of pairs."""
    return statistics.median(a / b for a, b in zip(ones, others, strict=True))


def scorer(size: str, *, crops: int = 0, threads: int | None = 1) -> NetworkScorer:
    """A network of random weights as the node runs it."""
    torch.manual_seed(0)
    spec = PreprocessSpec(size_px=224, slices=SLICES, intensity=DEFAULT_PREPROCESSING.intensity, native_crops=crops)
    card = Card(
        name=size, size=size, trained=False, weights_sha256="", preprocess=spec,
        quality=QualityMap(kind="logistic", a=0.0, b=1.0),
    )  # fmt: skip
    return NetworkScorer(MedIQA(SIZES[size]), card, execution=Execution(device="cpu", threads=threads))


def volume(views: int = 1) -> NetworkInput:
    """Seven different slices of so many views."""
    shots = np.random.default_rng(0).random((SLICES * views, 3, 224, 224), dtype=np.float32)
    places = (View(slice_index=i // views, top=0, left=0, height=224, width=224) for i in range(len(shots)))
    return NetworkInput(images=shots, views=tuple(places))


def large(rounds: int) -> Iterator[str]:
    """b8 beside the naive path and a matrix product of the same run."""
    torch.set_num_threads(1)
    lean, folded = _recipe(), _recipe()
    naive = Naive(lean)
    fold(folded)
    shots = [torch.from_numpy(recipe_image(k))[None] for k in range(SLICES)]
    code = torch.eye(64)[5][None]
    a, b = torch.rand(MATMUL, MATMUL), torch.rand(MATMUL, MATMUL)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            lean(shots[0], code)
        gflop = counter.get_total_flops() / 1e9
        taken: dict[str, list[float]] = {name: [] for name in ("naive", "lean", "folded", "matmul")}
        scores: dict[str, list[float]] = {"naive": [], "lean": [], "folded": []}
        for _ in range(rounds):
            for shot in shots:
                works: dict[str, Callable[[], torch.Tensor]] = {
                    "naive": partial(naive, shot, code),
                    "lean": lambda shot=shot: lean(shot, code).score,
                    "folded": lambda shot=shot: folded(shot, code).score,
                }
                for name, work in works.items():
                    start = time.process_time()
                    scores[name].append(float(work()))
                    taken[name].append(time.process_time() - start)
                taken["matmul"].append(cpu_s(lambda: [a @ b for _ in range(8)]))
    off = {name: max(abs(x - y) for x, y in zip(scores[name], scores["naive"], strict=True)) for name in scores}
    rate = [gflop / s for s in taken["lean"]]
    product = [8 * 2 * MATMUL**3 / 1e9 / s for s in taken["matmul"]]
    yield f"b8, a volume of seven slices, {rounds} rounds of pairs slice by slice, fp32, one thread"
    for name in ("naive", "lean", "folded"):
        seconds = SLICES * statistics.median(taken[name])
        share = ratio(taken[name], taken["naive"])
        yield f"  {name:<8}{seconds:7.2f} core-s   {share:5.2f} × naive   scores within {off[name]:.1e}"
    floor = statistics.median(gflop / speed / s for speed, s in zip(product, taken["naive"], strict=True))
    yield "  bound: lean ≤ 0.80 × naive, scores within 5e-7"
    yield f"  its operations at the speed of the matrix product: {floor:.2f} × naive, the least that any run could show"
    yield (
        f"  lean {statistics.median(rate):5.0f} GFLOP/s ({gflop:.1f} GFLOP a slice), matmul {MATMUL}: "
        f"{statistics.median(product):.0f}: {ratio(rate, product):.2f} of it   bound ≥ 0.85"
    )


def small(rounds: int) -> Iterator[str]:
    """The shapes that a CPU serves, through the whole scorer."""
    t16, n16, e16 = scorer("t16"), scorer("n16", crops=3), scorer("e16", crops=1)
    works = {
        "t16": partial(t16.score, volume(), PROMPT),
        "n16": partial(n16.score, volume(views=4), PROMPT),
        "e16": partial(e16.score, volume(views=2), PROMPT),
        "flat": partial(t16.score, _repeated(), PROMPT),
        "statistics": _statistics,
    }
    taken = in_turns(rounds, **works)
    yield f"a volume of seven slices, {rounds} rounds in turns, core-seconds at one thread"
    yield f"  t16                    {statistics.median(taken['t16']):6.2f}   bound 0.6"
    yield f"  n16, four views        {statistics.median(taken['n16']):6.2f}   bound 0.6"
    yield f"  e16, two views         {statistics.median(taken['e16']):6.2f}   bound 0.6"
    yield f"  t16, a 2-D image       {statistics.median(taken['flat']):6.2f}   {ratio(taken['flat'], taken['t16']):.2f}"
    yield f"  statistics, 512 x 512  {statistics.median(taken['statistics']):6.2f}   bound 0.35"
    pooled = scorer("t16", threads=None)
    walls: dict[str, list[float]] = {"one": [], "all": []}
    for _ in range(rounds):
        for name, one in (("one", t16), ("all", pooled)):
            start = time.perf_counter()
            one.score(volume(), PROMPT)
            walls[name].append(time.perf_counter() - start)
    yield (
        f"  t16, wall              {statistics.median(walls['one']):6.2f} s at one thread, "
        f"{statistics.median(walls['all']):.2f} s at all cores"
    )


def _statistics() -> None:
    """Measure seven slices of 512 x 512 as a checkpoint with a fusion does."""
    random = np.random.default_rng(0)
    for _ in range(SLICES):
        image = random.normal(40.0, 20.0, (512, 512)).astype(np.float32)
        image[:, :80] = -1000.0
        quality_statistics(image, modality="CT", window=(-160.0, 240.0))


def _repeated() -> NetworkInput:
    """A 2-D image as seven slices, as the public code does."""
    whole = volume()
    return NetworkInput(images=np.repeat(whole.images[:1], SLICES, axis=0), views=whole.views)


class Free:
    """A scorer that costs nothing."""

    checkpoint = CheckpointId(name="free", sha256="", trained=False, size="t16")
    spec = DEFAULT_PREPROCESSING

    def code(self, prompt: Prompt) -> np.ndarray:
        """Return nothing of interest."""
        return np.zeros(64, dtype=np.float32)

    def range_position(self, inputs: NetworkInput, modality: str) -> RangePosition | None:
        """Accept everything."""
        return None

    def recalling(self, recall: Recall) -> Self:
        """Compute everything."""
        return self

    def score(self, inputs: NetworkInput, prompt: Prompt) -> ScoredSlices:
        """Return equal weights and no score."""
        n = inputs.n_slices
        return ScoredSlices(raw=np.zeros(n), quality=np.zeros(n), weights=np.full(n, 1 / n))


def around(folder: Path, rounds: int) -> Iterator[str]:
    """Headers, stacks, slice selection, decoding and preprocessing of a CT, beside the network."""
    images.write_ct_series(folder / "ct", 100, seed=1)
    paths = sorted((folder / "ct").glob("*.dcm"))
    rules = checkpoints.prompt_rules(config.load(None, {}))
    assessor = score.Assessor(scorer=Free(), prompts=rules)
    technique = score.harvest_series(score.read_headers(paths))

    def prepare() -> None:
        score._read_headers.cache_clear()
        files = score.read_headers(paths)
        score.assess(files, technique, assessor, revision=1, assessed_at=datetime.now(UTC))

    taken = in_turns(rounds, prepare=prepare, t16=partial(scorer("t16").score, volume(), PROMPT))
    share = ratio(taken["prepare"], taken["t16"])
    yield f"a CT of 100 slices 512 × 512, {rounds} rounds in turns, core-seconds"
    yield f"  headers, stack, decoding, preprocessing {statistics.median(taken['prepare']):.3f}: {share:.2f} of t16"
    yield "  bound 0.30"


_COLD = """
import time; start = time.perf_counter()
import sys
from pathlib import Path
from mediqa_node import config
from mediqa_node.composition import checkpoints
from mediqa_node.pipeline.offline import score_paths
size = sys.argv[2]
if size == "t16":
    judge = checkpoints.open_active(config.load(None, {}))
else:
    from tests.benchmarks.model import scorer
    from mediqa_node.pipeline.score import Assessor
    judge = Assessor(scorer=scorer(size), prompts=checkpoints.prompt_rules(config.load(None, {})))
ready = time.perf_counter() - start
[result], _ = score_paths([Path(sys.argv[1])], assessor=lambda: judge, advance=lambda done, total: None)
assert result["quality"] is not None
# not ru_maxrss: a new process begins with that of the one it was forked from
[peak_kb] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(ready, time.perf_counter() - start, int(peak_kb) / 1024)
"""


def cold(folder: Path) -> Iterator[str]:
    """A new process to its first score, and its memory."""
    images.write_ct_series(folder / "cold", 20, seed=1)
    yield "a new process to the first score of a CT of 20 slices 512 × 512"
    for size in ("t16", "b8"):
        command = [sys.executable, "-c", _COLD, str(folder / "cold"), size]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        ready, scored, rss = map(float, answer.splitlines()[-1].split())
        yield f"  {size:<4} model ready {ready:5.1f} s, first score {scored:5.1f} s, peak RSS {rss:6.0f} MiB"


def gpu(rounds: int) -> Iterator[str]:
    """b8 as the node runs it on a device, one and eight volumes at once, beside a matrix product and float32."""
    if not torch.cuda.is_available():
        yield "no CUDA device: its paths are tried on the CPU by tests/model/test_execution.py, not timed"
        return
    device = torch.device("cuda", 0)
    product = torch.rand(8192, 8192, device=device, dtype=torch.bfloat16)
    seconds = _device_s(lambda: product @ product, rounds)
    tflops = 2 * 8192**3 / seconds / 1e12
    yield f"b8 on {torch.cuda.get_device_name()}, ms a volume of seven slices, {rounds} rounds"
    yield f"  bf16 matmul 8192: {tflops:.0f} TFLOP/s, floor of 1.937 TFLOP a volume: {1937 / tflops:.2f} ms"
    shots = [torch.from_numpy(recipe_image(k)) for k in range(SLICES)]
    codes = [torch.eye(64)[5]] * SLICES
    exact = _scores(Execution(device="cuda:0"), device, shots, codes)
    for volumes in (1, 8):
        for graph in (False, True):
            chosen = Execution(device="cuda:0", precision="bf16", cuda_graph=graph, batch_images=SLICES * volumes)
            runner = prepare(_recipe(), chosen, device)
            per_volume = _device_s(partial(runner, shots * volumes, codes * volumes), rounds) / volumes * 1000
            found = [float(answer.score) for answer in runner(shots, codes)]
            error = max(abs(x - y) for x, y in zip(found, exact, strict=True))
            how = "bf16, CUDA graph" if graph else "bf16"
            yield f"  {volumes} volume{'s' * (volumes > 1)}, {how:<18}{per_volume:7.2f} ms   error {error:.1e}"


def _recipe() -> MedIQA:
    return recipe_network(Case(group="", kind="mediqa", salt=0, image=0, prompt_index=5, scale=0.8, expected={}))


def _scores(
    chosen: Execution, device: torch.device, shots: list[torch.Tensor], codes: list[torch.Tensor]
) -> list[float]:
    return [float(answer.score) for answer in prepare(_recipe(), chosen, device)(shots, codes)]


def _device_s(work: Callable[[], object], rounds: int) -> float:
    for _ in range(3):
        work()
    taken = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    """Print the figures that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help="large, small, around, cold, gpu; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "large": partial(large, chosen.rounds),
            "small": partial(small, 3 * chosen.rounds),
            "around": partial(around, Path(folder), 3 * chosen.rounds),
            "cold": partial(cold, Path(folder)),
            "gpu": partial(gpu, 3 * chosen.rounds),
        }
        for name in chosen.what or parts:
            for line in parts[name]():
                print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
