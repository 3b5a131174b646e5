"""Noise power spectrum of homogeneous regions of soft tissue, and the frequency at which it is largest.

Method: patches of 20 x 20 mm inside the patient whose mean is that of soft tissue and whose standard deviation and
quarters differ from the slice's noise by no more than noise does. A plane is subtracted from each, a Hann window
applied, and the squared Fourier transforms are averaged over rings of frequency. The peak is that of the smoothed
spectrum, at a parabola through its three largest values.

Sources: ICRU Report 87 (2012) and IEC 61223-3-5 for the spectrum; patches in patients instead of a phantom.
Assumptions: noise that is stationary within 20 mm; patches hold noise alone.
What breaks it: texture of tissue adds low frequencies; a peak below 0.1/mm cannot be told from the background that the
plane removes; with fewer than 16 patches in all slices nothing is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.measures import Limit, Measure
from mediqa_node.domain.quantities import CT_PEAK_FREQUENCY
from mediqa_node.image.measure.ct.patient import Pixel
from mediqa_node.image.measure.ct.soft_noise import SOFT_HU, local_moments
from mediqa_node.image.measure.over_slices import RESAMPLES

PATCH_MM = 20.0
FEWEST_PATCHES = 16
MOST_PATCHES = 24
_RING_PER_MM = 0.025
_PADDED = 2
_UNEVEN = 1.15
"""Standard deviation of a patch over the slice's noise, at most."""
_LOWEST_PER_MM = 0.075
_STANDS_OUT = 1.1
"""Power at the peak over the least power below its frequency: less is a shoulder of the texture of tissue."""
_SEED = 20261129


@dataclass(frozen=True, slots=True)
class RadialSpectrum:
    """Sum of squared transforms of patches over rings of 0.025/mm, relative; how many patches."""

    power: np.ndarray
    patches: int


def noise_spectrum(
    image_hu: np.ndarray,
    patient: np.ndarray,
    pixel_mm: Pixel,
    noise_hu: float,
    *,
    soft_hu: tuple[float, float] = SOFT_HU,
) -> RadialSpectrum | None:
    """Return the spectrum of the homogeneous patches of a slice, None without any.

    Args:
        image_hu: (rows, columns), full resolution.
        patient: mask of the patient, the same shape.
        pixel_mm: between rows, between columns.
        noise_hu: `soft_noise` of the slice.
        soft_hu: range of a patch's mean.
    """
    size = tuple(2 * round(PATCH_MM / step / 2) for step in pixel_mm)
    if min(size) < 8 or any(length < width for length, width in zip(image_hu.shape, size, strict=True)):
        return None
    corners = _patches(image_hu, patient, size, noise_hu, soft_hu)
    if not len(corners):
        return None
    y, x = np.mgrid[: size[0], : size[1]]
    patches = image_hu[corners[:, 0, None, None] + y, corners[:, 1, None, None] + x].astype(np.float64)
    window = np.hanning(size[0] + 2)[1:-1, None] * np.hanning(size[1] + 2)[None, 1:-1]
    flat = _without_plane(patches) * window
    padded = tuple(_PADDED * length for length in size)
    power = (np.abs(np.fft.rfft2(flat, s=padded)) ** 2).sum(axis=0)
    return RadialSpectrum(power=_rings(power, padded, pixel_mm), patches=len(corners))


