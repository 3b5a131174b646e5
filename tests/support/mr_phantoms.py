"""MR phantoms with known truth: scanned in complex k-space, reconstructed as magnitude.

An object is drawn at twice the acquired resolution, so that the acquired matrix truncates its spectrum as a scanner
does. Noise is complex, white and only where k-space was acquired. Everything follows from the arguments.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from mediqa_node.image.measure.stack_source import StackSource, coarse

Kind = Literal["head", "trunk", "disc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a phantom is scanned.

    Attributes:
        acquired: lines of k-space along rows and columns; `matrix` is the image's, filled with zeros.
        sigma: standard deviation of the noise of the real part of one coil, where the body's signal is about 1.
        ghost: amplitude of a copy of the object, displaced by half the field of view along `phase_axis`.
        partial: share of the lines along `phase_axis` that were acquired, from one end; the rest is zero.
        hann: multiply k-space by a Hann window that ends where acquisition does.
        elliptical: acquire only the ellipse within the acquired matrix.
        bias: (rows, columns) coefficients of the field 1 + a y + b x + c y^2 + d x^2 on -1..1.
        mask_air: set to zero what is darker than 5 sigma outside of the body, as vendors do.
    """

    matrix: tuple[int, int] = (128, 128)
    acquired: tuple[int, int] = (128, 128)
    sigma: float = 0.02
    coils: int = 1
    ghost: float = 0.0
    phase_axis: int = 0
    partial: float = 1.0
    hann: bool = False
    elliptical: bool = False
    bias: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    mask_air: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A scanned phantom.

    Attributes:
        image: (rows, columns) float32 magnitude.
        clean: the same without noise and without ghosts.
        ghosts: the magnitude of the ghosts alone.
        body: where the object is, from its own outline.
        snr: median over the body of the clean signal over the standard deviation of the image's noise.
        field: the bias, (rows, columns).
    """

    image: np.ndarray
    clean: np.ndarray
    ghosts: np.ndarray
    body: np.ndarray
    snr: float
    field: np.ndarray


def scan(kind: Kind, protocol: Protocol, seed: int, *, texture: float = 0.05) -> Scan:
    """Scan one slice of a phantom."""
    random = np.random.default_rng(seed)
    fine = (2 * protocol.acquired[0], 2 * protocol.acquired[1])
    signal, outline = drawn(kind, fine, random, texture)
    field = bias_field(fine, protocol.bias)
    phase = np.exp(1j * _smooth(fine, random, 1.5))
    mask, kept = _acquired(protocol)
    coils = _coils(fine, protocol.coils)
    squares = np.zeros((3, *protocol.matrix))
    for coil in coils:
        kspace = _cropped(_to_kspace(signal * field * phase * coil), protocol.acquired)
        ghost = kspace * protocol.ghost * _every_other(protocol)
        pair = random.standard_normal((2, *protocol.acquired)) * protocol.sigma
        noise = _to_kspace(pair[0] + 1j * pair[1])
        for place, lines in enumerate((kspace + ghost + noise, kspace, ghost)):
            squares[place] += np.abs(_to_image(_filled(lines * mask, protocol.matrix))) ** 2
    image, clean, ghosts = np.sqrt(squares)
    body = ndimage.zoom(outline.astype(float), np.divide(protocol.matrix, fine), order=1) > 0.5
    if protocol.mask_air:
        image = np.where(ndimage.binary_dilation(body, iterations=3) | (image > 5 * protocol.sigma), image, 0.0)
    noise_sd = protocol.sigma * np.sqrt(kept)
    return Scan(
        image=image.astype(np.float32),
        clean=clean,
        ghosts=ghosts,
        body=body,
        snr=float(np.median(clean[body]) / noise_sd),
        field=bias_field(protocol.matrix, protocol.bias),
    )


def stack(kind: Kind, protocol: Protocol, count: int, seed: int, *, texture: float = 0.05) -> tuple[StackSource, Scan]:
    """Scan a stack of slices; return its source and the first slice."""
    scans = [scan(kind, protocol, seed + index, texture=texture) for index in range(count)]
    return source_of([one.image for one in scans]), scans[0]


def source_of(images: list[np.ndarray]) -> StackSource:
    """Return a source of slices that are in memory."""
    return StackSource(
        count=len(images),
        image_at=lambda index: images[index],
        coarse_at=lambda index: coarse(images[index]),
        spacing_mm=(1.0, 1.0),
    )


def drawn(
    kind: Kind, shape: tuple[int, int], random: np.random.Generator, texture: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return an object and its outline: signal about 1 in the body, 0 in air."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size, endpoint=False) for size in shape), indexing="ij")
    if kind == "disc":
        outline = y**2 + x**2 < 0.6**2
        return outline.astype(float), outline
    tall, wide = (0.72, 0.55) if kind == "head" else (0.5, 0.66)
    wide *= 1 + random.uniform(-0.05, 0.05)
    outline = (y / tall) ** 2 + (x / wide) ** 2 < 1
    inner = (y / (tall - 0.07)) ** 2 + (x / (wide - 0.07)) ** 2 < 1
    signal = np.where(inner, 1.0, 1.7) * outline
    for _ in range(14 if kind == "head" else 10):
        cy, cx = random.uniform(-0.7, 0.7, 2) * (tall, wide)
        ry, rx = random.uniform(0.03, 0.2, 2)
        part = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        signal = np.where(part & inner, random.uniform(0.5, 1.6), signal)
    return signal * np.exp(texture * _texture(shape, random)), outline


def bias_field(shape: tuple[int, int], bias: tuple[float, float, float, float]) -> np.ndarray:
    """Return the field 1 + a y + b x + c y^2 + d x^2 on -1..1."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    return np.asarray(1 + bias[0] * y + bias[1] * x + bias[2] * y * y + bias[3] * x * x)


