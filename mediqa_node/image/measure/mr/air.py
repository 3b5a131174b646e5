"""Tell by the distribution of the air whether it is the noise of a single coil, and measure it if so.

Method: the magnitude of complex Gaussian noise of one coil has a Rayleigh distribution: mean over standard deviation
1.913, skewness 0.631. Air that has both, in each quarter of the image with enough of it the same level, is such
noise, and the root of half its mean square is the standard deviation of the real part (Henkelman 1985, Med Phys 12).
n coils, combined by the sum of squares, have a larger ratio, 3.94 for 4 of them (Constantinides, Atalar and McVeigh
1997, doi 10.1002/mrm.1910380524). How much they add to the signal follows from the air's mean square alone.

Assumptions: the air is seen by the same noise as the body.

Breaks where: air was masked or smoothed, the noise is less than a step of the pixel values, parallel imaging or
normalisation make noise differ between air and body (Dietrich et al. 2007, doi 10.1002/jmri.20969); such air mostly
fails the test.
"""

from dataclasses import dataclass

import numpy as np

from mediqa_node.image.measure.mr.noise import RAYLEIGH
from mediqa_node.image.measure.mr.regions import Regions

SKEWNESS = 0.631
_RATIO_WITHIN = 0.08
_SKEWNESS_WITHIN = 0.12
_QUARTERS_WITHIN = 0.12
_FEWEST_PX = 400
_FEWEST_IN_QUARTER_PX = 150
_MASKED = 0.02
_FEWEST_STEPS = 4


@dataclass(frozen=True, slots=True)
class Air:
    """The air of one slice.

    Attributes:
        mean_square: of the magnitude, 2 n sigma^2 for n coils.
        median_square: the same by the median, which tissue outside of the body's mask does not raise.
        ratio: mean over standard deviation.
        single_coil: whether its distribution is that of a single coil.
        masked: whether parts of it have one value.
    """

    mean_square: float
    median_square: float
    ratio: float
    single_coil: bool
    masked: bool

    @property
    def sigma(self) -> float:
        """Return the standard deviation of the real part; true where `single_coil` is."""
        return float(np.sqrt(self.mean_square / 2))


def air_noise(image: np.ndarray, found: Regions) -> Air | None:
    """Return what the air of a slice (rows, columns) is like; None where there are less than 400 pixels of it."""
    values = image[found.air].astype(np.float64)
    if values.size < _FEWEST_PX or values.std() <= 0:
        return None
    mean, deviation = float(values.mean()), float(values.std())
    standard = (values - mean) / deviation
    skewness = float((standard * standard * standard).mean())
    masked = float(found.flat[found.air].mean()) > _MASKED
    rayleigh = abs(mean / deviation - RAYLEIGH) < _RATIO_WITHIN and abs(skewness - SKEWNESS) < _SKEWNESS_WITHIN
    return Air(
        mean_square=float((values**2).mean()),
        median_square=float(np.median(values) ** 2),
        ratio=mean / deviation,
        single_coil=rayleigh and not masked and _even(image, found.air) and _fine(values),
        masked=masked,
    )


def _fine(values: np.ndarray) -> bool:
    """Tell whether the noise takes more than four of the values that pixels can have."""
    return len(np.unique(values)) > _FEWEST_STEPS


def _even(image: np.ndarray, air: np.ndarray) -> bool:
    """Tell whether the quarters of the image have the same level of noise."""
    rows, columns = (size // 2 for size in image.shape)
    levels = [
        float(np.sqrt((image[part][air[part]].astype(np.float64) ** 2).mean()))
        for part in np.ndindex(2, 2)
        for part in [(slice(part[0] * rows, (part[0] + 1) * rows), slice(part[1] * columns, (part[1] + 1) * columns))]
        if air[part].sum() >= _FEWEST_IN_QUARTER_PX
    ]
    return bool(levels) and max(levels) <= (1 + _QUARTERS_WITHIN) * min(levels)
