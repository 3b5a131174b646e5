"""`python -m tests.benchmarks.measures`: what all measures of a series cost, decoding included, beside a naive version.

CPU seconds of one thread, of processes and of the decoder's child, in turns. The naive version decodes every slice in
full and takes noise, size and sharpness of each with general functions; it is what one writes first. Memory is the
largest resident size of a process that measures a series of 2,000 slices.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter
from mediqa_node.dicom.prompt_rules import PromptRules, default_rules
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.technique import Technique
from mediqa_node.pipeline.measures import measure_series
from mediqa_node.pipeline.score import SeriesFiles, harvest_series, read_headers
from tests.benchmarks import images

LIMITS_S = {"CT": 1.0, "MR": 0.7}
"""Core-seconds for 100 slices of 512 x 512 (CT) and 256 x 256 (MR)."""
LARGEST_MB = 600.0
_ROUNDS = 5


def measured(files: SeriesFiles, technique: Technique, prompts: PromptRules) -> int:
    """Measure a series as the node does, headers read and harvested; return the number of measures."""
    found = measure_series(files, technique, prompts)
    assert found is not None
    return len(found.measures)


def naive(files: SeriesFiles) -> int:
    """Measure noise, size and edge of every slice at full resolution, in the plain way."""
    stack = assemble_stacks(files.headers)[0]
    spacing_mm = stack.spacing_mm[1] or 1.0
    with FrameReader() as reader:
        image_at = image_getter(stack, files.paths, files.headers, reader, stored=False)
        for index in range(len(stack.frames)):
            image = image_at(index).astype(np.float64)
            body = ndimage.binary_fill_holes(ndimage.binary_opening(image > np.percentile(image, 50), iterations=2))
            labels, count = ndimage.label(body)
            sizes = ndimage.sum_labels(body, labels, range(1, count + 1)) if count else [0]
            largest = labels == 1 + int(np.argmax(sizes))
            window = max(3, round(10 / spacing_mm))
            mean = ndimage.uniform_filter(image, window)
            local = np.sqrt(np.maximum(ndimage.uniform_filter(image**2, window) - mean**2, 0))
            np.histogram(local[largest], bins=400)
            np.sqrt(4 / np.pi * (image[largest] / 1000 + 1).sum()) if largest.any() else 0.0
            np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1))[largest].mean()
    return len(stack.frames)


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU seconds of one call, of this process and of the children that it has ended."""
    before = _used_s()
    work()
    return _used_s() - before


def _used_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def in_turns(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median CPU seconds of each work, called in turns after one call that does not count."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(cpu_s(work))
    return {name: statistics.median(values) for name, values in taken.items()}


def largest_mb(folder: Path) -> float:
    """Return the largest resident size of a fresh process that measures a series, MB."""
    command = [sys.executable, "-m", "tests.benchmarks.measures", "--measure", str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(found.stdout.split()[-1])


def main() -> None:
    """Print a row a series, and whether each limit holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    prompts = default_rules()
    if given.measure is not None:
        files = read_headers(sorted(given.measure.glob("*.dcm")))
        measured(files, harvest_series(files), prompts)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # noqa: T201
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind, write in (("CT", images.write_ct_series), ("MR", images.write_mr_series)):
            write(Path(folder) / kind, 100)
            files = read_headers(sorted((Path(folder) / kind).glob("*.dcm")))
            measure = partial(measured, files, harvest_series(files), prompts)
            of_series = {"measures": measure, "naive": partial(naive, files)}
            taken = in_turns(given.rounds, of_series)
            good = "holds" if taken["measures"] <= LIMITS_S[kind] else "DOES NOT HOLD"
            print(  # noqa: T201
                f"{kind}, 100 slices: {taken['measures']:.2f} core-s, naive {taken['naive']:.2f} "
                f"(x {taken['naive'] / taken['measures']:.1f}); limit {LIMITS_S[kind]} {good}"
            )
        images.write_ct_series(Path(folder) / "long", 2000)
        size_mb = largest_mb(Path(folder) / "long")
        good = "holds" if size_mb <= LARGEST_MB else "DOES NOT HOLD"
        print(f"CT, 2,000 slices: {size_mb:.0f} MB resident; limit {LARGEST_MB:.0f} {good}")  # noqa: T201


if __name__ == "__main__":
    main()
