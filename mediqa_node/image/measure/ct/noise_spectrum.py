"""Noise power spectrum of homogeneous regions of soft tissue, and the frequency at which it is largest.

Method: patches of 20 x 20 mm inside the patient whose mean is that of soft tissue and whose standard deviation and
quarters differ from the slice's noise by no more than noise does. A plane is subtracted from each, a Hann window
applied, and the squared Fourier transforms are averaged over rings of frequency. The peak is that of the smoothed
spectrum, at the top of a parabola through its summit.

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
from mediqa_node.image.measure.ct.windows import STEP_PX, Windows
from mediqa_node.image.measure.over_slices import RESAMPLES, limited_where_uncertain

FEWEST_PATCHES = 16
MOST_PATCHES = 24
_RING_PER_MM = 0.025
_PADDED = 2
_UNEVEN = 1.3
"""Standard deviation of a window over the slice's noise, at most; and the noise over that of a patch."""
_SMALLEST_PX = 8
_LOWEST_PER_MM = 0.075
_STANDS_OUT = 1.1
"""Power at the peak over the least power below its frequency: less is a shoulder of the texture of tissue."""
_SUMMIT = 0.8
_SEED = 20261129


@dataclass(frozen=True, slots=True)
class RadialSpectrum:
    """Sum of squared transforms of patches over rings of 0.025/mm, relative; how many patches."""

    power: np.ndarray
    patches: int


def noise_spectrum(image_hu: np.ndarray, windows: Windows, pixel_mm: Pixel, noise_hu: float) -> RadialSpectrum | None:
    """Return the spectrum of the homogeneous patches of a slice, None without any.

    Args:
        image_hu: (rows, columns), full resolution.
        windows: of the slice.
        pixel_mm: between rows, between columns.
        noise_hu: `soft_noise` of the slice.
    """
    corners, size = _patches(windows, noise_hu)
    if not len(corners) or min(size) < _SMALLEST_PX:
        return None
    y, x = np.mgrid[: size[0], : size[1]]
    patches = image_hu[corners[:, 0, None, None] + y, corners[:, 1, None, None] + x].astype(np.float64)
    taper = np.hanning(size[0] + 2)[1:-1, None] * np.hanning(size[1] + 2)[None, 1:-1]
    padded = _PADDED * size[0], _PADDED * size[1]
    power = (np.abs(np.fft.rfft2(_without_trend(patches) * taper, s=padded)) ** 2).sum(axis=0)
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
    return (0.5 + _summit(smooth, at)) * _RING_PER_MM


def _summit(smooth: np.ndarray, at: int) -> float:
    """Return where the parabola through the rings around a peak that hold 80 % of its power is largest, in rings."""
    high = smooth >= _SUMMIT * smooth[at]
    first = at - int(np.argmin(high[at::-1])) + 1 if not high[: at + 1].all() else 0
    last = at + int(np.argmin(high[at:])) - 1 if not high[at:].all() else len(smooth) - 1
    first, last = min(first, at - 1), min(max(last, at + 1), len(smooth) - 1)
    bend, slope, _ = np.polyfit(np.arange(first, last + 1) - at, smooth[first : last + 1], 2)
    return at + float(np.clip(-slope / (2 * bend), first - at, last - at)) if bend < 0 else float(at)


def _patches(windows: Windows, noise_hu: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the corners, (n, 2), and the size of at most 24 patches that hold noise alone, the most even ones.

    A patch is four windows side by side: all of soft tissue, with means that differ by less than the noise.
    """
    across = tuple(round(length / STEP_PX) for length in windows.size)
    size = (across[0] * STEP_PX + windows.size[0], across[1] * STEP_PX + windows.size[1])
    shape = windows.mean.shape
    ends = [max(0, length - over) for length, over in zip(shape, across, strict=True)]
    starts = [slice(0, end, max(1, over // 2)) for end, over in zip(ends, across, strict=True)]
    four = [
        tuple(slice(start.start + by * over, start.stop + by * over, start.step)
              for start, over, by in zip(starts, across, corner, strict=True))
        for corner in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]  # fmt: skip
    means = np.stack([windows.mean[place] for place in four])
    variances = np.stack([windows.variance[place] for place in four])
    deviation = np.sqrt(variances.mean(axis=0))
    wanted = np.stack([windows.soft[place] for place in four]).all(axis=0)
    wanted &= (np.ptp(means, axis=0) < noise_hu) & (np.sqrt(variances.max(axis=0)) < _UNEVEN * noise_hu)
    wanted &= deviation > noise_hu / _UNEVEN
    rows, columns = np.nonzero(wanted)
    order = np.argsort(deviation[rows, columns], kind="stable")[:MOST_PATCHES]
    corners = np.stack([rows[order] * starts[0].step, columns[order] * starts[1].step], axis=1) * STEP_PX
    return corners + np.asarray(windows.corner), size


def _without_trend(patches: np.ndarray) -> np.ndarray:
    """Return patches without their least-squares polynomial of second order, (n, rows, columns)."""
    rows, columns = patches.shape[1:]
    y, x = (part.ravel() for part in np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij"))
    basis, _ = np.linalg.qr(np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1))
    flat = patches.reshape(len(patches), -1)
    return np.asarray((flat - flat @ basis @ basis.T).reshape(patches.shape))


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
    measure = CT_PEAK_FREQUENCY.measured(found, n=len(spectra), uncertainty=uncertainty, spread=spread)
    return limited_where_uncertain(measure)  # a flat spectrum has no peak
