"""Show CT slices with another kernel, window, pixel size and field of view than those that their source has.

A network that sees one kernel for each level of noise learns kernels. So every slice of training also comes in variants
that differ in texture, and their noise is measured anew. Held-out slices are tested as scanned; their variants wait for
a refit.
"""

from dataclasses import replace

import numpy as np
from PIL import Image
from scipy import ndimage

from mediqa_node.domain.prompt import prompt_of
from training.simulate import ct
from training.simulate.degraded import BaseImage

_RESIZED, _ZOOM, _LARGEST_PX = 0.7, (0.7, 1.6), 640
"""How often a slice gets another pixel size, by which factor, and its longest edge."""
_CROPPED, _SHARE, _LEAST_PX = 0.4, (0.35, 0.8), 128
"""How often a slice gets a smaller field of view, its share of the edge, and its least edge."""
_SOFTER, _SHARPER = 0.3, 0.3
_SOFTER_PX, _SHARPER_GAIN = (0.35, 0.9), (0.2, 1.0)
"""How often a slice gets another kernel; deviation of a Gaussian, or gain of the detail that one of 1 px removes."""
_KERNELS = ("ramp", "shepp-logan", "cosine", "hamming", "hann")
_TYPES, _RETYPED = ("soft", "lung", "bone"), 0.5
"""How often a slice gets another type, and with it the window that it is shown in: few sources are lung or bone."""


def variant(base: BaseImage, number: int, random: np.random.Generator) -> BaseImage:
    """Return a slice as another reconstruction might show it, with a kernel of its own for simulated noise.

    Args:
        number: of the variant, for its key, which is that of a stack of its own: variants of neighbouring slices have
            different kernels and windows, and form no volume.
    """
    image, spacing_mm = base.image, ct.pixel_mm(base.spacing_mm)
    if random.random() < _RESIZED:
        zoom = min(float(np.exp(random.uniform(*np.log(_ZOOM)))), _LARGEST_PX / max(image.shape))
        size = (round(image.shape[1] * zoom), round(image.shape[0] * zoom))
        picture = Image.fromarray(image.astype(np.float32), mode="F")
        image, spacing_mm = np.asarray(picture.resize(size, Image.Resampling.BICUBIC)), spacing_mm / zoom
    kind = random.random()
    if kind < _SOFTER:
        image = ndimage.gaussian_filter(image, random.uniform(*_SOFTER_PX))
    elif kind < _SOFTER + _SHARPER:
        detail = image - ndimage.gaussian_filter(image, 1.0)
        image = image + random.uniform(*_SHARPER_GAIN) * detail
    field_of_view = _field_of_view(image, random) if random.random() < _CROPPED else None
    words = base.prompt.words
    if random.random() < _RETYPED:
        words = {**words, "type": str(random.choice(_TYPES))}
    return replace(
        base,
        key=f"{base.key}v{number}-0",
        prompt=prompt_of(words),
        image=np.clip(image, -1024.0, 3071.0).astype(np.float32),
        spacing_mm=spacing_mm,
        field_of_view=field_of_view,
        kernel=str(random.choice(_KERNELS)),
        is_variant=True,
    )


def _field_of_view(image: np.ndarray, random: np.random.Generator) -> tuple[slice, slice]:
    """Return the rows and columns of a part of a slice around a place in the body."""
    rows, columns = np.nonzero(ct.body(image))
    centre = int(random.integers(len(rows)))
    share = random.uniform(*_SHARE)
    part = []
    for middle, size in ((rows[centre], image.shape[0]), (columns[centre], image.shape[1])):
        edge = min(size, max(_LEAST_PX, round(size * share)))
        first = int(np.clip(middle - edge // 2, 0, size - edge))
        part.append(slice(first, first + edge))
    return part[0], part[1]
