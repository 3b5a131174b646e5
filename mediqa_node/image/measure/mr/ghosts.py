"""Measure ghosts in the air beside the body: signal that phase encoding put where nothing is.

Method: ghosts are displaced along phase encoding only. Air that shares its place along readout with the body can hold
them; air outside of the body's extent along readout cannot, and gives the noise floor. The mean square of the latter is
subtracted from that of the former (E m^2 = A^2 + 2 sigma^2 for one coil and 2 n sigma^2 for n), and the root over the
median signal of the body is the ratio: after the ghosting ratio of the ACR's quality control manual for MRI, with
powers instead of means so that it is linear in the ghost above the floor.

Assumptions: the noise of both parts of the air is the same.

Breaks where: the body fills the image along readout (no reference) or phase (no place for ghosts); the air was masked;
noise varies in space (correction of coil sensitivity, parallel imaging); limbs outside of the field of view fold in.
The value is diluted where ghosts cover only a part of the air.
"""

from dataclasses import dataclass

import numpy as np

from mediqa_node.domain.measures import Limit
from mediqa_node.image.measure.mr.regions import Regions, flat

_FEWEST_PX = 60
_FEWEST_SHARE = 0.01
_MASKED = 0.1


@dataclass(frozen=True, slots=True)
class Ghosts:
    """The air of one slice: mean squares along phase encoding and outside of the body's extent, over the signal's."""

    along_phase: float
    reference: float

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
    blank = flat(image)
    if max(float(blank[beside].mean()), float(blank[beyond].mean())) > _MASKED:
        return Limit.MASKED_AIR
    signal = float(np.median(image[found.body]))
    if signal <= 0:
        return Limit.LOW_SIGNAL
    power = (image.astype(np.float64) / signal) ** 2
    return Ghosts(along_phase=float(power[beside].mean()), reference=float(power[beyond].mean()))


def parts(found: Regions, phase_axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the air beside the body along phase encoding, and that beyond the body's extent along readout."""
    reached = (~found.air).any(axis=phase_axis, keepdims=True)
    body = found.body.any(axis=phase_axis, keepdims=True)
    return found.air & body, found.air & ~reached
