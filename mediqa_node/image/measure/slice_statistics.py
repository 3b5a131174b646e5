"""Statistics that separate patient slices from everything else, measured on the network's input.

Two vectors. *Window statistics* describe the gray values in the window; they detect a photograph, a screen or a
wrong rescaling. *Local statistics* describe surfaces and edges at the scale of a few pixels; they detect a
phantom, with a smooth inside and straight edges. The latter follow the natural scene statistics of
Mittal, Moorthy and Bovik (BRISQUE, doi 10.1109/TIP.2012.2214050): pixels less their local mean, over their local
deviation (MSCN). The vectors are short because there are few sources to learn their spread from.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from scipy import ndimage

from mediqa_node.domain.preprocessing import NetworkInput, PreprocessSpec, View
from mediqa_node.domain.recall import Recall, fresh
from mediqa_node.image.fundus import VisibleField, visible_field

VERSION = 1
"""Version of the statistics. Limits that were fitted with another version are not valid."""
WINDOW = ("logit_share_at_0", "logit_share_at_1", "mean_inside", "log_sd_inside")
COLOUR = ("log_red_over_green", "log_green_over_blue")
LOCAL = (
    "median_log_local_sd_3px", "median_log_local_sd_9px", "log_mscn_shape", "mscn_neighbour_correlation",
    "edge_direction_entropy", "logit_axial_edge_share",
)  # fmt: skip

_AT_END = 0.01
"""A gray value nearer than this to an end of the window is at that end: the interpolation rings by so much."""
_BODY = 0.03
_EDGE = 0.05
"""Difference of gray values between neighbours, in windows, from which it is an edge."""
_FEWEST = 50
"""Pixels that a statistic is taken of; where fewer qualify, all are."""
_THINNEST_PX = 16
_DIRECTIONS = 12
_AXIAL_OF_ROUND = 0.064
"""Share of the edges of a circle that run along rows and columns: within 2.9 degrees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceStatistics:
    """The statistics of the slices of one stack, n of them.

    Attributes:
        window: (n, 4), or (n, 6) for photographs: WINDOW, COLOUR.
        local: (n, 6): LOCAL.
        inside: share of the slice's pixels inside the window, (n,), 0..1.
        round_field: whether each slice is a photograph of a fundus (`image.fundus`), (n,), bool; False for CT and MR.
        lit, covered: shares of its field that are lit, and under reflections, (n,), 0..1; 0 without a field.
    """

    window: np.ndarray
    local: np.ndarray
    inside: np.ndarray
    round_field: np.ndarray
    lit: np.ndarray
    covered: np.ndarray


def window_names(modality: str) -> tuple[str, ...]:
    """Return the names of `SliceStatistics.window` for a modality; photographs (OP) also have colour."""
    return WINDOW + COLOUR if modality == "OP" else WINDOW


def slice_statistics(
    inputs: NetworkInput, spec: PreprocessSpec, *, modality: str, recall: Recall = fresh
) -> SliceStatistics:
    """Measure the first view of every slice, which is the whole slice, without its padding.

    Args:
        inputs: returned by `image.preprocess` with `spec`.
        spec: defines the range and the order of the channels.
        modality: CT, MR or OP.
        recall: what is known of single slices already, by digests of their views.
    """

    def key(index: int) -> Hashable:
        digest = sha256(np.ascontiguousarray(inputs.images[index]).data).digest()
        view = replace(inputs.views[index], slice_index=0)
        return "range", digest, view, modality, spec.output_range, spec.colour_order

    first = np.flatnonzero(np.diff(inputs.slice_of, prepend=-1)).tolist()
    each = recall(first, key, lambda some: [_of_view(inputs, index, spec, modality) for index in some])
    return SliceStatistics(
        window=np.array([one.window for one in each]),
        local=np.array([one.local for one in each]),
        inside=np.array([one.inside for one in each]),
        round_field=np.array([one.field is not None for one in each]),
        lit=np.array([one.field.lit if one.field else 0.0 for one in each]),
        covered=np.array([one.field.covered if one.field else 0.0 for one in each]),
    )


@dataclass(frozen=True, slots=True)
class _OfSlice:
    """The statistics of one slice, as `SliceStatistics` has them."""

    window: list[float]
    local: list[float]
    inside: float
    field: VisibleField | None


def _of_view(inputs: NetworkInput, index: int, spec: PreprocessSpec, modality: str) -> _OfSlice:
    image = _unpadded(_as_window(inputs.images[index], spec), inputs.views[index])
    colour, gray = modality == "OP", image.mean(axis=0)
    return _OfSlice(
        window=_window_statistics(image, colour=colour),
        local=_local_statistics(gray, photograph=colour),
        inside=float(_inside(gray).mean()),
        field=visible_field(255 * np.moveaxis(image, 0, -1)) if colour else None,
    )


# ── what is looked at ────────────────────────────────────────────────────────


def _as_window(image: np.ndarray, spec: PreprocessSpec) -> np.ndarray:
    """Return a network image, (3, size, size), as RGB in 0..1, float64."""
    low, high = spec.output_range
    rgb = image[::-1] if spec.colour_order == "bgr" else image
    return np.clip((rgb.astype(np.float64) - low) / (high - low), 0.0, 1.0)


