"""Patch maps as arrays and as NPZ: the form that is stored with an assessment and written by `score --maps`."""

import numpy as np

from mediqa_node.domain.preprocessing import View
from mediqa_node.domain.scoring import PatchMaps
from mediqa_node.system import npz

_VIEW = ("slice_index", "top", "left", "height", "width")


def packed(maps: PatchMaps) -> bytes:
    """Return `as_arrays` as NPZ."""
    return npz.packed(as_arrays(maps))


def as_arrays(maps: PatchMaps) -> dict[str, np.ndarray]:
    """Return `scores`, `weights` and, if known, `quality`, (m, g, g); `views`, (m, 5): see `_VIEW`."""
    views = np.array([[getattr(view, name) for name in _VIEW] for view in maps.views], dtype=np.int32)
    arrays = {"scores": maps.scores, "weights": maps.weights, "views": views}
    return arrays if maps.quality is None else arrays | {"quality": maps.quality}


def unpacked(content: bytes) -> PatchMaps:
    """Return the maps of `packed`."""
    arrays = npz.unpacked(content)
    return PatchMaps(
        scores=arrays["scores"],
        weights=arrays["weights"],
        views=tuple(View(**dict(zip(_VIEW, map(int, row), strict=True))) for row in arrays["views"]),
        quality=arrays.get("quality"),
    )
