"""Samples on disk: slices at native resolution with prompts and labels, from which views are prepared.

A store is a folder: `samples.jsonl`, a line for each sample, and `slices.bin`, its pixels. Both only grow, pixels
first, so that a partial write is cut off when the store is opened again. Network input is derived by the node's own
code (`prepare`) and cached under the fingerprint of the preprocessing.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.prompt import Prompt, prompt_of
from mediqa_node.system.lock import locked

INDEX, PIXELS = "samples.jsonl", "slices.bin"
BODY, VARIANT = "body", "variant"
"""The setting of a simulated copy that says which share of the slice shows the body."""
_DTYPES = ("int16", "uint8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image or volume with its labels.

    Attributes:
        key: unique in its store.
        base: shared by copies of the same image, which are ranked against each other.
        patient: the unit of bootstrap intervals, never divided between splits.
        source: collection, scanner or site.
        split: `train`, `val`, `test`, or `refit` if only a fit to all sources learns from it.
        factor: the degradation: one of `simulate.degraded.FACTORS`, `mixed`, `clean`, or "" for a real image.
        prompt: words by term.
        labels: `quality` (higher is better), `mas` [mA.s], `tesla` [T], `blur` [pixels of 384], as far as known.
        weight: in the loss.
        severities: 0..1 by factor, as far as known.
        shape: of its slices, (n, rows, columns) or (n, rows, columns, 3); `dtype` as stored; times `scale` is
            HU, signal or 0..255.
        offset: of its first byte.
    """

    key: str
    base: str
    patient: str
    source: str
    split: str
    prompt: Mapping[str, str]
    labels: Mapping[str, float]
    weight: float = 1.0
    factor: str = ""
    severities: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    dtype: str = "int16"
    scale: float = 1.0
    offset: int = 0

    @property
    def modality(self) -> str:
        """CT, MR or OP."""
        return self.prompt["modality"]

    @property
    def image_type(self) -> str:
        """The prompt of that name."""
        return self.prompt["type"]

    @property
    def stack(self) -> str:
        """The stack of a base slice: its key is that of the stack, a hyphen, and the place of the slice."""
        return self.base.rpartition("-")[0]

    @property
    def is_variant(self) -> bool:
        """Whether its slice is not as scanned, but a variant (`simulate.ct_variants`)."""
        return bool(self.settings.get(VARIANT))

    @property
    def words(self) -> Prompt:
        """The prompt as a value of the node."""
        return prompt_of(self.prompt)

    @property
    def known(self) -> Mapping[str, float]:
        """Labels and severities together."""
        return {**self.severities, **self.labels}

    @property
    def n_bytes(self) -> int:
        """Size of its pixels in bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def _a_moment() -> bool:
    time.sleep(0.1)
    return True


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time write into a folder; the lock is released if its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", wait=_a_moment):
        yield


class Store:
    """Reads and extends a store; one process writes at a time.

    If a writer died, an incomplete line or a line without its pixels counts as never added; the next `add` overwrites
    it.

    Raises:
        ConfigurationError: a complete line of the index is not a sample.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._index, self._pixels = folder / INDEX, folder / PIXELS
        self._finished = 0
        self.samples = list(self._read())

    def _read(self) -> Iterator[Sample]:
        if not self._index.exists():
            return
        there = self._pixels.stat().st_size if self._pixels.exists() else 0
        with self._index.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    return
                try:
                    sample = _sample(json.loads(line))
                except (ValueError, TypeError, KeyError) as error:
                    raise ConfigurationError(
                        f"{self._index}, line {number}: no sample: {error}; cut the file off before it, or start anew"
                    ) from error
                if sample.offset + sample.n_bytes > there:
                    return
                self._finished += len(line)
                yield sample

    def add(self, items: Sequence[tuple[Sample, np.ndarray]]) -> None:
        """Append samples with their slices, (n, rows, columns[, 3]), atomically.

        Gray is stored as int16 (scaled if necessary), colour as uint8.
        """
        end = max((one.offset + one.n_bytes for one in self.samples), default=0)
        added = []
        mode = "r+b" if self._pixels.exists() else "w+b"
        with self._pixels.open(mode) as file:
            file.truncate(end)
            file.seek(end)
            for sample, slices in items:
                stored, scale = _packed(slices)
                found = {"shape": stored.shape, "dtype": str(stored.dtype), "scale": scale, "offset": end}
                added.append(Sample(**asdict(sample) | found))
                file.write(stored.tobytes())
                end += stored.nbytes
            file.flush()
            os.fsync(file.fileno())
        lines = "".join(json.dumps(asdict(one)) + "\n" for one in added).encode()
        with self._index.open("r+b" if self._index.exists() else "w+b") as index:
            index.truncate(self._finished)
            index.seek(self._finished)
            index.write(lines)
        self._finished += len(lines)
        self.samples += added

    def slices(self, sample: Sample) -> np.ndarray:
        """Return the slices of a sample as the node decodes them: float32, (n, rows, columns[, 3])."""
        with self._pixels.open("rb") as file:
            file.seek(sample.offset)
            stored = np.frombuffer(file.read(sample.n_bytes), dtype=sample.dtype)
        return stored.reshape(sample.shape).astype(np.float32) * np.float32(sample.scale)


def _sample(raw: dict[str, Any]) -> Sample:
    """Return the sample in a line of the index."""
    sample = Sample(**raw | {"shape": tuple(raw["shape"])})
    if sample.dtype not in _DTYPES:
        raise ValueError(f"pixels of type {sample.dtype!r}; known: {', '.join(_DTYPES)}")
    return sample


def _packed(slices: np.ndarray) -> tuple[np.ndarray, float]:
    """Return slices as stored, and the factor to multiply them by."""
    if slices.shape[-1] == 3 and slices.ndim == 4:
        return np.clip(np.rint(slices), 0, 255).astype(np.uint8), 1.0
    largest = float(np.abs(slices).max())
    whole = bool((np.rint(slices) == slices).all()) and largest < 32767
    scale = 1.0 if whole else max(largest, 1e-6) / 32000.0
    return np.rint(slices / scale).astype(np.int16), scale