def _unpadded(image: np.ndarray, view: View) -> np.ndarray:
    """Cut off the padding of a view and the pixels that interpolation mixed with it.

    A strip too thin to be measured keeps its padding.
    """
    size = image.shape[-1]
    (top, bottom), (left, right) = (
        _extent(size, start, edge) for start, edge in ((view.top, view.height), (view.left, view.width))
    )
    if min(bottom - top, right - left) < _THINNEST_PX:
        return image
    return image[:, top:bottom, left:right]


def _extent(size: int, start: int, edge: int) -> tuple[int, int]:
    """Return the pixels of `size` that show the slice, where it begins `-start` pixels into a view of `edge`."""
    if start >= 0:
        return 0, size
    first = int(np.ceil(-start * size / edge))
    return first, max(first + 1, int(np.floor((edge + start - 1) * size / edge)))


def _inside(gray: np.ndarray) -> np.ndarray:
    return (gray > _AT_END) & (gray < 1 - _AT_END)


# ── window statistics ────────────────────────────────────────────────────────


def _window_statistics(image: np.ndarray, *, colour: bool) -> list[float]:
    gray = image.mean(axis=0)
    inside = _enough(_inside(gray))
    values = gray[inside]
    found = [
        _logit(float((gray <= _AT_END).mean())),
        _logit(float((gray >= 1 - _AT_END).mean())),
        float(values.mean()),
        float(np.log(values.std() + 0.003)),
    ]
    if colour:
        red, green, blue = (float(channel[inside].mean()) + 0.01 for channel in image)
        found += [float(np.log(red / green)), float(np.log(green / blue))]
    return found


# ── local statistics ─────────────────────────────────────────────────────────


def _local_statistics(gray: np.ndarray, *, photograph: bool) -> list[float]:
    inside = _inside(gray)
    spread = []
    for radius in (1, 4):
        mean, sd = _local(gray, radius)
        body = _enough(inside[_core(radius)] & (mean > _BODY) & (mean < 1 - _BODY))
        spread.append(float(np.median(np.log(sd[body] + 0.002))))
    mean, sd = _local(gray, 3)
    mscn = (gray[_core(3)] - mean) / (sd + 0.01)
    body = _enough(inside[_core(3)])
    looked_at = _surrounded(gray > _BODY) if photograph else np.ones_like(inside)
    return [*spread, _shape(mscn[body]), _neighbour_correlation(mscn, body), *_edges(gray, looked_at)]


def _surrounded(field: np.ndarray) -> np.ndarray:
    """Return the part of a field at least 4 pixels from its rim: some cameras cut a round field straight."""
    return np.asarray(ndimage.minimum_filter(field, 9, mode="constant"))


def _shape(mscn: np.ndarray) -> float:
    """Return log(E|x|^2 / E x^2): -0.45 for a Gaussian, lower if deviations are rarer and larger."""
    return float(np.log((np.abs(mscn).mean() ** 2 + 1e-6) / ((mscn**2).mean() + 1e-6)))


def _neighbour_correlation(mscn: np.ndarray, body: np.ndarray) -> float:
    """Return the mean correlation of neighbours in a row and in a column; 1 without any pairs."""
    found = []
    for one, two in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        both = body[one] & body[two]
        first, second = mscn[one][both], mscn[two][both]
        power = float(np.sqrt(_dot(first, first) * _dot(second, second)))
        found.append(_dot(first, second) / power if power > 0 else 1.0)
    return sum(found) / len(found)


def _dot(first: np.ndarray, second: np.ndarray) -> float:
    """Return the sum of products, on one thread: BLAS would use all and, on a busy machine, wait for them."""
    return float(np.einsum("i,i->", first, second))


def _edges(gray: np.ndarray, looked_at: np.ndarray) -> tuple[float, float]:
    """Return how evenly edge directions are spread (entropy, at most 1), and the share along rows and columns.

    Bodies are round; bars, letters and frames are not.
    """
    down, across = (gray[2:, 1:-1] - gray[:-2, 1:-1]) / 2, (gray[1:-1, 2:] - gray[1:-1, :-2]) / 2
    strength = np.hypot(down, across)
    edges = (strength > _EDGE) & looked_at[1:-1, 1:-1]
    if edges.sum() < _FEWEST:
        return 1.0, _logit(_AXIAL_OF_ROUND)
    down, across, strength = down[edges], across[edges], strength[edges]
    share = np.histogram(np.arctan2(down, across) % np.pi, _DIRECTIONS, (0, np.pi), weights=strength)[0]
    share = share / share.sum()
    axial = np.minimum(np.abs(down), np.abs(across)) < _EDGE * strength
    entropy = -float((share * np.log(share + 1e-9)).sum()) / np.log(_DIRECTIONS)
    return entropy, _logit(float(strength[axial].sum() / strength.sum()))


def _core(radius: int) -> tuple[slice, slice]:
    return slice(radius, -radius), slice(radius, -radius)


def _local(gray: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation over squares of 2 radius + 1 pixels, for every pixel that has one."""
    core = _core(radius)
    mean, square = (ndimage.uniform_filter(values, 2 * radius + 1)[core] for values in (gray, gray * gray))
    return mean, np.sqrt(np.maximum(square - mean * mean, 0.0))


def _enough(mask: np.ndarray) -> np.ndarray:
    return mask if mask.sum() >= _FEWEST else np.ones_like(mask)


def _logit(share: float) -> float:
    """Return the log odds, with half a percent added to both sides so that they are finite at 0 and 1."""
    return float(np.log((share + 0.005) / (1 - share + 0.005)))
