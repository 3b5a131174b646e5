"""How pixels become network input, and what that input is: decided by the weights, not by the site."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensityRule:
    """A fixed affine of a clipped range: (x - low) / (high - low), then 0..1.

    Attributes:
        kind: `window` (low and high in rescaled units, HU for CT), `percentile` (low and high in
            percent, of the pixels inside the body over all salient slices of the stack) or `dtype_range`
            (stored values over the largest value of their type, as the public code does; low and high
            say nothing). Never the image's own extremes: one metal pixel would change the gain.
    """

    kind: str
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessSpec:
    """How pixels become network input. Stored in the checkpoint's card, never in the node's configuration.

    Attributes:
        size_px: edge of the square input.
        slices: salient slices per volume (paper: 7).
        intensity: rules by `modality/type`, with `modality` alone as the fallback.
        native_crops: number of extra views of each slice: crops of size_px at the slice's native resolution.
        native_at_most_px: a slice with a longer edge than this is treated as reduced to it before cropping,
            because cameras image the same field with 600 to 4300 pixels. None: no limit.
        sampled: modalities whose views are sampled, not averaged, to `size_px`: each value is one pixel's, so that
            noise has the same deviation however large the slice is.
        slice_rule: `regions` (the paper: irrelevant slices dropped, middle of equal regions) or `released`
            (the public code: first, last and five around the middle; slices repeat if there are too few).
        geometry: `square` (padded, then bicubic unless `sampled`) or `stretch` (order 2, as in the public code).
        colour_order: channel order of photographs: `rgb`, or `bgr` as in the public code.
        output_range: values that 0 and 1 are mapped to; (-1, 1) for MANIQA weights.
    """

    size_px: int
    slices: int
    intensity: Mapping[str, IntensityRule]
    native_crops: int = 0
    native_at_most_px: int | None = None
    sampled: tuple[str, ...] = ()
    slice_rule: str = "regions"
    geometry: str = "square"
    colour_order: str = "rgb"
    output_range: tuple[float, float] = (0.0, 1.0)

    @property
    def reads_stored_values(self) -> bool:
        """Whether images are wanted as stored, and not in HU or rescaled signal."""
        return any(rule.kind == "dtype_range" for rule in self.intensity.values())

    def rule_for(self, modality: str, image_type: str) -> IntensityRule:
        """Return the rule of `modality/image_type`, else of `modality`; KeyError if there is neither."""
        return self.intensity.get(f"{modality}/{image_type}") or self.intensity[modality]

    def fingerprint(self) -> str:
        """Return 16 hex digits that change when any field does."""
        values = asdict(self)
        for name in ("native_at_most_px", "sampled"):  # fields that older cards do not have
            if not values[name]:
                del values[name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The rectangle of one slice that a network image shows, in the slice's own pixels.

    May reach beyond the slice: what is outside is black.

    Attributes:
        slice_index: position among the scored slices.
        top, left: of its first row and column.
        height, width: in pixels of the slice.
    """

    slice_index: int
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInput:
    """The views of the salient slices of one stack, ready for the network.

    Attributes:
        images: float32, (m, 3, size, size), finite; m views, those of one slice side by side.
        views: what each image shows, m of them; slice indices ascend from 0 without a gap.
        window: the values that became black and white, in the units of the images; None where each image
            has its own (values as stored).
        slices: the images themselves, in their units, for what is measured at native resolution.
    """

    images: np.ndarray = field(compare=False)
    views: tuple[View, ...]
    window: tuple[float, float] | None = None
    slices: tuple[np.ndarray, ...] = field(default=(), compare=False, repr=False)

    @property
    def slice_of(self) -> np.ndarray:
        """The slice that each image belongs to, (m,), ascending."""
        return np.array([view.slice_index for view in self.views], dtype=np.intp)

    @property
    def n_slices(self) -> int:
        """How many slices the views show."""
        return self.views[-1].slice_index + 1
