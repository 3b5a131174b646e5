"""Measurements of a phantom, which replace a score."""

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSlice:
    """One slice of a round, even phantom.

    Attributes:
        mean: of the central region: HU, or MR signal.
        noise: standard deviation of the central region, same unit.
        uniformity: CT: largest |peripheral - central| mean, HU; MR: percent integral uniformity, 0..100.
        diameter_px: of the disc.
        centre_px: its centre, row and column.
    """

    mean: float
    noise: float
    uniformity: float
    diameter_px: float
    centre_px: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomMeasurement:
    """Measurement of a phantom series: medians over the slices.

    Attributes:
        rule: name of the site's rule that named it a phantom.
        acquired_at: date and time of acquisition as recorded, `2026-11-20 10:15:00`; missing parts are left out.
    """

    series_instance_uid: str
    modality: str
    station_name: str
    rule: str
    acquired_at: str
    slices: tuple[PhantomSlice, ...]

    @property
    def mean(self) -> float:
        """HU, or MR signal."""
        return median(part.mean for part in self.slices)

    @property
    def noise(self) -> float:
        """Standard deviation, HU or MR signal."""
        return median(part.noise for part in self.slices)

    @property
    def uniformity(self) -> float:
        """HU for CT, percent for MR; see PhantomSlice."""
        return median(part.uniformity for part in self.slices)

    def finding(self) -> str:
        """Return the measurement as one line with units."""
        if self.modality == "CT":
            return f"mean {self.mean:.1f} HU, noise {self.noise:.1f} HU, uniformity {self.uniformity:.1f} HU"
        return f"mean {self.mean:.1f}, noise {self.noise:.1f}, uniformity {self.uniformity:.1f} %"
