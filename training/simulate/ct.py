"""Simulate CT with lower dose or fewer views, from parallel-beam projections of the slice itself.

    mu = 0.02 (1 + HU / 1000) per mm;  p = line integrals of mu;  I = I0 exp(-p),  I0 proportional to mAs
    variance of p = 1 / I + (electronic / I)^2;  filtered back projection (ramp x Hann)

Filtered back projection is linear, so only the reconstructed *noise* is added to the slice, which keeps the texture of
the real image. Streaks are the difference between the reconstructions from a k-th of the views and from all views.
After Zeng et al. 2015 (doi 10.1109/TNS.2015.2467219) and the grid of LDCTIQAC2023 (views / 1, 2, 3, 4).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.transform import iradon, radon

from mediqa_node.domain.prompt import Prompt
from mediqa_node.image.measure.ct.soft_noise import soft_noise
from mediqa_node.image.measure.ct.windows import BRAIN_HU, SOFT_HU, soft_windows
from training.simulate.degraded import BaseImage, Degraded, Step, saturating

_USUAL_PIXEL_MM = 0.8
MU_WATER_PER_MM = 0.02
VIEWS = 720
_NOISE_VIEWS = 360
"""Views that noise is back projected from: twice the photons each, so that the dose is the same."""
PHOTONS_PER_MAS = 3.5e3
"""Per detector element and mAs, all views together as one of 720: 10 HU in 30 cm of water at 200 mAs."""
ELECTRONIC = 6.0
"""Standard deviation of the electronics, in photons."""
_FEWEST_PHOTONS = 2.0
SOURCE_MAS = 250.0
"""What every source is taken to have been scanned with."""
_BEST_HU, _SPAN = 6.0, 25.0
"""Quality is 1 at 6 HU of noise, and 0 at 25 times as much; nothing is cut off."""
MAS_RANGE = (4.0, 400.0)
VIEW_DIVISORS = (2, 3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Noise images of one slice in HU at 1 mAs: two draws of quantum noise, one of electronic noise."""

    quantum: tuple[np.ndarray, np.ndarray]
    electronic: np.ndarray

    def at(self, mas: float, angle: float) -> np.ndarray:
        """Return the noise at a tube charge; another angle gives another draw of the same distribution."""
        quantum = np.cos(angle) * self.quantum[0] + np.sin(angle) * self.quantum[1]
        return np.asarray(quantum / np.sqrt(mas) + self.electronic / mas)


def pixel_mm(spacing_mm: float) -> float:
    """Return the size of a pixel: a usual one where the header has none (0)."""
    return spacing_mm or _USUAL_PIXEL_MM


def attenuation(image_hu: np.ndarray) -> np.ndarray:
    """Return the linear attenuation per mm: -1000 HU and below is vacuum."""
    return MU_WATER_PER_MM * np.maximum(1.0 + image_hu.astype(np.float64) / 1000.0, 0.0)


def kernel_of(prompt: Prompt) -> str:
    """Return the apodisation nearest to the kernel of a series: sharp for lung and bone images."""
    return "shepp-logan" if prompt.type.value in ("lung", "bone") else "hann"


def noise_of(image_hu: np.ndarray, spacing_mm: float, random: np.random.Generator, *, kernel: str = "hann") -> Noise:
    """Simulate the noise of a scan of this slice.

    Args:
        kernel: apodisation of the ramp, as `skimage.transform.iradon` names it.
    """
    edge = max(image_hu.shape)
    integrals = _line_integrals(_square(attenuation(image_hu)), spacing_mm)
    photons = np.maximum(2.0 * PHOTONS_PER_MAS * np.exp(-integrals), 1e-3)

    def reconstructed(deviation: np.ndarray) -> np.ndarray:
        drawn = random.standard_normal(integrals.shape) * deviation
        mu = iradon(drawn, filter_name=kernel, circle=False, output_size=edge) / spacing_mm
        return _cut(mu / MU_WATER_PER_MM * 1000.0, image_hu.shape).astype(np.float32)

    quantum = 1.0 / np.sqrt(np.maximum(photons, _FEWEST_PHOTONS / MAS_RANGE[0]))
    electronic = np.minimum(np.sqrt(2.0) * ELECTRONIC / photons, 3.0 * ELECTRONIC * quantum)
    return Noise(quantum=(reconstructed(quantum), reconstructed(quantum)), electronic=reconstructed(electronic))


