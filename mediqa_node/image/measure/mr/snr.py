"""Measure the ratio of signal to noise inside the body of a stack of magnitude images.

Method: the signal is the median of the body, less what noise adds to a magnitude (A^2 = m^2 - sigma^2). The noise is
the median over slices of that of the air, where its distribution is that of a single coil in most slices (`air`), else
in each slice that of the finest details inside the body and inside the acquired part of k-space (`noise`). Both are of
the real part of one pixel, as shown.

Limited where the noise varies in space (correction of coil sensitivity), was changed after acquisition (filters,
interpolation), where fine anatomy cannot be told from noise, where the noise of many coils adds to the signal, or where
the signal is less than 4 times the noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.measure_facts import MrFacts
from mediqa_node.domain.measures import Limit, Measure
from mediqa_node.domain.quantities import MR_SNR
from mediqa_node.image.measure.mr.air import Air, air_noise
from mediqa_node.image.measure.mr.noise import Noise, noise
from mediqa_node.image.measure.mr.regions import Regions
from mediqa_node.image.measure.mr.support import Edge, Support
from mediqa_node.image.measure.over_slices import over_slices

_FLATTEST = 1.3
_UNEVEN = 1.2
_LOW_SNR = 4.0
_ADDED = 0.1
"""Share of the signal's square from which the noise of many coils counts."""


@dataclass(frozen=True, slots=True)
class _Found:
    signal: float
    noise: Noise | None
    air: Air | None


def snr(
    images: Sequence[np.ndarray], found: Sequence[Regions], supports: tuple[Support, Support], facts: MrFacts
) -> Measure:
    """Return the ratio of signal to noise of a stack.

    Args:
        images, found: slices (rows, columns) and where their body and air lie.
        supports: along rows and columns.
    """
    unknown = [one for one in supports if one.edge is Edge.UNKNOWN]
    if unknown:
        return MR_SNR.not_measurable(Limit.UNKNOWN_SUPPORT, unknown[0].compared)
    shares = supports[0].share, supports[1].share
    slices = [
        _Found(float(np.median(image[each.body])), noise(image, each.body, shares), air_noise(image, each))
        for image, each in zip(images, found, strict=True)
    ]
    of_air = [one.air.sigma for one in slices if one.air is not None and one.air.single_coil]
    if 2 * len(of_air) > len(slices):
        sigma = float(np.median(of_air))
        return _measure(slices, [sigma] * len(slices), *_changed(supports, facts))
    by_detail = [one for one in slices if one.noise is not None]
    if not by_detail:
        return MR_SNR.not_measurable(Limit.LOW_SIGNAL, "no noise was found")
    limit, detail = _changed(supports, facts)
    if limit is None:
        limit, detail = _doubtful([one.noise for one in by_detail if one.noise], slices)
    return _measure(by_detail, [one.noise.sigma for one in by_detail if one.noise], limit, detail)


def _measure(slices: Sequence[_Found], sigmas: Sequence[float], limit: Limit | None, detail: str) -> Measure:
    ratios = [
        float(np.sqrt(max(0.0, (one.signal / sigma) ** 2 - 1))) for one, sigma in zip(slices, sigmas, strict=True)
    ]
    if limit is None and float(np.median(ratios)) < _LOW_SNR:
        limit = Limit.LOW_SIGNAL
    return over_slices(MR_SNR, ratios, limit=limit, detail=detail)


def _changed(supports: tuple[Support, Support], facts: MrFacts) -> tuple[Limit | None, str]:
    """Tell whether the noise was changed after acquisition."""
    if facts.normalised:
        return Limit.NORMALISED, ""
    if facts.filtered or any(one.edge is Edge.FADED for one in supports):
        return Limit.FILTERED, ""
    return None, ""


def _doubtful(noises: Sequence[Noise], slices: Sequence[_Found]) -> tuple[Limit | None, str]:
    """Tell whether anatomy or the noise of many coils takes part in the estimate."""
    flatness = float(np.median([one.flatness for one in noises]))
    unevenness = float(np.median([one.unevenness for one in noises]))
    if flatness > _FLATTEST or unevenness > _UNEVEN:
        return Limit.FINE_ANATOMY, ""
    added = [one.air.median_square / one.signal**2 for one in slices if one.air is not None and not one.air.masked]
    if added and float(np.median(added)) > _ADDED:
        return Limit.MANY_COILS, f"noise makes up {float(np.median(added)):.0%} of the signal's square"
    return None, ""
