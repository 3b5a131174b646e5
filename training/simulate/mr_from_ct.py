"""Make MR-like slices from the anatomy of CT, for bodies of which there is no MR.

Domain randomisation: the denoised slice goes through a random map from HU to signal, so that tissues keep their shapes
and take any contrast; a smooth coil profile, texture, matrix and zero-filling are drawn as well. Such a slice is no MR
and looks like none in detail. What it gives is anatomy with known acquired lines and known noise, from which
degradations start as from any other source (`simulate.mr`).
"""

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.restoration import denoise_tv_chambolle

from mediqa_node.domain.prompt import prompt_of
from training.simulate import ct, mr
from training.simulate.degraded import BaseImage

PREFIX = "mr_from_"
"""Of the names of sources made from CT."""
_PIXEL_MM = (0.8, 2.2)
_EDGE_PX = (128, 448)
_LEAST_PX, _LEAST_BODY_PX = 64, 500
_TISSUE_HU = -300.0
_OWN_NOISE = (0.003, 0.05)
"""Deviation of a source's own noise, as a share of the mean signal of the body."""
_ZERO_FILLED = 0.4
"""How often an axis is zero-filled; then 0.4 to 1 of its lines are acquired."""
_KNOTS_HU = (-1024.0, -850.0, -300.0, -110.0, -50.0, 10.0, 50.0, 90.0, 160.0, 300.0, 700.0, 1500.0)
_SOFT_HU = (-220.0, 300.0)
"""Tissue that is denoised strongly; lung and bone keep their edges."""
_TYPES = ("t1", "t2")


def fold_of(source: str) -> str:
    """Return the source whose anatomy a source shows: both must be on one side of every split."""
    return source.removeprefix(PREFIX)


def mr_like(base: BaseImage, random: np.random.Generator) -> BaseImage | None:
    """Return an MR-like slice of the anatomy of a CT slice; None if too little of a body is in it."""
    cut = _cut(base.image, ct.body(base.image), random)
    if cut is None:
        return None
    hu, inside = _resampled(*cut, ct.pixel_mm(base.spacing_mm), random)
    if min(hu.shape) < _LEAST_PX or inside.mean() < 0.02:
        return None
    signal = _signal(hu, random) * ndimage.gaussian_filter(inside.astype(np.float64), 0.8)
    signal = ndimage.gaussian_filter(signal * _coil(hu.shape, random), 0.45)
    shares = tuple(random.uniform(0.4, 1.0) if random.random() < _ZERO_FILLED else 1.0 for _ in range(2))
    own = float(np.exp(random.uniform(*np.log(_OWN_NOISE))))
    acquired = mr.acquired_mask(hu.shape, (shares[0], shares[1]))
    kspace = np.fft.fftshift(np.fft.fft2(signal)) * acquired
    noise = mr.noise_of(own * (float(signal[inside].mean()) or 1.0), acquired, acquired, random)
    words = {**base.prompt.words, "modality": "MR", "type": str(random.choice(_TYPES))}
    return BaseImage(
        key=f"{PREFIX}{base.key}",
        source=f"{PREFIX}{base.source}",
        prompt=prompt_of(words),
        image=(1000.0 * np.abs(np.fft.ifft2(np.fft.ifftshift(kspace)) + noise)).astype(np.float32),
        spacing_mm=0.0,
        support=(shares[0], shares[1]),
        own_noise=own,
    )


def _cut(hu: np.ndarray, body: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the part of a slice around its large bodies, without table and blankets, and their mask."""
    if (hu > _TISSUE_HU).sum() < _LEAST_BODY_PX:
        return None
    labels, _ = ndimage.label(body)
    sizes = np.bincount(labels.ravel())[1:]
    large = 1 + np.flatnonzero(sizes > 0.15 * sizes.max())
    inside = ndimage.binary_erosion(np.isin(labels, large), iterations=2)
    rows, columns = np.nonzero(inside)
    if len(rows) < _LEAST_BODY_PX:
        return None
    margin = int(random.integers(4, 30))
    top, left = max(0, rows.min() - margin), max(0, columns.min() - margin)
    part = (slice(top, rows.max() + margin), slice(left, columns.max() + margin))
    return hu[part], inside[part]


def _resampled(
    hu: np.ndarray, inside: np.ndarray, spacing_mm: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the slice and its mask with larger pixels, never smaller ones."""
    pixel_mm = np.exp(random.uniform(*np.log(_PIXEL_MM)))
    edge = float(np.clip(max(hu.shape) * spacing_mm / pixel_mm, *_EDGE_PX))
    share = min(1.0, edge / max(hu.shape))
    size = (max(2, round(hu.shape[1] * share) // 2 * 2), max(2, round(hu.shape[0] * share) // 2 * 2))
    clipped = np.clip(hu, -1024.0, 1200.0).astype(np.float32)
    image, mask = (
        np.asarray(Image.fromarray(one, mode="F").resize(size, Image.Resampling.BICUBIC))
        for one in (clipped, inside.astype(np.float32))
    )
    return image, mask > 0.5


def _signal(hu: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the signal of a random contrast: 0 for air, little for lung and cortical bone, anything for the rest."""
    low, high = _SOFT_HU
    denoised = denoise_tv_chambolle(np.clip(hu, -250.0, 350.0) / 600.0, weight=random.uniform(0.05, 0.12)) * 600.0
    hu = np.where((hu > low) & (hu < high), denoised, ndimage.gaussian_filter(hu, 0.8))
    tissue = random.uniform(0.08, 1.0, 7)
    tissue[:2] = np.clip(tissue[0] + random.normal(0.0, 0.08, 2), 0.05, 1.0)  # fat has one signal
    lung = (0.0, random.uniform(0.0, 0.15), random.uniform(0.05, 0.5))
    bone = (random.uniform(0.0, 0.35), random.uniform(0.0, 0.2))
    signal = np.interp(hu, _KNOTS_HU, (*lung, *tissue, *bone))
    texture = 6.0 * ndimage.gaussian_filter(random.standard_normal(hu.shape), random.uniform(1.5, 6.0))
    return np.asarray(np.clip(signal * (1.0 + random.uniform(0.0, 0.08) * texture), 0.0, None))


def _coil(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Return the smooth sensitivity of a coil around 1."""
    y, x = (np.linspace(-1.0, 1.0, size) for size in shape)
    a = random.normal(0.0, 0.35, 5)
    y, x = y[:, None], x[None]
    return np.asarray(np.exp(a[0] * y + a[1] * x + a[2] * y**2 + a[3] * x**2 + a[4] * x * y))
