"""Repair the field strength of an MR image, snap it to its nominal value, and read other factors of its SNR.

Magnetic Field Strength (0018,0087) should be in tesla; scanners and converters also write gauss (15000), millitesla
(1494) or nothing at all. The resonance frequency gives the field in a reliable unit: B0 = f / (gamma / 2 pi). Training
uses the nominal field, because 1.494, 1.49399 and 1.5 are the same magnet.
"""

import math
import re
from dataclasses import dataclass

from mediqa_node.dicom.header import FrameHeader
from mediqa_node.domain.technique import FrameTechnique

# gamma / 2 pi in MHz per tesla.
GYROMAGNETIC_MHZ_T = {"1H": 42.577478, "31P": 17.235, "13C": 10.708, "19F": 40.078, "23NA": 11.262, "129XE": 11.777}
# Existing magnets. 10.5 T is a human scanner; it makes 10000 (1 T in gauss) ambiguous.
NOMINAL_T = (
    0.064, 0.1, 0.2, 0.23, 0.3, 0.35, 0.4, 0.5, 0.55, 0.6, 0.7, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 4.7, 5.0, 7.0, 9.4, 10.5,
    11.7,
)  # fmt: skip
RANGE_T = (0.01, 21.1)
_UNITS = {"tesla": 1.0, "millitesla": 1e-3, "gauss": 1e-4, "kilogauss": 0.1}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldStrength:
    """A field strength and how it was derived.

    Attributes:
        tesla: flux density, T, or None if the header leaves it open.
        nominal_t: nominal value of the magnet, or None if none is within 6 %.
        source: `tesla_tag`, `imaging_frequency` or None.
    """

    tesla: float | None
    nominal_t: float | None
    source: str | None
    flags: tuple[str, ...] = ()


def nominal(tesla: float | None) -> float | None:
    """Return the nearest magnet within 6 %, or None."""
    if not tesla:
        return None
    nearest = min(NOMINAL_T, key=lambda t: abs(math.log(t / tesla)))
    return nearest if abs(tesla - nearest) <= 0.06 * nearest else None


def field_strength(tag: float | None, frequency: float | None, nucleus: str = "1H") -> FieldStrength:
    """Return the field from the tag, in any unit, and the resonance frequency.

    Args:
        tag: Magnetic Field Strength (0018,0087) as written.
        frequency: Imaging Frequency (0018,0084) or Transmitter Frequency (0018,9098), MHz; from 1e6 in Hz.
        nucleus: Imaged Nucleus (0018,0085) as written: `1H`, `H1`, `31P`, ...

    Returns:
        with `ambiguous_unit` and no value if the unit is open (3000 may be 3 T in mT or 0.3 T in gauss).
    """
    by_frequency = _from_frequency(frequency, nucleus)
    if tag is None:
        source = "imaging_frequency" if by_frequency else None
        return FieldStrength(tesla=by_frequency, nominal_t=nominal(by_frequency), source=source)
    candidates = {unit: tag * f for unit, f in _UNITS.items() if RANGE_T[0] <= tag * f <= RANGE_T[1]}
    if by_frequency:
        unit = min(candidates, key=lambda u: abs(math.log(candidates[u] / by_frequency)), default=None)
        if unit is None or abs(candidates[unit] - by_frequency) > 0.05 * by_frequency:
            return FieldStrength(
                tesla=by_frequency,
                nominal_t=nominal(by_frequency),
                source="imaging_frequency",
                flags=("field_vs_freq_mismatch",),
            )
    elif tag <= RANGE_T[1]:
        unit = "tesla" if "tesla" in candidates else None
    else:
        near = [u for u in ("gauss", "millitesla") if u in candidates and _near_nominal(candidates[u])]
        if len(near) > 1:
            return FieldStrength(tesla=None, nominal_t=None, source=None, flags=("ambiguous_unit",))
        unit = near[0] if near else None
    if unit is None:
        return FieldStrength(tesla=None, nominal_t=None, source=None, flags=("out_of_range:MagneticFieldStrength",))
    flags = () if unit == "tesla" else (f"unit_{unit}",)
    return FieldStrength(tesla=candidates[unit], nominal_t=nominal(candidates[unit]), source="tesla_tag", flags=flags)


def _near_nominal(tesla: float) -> bool:
    return any(abs(tesla - t) <= 0.05 * t for t in NOMINAL_T)


