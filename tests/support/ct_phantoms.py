"""CT slices of known truth: ellipses of tissue, arms, a table; a kernel; noise of known strength and spectrum.

Shapes are drawn at three times the resolution with soft borders, multiplied in frequency by the kernel's modulation
transfer, and sampled. Noise has the spectrum of filtered back projection, |f| MTF(f)², or another one, and its standard
deviation is that of the whole image, exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.image.measure.stack_source import StackSource, coarse, coarse_step

AIR_HU, WATER_HU, FAT_HU, LUNG_HU, BONE_HU = -1000.0, 0.0, -100.0, -850.0, 700.0
_FINER = 3

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Signed distance in mm from the border of a shape, positive inside, at rows and columns in mm from the middle."""


@dataclass(frozen=True)
class Part:
    """A shape with its density; a later part lies on top of earlier ones."""

    shape: Shape
    hu: float


def ellipse(row_mm: float, column_mm: float, height_mm: float, width_mm: float, hu: float) -> Part:
    """An ellipse by its middle and diameters."""
    a, b = height_mm / 2, width_mm / 2

    def distance(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        y, x = y - row_mm, x - column_mm
        r = np.hypot(y / a, x / b)
        gradient = np.hypot(y / a**2, x / b**2) / np.maximum(r, 1e-9)
        return (1 - r) / np.maximum(gradient, 1e-9)

    return Part(distance, hu)


def disc(diameter_mm: float, hu: float = WATER_HU, row_mm: float = 0.0, column_mm: float = 0.0) -> Part:
    """A circle by its diameter and middle."""
    return ellipse(row_mm, column_mm, diameter_mm, diameter_mm, hu)


def slab(top_mm: float, height_mm: float, width_mm: float, hu: float) -> Part:
    """A horizontal bar by its upper edge, height and width, in the middle."""

    def distance(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.minimum(np.minimum(y - top_mm, top_mm + height_mm - y), width_mm / 2 - np.abs(x))

    return Part(distance, hu)


def table(top_mm: float, width_mm: float = 420.0, shell_mm: float = 4.0) -> list[Part]:
    """A table of foam between two shells of carbon fibre; its upper surface at `top_mm`."""
    return [
        slab(top_mm, 30.0, width_mm, -50.0),
        slab(top_mm + shell_mm, 30.0 - 2 * shell_mm, width_mm - 2 * shell_mm, -960.0),
    ]


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel by its modulation transfer exp(-ln2 (f / f50)^power), over a small boost.

    Attributes:
        f50_per_mm: where the transfer is one half, if `boost` is 0.
        boost: how far the transfer rises above 1, as sharp kernels do.
    """

    f50_per_mm: float = 0.35
    power: float = 2.0
    boost: float = 0.0

    def transfer(self, f: np.ndarray) -> np.ndarray:
        """Modulation transfer at frequencies in 1/mm."""
        hump = 1 + self.boost * (f / self.f50_per_mm) * np.exp(1 - f / self.f50_per_mm)
        return np.exp(-np.log(2) * (f / self.f50_per_mm) ** self.power) * hump

    @property
    def true_f50(self) -> float:
        """Where the transfer falls to one half, boost counted, 1/mm."""
        f = np.linspace(0, 3, 30001)
        return float(f[np.flatnonzero(self.transfer(f) >= 0.5)[-1]])


SOFT = Kernel()
SHARP = Kernel(f50_per_mm=0.55, power=3.0, boost=0.3)


@dataclass(frozen=True)
class Scan:
    """How a phantom is imaged.

    Attributes:
        spectrum: of the noise: `fbp`, `white`, or `low` (long correlation, as after iterative reconstruction).
    """

    size_px: int = 512
    pixel_mm: float = 0.8
    kernel: Kernel = SOFT
    noise_hu: float = 10.0
    spectrum: str = "fbp"
    seed: int = 0


def imaged(parts: Sequence[Part], scan: Scan) -> np.ndarray:
    """Return the slice, (size, size) float32 HU in whole numbers, never below -1024."""
    size = scan.size_px * _FINER
    step = scan.pixel_mm / _FINER
    axis = (np.arange(size) - (size - 1) / 2) * step
    y, x = axis[:, None], axis[None, :]
    object_hu = np.full((size, size), AIR_HU)
    for part in parts:
        share = np.clip(0.5 + part.shape(y, x) / step, 0, 1)
        object_hu += share * (part.hu - object_hu)
    f = np.hypot(np.fft.fftfreq(size, step)[:, None], np.fft.rfftfreq(size, step)[None, :])
    blurred = np.fft.irfft2(np.fft.rfft2(object_hu) * scan.kernel.transfer(f), s=object_hu.shape)
    image = blurred[_FINER // 2 :: _FINER, _FINER // 2 :: _FINER]
    return np.maximum(np.rint(image + noise(scan)), -1024).astype(np.float32)


def noise(scan: Scan) -> np.ndarray:
    """Return noise of exactly the standard deviation and of the spectrum of a scan, (size, size)."""
    white = np.random.default_rng(scan.seed).normal(size=(scan.size_px, scan.size_px))
    if scan.noise_hu == 0:
        return np.zeros_like(white)
    f = np.hypot(*np.meshgrid(*[np.fft.fftfreq(scan.size_px, scan.pixel_mm)] * 2, indexing="ij"))
    shapes = {
        "white": np.ones_like(f),
        "fbp": np.sqrt(f) * scan.kernel.transfer(f) * (f < 0.5 / scan.pixel_mm),
        "low": np.exp(-((f / 0.12) ** 2) / 2),
    }
    coloured = np.fft.ifft2(np.fft.fft2(white) * shapes[scan.spectrum]).real
    return coloured * (scan.noise_hu / coloured.std())


def peak_frequency(scan: Scan) -> float:
    """Return where the radial noise power spectrum of `fbp` is largest, 1/mm."""
    f = np.linspace(0, 0.5 / scan.pixel_mm, 20001)
    return float(f[np.argmax(f * scan.kernel.transfer(f) ** 2)])


def circular_field(image: np.ndarray) -> np.ndarray:
    """Return a slice in which the scanner reconstructed nothing outside of the inscribed circle."""
    axis = np.arange(image.shape[0]) - (image.shape[0] - 1) / 2
    return np.where(np.hypot(axis[:, None], axis[None, :]) > image.shape[0] / 2, -1024, image).astype(np.float32)


def stack(images: Sequence[np.ndarray], pixel_mm: float = 0.8, thickness_mm: float | None = 5.0) -> StackSource:
    """Return slices as the source of measures; None among them cannot be decoded."""

    def image_at(index: int) -> np.ndarray:
        if images[index] is None:
            raise UndecodablePixels("broken")
        return images[index]

    step = next((coarse_step(*image.shape[:2]) for image in images if image is not None), 4)
    return StackSource(
        count=len(images),
        image_at=image_at,
        coarse_at=lambda index: coarse(image_at(index), step),
        step=step,
        spacing_mm=(pixel_mm, pixel_mm),
        thickness_mm=thickness_mm,
        positions_mm=tuple(5.0 * index for index in range(len(images))),
    )


def repeated(parts: Sequence[Part], scan: Scan, count: int) -> list[np.ndarray]:
    """Return slices of one phantom with noise of their own."""
    clean = imaged(parts, replace(scan, noise_hu=0.0))
    return [
        np.maximum(np.rint(clean + noise(replace(scan, seed=scan.seed + index))), -1024).astype(np.float32)
        for index in range(count)
    ]
