"""Samples as network input: views made by the node's `preprocess`, and statistics of their slices.

They are made once per preprocessing and cached in the store under its fingerprint, as float16, which is finer than the
noise of any image here (1/2048 of the window). Finished views survive an interruption. If several processes ask at
once, one prepares and the others wait.
"""

import copy
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from mediqa_node.domain.preprocessing import NetworkInput, PreprocessSpec
from mediqa_node.image.measure.quality_statistics import VERSION, as_vector, quality_statistics
from mediqa_node.image.preprocess import preprocess
from training.data.store import Sample, Store, alone

_CHUNK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The place of the views of one sample.

    Attributes:
        offset: of its first view, in bytes.
        channels: 1 for gray, 3 for colour.
        slice_of: the slice that each view shows, ascending.
        statistics: of each slice, (n, k); () if not requested.
    """

    key: str
    offset: int
    channels: int
    slice_of: tuple[int, ...]
    statistics: tuple[tuple[float, ...], ...]


class Prepared:
    """Views and statistics of the samples of a store, in the order of its samples."""

    def __init__(self, samples: Sequence[Sample], shown: Sequence[Shown], pixels: Path, edge: int) -> None:
        self.folder = pixels.parent
        self.samples = list(samples)
        self._shown = list(shown)
        self._edge = edge
        self._pixels = np.memmap(pixels, dtype=np.float16, mode="r") if shown else np.zeros(0, dtype=np.float16)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def slice_of(self, index: int) -> np.ndarray:
        """Return the slice that each view of a sample shows, (m,)."""
        return np.array(self._shown[index].slice_of, dtype=np.intp)

    def views(self, index: int, which: Sequence[int] | None = None) -> np.ndarray:
        """Return all or some views of a sample, float32, (m, 3, S, S)."""
        one = self._shown[index]
        size = one.channels * self._edge**2
        start = one.offset // 2
        chosen = range(len(one.slice_of)) if which is None else which
        found = [self._pixels[start + view * size : start + (view + 1) * size] for view in chosen]
        images = np.stack(found).reshape(-1, one.channels, self._edge, self._edge).astype(np.float32)
        return np.broadcast_to(images, (len(images), 3, self._edge, self._edge)).copy()  # torch needs a writable array

    def statistics(self, index: int) -> np.ndarray:
        """Return the statistics of the slices of a sample, (n, k)."""
        return np.array(self._shown[index].statistics, dtype=np.float64)

    def subset(self, keep: Callable[[Sample], bool]) -> Self:
        """Return the selected samples, sharing the same pixels."""
        places = [place for place, sample in enumerate(self.samples) if keep(sample)]
        other = copy.copy(self)
        other.samples = [self.samples[place] for place in places]
        other._shown = [self._shown[place] for place in places]
        return other

    def middle_slices(self) -> Self:
        """Return the samples reduced to their middle slices; what is cached of these lies in a folder of its own."""
        other = copy.copy(self)
        if all(one.slice_of[-1] == 0 for one in self._shown):
            return other
        other.folder = self.folder / "middle"
        other.folder.mkdir(exist_ok=True)
        other._shown = [self._middle(one) for one in self._shown]
        return other

    def _middle(self, one: Shown) -> Shown:
        middle = one.slice_of[-1] // 2
        views = [view for view, of in enumerate(one.slice_of) if of == middle]
        return replace(
            one,
            offset=one.offset + views[0] * 2 * one.channels * self._edge**2,
            slice_of=(0,) * len(views),
            statistics=one.statistics[middle : middle + 1],
        )


def show(slices: np.ndarray, spec: PreprocessSpec, *, modality: str, image_type: str) -> NetworkInput:
    """Return slices, (n, rows, columns[, 3]), as network input, prepared exactly as in the node."""
    return preprocess(list(slices), spec, modality=modality, image_type=image_type)


def prepare(
    store: Store, spec: PreprocessSpec, *, processes: int = 1, advance: Callable[[int, int], None] = lambda *_: None
) -> Prepared:
    """Return the samples of a store as network input, reusing existing views."""
    folder = store.folder / f"shown-{spec.fingerprint()}-{VERSION}"
    folder.mkdir(exist_ok=True)
    index, pixels = folder / "shown.jsonl", folder / "views.f16"
    with alone(folder):
        shown = _read(index, pixels, store, spec)
        if len(shown) < len(store.samples):
            _extend(shown, index, pixels, store, spec, processes, advance)
    return Prepared(store.samples, shown, pixels, spec.size_px)


def _extend(
    shown: list[Shown],
    index: Path,
    pixels: Path,
    store: Store,
    spec: PreprocessSpec,
    processes: int,
    advance: Callable[[int, int], None],
) -> None:
    """Prepare the remaining samples, after cutting both files back to the finished ones."""
    missing = store.samples[len(shown) :]
    end = max((one.offset + _n_bytes(one, spec) for one in shown), default=0)
    index.write_text("".join(json.dumps(asdict(one)) + "\n" for one in shown))
    with (
        pixels.open("r+b" if pixels.exists() else "w+b") as file,
        index.open("a") as lines,
        ProcessPoolExecutor(max_workers=processes) as pool,
    ):
        file.truncate(end)
        file.seek(end)
        work = partial(_shown, store, spec)
        for sample, (views, slice_of, statistics) in zip(
            missing, pool.map(work, missing, chunksize=_CHUNK), strict=True
        ):
            one = Shown(key=sample.key, offset=end, channels=views.shape[1], slice_of=slice_of, statistics=statistics)
            file.write(views.tobytes())
            file.flush()
            lines.write(json.dumps(asdict(one)) + "\n")
            end += views.nbytes
            shown.append(one)
            advance(len(shown), len(store.samples))


def _shown(
    store: Store, spec: PreprocessSpec, sample: Sample
) -> tuple[np.ndarray, tuple[int, ...], tuple[tuple[float, ...], ...]]:
    slices = store.slices(sample)
    inputs = show(slices, spec, modality=sample.modality, image_type=sample.image_type)
    channels = 3 if slices.ndim == 4 else 1
    measured = (
        as_vector(quality_statistics(one, modality=sample.modality, window=inputs.window or (0.0, 1.0)))
        for one in slices
    )
    return (
        inputs.images[:, :channels].astype(np.float16),
        tuple(int(place) for place in inputs.slice_of),
        tuple(tuple(round(float(value), 6) for value in vector) for vector in measured),
    )


def _n_bytes(one: Shown, spec: PreprocessSpec) -> int:
    return len(one.slice_of) * one.channels * spec.size_px**2 * 2


def _read(index: Path, pixels: Path, store: Store, spec: PreprocessSpec) -> list[Shown]:
    """Return the prepared samples of a store, up to the last complete one."""
    if not (index.exists() and pixels.exists()):
        return []
    found: list[Shown] = []
    there = pixels.stat().st_size
    for line, sample in zip(index.read_text().splitlines(keepends=True), store.samples, strict=False):
        if not line.endswith("\n"):
            break
        raw = json.loads(line)
        statistics = tuple(tuple(row) for row in raw["statistics"])
        one = Shown(**raw | {"slice_of": tuple(raw["slice_of"]), "statistics": statistics})
        if one.key != sample.key or one.offset + _n_bytes(one, spec) > there:
            break
        found.append(one)
    return found