def _from_frequency(frequency: float | None, nucleus: str) -> float | None:
    digits, letters = re.search(r"\d+", nucleus), re.search(r"[A-Z]+", nucleus.upper())
    name = f"{digits.group() if digits else '1'}{letters.group() if letters else 'H'}"
    gamma = GYROMAGNETIC_MHZ_T.get(name)
    if not frequency or gamma is None:
        return None
    tesla = (frequency / 1e6 if frequency >= 1e6 else frequency) / gamma
    return tesla if RANGE_T[0] <= tesla <= RANGE_T[1] else None


def read_mr(header: FrameHeader, z_mm: float | None) -> tuple[FrameTechnique, FieldStrength]:
    """Return the technique of one MR image and how its field strength was found.

    Args:
        z_mm: position along the slice normal, mm.
    """
    flags: list[str] = []
    tag = header.number("MagneticFieldStrength", flags=flags)
    frequency = header.number("TransmitterFrequency") or header.number("ImagingFrequency", flags=flags)
    nucleus = header.text("ImagedNucleus") or header.text("ResonantNucleus")
    field = field_strength(tag, frequency, nucleus or "1H")
    raw = {"MagneticFieldStrength": tag, "ImagingFrequency": frequency, "ImagedNucleus": nucleus or None}
    frame = FrameTechnique(
        sop_instance_uid=header.text("SOPInstanceUID"),
        frame_number=header.frame_number,
        z_mm=z_mm,
        tube_current_ma=None,
        tube_charge_mas=None,
        field_strength_t=field.tesla,
        ctdi_vol_mgy=None,
        source=field.source,
        candidates={key: value for key, value in raw.items() if value is not None},
        flags=tuple(dict.fromkeys((*flags, *field.flags))),
    )
    return frame, field


def mr_covariates(header: FrameHeader) -> dict[str, float | str | None]:
    """Return the covariates of SNR other than B0: voxel, averages, bandwidth, coil, timing; units in the names."""
    spacing, thickness_mm = header.numbers("PixelSpacing"), header.number("SliceThickness")
    fov_mm = tuple(s * n for s, n in zip(spacing, _matrix(header), strict=False))
    acquired = [int(n) for n in header.numbers("AcquisitionMatrix")]
    voxel_mm3 = spacing[0] * spacing[1] * thickness_mm if len(spacing) == 2 and thickness_mm else None
    acquired_mm3 = (
        fov_mm[0] * fov_mm[1] * thickness_mm / (acquired[0] * acquired[1])
        if len(fov_mm) == len(acquired) == 2 and thickness_mm
        else None
    )
    return {
        "manufacturer": header.text("Manufacturer"),
        "model": header.text("ManufacturerModelName"),
        "echo_time_ms": header.number("EffectiveEchoTime") or header.number("EchoTime"),
        "repetition_time_ms": header.number("RepetitionTime"),
        "inversion_time_ms": header.number("InversionTimes") or header.number("InversionTime"),
        "flip_angle_deg": header.number("FlipAngle"),
        "echo_train_length": header.number("RFEchoTrainLength") or header.number("EchoTrainLength"),
        "averages": header.number("NumberOfAverages"),
        "pixel_bandwidth_hz": header.number("PixelBandwidth"),
        "coil": header.text("ReceiveCoilName") or None,
        "coil_type": header.text("ReceiveCoilType") or None,
        "phase_encoding_steps": header.number("MRAcquisitionPhaseEncodingStepsInPlane")
        or header.number("NumberOfPhaseEncodingSteps"),
        "sampling_percent": header.number("PercentSampling"),
        "phase_fov_percent": header.number("PercentPhaseFieldOfView"),
        "acceleration_in_plane": header.number("ParallelReductionFactorInPlane"),
        "acceleration_out_of_plane": header.number("ParallelReductionFactorOutOfPlane"),
        "partial_fourier": header.text("PartialFourier") or None,
        "acquisition_duration_s": header.number("AcquisitionDuration"),
        "slice_thickness_mm": thickness_mm,
        "voxel_volume_mm3": voxel_mm3,
        "acquired_voxel_volume_mm3": acquired_mm3,
        "scanning_sequence": "\\".join(header.codes("ScanningSequence")) or None,
        "sequence_variant": "\\".join(header.codes("SequenceVariant")) or None,
        "sequence_name": header.text("SequenceName") or header.text("PulseSequenceName") or None,
        "acquisition_type": header.text("MRAcquisitionType") or None,
        "image_type": "\\".join(header.codes("ImageType")) or None,
        "contrast_agent": "yes" if header.text("ContrastBolusAgent") else None,
    }


def _matrix(header: FrameHeader) -> tuple[float, ...]:
    return tuple(n for key in ("Rows", "Columns") if (n := header.number(key)) is not None)
