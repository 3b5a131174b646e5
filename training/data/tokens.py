"""Samples as tokens of a frozen trunk: every view goes through the trunk once, however often it is trained on.

Tokens are cached next to the views, as float16, under the digest of the trunk's weights and their size. Finished ones
survive an interruption. A view that is mirrored or rotated in training is not computed anew: its tokens are rearranged.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mediqa_node.model.lock import digest
from mediqa_node.model.trunk import TrunkTokens
from mediqa_node.system.memory import keep_freed_memory
from training.data.store import alone
from training.data.views import Prepared

_VIEWS_AT_ONCE = 16
INDEX, TOKENS = "tokens.jsonl", "tokens.f16"


class Tokens(Prepared):
    """Samples whose views are tokens, (m, N, T), instead of images."""

    _tokens: np.ndarray
    _first: dict[str, int]

    def views(self, index: int, which: "list[int] | None" = None) -> np.ndarray:  # type: ignore[override]
        """Return the tokens of all or some views of a sample, float32, (m, N, T)."""
        first = self._first[self.samples[index].key]
        chosen = range(len(self.slice_of(index))) if which is None else which
        return np.asarray(self._tokens[[first + view for view in chosen]], dtype=np.float32)


def tokens_of(data: Prepared, trunk: TrunkTokens, *, advance: Callable[[int, int], None] = lambda *_: None) -> Tokens:
    """Return samples as tokens of a trunk, computing those that are not in the cache."""
    folder = data.folder / f"tokens-{_name(trunk)}"
    with alone(folder):
        first = _cached(folder, trunk)
        missing = [place for place, sample in enumerate(data.samples) if sample.key not in first]
        _extend(first, folder, data, missing, trunk, advance)
    found = Tokens.__new__(Tokens)
    found.__dict__.update(copy.copy(data).__dict__)
    found._first = first
    shape = (-1, *_shape(trunk))
    found._tokens = np.memmap(folder / TOKENS, dtype=np.float16, mode="r").reshape(shape) if first else np.zeros(shape)
    return found


def _name(trunk: TrunkTokens) -> str:
    state = trunk.model.state_dict()
    weights = digest(b"".join(value.cpu().numpy().tobytes() for _, value in sorted(state.items())))[:16]
    return f"{weights}-{trunk.grid}x{trunk.width}"


def _shape(trunk: TrunkTokens) -> tuple[int, int]:
    return trunk.grid**2, trunk.width


def _cached(folder: Path, trunk: TrunkTokens) -> dict[str, int]:
    """Return the first view of every sample in the cache, whose file is cut back to complete samples."""
    index, file = folder / INDEX, folder / TOKENS
    found: dict[str, int] = {}
    views = 0
    there = file.stat().st_size // _bytes(trunk) if file.exists() else 0
    lines = []
    for line in index.read_text().splitlines(keepends=True) if index.exists() else []:
        if not line.endswith("\n") or views + (n := json.loads(line)["views"]) > there:
            break
        found[json.loads(line)["key"]] = views
        views += n
        lines.append(line)
    index.write_text("".join(lines))
    with file.open("ab") as tokens:
        tokens.truncate(views * _bytes(trunk))
    return found


def _bytes(trunk: TrunkTokens) -> int:
    return int(np.prod(_shape(trunk))) * 2


@torch.inference_mode()
def _extend(
    first: dict[str, int],
    folder: Path,
    data: Prepared,
    missing: list[int],
    trunk: TrunkTokens,
    advance: Callable[[int, int], None],
) -> None:
    keep_freed_memory()
    device = next(trunk.model.parameters()).device
    views = (folder / TOKENS).stat().st_size // _bytes(trunk)
    with (folder / TOKENS).open("ab") as file, (folder / INDEX).open("a") as lines:
        for done, place in enumerate(missing):
            images = torch.from_numpy(data.views(place))
            for start in range(0, len(images), _VIEWS_AT_ONCE):
                part = trunk(images[start : start + _VIEWS_AT_ONCE].to(device))
                file.write(part.cpu().numpy().astype(np.float16).tobytes())
            file.flush()
            key = data.samples[place].key
            lines.write(json.dumps({"key": key, "views": len(images)}) + "\n")
            first[key] = views
            views += len(images)
            advance(done + 1, len(missing))
