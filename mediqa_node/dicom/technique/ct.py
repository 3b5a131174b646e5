"""Find the effective tube charge of a CT image among numbers with different meanings.

`Exposure (0018,1152)` is not one quantity. The standard makes it effective mAs in spiral scans (time
= revolution time / pitch, PS3.3 C.8.15.3.8); Siemens and Philips comply; Canon writes mA x rotation time on some
generations; GE scales it with the reconstructed slice thickness, so that the same scan reads 4 mAs at 1.25 mm and 14 at
5 mm. Pooling raw tags would label vendor and thickness instead of dose. The first rule below that applies wins, and
every raw number is kept in `candidates`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mediqa_node.dicom.header import FrameHeader
from mediqa_node.dicom.technique.ct_exposure import CtReading, Tube, ct_reading, further_tubes, multi_energy_tubes
from mediqa_node.dicom.technique.dose_sr import DoseEvent
from mediqa_node.domain.technique import FrameTechnique

_RAW = (
    "ExposureInmAs", "XRayTubeCurrentInmA", "ExposureTimeInms", "Exposure", "ExposureInuAs", "XRayTubeCurrent",
    "XRayTubeCurrentInuA", "ExposureTime", "ExposureTimeInuS", "GeneratorPower", "KVP", "RevolutionTime",
    "SpiralPitchFactor", "TableFeedPerRotation", "TotalCollimationWidth", "CTDIvol",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """A tube charge and the rule that chose it."""

    mas: float
    source: str
    definition: str
    flags: tuple[str, ...] = ()


def differs(a: float | None, b: float | None, tolerance: float = 0.05) -> bool:
    """Whether two known values differ by more than a fraction of the second."""
    return a is not None and b is not None and abs(a - b) > tolerance * abs(b)


def _functional_group(r: CtReading) -> Choice | None:
    if r.fg_mas:
        return Choice(r.fg_mas, "fg_exposure", "effective" if r.helical else "per_rotation")
    if r.enhanced and r.ma_t_mas:
        return Choice(r.ma_t_mas, "fg_ma_ms", "effective" if r.helical else "per_rotation")
    return None


def _helical(r: CtReading) -> Choice | None:
    if r.helical and r.rotation_mas and r.pitch and (r.ge or not (r.tag_mas or r.fine_mas)):
        return Choice(r.rotation_mas / r.pitch, "ma_rot_pitch", "effective")
    return None


def _axial(r: CtReading) -> Choice | None:
    """GE step-and-shoot, or any axial image with a tag that contradicts mA x t; cine counts one rotation."""
    unknown_ge = r.ge and r.helical is None and not differs(r.tag_mas, r.ma_t_mas)
    known = r.helical is False and (r.ge or differs(r.tag_mas, r.ma_t_mas))
    if r.ma_t_mas is None or not (known or unknown_ge):
        return None
    cine = r.rotation_s is not None and r.time_s is not None and r.time_s > 1.5 * r.rotation_s
    mas = r.rotation_mas if cine and r.rotation_mas else r.ma_t_mas
    return Choice(mas, "ma_t", "per_rotation", ("cine",) if cine else ())


def _exposure(r: CtReading) -> Choice | None:
    if r.ge or not (r.tag_mas or r.fine_mas):
        return None
    fine = r.fine_mas is not None and (r.tag_mas is None or abs(r.fine_mas - r.tag_mas) <= 0.5)
    mas = r.fine_mas if fine else r.tag_mas
    assert mas is not None
    return Choice(mas, "exposure_uas" if fine else "exposure", _definition(r, mas))


def _definition(r: CtReading, mas: float) -> str:
    """Classify mAs as effective or per rotation: by arithmetic if rotation and pitch are known, else by vendor."""
    if r.helical is False:
        return "per_rotation"
    if r.rotation_mas and r.pitch:
        if not differs(mas, r.rotation_mas / r.pitch):
            return "effective"
        if not differs(mas, r.rotation_mas):
            return "per_rotation"
    return "effective" if r.helical and r.vendor in ("siemens", "philips") else "unknown"


def _time(r: CtReading) -> Choice | None:
    return Choice(r.ma_t_mas, "ma_t", "unknown") if r.ma_t_mas and not r.ge else None


def _dose_report(r: CtReading) -> Choice | None:
    mas = r.dose.tube_charge_mas if r.dose else None
    return Choice(mas, "rdsr", "effective", ("per_series_value",)) if mas else None


def _ge_exposure(r: CtReading) -> Choice | None:
    """Return the slice-scaled tag itself, which is a part of mA x t and cannot exceed it."""
    possible = r.tag_mas is not None and (r.ma_t_mas is None or r.tag_mas <= 1.05 * r.ma_t_mas)
    if r.ge and r.tag_mas and possible:
        return Choice(r.tag_mas, "exposure", "slice_scaled", ("ge_exposure_unverified",))
    return None


def _ge_time(r: CtReading) -> Choice | None:
    return Choice(r.ma_t_mas, "ma_t", "unknown", ("ge_exposure_unverified",)) if r.ge and r.ma_t_mas else None


# The precedence of tube charge: the order matters.
RULES: tuple[Callable[[CtReading], Choice | None], ...] = (
    _functional_group, _helical, _axial, _exposure, _time, _dose_report, _ge_exposure, _ge_time,
)  # fmt: skip


def read_ct(header: FrameHeader, z_mm: float | None, dose: DoseEvent | None) -> tuple[FrameTechnique, str | None]:
    """Return the technique of one CT image and the definition of its tube charge.

    Args:
        z_mm: position along the slice normal, mm.
        dose: the image's irradiation event in a dose report, if there is one.

    Returns:
        candidates hold every raw number by DICOM keyword; definition is `effective`,
        `per_rotation`, `slice_scaled`, `unknown`, or None without a value.
    """
    flags: list[str] = []
    candidates: dict[str, float | str] = {
        key: value for key in _RAW if (value := header.number(key, flags=flags)) is not None
    }
    reading = ct_reading(header, dose, flags)
    derived = {"rotation_s": reading.rotation_s, "pitch": reading.pitch, "ma_t_mas": reading.ma_t_mas,
               "rdsr_mas": dose.tube_charge_mas if dose else None,
               "rdsr_exposure_mas": dose.exposure_mas if dose else None}  # fmt: skip
    candidates |= {name: value for name, value in derived.items() if value is not None}
    choice = next((choice for rule in RULES if (choice := rule(reading)) is not None), None)
    choice = _all_tubes(header, reading, choice, candidates)
    if differs(reading.tag_mas, reading.ma_t_mas):
        flags.append("exposure_differs_from_ma_t")
    if reading.helical is None:
        flags.append("scan_mode_unknown")
    if choice is not None and choice.definition == "per_rotation" and reading.helical and differs(reading.pitch, 1.0):
        flags.append("not_divided_by_pitch")
    frame = FrameTechnique(
        sop_instance_uid=header.text("SOPInstanceUID"),
        frame_number=header.frame_number,
        z_mm=z_mm,
        tube_current_ma=reading.current_ma,
        tube_charge_mas=choice.mas if choice else None,
        field_strength_t=None,
        ctdi_vol_mgy=reading.ctdi_vol_mgy,
        source=choice.source if choice else None,
        candidates=candidates,
        flags=tuple(dict.fromkeys((*flags, *(choice.flags if choice else ())))),
    )
    return frame, choice.definition if choice else None


def _all_tubes(
    header: FrameHeader, reading: CtReading, choice: Choice | None, candidates: dict[str, float | str]
) -> Choice | None:
    """Add the charge of further X-ray sources at the same voltage; at different voltages a sum is meaningless.

    With several sources PS3.3 C.8.2.2 forbids root values that differ between them, so multi-energy images often have
    them only in Multi-energy CT Acquisition Sequence (0018,9362).
    """
    energies = multi_energy_tubes(header)
    if energies and (choice is None or choice.source == "rdsr"):
        _keep(candidates, "multi_energy", energies)
        if any(tube.mas is None or differs(tube.kvp_kv, energies[0].kvp_kv, 0.01) for tube in energies):
            return None
        total = sum(tube.mas or 0.0 for tube in energies)
        return Choice(total, "fg_exposure", "effective", ("multi_energy",))
    further = further_tubes(header)
    if choice is None or not further:
        return choice
    _keep(candidates, "additional_source", further)
    if any(tube.kvp_kv is None or tube.mas is None or differs(tube.kvp_kv, reading.kvp_kv, 0.01) for tube in further):
        return replace(choice, flags=(*choice.flags, "dual_source_not_added"))
    total = choice.mas + sum(tube.mas or 0.0 for tube in further)
    return replace(choice, mas=total, flags=(*choice.flags, "dual_source_added"))


def _keep(candidates: dict[str, float | str], name: str, tubes: tuple[Tube, ...]) -> None:
    for index, tube in enumerate(tubes, start=1):
        values = {"kvp": tube.kvp_kv, "ma": tube.current_ma, "mas": tube.mas}
        candidates |= {f"{name}_{index}_{key}": value for key, value in values.items() if value is not None}
