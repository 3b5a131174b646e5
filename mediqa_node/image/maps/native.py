"""Patch maps on the pixels of a slice: which places in the image give which score, and their weights.

A patch covers a rectangle of its view, and a view a rectangle of the slice (it may reach beyond it). A patch's value
applies to its whole rectangle. Nothing is interpolated, so that every number in a map is one that the network
predicted, or a weighted mean of such numbers where views overlap.
"""

from dataclasses import dataclass, field

import numpy as np

from mediqa_node.domain.scoring import PatchMaps


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeMap:
    """The maps of one slice, each float32 of shape (rows, columns); NaN where no view covers a pixel.

    Attributes:
        scores: raw, unbounded: sum(w s) / sum(w) over the views that cover a pixel.
        weights: 0..1: mean of w over those views.
        quality: patch scores mapped to 0..1, averaged like the raw ones; None if the card has no quality map.
        patch_px: height and width of the smallest patch, in pixels of the slice.
    """

    scores: np.ndarray = field(compare=False)
    weights: np.ndarray = field(compare=False)
    quality: np.ndarray | None = field(compare=False)
    patch_px: tuple[float, float]

    @property
    def shown(self) -> np.ndarray:
        """The values to display: quality, or raw scores without it."""
        return self.scores if self.quality is None else self.quality


def native_map(maps: PatchMaps, slice_index: int, shape: tuple[int, int]) -> NativeMap:
    """Return the maps of one slice at its own resolution.

    Args:
        slice_index: position among the scored slices.
        shape: rows and columns of the slice.

    Raises:
        LookupError: no view shows this slice.
    """
    views = [index for index, view in enumerate(maps.views) if view.slice_index == slice_index]
    if not views:
        raise LookupError(f"no patch map shows slice {slice_index}; there are {len(maps.views)} views")
    shown = [maps.views[index] for index in views]
    rows, row_kind = _kinds([_patches(v.top, v.height, shape[0], maps.scores.shape[1]) for v in shown])
    columns, column_kind = _kinds([_patches(v.left, v.width, shape[1], maps.scores.shape[2]) for v in shown])
    places = [(np.maximum(row, 0)[:, None], np.maximum(column, 0)) for row, column in zip(rows, columns, strict=True)]
    inside = np.stack([(row >= 0)[:, None] & (column >= 0) for row, column in zip(rows, columns, strict=True)])

    def seen(layer: np.ndarray) -> np.ndarray:
        return np.stack([layer[index][place] for index, place in zip(views, places, strict=True)]).astype(np.float64)

    def on_pixels(coarse: np.ndarray) -> np.ndarray:
        return np.asarray(coarse.astype(np.float32)[row_kind][:, column_kind])

    weights = np.where(inside, seen(maps.weights), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN: no view covers it
        mean_weight = weights.sum(axis=0) / inside.sum(axis=0)
        shares = np.where(mean_weight == 0, inside, weights)  # pixels with weight 0 still have a score
        shares = shares / shares.sum(axis=0)
    return NativeMap(
        scores=on_pixels((seen(maps.scores) * shares).sum(axis=0)),
        weights=on_pixels(mean_weight),
        quality=None if maps.quality is None else on_pixels((seen(maps.quality) * shares).sum(axis=0)),
        patch_px=(
            min(view.height for view in shown) / maps.scores.shape[1],
            min(view.width for view in shown) / maps.scores.shape[2],
        ),
    )


def resampled(native: NativeMap, shape: tuple[int, int]) -> NativeMap:
    """Return a map at another resolution: each pixel takes the value at its centre."""
    old = native.scores.shape
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(np.intp) for n, m in zip(shape, old, strict=True))
    place = np.ix_(rows, columns)
    return NativeMap(
        scores=native.scores[place],
        weights=native.weights[place],
        quality=None if native.quality is None else native.quality[place],
        patch_px=(native.patch_px[0] * shape[0] / old[0], native.patch_px[1] * shape[1] / old[1]),
    )


def _patches(start: int, length: int, size: int, count: int) -> np.ndarray:
    """Return the patch that contains the centre of each row (or column) of a slice, (size,); -1 outside the view."""
    middles = np.arange(size) + 0.5 - start
    return np.where((middles > 0) & (middles < length), (middles * count / length).astype(np.intp), -1)


def _kinds(patches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows, (views, k), and the index of each row among them, (size,).

    Rows in the same patch of every view have the same values, so the arithmetic runs on a few dozen rows only.
    """
    kinds, kind_of = np.unique(np.stack(patches), axis=1, return_inverse=True)
    return kinds, kind_of.ravel()