def peak_frequency(power: np.ndarray) -> float | None:
    """Return where a radial spectrum is largest, 1/mm; None where texture of tissue hides the noise.

    Texture falls with frequency, noise of filtered back projection rises first. Where the lowest frequencies are the
    strongest, the peak is sought beyond the valley between the two.
    """
    smooth = np.convolve(np.pad(power, 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")
    low = round(_LOWEST_PER_MM / _RING_PER_MM)
    rest = smooth[low:]
    valleys = np.minimum.accumulate(rest)
    at = low + int(np.argmax(rest / valleys)) if rest.argmax() == 0 else low + int(rest.argmax())
    if at <= low or at + 1 >= len(smooth) or smooth[at] < _STANDS_OUT * valleys[at - low]:
        return None
    left, middle, right = smooth[at - 1 : at + 2]
    bend = left - 2 * middle + right
    shift = float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0
    return (at + 0.5 + shift) * _RING_PER_MM


def _patches(
    image_hu: np.ndarray, patient: np.ndarray, size: tuple[int, ...], noise_hu: float, soft_hu: tuple[float, float]
) -> np.ndarray:
    """Return the corners, (n, 2), of at most 24 patches that hold noise alone, the most even ones."""
    step = max(1, min(size) // 2)
    quarter = tuple(length // 2 for length in size)
    mean, variance = local_moments(image_hu, size, step)
    inside, _ = local_moments(patient.astype(np.float32), size, step)
    deviation = np.sqrt(variance)
    wanted = (inside > 0.999) & (mean > soft_hu[0]) & (mean < soft_hu[1])
    wanted &= (deviation < _UNEVEN * noise_hu) & (deviation > noise_hu / _UNEVEN / 1.2)
    rows, columns = np.nonzero(wanted)
    order = np.argsort(deviation[rows, columns], kind="stable")[:MOST_PATCHES]
    corners = np.stack([rows[order], columns[order]], axis=1) * step
    quarters = [
        np.array([image_hu[r + dy : r + dy + quarter[0], c + dx : c + dx + quarter[1]].mean() for r, c in corners])
        for dy in (0, quarter[0])
        for dx in (0, quarter[1])
    ]
    even = np.ptp(quarters, axis=0) < noise_hu if len(corners) else np.zeros(0, dtype=bool)
    return np.asarray(corners[even])


def _without_plane(patches: np.ndarray) -> np.ndarray:
    rows, columns = patches.shape[1:]
    y = np.linspace(-1, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]
    flat = patches - patches.mean(axis=(1, 2), keepdims=True)
    for axis in (np.broadcast_to(y, (rows, columns)), np.broadcast_to(x, (rows, columns))):
        flat = flat - (flat * axis).sum(axis=(1, 2), keepdims=True) / (axis**2).sum() * axis
    return np.asarray(flat)


def _rings(power: np.ndarray, padded: tuple[int, ...], pixel_mm: Pixel) -> np.ndarray:
    """Return the mean power in rings up to the Nyquist frequency of the coarser axis."""
    f = np.hypot(np.fft.fftfreq(padded[0], pixel_mm[0])[:, None], np.fft.rfftfreq(padded[1], pixel_mm[1])[None, :])
    rings = int(0.5 / max(pixel_mm) / _RING_PER_MM)
    at = (f / _RING_PER_MM).astype(np.intp).ravel()
    inside = at < rings
    count = np.bincount(at[inside], minlength=rings)
    total = np.bincount(at[inside], weights=power.ravel()[inside], minlength=rings)
    mean = total / np.maximum(count, 1)
    return np.asarray(np.interp(np.arange(rings), np.flatnonzero(count), mean[count > 0]))


def spectrum_measure(spectra: Sequence[RadialSpectrum]) -> Measure:
    """Return `ct.noise.peak_frequency` of the slices' spectra, at least one; TEXTURE where no peak of noise stands out.

    The uncertainty is that of the peak of the summed spectrum over resamples of the slices.
    """
    power = np.stack([spectrum.power for spectrum in spectra])
    found = peak_frequency(power.sum(axis=0))
    if found is None:
        return CT_PEAK_FREQUENCY.not_measurable(Limit.TEXTURE)
    single = [value for value in map(peak_frequency, power) if value is not None]
    uncertainty = spread = None
    if len(spectra) > 1:
        generator = np.random.default_rng(_SEED)
        drawn = generator.integers(0, len(power), (RESAMPLES, len(power)))
        resampled = [value for row in drawn if (value := peak_frequency(power[row].sum(axis=0))) is not None]
        uncertainty = float(np.std(resampled, ddof=1)) if len(resampled) > 1 else None
        spread = float(np.subtract(*np.percentile(single, (75, 25)))) if len(single) > 1 else None
    return CT_PEAK_FREQUENCY.measured(found, n=len(spectra), uncertainty=uncertainty, spread=spread)