def _texture(shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Return anatomy-like texture of deviation 1: amplitude falls as 1 / f^1.5."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :]
    distance = np.maximum(np.hypot(rows, columns), 4 / max(shape))
    values = np.fft.ifft2(np.fft.fft2(random.standard_normal(shape)) / distance**1.5).real
    return np.asarray(values / values.std())


def _smooth(shape: tuple[int, int], random: np.random.Generator, most: float) -> np.ndarray:
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    a = random.uniform(-most, most, 4)
    return np.asarray(a[0] * y + a[1] * x + a[2] * y * x + a[3] * (y * y + x * x))


def _coils(shape: tuple[int, int], count: int) -> list[np.ndarray]:
    """Return sensitivities around the object, whose sum of squares is 1 everywhere."""
    if count == 1:
        return [np.ones(shape)]
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    angles = 2 * np.pi * np.arange(count) / count
    found = [np.exp(-((y - np.sin(a)) ** 2 + (x - np.cos(a)) ** 2) / 0.8) * np.exp(1j * a) for a in angles]
    total = np.sqrt(sum(np.abs(one) ** 2 for one in found))
    return [one / total for one in found]


def _acquired(protocol: Protocol) -> tuple[np.ndarray, float]:
    """Return the weights of k-space and the share of the noise's power that they keep."""
    rows, columns = (np.arange(size) - size // 2 for size in protocol.acquired)
    weight = np.ones(protocol.acquired)
    if protocol.hann:
        window = [0.5 + 0.5 * np.cos(np.pi * line / (len(line) / 2)) for line in (rows, columns)]
        weight = weight * np.outer(*window)
    if protocol.elliptical:
        weight = weight * (np.hypot(rows[:, None] / (len(rows) / 2), columns[None] / (len(columns) / 2)) <= 1)
    if protocol.partial < 1:
        along = rows[:, None] if protocol.phase_axis == 0 else columns[None]
        size = protocol.acquired[protocol.phase_axis]
        weight = weight * (along < (protocol.partial - 0.5) * size)
    return weight, float((weight**2).mean())


def _every_other(protocol: Protocol) -> np.ndarray:
    size = protocol.acquired[protocol.phase_axis]
    sign = np.where(np.arange(size) % 2 == 0, 1.0, -1.0)
    return sign[:, None] if protocol.phase_axis == 0 else sign[None]


def _to_kspace(image: np.ndarray) -> np.ndarray:
    return np.fft.fftshift(np.fft.fft2(image)) / image.size


def _to_image(kspace: np.ndarray) -> np.ndarray:
    return np.asarray(np.fft.ifft2(np.fft.ifftshift(kspace)) * kspace.size)


def _cropped(kspace: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = (whole // 2 - part // 2 for whole, part in zip(kspace.shape, size, strict=True))
    return kspace[top : top + size[0], left : left + size[1]]


def _filled(kspace: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    before = [whole // 2 - part // 2 for whole, part in zip(size, kspace.shape, strict=True)]
    after = [whole - part - first for whole, part, first in zip(size, kspace.shape, before, strict=True)]
    return np.pad(kspace, list(zip(before, after, strict=True)))
