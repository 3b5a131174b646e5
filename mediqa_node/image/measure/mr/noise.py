"""Estimate the noise of a magnitude image from its finest diagonal details, inside the acquired part of k-space.

Method: an isotropic diagonal band (0.45 of the acquired half-width or more along both axes, at most 0.9 from the
centre, so that elliptical acquisition and filters of the corners do not matter) is cut from k-space; this is the
diagonal detail of a wavelet of the image resampled to its acquired matrix, Donoho and Johnstone 1994 (doi
10.1093/biomet/81.3.425). Its median absolute deviation inside the body, times 1.4826, is scaled from the band to the
acquired area. That is the deviation of the magnitude; the correction of Koay and Basser 2006 (doi
10.1016/j.jmr.2006.01.016) turns it into that of the real and imaginary parts.

Assumptions: complex white noise in the acquired part, none elsewhere; one coil, or a signal so far above the noise that
the coils do not matter; anatomy is sparse in the band.

Breaks where: a filter or an interpolation fades k-space before its end; noise varies in space (parallel imaging,
correction of coil sensitivity): then it is a median; anatomy is fine against the pixels (`flatness` above 1).
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage, special

_BAND = (0.45, 0.9)
"""Least share of the half-width along each axis; greatest distance from the centre."""
_MIDDLE = 0.76
_SOFT = 0.06
_ERODE_PX = 2
_FEWEST_PX = 100
_NORMAL = 1.4826
RAYLEIGH = float(np.sqrt(np.pi / (4 - np.pi)))
"""Mean over standard deviation of a magnitude without signal: 1.913."""


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise of one slice.

    Attributes:
        sigma: standard deviation of the noise of the real and imaginary parts, in the image's unit.
        flatness: power density of the inner over that of the outer half of the band: 1 for white noise.
    """

    sigma: float
    signal: float
    flatness: float


def noise(image: np.ndarray, body: np.ndarray, shares: tuple[float, float]) -> Noise | None:
    """Return the noise of a slice; None where it is not above the precision of its numbers.

    Args:
        image: (rows, columns) magnitude.
        body: mask, (rows, columns).
        shares: acquired part of k-space along rows and columns (`support.Support.share`).
    """
    spectrum = fft.rfft2(image.astype(np.float32))
    inside = ndimage.binary_erosion(body, iterations=_ERODE_PX)
    inside = inside if inside.sum() >= _FEWEST_PX else body
    whole, inner, outer = (
        _deviation(spectrum, image.shape, inside, shares, *radii)
        for radii in ((0.0, _BAND[1]), (0.0, _MIDDLE), (_MIDDLE, _BAND[1]))
    )
    signal = float(np.median(image[body]))
    if not whole > 1e-6 * abs(signal) or outer <= 0:
        return None
    sigma = whole / float(np.sqrt(correction(_snr(signal / whole))))
    return Noise(sigma=sigma, signal=signal, flatness=(inner / outer) ** 2)


def _deviation(
    spectrum: np.ndarray,
    shape: tuple[int, ...],
    inside: np.ndarray,
    shares: tuple[float, float],
    nearest: float,
    farthest: float,
) -> float:
    """Return the standard deviation of white noise over the acquired area that a ring of the band implies."""
    rows = np.abs(fft.fftfreq(shape[0]))[:, None] / (0.5 * shares[0])
    columns = fft.rfftfreq(shape[1])[None, :] / (0.5 * shares[1])
    distance = np.hypot(rows, columns)
    weight = _rising(rows, _BAND[0]) * _rising(columns, _BAND[0]) * (1 - _rising(distance, farthest))
    if nearest:
        weight = weight * _rising(distance, nearest)
    detail = fft.irfft2(spectrum * weight.astype(np.float32), s=shape)
    both_sides = np.full(weight.shape[1], 2.0)
    both_sides[0] = 1.0
    if shape[1] % 2 == 0:
        both_sides[-1] = 1.0
    power = float((weight**2 * both_sides).sum()) / (shape[0] * shape[1])
    if power <= 0:
        return 0.0
    spread = _NORMAL * float(np.median(np.abs(detail[inside])))
    return spread * float(np.sqrt(shares[0] * shares[1] / power))


def _rising(values: np.ndarray, at: float) -> np.ndarray:
    """Return a smooth step from 0 to 1 around a value."""
    place = np.clip((values - at) / _SOFT + 0.5, 0.0, 1.0)
    return np.asarray(place * place * (3 - 2 * place))


def correction(snr: float) -> float:
    """Return the variance of a magnitude over that of the real part, for a signal of `snr` deviations.

    >>> round(correction(0.0), 4), round(correction(30.0), 2)
    (0.4292, 1.0)
    """
    if snr > 30:
        return 1.0
    half = snr * snr / 4
    bessel = (2 + snr * snr) * special.ive(0, half) + snr * snr * special.ive(1, half)
    return float(2 + snr * snr - np.pi / 8 * bessel**2)


def _snr(ratio: float) -> float:
    """Return the signal in deviations of the noise from mean over deviation of the magnitude, by fixed point."""
    if ratio <= RAYLEIGH:
        return 0.0
    snr = ratio
    for _ in range(40):
        snr = float(np.sqrt(max(0.0, correction(snr) * (1 + ratio * ratio) - 2)))
    return snr
