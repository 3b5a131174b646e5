"""Simulate MR with lower field, motion, fewer lines or a smaller matrix, all in k-space.

Noise is complex, its standard deviation goes as 1 / B0, and it fills only the acquired part of k-space; the image is
the magnitude (Rice). Motion is a linear phase on every line acquired while the patient was displaced: once (two
positions) or periodically (breathing). Undersampling skips lines outside of the centre. A smaller matrix truncates
k-space.

Matrices differ, and scanners interpolate: some copies are acquired with a smaller matrix than the source, or
zero-filled to a larger one, noise included. Neither is a degradation, so no label reflects it.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import ndimage

from mediqa_node.image.foreground import body_pixels
from mediqa_node.image.measure.noise import immerkaer_robust
from training.simulate.degraded import BaseImage, Degraded, Step, quality_of, saturating

NOISE_AT_1_T = 0.06
"""Deviation of the noise at 1 T, as a share of the mean signal of the body; it goes as 1 / B0."""
FIELD_RANGE_T = (0.2, 7.0)
_CENTRE = 0.08
"""Share of the lines around the centre of k-space that every scan has."""
_SMALLER, _FILLED = 0.4, 0.4
"""How many slices are taken with a smaller matrix, and how many filled up to a larger one."""
_LEAST_PX = 64
_LEAST_NOISE = 0.005
HALF_WAY = {"noise": 0.15, "ghosts": 0.12, "undersampling": 0.12, "resolution": 0.08}
"""The change at which the severity of a factor is 1 - 1/e, as a share of the mean signal of the body."""


def degrade(base: BaseImage, random: np.random.Generator, plan: Sequence[Step]) -> Iterator[Degraded]:
    """Yield a copy of a slice for every step of the plan."""
    clean, filled = _matrix(base.image.astype(np.float64), random)
    inside = body(clean)
    signal = float(clean[inside].mean()) or 1.0
    own = own_noise(clean, inside) / signal
    for step in plan:
        settings = _drawn(random, step)
        phased = clean * _bias(clean.shape, random) * np.exp(1j * _phase(clean.shape, random))
        kspace = np.fft.fftshift(np.fft.fft2(phased))
        scanned, changes, acquired = _scanned(kspace, np.abs(phased), settings, inside, signal, random)
        total = float(np.hypot(own, changes.pop("noise"))) * acquired**0.5
        severities = {"noise": saturating(total, HALF_WAY["noise"])}
        severities |= {name: saturating(change, HALF_WAY[name]) for name, change in changes.items()}
        yield Degraded(
            image=np.abs(_zero_filled(scanned, filled)).astype(np.float32),
            factor=step.factor,
            settings={**settings, "filled": filled},
            severities=severities,
            labels={"quality": quality_of(severities), "tesla": NOISE_AT_1_T / max(total, _LEAST_NOISE)},
        )


def _drawn(random: np.random.Generator, step: Step) -> dict[str, float]:
    """Draw the settings of a copy; factors that are not applied have none."""
    chosen = {step.factor} if step.factor != "mixed" else {f for f in HALF_WAY if random.random() < 0.6}
    settings: dict[str, float] = {"axis": float(random.integers(2))}
    if "noise" in chosen:
        settings["field_t"] = step.between_logs(*FIELD_RANGE_T[::-1], random)
    if "ghosts" in chosen:
        settings |= {"shift_px": step.between(0.5, 8.0, random), "periodic": float(random.integers(2))}
        settings |= {"cycles": random.uniform(3.0, 25.0), "share": random.uniform(0.05, 0.5)}
    if "undersampling" in chosen:
        settings |= {"reduction": float(random.integers(2, 4)), "centre": step.between(0.4, _CENTRE, random)}
    if "resolution" in chosen:
        kept = step.between(1.0, 0.25, random)
        settings |= {"kept_rows": kept, "kept_columns": random.uniform(kept, 1.0)}
        if random.random() < 0.5:
            settings |= {"kept_rows": settings["kept_columns"], "kept_columns": kept}
    return settings


def _scanned(
    kspace: np.ndarray,
    clean: np.ndarray,
    settings: Mapping[str, float],
    inside: np.ndarray,
    signal: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, dict[str, float], float]:
    """Return the complex image, the change by each factor inside the body, and the acquired share of k-space.

    Changes are RMS shares of the signal; that of the noise is its standard deviation with a fully acquired k-space. The
    part that is not acquired holds no noise either, neither of the source nor added.
    """
    axis = int(settings["axis"])
    steps = {
        "resolution": _smaller(kspace.shape, settings),
        "ghosts": _moved(kspace.shape, axis, settings, random),
        "undersampling": _left_out(kspace.shape, axis, settings),
    }
    changes = {"noise": 0.0}
    acquired = np.ones(kspace.shape)
    worse: np.ndarray = kspace
    for name, factor in steps.items():
        changes[name] = 0.0
        if factor is not None:
            alone = np.abs(_image(kspace * factor))
            changes[name] = float(np.sqrt(np.mean((alone - clean)[inside] ** 2))) / signal
            worse = worse * factor
            acquired = acquired * np.abs(factor)
    image = _image(worse)
    if "field_t" in settings:
        deviation = NOISE_AT_1_T / settings["field_t"]
        changes["noise"] = deviation
        real, imaginary = random.standard_normal((2, *image.shape)) * deviation * signal
        image = image + _image(np.fft.fftshift(np.fft.fft2(real + 1j * imaginary)) * acquired)
    return image, changes, float(acquired.mean())


def _matrix(image: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return the slice acquired with a possibly smaller matrix, and the factor of zero-filling."""
    kept = random.uniform(0.5, 0.9) if random.random() < _SMALLER else 1.0
    if min(image.shape) * kept < _LEAST_PX:
        kept = 1.0
    rows, columns = (int(size * kept) // 2 * 2 if kept < 1 else size for size in image.shape)
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    kspace = np.fft.fftshift(np.fft.fft2(image))[top : top + rows, left : left + columns]
    filled = random.uniform(1.2, 2.0) if random.random() < _FILLED and max(rows, columns) <= 320 else 1.0
    return np.abs(_image(kspace)) * rows * columns / image.size, filled


def _zero_filled(image: np.ndarray, factor: float) -> np.ndarray:
    """Return a complex image on a larger matrix: zeros around its k-space."""
    if factor == 1.0:
        return image
    rows, columns = image.shape
    wide, tall = round(rows * factor) // 2 * 2, round(columns * factor) // 2 * 2
    before = (wide // 2 - rows // 2, tall // 2 - columns // 2)
    around = [(before[0], wide - rows - before[0]), (before[1], tall - columns - before[1])]
    return np.asarray(_image(np.pad(np.fft.fftshift(np.fft.fft2(image)), around)) * (wide * tall / image.size))


def _image(kspace: np.ndarray) -> np.ndarray:
    return np.fft.ifft2(np.fft.ifftshift(kspace))


def _frequencies(size: int) -> np.ndarray:
    """Return the frequencies of shifted k-space in cycles per pixel, the centre at size // 2."""
    return np.fft.fftshift(np.fft.fftfreq(size))


def _along(values: np.ndarray, axis: int) -> np.ndarray:
    return values[:, None] if axis == 0 else values[None, :]


def _smaller(shape: tuple[int, ...], settings: Mapping[str, float]) -> np.ndarray | None:
    if "kept_rows" not in settings:
        return None
    rows, columns = (
        np.abs(_frequencies(size)) <= 0.5 * settings[name]
        for size, name in zip(shape, ("kept_rows", "kept_columns"), strict=True)
    )
    return np.asarray(rows[:, None] & columns[None, :], dtype=np.float64)


def _moved(
    shape: tuple[int, ...], axis: int, settings: Mapping[str, float], random: np.random.Generator
) -> np.ndarray | None:
    """Return the phase of every line for the displacement of the patient along the phase axis."""
    if "shift_px" not in settings:
        return None
    size = shape[axis]
    place = np.arange(size) / size
    shift: np.ndarray
    if settings["periodic"]:
        shift = settings["shift_px"] * np.sin(2 * np.pi * (settings["cycles"] * place + random.random())) / 2
    else:
        start = random.uniform(0.0, 1.0 - settings["share"])
        shift = settings["shift_px"] * ((place >= start) & (place < start + settings["share"]))
    return np.asarray(_along(np.exp(-2j * np.pi * _frequencies(size) * shift), axis) * np.ones(shape))


def _left_out(shape: tuple[int, ...], axis: int, settings: Mapping[str, float]) -> np.ndarray | None:
    if "reduction" not in settings:
        return None
    size = shape[axis]
    line = np.arange(size) - size // 2
    kept = (line % int(settings["reduction"]) == 0) | (np.abs(line) <= settings["centre"] * size / 2)
    return np.asarray(_along(kept.astype(np.float64), axis) * np.ones(shape))


def _phase(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Return a smooth phase of up to 2 pi, as from imperfect coils and shims."""
    y, x = (np.linspace(-1.0, 1.0, size) for size in shape)
    a = random.normal(0.0, 1.0, 5)
    return np.asarray(
        a[0] * y[:, None] + a[1] * x[None] + a[2] * y[:, None] * x[None] + a[3] * y[:, None] ** 2 + a[4] * x[None] ** 2
    )


def _bias(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Return a smooth gain around 1: a nuisance that no label reflects."""
    y, x = (np.linspace(-1.0, 1.0, size) for size in shape)
    a = random.normal(0.0, 0.08, 3)
    return np.asarray(np.exp(a[0] * y[:, None] + a[1] * x[None] + a[2] * (y[:, None] ** 2 + x[None] ** 2)))


def body(image: np.ndarray) -> np.ndarray:
    """Return the mask of the body, with holes filled."""
    threshold = float(body_pixels([image]).min())
    mask = np.asarray(ndimage.binary_fill_holes(ndimage.binary_opening(image > threshold)))
    return mask if mask.sum() > 100 else np.asarray(image >= np.median(image))


def own_noise(image: np.ndarray, inside: np.ndarray) -> float:
    """Estimate the standard deviation of the source's noise: the lower of two estimates, from details and from air.

    Details: response to the kernel of Immerkaer (1996), robustly; in a coarse image they are structure. Air: a fifth of
        its pixels lie below 0.668 standard deviations (Rayleigh); ghosts raise the estimate, and blanked air gives
        none.
    """
    details = immerkaer_robust(image.astype(np.float64), inside)
    air = image[~ndimage.binary_dilation(inside, iterations=4)]
    level = float(np.percentile(air, 20)) / 0.668 if air.size > 200 else 0.0
    return min(details, level) if level > 0 else details
