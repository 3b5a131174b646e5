"""Measure ghosts in the air beside the body: signal that phase encoding put where nothing is.

Method: ghosts are displaced along phase encoding only. Air that shares its place along readout with the body can hold
them; air outside of the body's extent along readout cannot, and gives the noise floor. In both, the mean square over
5 x 5 pixels is taken, and the median of it over the air; the difference (E m^2 = A^2 + 2 sigma^2 for one coil,
2 n sigma^2 for n) is the ghosts' power, whose root over the median signal of the body is the ratio. After the ghosting
ratio of the ACR's quality control manual for MRI, 2015, with powers instead of means, so that it is linear above the
floor, and medians, so that skin or a coil that the body's mask misses does not count.

Assumptions: the noise of both parts of the air is the same.

Breaks where: the body fills the image along readout (no reference) or phase (no place for ghosts); the air was masked;
noise varies in space (correction of coil sensitivity, parallel imaging); limbs outside of the field of view fold in,
or dark tissue takes up much of what counts as air (`bright`). Ghosts on less than half of the air do not count.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mediqa_node.domain.measures import Limit
from mediqa_node.image.measure.mr.regions import Regions

_FEWEST_PX = 60
_FEWEST_SHARE = 0.01
_MASKED = 0.1
_BRIGHT = 0.15
_SQUARE_PX = 5


@dataclass(frozen=True, slots=True)
class Ghosts:
    """The air of one slice.

    Attributes:
        along_phase, reference: mean squares beside the body along phase encoding and outside of its extent, over the
            square of the signal.
        bright: whether a tenth of the air along phase encoding exceeds 15 % of the signal: rather tissue.
    """

    along_phase: float
    reference: float
    bright: bool

    @property
    def ratio(self) -> float:
        """Return the ghost's amplitude over the body's signal; 0.0 below the noise."""
        return float(np.sqrt(max(0.0, self.along_phase - self.reference)))


def ghosts(image: np.ndarray, found: Regions, phase_axis: int) -> Ghosts | Limit:
    """Return the ghosts of a slice (rows, columns), or why they cannot be measured.

    Args:
        phase_axis: of the image, along which phase was encoded.
    """
    beside, beyond = parts(found, phase_axis)
    fewest = max(_FEWEST_PX, _FEWEST_SHARE * image.size)
    if min(beside.sum(), beyond.sum()) < fewest:
        return Limit.NO_AIR
    if max(float(found.flat[beside].mean()), float(found.flat[beyond].mean())) > _MASKED:
        return Limit.MASKED_AIR
    signal = float(np.median(image[found.body]))
    if signal <= 0:
        return Limit.LOW_SIGNAL
    power = (image.astype(np.float64) / signal) ** 2
    local = [_local_mean(power, part) for part in (beside, beyond)]
    return Ghosts(
        along_phase=float(np.median(local[0])),
        reference=float(np.median(local[1])),
        bright=float(np.quantile(local[0], 0.9)) > _BRIGHT**2,
    )


def _local_mean(power: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return the mean over the pixels of a part within 5 x 5, for each of its pixels."""
    total, count = (
        ndimage.uniform_filter(values, _SQUARE_PX, mode="constant") for values in (power * part, part * 1.0)
    )
    return np.asarray((total / np.maximum(count, 1e-9))[part])


def parts(found: Regions, phase_axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the air beside the body along phase encoding, and that beyond the body's extent along readout."""
    reached = (~found.air).any(axis=phase_axis, keepdims=True)
    body = found.body.any(axis=phase_axis, keepdims=True)
    return found.air & body, found.air & ~reached