def streaks_of(image_hu: np.ndarray, spacing_mm: float, divisors: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Return the streaks of sparse views in HU, by divisor of the 720 views.

    Every k-th view is a union of the classes of views modulo the least common multiple of the divisors. Filtered back
    projection is linear, so each class is projected back once.
    """
    sinogram, angles = sinogram_of(image_hu, spacing_mm)
    n = math.lcm(*divisors)
    classes = [
        reconstruction(sinogram[:, first::n], angles[first::n], image_hu.shape, spacing_mm) for first in range(n)
    ]
    whole = np.mean(classes, axis=0)
    return {k: np.mean(classes[::k], axis=0) - whole for k in divisors}


def sinogram_of(image_hu: np.ndarray, spacing_mm: float, views: int = VIEWS) -> tuple[np.ndarray, np.ndarray]:
    """Return line integrals (elements, views), and the angles in degrees."""
    angles = np.linspace(0.0, 180.0, views, endpoint=False)
    return radon(_square(attenuation(image_hu)).astype(np.float32), angles, circle=False) * spacing_mm, angles


def reconstruction(
    sinogram: np.ndarray, angles: np.ndarray, shape: tuple[int, ...], spacing_mm: float, *, kernel: str = "hann"
) -> np.ndarray:
    """Return the slice in HU, by filtered back projection."""
    mu = iradon(sinogram, angles, filter_name=kernel, circle=False, output_size=max(shape)) / spacing_mm
    return np.asarray(_cut((mu / MU_WATER_PER_MM - 1.0) * 1000.0, shape))


def scan(image_hu: np.ndarray, spacing_mm: float, mas: float, random: np.random.Generator) -> np.ndarray:
    """Simulate a whole scan, projections to slice, Poisson statistics and electronics: for tests of the physics."""
    sinogram, angles = sinogram_of(image_hu, spacing_mm)
    expected = PHOTONS_PER_MAS * mas * np.exp(-sinogram)
    counted = random.poisson(expected) + random.normal(0.0, ELECTRONIC, sinogram.shape)
    noisy = -np.log(np.maximum(counted, 1.0) / (PHOTONS_PER_MAS * mas))
    return reconstruction(noisy, angles, image_hu.shape, spacing_mm)


def degrade(
    base: BaseImage, random: np.random.Generator, plan: Sequence[Step], *, varied: bool = True
) -> Iterator[Degraded]:
    """Yield a copy of a slice for every step of the plan.

    Args:
        varied: no difference here: other reconstructions of a slice are bases of their own (`simulate.ct_variants`).
    """
    spacing_mm = pixel_mm(base.spacing_mm)
    kernel = base.kernel or kernel_of(base.prompt)
    factors = {step.factor for step in plan}
    noise = noise_of(base.image, spacing_mm, random, kernel=kernel) if factors != {"clean"} else None
    streaks = streaks_of(base.image, spacing_mm, VIEW_DIVISORS) if {"views", "mixed"} & factors else {}
    part = base.field_of_view or (slice(None), slice(None))
    image, inside = base.image[part], body(base.image)[part]
    own_hu = own_noise_hu(image, inside, spacing_mm, head=base.prompt.region.value in ("head", "brain"))
    for step in plan:
        mas = step.between_logs(*MAS_RANGE[::-1], random) if step.factor in ("dose", "mixed") else np.inf
        divisor = _divisor(step, random) if step.factor in ("views", "mixed") else 1
        added = np.zeros_like(base.image)
        if noise is not None and np.isfinite(mas):
            added = noise.at(mas, random.uniform(0.0, 2.0 * np.pi))
        sharper = random.uniform(0.5, 1.5) if step.strength is None else 1.0
        streak = streaks[divisor] * sharper if divisor > 1 else np.zeros_like(base.image)
        yield _labelled(image, step.factor, mas, divisor, added[part], streak[part], inside, own_hu)


def _divisor(step: Step, random: np.random.Generator) -> int:
    if step.strength is None:
        return int(random.choice(VIEW_DIVISORS))
    return VIEW_DIVISORS[min(int(step.strength * len(VIEW_DIVISORS)), len(VIEW_DIVISORS) - 1)]


def _labelled(
    image: np.ndarray,
    factor: str,
    mas: float,
    divisor: int,
    added: np.ndarray,
    streak: np.ndarray,
    inside: np.ndarray,
    own_hu: float,
) -> Degraded:
    noise_hu, streak_hu = float(added[inside].std()), float(streak[inside].std())
    total_hu = float(np.sqrt(own_hu**2 + noise_hu**2 + streak_hu**2))
    return Degraded(
        image=np.clip(image + added + streak, -1024.0, 3071.0).astype(np.float32),
        factor=factor,
        settings={
            "mas": mas if np.isfinite(mas) else 0.0,
            "view_divisor": divisor,
            "body": float(inside.mean()),
        },
        severities={
            "dose": saturating(float(np.hypot(own_hu, noise_hu)), 60.0),
            "views": saturating(streak_hu, 30.0),
        },
        labels={
            "quality": quality_of_noise(total_hu),
            "mas": float(1.0 / (1.0 / SOURCE_MAS + 1.0 / mas)),
        },
    )


QUALITY = f"1 - ln(noise and artefacts / {_BEST_HU:g} HU) / ln {_SPAN:g}"


def quality_of_noise(total_hu: float) -> float:
    """Return the quality of a slice from the deviation of its noise and artefacts in HU; not clipped to 0..1."""
    return 1.0 - float(np.log(total_hu / _BEST_HU) / np.log(_SPAN))


def body(image_hu: np.ndarray) -> np.ndarray:
    """Return the mask of the patient, including lungs and bowel."""
    smooth = ndimage.uniform_filter(np.clip(image_hu, -1024.0, 200.0), 7)
    mask = np.asarray(ndimage.binary_fill_holes(smooth > -300.0))
    return mask if mask.sum() > 200 else np.ones_like(mask)


def own_noise_hu(image_hu: np.ndarray, inside: np.ndarray, spacing_mm: float, *, head: bool = False) -> float:
    """Return the noise of the source in HU, as a node measures it (`measure.ct.soft_noise`).

    Where too little soft tissue is level for that: the local standard deviation where it is most homogeneous.
    """
    windows = soft_windows(image_hu, inside, (spacing_mm, spacing_mm), BRAIN_HU if head else SOFT_HU)
    measured = None if windows is None else soft_noise(windows)
    if measured is not None:
        return max(measured, 1.0)
    mean = ndimage.uniform_filter(image_hu, 7)
    deviation = np.sqrt(np.maximum(ndimage.uniform_filter(image_hu.astype(np.float64) ** 2, 7) - mean**2, 0.0))
    tissue = inside & (mean > -150.0) & (mean < 200.0)
    return float(max(np.percentile(deviation[tissue if tissue.sum() > 200 else inside], 15), 1.0))


def _line_integrals(mu_per_mm: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Return smooth line integrals for `_NOISE_VIEWS` views, computed at a quarter of the resolution.

    The intensity behind the body hardly depends on details of a few millimetres.
    """
    edge = len(mu_per_mm)
    reduction = max(1, edge // 128)
    small = ndimage.zoom(ndimage.uniform_filter(mu_per_mm, reduction), 1.0 / reduction, order=1)
    angles = np.linspace(0.0, 180.0, _NOISE_VIEWS, endpoint=False)
    integrals = radon(small.astype(np.float32), angles, circle=False) * spacing_mm * edge / len(small)
    elements = int(np.ceil(np.sqrt(2.0) * edge))
    return np.asarray(ndimage.zoom(integrals, (elements / len(integrals), 1.0), order=1))


def _square(image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape
    edge = max(rows, columns)
    top, left = (edge - rows) // 2, (edge - columns) // 2
    return np.pad(image, ((top, edge - rows - top), (left, edge - columns - left)))


def _cut(square: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    top, left = (len(square) - shape[0]) // 2, (len(square) - shape[1]) // 2
    return square[top : top + shape[0], left : left + shape[1]]
