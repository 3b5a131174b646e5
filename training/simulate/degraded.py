"""Input and output of a simulation: one patient slice, and degraded copies of it with their labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mediqa_node.domain.prompt import Prompt

FACTORS = {
    "CT": ("dose", "views"),
    "MR": ("noise", "ghosts", "undersampling", "resolution"),
    "OP": ("blur", "illumination", "haze", "glare", "jpeg", "noise"),
}
"""What is simulated, by modality. A copy that several factors made worse is `mixed`, the image itself `clean`."""
WORST = 0.8
"""How much of the quality of an image one factor can take: quality = product of (1 - 0.8 severity)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """One slice as the node decodes it.

    Attributes:
        key: unique; contains no patient name.
        source: never divided between splits.
        image: (rows, columns) in HU or signal, float32, or (rows, columns, 3) RGB 0..255.
        spacing_mm: of a pixel; 0 if the header has none.
        support: of MR: the acquired share of k-space along rows and columns, 0..1 of the frequencies up to Nyquist.
        own_noise: of MR: deviation of its noise as a share of the mean signal of the body; None: to be estimated.
        field_of_view: of CT: the rows and columns that copies show; None: all. Noise is that of the whole patient.
        kernel: of CT: apodisation of simulated noise, as `skimage.transform.iradon` names it; None: by the type.
        is_variant: whether another kernel, pixel size or field of view was made from the slice of a scanner.
    """

    key: str
    source: str
    prompt: Prompt
    image: np.ndarray = field(repr=False)
    spacing_mm: float
    support: tuple[float, float] = (1.0, 1.0)
    own_noise: float | None = None
    field_of_view: tuple[slice, slice] | None = None
    kernel: str | None = None
    is_variant: bool = False

    @property
    def modality(self) -> str:
        """CT, MR or OP."""
        return self.prompt.modality.value


@dataclass(frozen=True, slots=True)
class Step:
    """The degradation of one copy.

    Attributes:
        factor: one of the modality's, `mixed`, or `clean`.
        strength: 0..1 of the simulated range; None: drawn at random. Other settings of a factor are always drawn.
    """

    factor: str
    strength: float | None = None

    def between(self, low: float, high: float, random: np.random.Generator) -> float:
        """Return the setting at this strength within a range, or a uniform draw."""
        share = random.random() if self.strength is None else self.strength
        return low + share * (high - low)

    def between_logs(self, low: float, high: float, random: np.random.Generator) -> float:
        """Return the setting at this strength, or a draw, uniform in the logarithm."""
        return float(np.exp(self.between(np.log(low), np.log(high), random)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded:
    """A degraded copy, in the units of its base.

    Attributes:
        factor: the only factor applied, `mixed`, or `clean`.
        settings: drawn settings; absent for factors that were not applied.
        severities: effect of each factor on this image, measured inside the body, 0 (none) to 1.
        labels: training targets: `quality` (higher is better), and `mas` [mA.s], `tesla` [T] or `blur` [pixels of 384].
    """

    image: np.ndarray = field(repr=False)
    factor: str
    settings: Mapping[str, float]
    severities: Mapping[str, float]
    labels: Mapping[str, float]


def quality_of(severities: Mapping[str, float]) -> float:
    """Return the product of (1 - 0.8 s) over all factors, 0..1."""
    return float(np.prod([1.0 - WORST * severity for severity in severities.values()]))


def saturating(change: float, half_way: float) -> float:
    """Map a measured change, 0 or more, to a severity 0..1: 1 - exp(-change / half_way)."""
    return float(1.0 - np.exp(-max(change, 0.0) / half_way))
