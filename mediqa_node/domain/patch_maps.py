"""Patch maps as a file: what is kept with an assessment, and what `score --maps` writes (NumPy NPZ, no pickle)."""

from io import BytesIO

import numpy as np

from mediqa_node.domain.preprocessing import View
from mediqa_node.domain.scoring import PatchMaps

_VIEW = ("slice_index", "top", "left", "height", "width")


def packed(maps: PatchMaps) -> bytes:
    """Return `scores` and `weights` (m, g, g) and `views` (m, 5: slice, top, left, height, width) as NPZ."""
    views = np.array([[getattr(view, name) for name in _VIEW] for view in maps.views], dtype=np.int32)
    file = BytesIO()
    np.savez_compressed(file, scores=maps.scores, weights=maps.weights, views=views)
    return file.getvalue()


def unpacked(npz: bytes) -> PatchMaps:
    """Return what `packed` was given."""
    with np.load(BytesIO(npz), allow_pickle=False) as content:
        views = (View(**dict(zip(_VIEW, map(int, row), strict=True))) for row in content["views"])
        return PatchMaps(scores=content["scores"], weights=content["weights"], views=tuple(views))
