"""Patch maps as a file: what is kept with an assessment, and what `score --maps` writes (NumPy NPZ, no pickle)."""

from io import BytesIO

import numpy as np

from mediqa_node.domain.preprocessing import View
from mediqa_node.domain.scoring import PatchMaps

_VIEW = ("slice_index", "top", "left", "height", "width")


def packed(maps: PatchMaps) -> bytes:
    """Return `as_arrays` as NPZ."""
    file = BytesIO()
    np.savez_compressed(file, allow_pickle=False, **as_arrays(maps))
    return file.getvalue()


def as_arrays(maps: PatchMaps) -> dict[str, np.ndarray]:
    """Return `scores`, `weights` and, if there is one, `quality`, (m, g, g); `views`, (m, 5), in the order of _VIEW."""
    views = np.array([[getattr(view, name) for name in _VIEW] for view in maps.views], dtype=np.int32)
    arrays = {"scores": maps.scores, "weights": maps.weights, "views": views}
    return arrays if maps.quality is None else arrays | {"quality": maps.quality}


def unpacked(npz: bytes) -> PatchMaps:
    """Return what `packed` was given."""
    with np.load(BytesIO(npz), allow_pickle=False) as content:
        return PatchMaps(
            scores=content["scores"],
            weights=content["weights"],
            views=tuple(View(**dict(zip(_VIEW, map(int, row), strict=True))) for row in content["views"]),
            quality=content.get("quality"),
        )
