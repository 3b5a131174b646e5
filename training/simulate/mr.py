"""Simulate MR with lower field, motion, fewer lines or a smaller matrix, all in k-space.

Noise is complex, its standard deviation goes as 1 / B0, and it fills only the acquired part of k-space; the image is
the magnitude (Rice). Many scanners fill k-space up with zeros: noise added there would look like detail that no scan
has, and cutting there would change nothing. So the acquired part of every source is measured (`BaseImage.support`),
and noise and matrix refer to it. Motion is a linear phase on every line acquired while the patient was displaced: once
(two positions) or periodically (breathing). Undersampling skips lines outside of the centre. A smaller matrix truncates
k-space.

Severities are measured changes inside the body. A rigid shift is no ghost: the moved image is registered before it is
compared. Resolution has two: `resolution`, the change that the smaller matrix made to this image, and `coarseness`, how
few acquired lines cross the body, whoever left them out. Quality counts one of them (`RESOLUTION_LABEL`): a truncated
image and one that was acquired so and interpolated are the same image.

Matrices differ, and scanners interpolate: some copies are acquired with a smaller matrix than the source, or
zero-filled to a larger one, noise included. Zero-filling is no degradation; the smaller matrix is that of the source.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mediqa_node.image.foreground import body_pixels
from mediqa_node.image.measure.noise import immerkaer_robust
from training.simulate.degraded import WORST, BaseImage, Degraded, Step, quality_of, saturating

NOISE_AT_1_T = 0.06
"""Deviation of the noise at 1 T, as a share of the mean signal of the body; it goes as 1 / B0."""
FIELD_RANGE_T = (0.2, 7.0)
RESOLUTION_LABEL = "coarseness"
"""The severity of resolution that quality counts: `coarseness` (absolute) or `resolution` (relative to the source)."""
_CENTRE = 0.08
"""Share of the lines around the centre of k-space that every scan has."""
_SMALLER, _FILLED = 0.4, 0.4
"""How many slices are taken with a smaller matrix, and how many filled up to a larger one."""
_LEAST_PX = 64
_LEAST_NOISE = 0.005
HALF_WAY = {"noise": 0.15, "ghosts": 0.25, "undersampling": 0.12, "resolution": 0.08}
"""The change at which the severity of a factor is 1 - 1/e, as a share of the mean signal of the body."""
_FINE, _COARSE = 300.0, 20.0
"""Acquired lines across the body at which `coarseness` is 0 and 1; between, it goes with their logarithm."""
_SHIFT_STEP_PX = 0.05
QUALITY = (
    f"product of 1 - {WORST:g} severity of noise, ghosts, undersampling and {RESOLUTION_LABEL}; "
    f"coarseness = ln({_FINE:g} / acquired lines across the body) / ln({_FINE:g} / {_COARSE:g}), clipped to 0..1"
)


@dataclass(frozen=True, slots=True)
class _Source:
    """The slice as it was acquired, before its degradation.

    Attributes:
        image: (rows, columns), the magnitude.
        filled: factor by which its copies are zero-filled.
        acquired: the mask of its k-space, centre in the middle, 0 or 1.
        inside: the mask of the body; signal: its mean.
        own: deviation of its noise, as a share of the signal.
    """

    image: np.ndarray
    filled: float
    acquired: np.ndarray
    inside: np.ndarray
    signal: float
    own: float


def degrade(
    base: BaseImage, random: np.random.Generator, plan: Sequence[Step], *, varied: bool = True
) -> Iterator[Degraded]:
    """Yield a copy of a slice for every step of the plan.

    Args:
        varied: draw another matrix and zero-filling.
    """
    source = _source(base, random, varied=varied)
    for step in plan:
        settings = _drawn(random, step)
        phased = source.image * _bias(source.image.shape, random) * np.exp(1j * _phase(source.image.shape, random))
        scanned, changes, acquired = _scanned(phased, settings, source, random)
        total = float(np.hypot(source.own, changes.pop("noise"))) * (acquired.sum() / source.acquired.sum()) ** 0.5
        severities = {"noise": saturating(total, HALF_WAY["noise"])}
        severities |= {name: saturating(change, HALF_WAY[name]) for name, change in changes.items()}
        severities["coarseness"] = coarseness(_lines_across(acquired, settings, source))
        yield Degraded(
            image=np.abs(_zero_filled(scanned, source.filled)).astype(np.float32),
            factor=step.factor,
            settings={**settings, "filled": source.filled, "body": float(source.inside.mean())},
            severities=severities,
            labels={"quality": quality_under(RESOLUTION_LABEL, severities), "tesla": _tesla(total)},
        )


def quality_under(label: str, severities: Mapping[str, float]) -> float:
    """Return the quality that counts one of the two severities of resolution."""
    return quality_of({k: v for k, v in severities.items() if k == label or k not in ("coarseness", "resolution")})


def coarseness(lines: float) -> float:
    """Return the severity of a number of acquired lines across the body: 300 and more is 0, 20 and fewer is 1."""
    return float(np.clip(np.log(_FINE / max(lines, 1e-6)) / np.log(_FINE / _COARSE), 0.0, 1.0))


def _tesla(noise: float) -> float:
    return NOISE_AT_1_T / max(noise, _LEAST_NOISE)


def _source(base: BaseImage, random: np.random.Generator, *, varied: bool) -> _Source:
    image, filled, shares = base.image.astype(np.float64), 1.0, base.support
    if varied:
        image, filled, shares = _matrix(image, shares, random)
    inside = body(image)
    signal = float(image[inside].mean()) or 1.0
    acquired = acquired_mask(image.shape, shares)
    if base.own_noise is None:
        own = _own_noise(image, shares) / signal
    else:  # what a smaller matrix leaves out takes its noise along
        own = base.own_noise * float(acquired.sum() / acquired_mask(base.image.shape, base.support).sum()) ** 0.5
    return _Source(image, filled, acquired, inside, signal, own)


def _own_noise(image: np.ndarray, shares: tuple[float, float]) -> float:
    """Estimate the noise of the source on its acquired matrix: interpolated noise has no fine detail."""
    rows, columns = (
        max(_LEAST_PX, int(size * share) // 2 * 2) for size, share in zip(image.shape, shares, strict=True)
    )
    rows, columns = min(rows, image.shape[0]), min(columns, image.shape[1])
    small = image if (rows, columns) == image.shape else _cropped(image, rows, columns)
    return own_noise(small, body(small))


def _cropped(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the magnitude of the centre of an image's k-space, in the units of the image."""
    top, left = image.shape[0] // 2 - rows // 2, image.shape[1] // 2 - columns // 2
    kspace = np.fft.fftshift(np.fft.fft2(image))[top : top + rows, left : left + columns]
    return np.asarray(np.abs(_image(kspace)) * rows * columns / image.size)


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
    phased: np.ndarray, settings: Mapping[str, float], source: _Source, random: np.random.Generator
) -> tuple[np.ndarray, dict[str, float], np.ndarray]:
    """Return the complex image, the change by each factor inside the body, and the mask of its acquired k-space.

    Changes are RMS shares of the signal; that of the noise is its standard deviation before any line was left out. What
    is not acquired holds no noise either, neither of the source nor added.
    """
    kspace = np.fft.fftshift(np.fft.fft2(phased))
    axis = int(settings["axis"])
    steps = {
        "resolution": _smaller(source.acquired, settings),
        "ghosts": _moved(kspace, axis, settings, random),
        "undersampling": _left_out(kspace.shape, axis, settings),
    }
    changes = {"noise": 0.0}
    worse, acquired = kspace, source.acquired
    for name, factor in steps.items():
        changes[name] = 0.0
        if factor is not None:
            alone = np.abs(_image(kspace * factor))
            change = np.sqrt(np.mean((alone - np.abs(phased))[source.inside] ** 2))
            changes[name] = float(change) / source.signal
            worse, acquired = worse * factor, acquired * np.abs(factor)
    image = _image(worse)
    if "field_t" in settings:
        changes["noise"] = NOISE_AT_1_T / settings["field_t"]
        image = image + noise_of(changes["noise"] * source.signal, source.acquired, acquired, random)
    return image, changes, acquired


def noise_of(deviation: float, whole: np.ndarray, acquired: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return complex noise that fills a part of k-space, (rows, columns).

    Args:
        deviation: of its real part where all of `whole` is acquired.
        whole, acquired: masks of k-space, the centre in the middle; what is left out takes its noise along.
    """
    real, imaginary = random.standard_normal((2, *whole.shape)) * deviation / np.sqrt(whole.mean())
    return _image(np.fft.fftshift(np.fft.fft2(real + 1j * imaginary)) * acquired)


def acquired_mask(shape: tuple[int, ...], shares: tuple[float, float]) -> np.ndarray:
    """Return the mask of k-space within shares of the frequencies up to Nyquist, 0 or 1, the centre in the middle."""
    rows, columns = (np.abs(_frequencies(size)) <= 0.5 * share for size, share in zip(shape, shares, strict=True))
    return np.asarray(rows[:, None] & columns[None, :], dtype=np.float64)


def _lines_across(acquired: np.ndarray, settings: Mapping[str, float], source: _Source) -> float:
    """Return the acquired lines across the body: the geometric mean over both axes, skipped lines included."""
    kept = acquired_extent(source.acquired) if "kept_rows" not in settings else acquired_extent(acquired)
    rows, columns = np.nonzero(source.inside)
    across = [
        lines * (np.percentile(place, 98) - np.percentile(place, 2) + 1) / size
        for lines, place, size in zip(kept, (rows, columns), acquired.shape, strict=True)
    ]
    return float(np.sqrt(across[0] * across[1]))


def acquired_extent(acquired: np.ndarray) -> tuple[int, int]:
    """Return the lines between the first and the last acquired one, along rows and columns."""
    found = [np.flatnonzero(acquired.any(axis=1 - axis)) for axis in (0, 1)]
    return int(np.ptp(found[0])) + 1, int(np.ptp(found[1])) + 1


def _matrix(
    image: np.ndarray, shares: tuple[float, float], random: np.random.Generator
) -> tuple[np.ndarray, float, tuple[float, float]]:
    """Return the slice acquired with a possibly smaller matrix, the factor of zero-filling, and its acquired shares."""
    kept = random.uniform(0.5, 0.9) if random.random() < _SMALLER else 1.0
    if min(image.shape) * kept < _LEAST_PX:
        kept = 1.0
    rows, columns = (int(size * kept) // 2 * 2 if kept < 1 else size for size in image.shape)
    filled = random.uniform(1.2, 2.0) if random.random() < _FILLED and max(rows, columns) <= 320 else 1.0
    smaller = image if (rows, columns) == image.shape else _cropped(image, rows, columns)
    part = (
        min(1.0, shares[0] * image.shape[0] / rows),
        min(1.0, shares[1] * image.shape[1] / columns),
    )
    return smaller, filled, part


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


def _smaller(acquired: np.ndarray, settings: Mapping[str, float]) -> np.ndarray | None:
    """Return the mask of a share of the acquired lines along each axis."""
    if "kept_rows" not in settings:
        return None
    kept = (settings["kept_rows"], settings["kept_columns"])
    shares = [
        lines / size * share for lines, size, share in zip(acquired_extent(acquired), acquired.shape, kept, strict=True)
    ]
    return acquired_mask(acquired.shape, (shares[0], shares[1]))


def _moved(
    kspace: np.ndarray, axis: int, settings: Mapping[str, float], random: np.random.Generator
) -> np.ndarray | None:
    """Return the phase of every line for the displacement of the patient along the phase axis, after registration."""
    if "shift_px" not in settings:
        return None
    size = kspace.shape[axis]
    place = np.arange(size) / size
    shift: np.ndarray
    if settings["periodic"]:
        shift = settings["shift_px"] * np.sin(2 * np.pi * (settings["cycles"] * place + random.random())) / 2
    else:
        start = random.uniform(0.0, 1.0 - settings["share"])
        shift = settings["shift_px"] * ((place >= start) & (place < start + settings["share"]))
    shift = registered(shift, (np.abs(kspace) ** 2).sum(axis=1 - axis))
    return np.asarray(_along(np.exp(-2j * np.pi * _frequencies(size) * shift), axis) * np.ones(kspace.shape))


def registered(shift_px: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Return the displacements of all lines, (n,), less the rigid shift that best registers the image.

    Args:
        power: of every line, (n,): the shift maximises the correlation of the moved image with the still one.
    """
    reach = float(np.abs(shift_px).max())
    candidates = np.arange(-reach, reach + _SHIFT_STEP_PX, _SHIFT_STEP_PX)
    phase = 2 * np.pi * _frequencies(len(shift_px)) * (candidates[:, None] - shift_px)
    return np.asarray(shift_px - candidates[int(np.argmax(np.cos(phase) @ power))])


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
