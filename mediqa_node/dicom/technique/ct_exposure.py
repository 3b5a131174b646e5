"""Read the exposure of a CT image: standard attributes first, private ones as a fallback.

Each quantity has one unit. Classic values are at the root (PS3.3 C.8.2.1), Enhanced ones in functional groups
(C.8.15.3). Private elements are found by their creator and were tested on few files, so a value is accepted only
within a plausible range.
"""

import re
from dataclasses import dataclass

from pydicom import Dataset

from mediqa_node.dicom.header import FrameHeader, items, number, private_creators
from mediqa_node.dicom.technique.ctdi_phantom import phantom_cm
from mediqa_node.dicom.technique.dose_sr import DoseEvent

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
# The limits of a diagnostic CT; a number outside of them is an encoding error.
RANGES = {"mas": (0.5, 3000.0), "ma": (1.0, 2000.0), "kvp": (40.0, 160.0), "time_s": (0.001, 600.0)}
SAME_CTDI = 0.2
"""Of the report's mean: a header's CTDIvol nearer to it is of the same phantom; the other phantom's differs by half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CtReading:
    """The recorded exposure of one CT image, one unit per quantity; None where absent.

    Attributes:
        fg_mas: ExposureInmAs (0018,9332) of an Enhanced object: effective mAs by definition.
        tag_mas: Exposure (0018,1152); `fine_mas`: ExposureInuAs (0018,1153) / 1000.
        time_s: ExposureTime; on GE the total beam-on time of the image, elsewhere per rotation.
        helical: None if the header does not state the scan mode.
        ctdi_vol_mgy: of the header, else of the dose report.
        ctdi_phantom_cm: 16 or 32, the IEC phantom of `ctdi_vol_mgy`; None for any other, or none.
    """

    vendor: str
    enhanced: bool
    helical: bool | None
    fg_mas: float | None
    tag_mas: float | None
    fine_mas: float | None
    current_ma: float | None
    time_s: float | None
    rotation_s: float | None
    pitch: float | None
    kvp_kv: float | None
    ctdi_vol_mgy: float | None
    ctdi_phantom_cm: int | None
    dose: DoseEvent | None

    @property
    def ge(self) -> bool:
        """Whether Exposure follows GE's slice-scaled definition."""
        return self.vendor == "ge"

    @property
    def ma_t_mas(self) -> float | None:
        """Tube current x exposure time, mAs."""
        return self.current_ma * self.time_s if self.current_ma and self.time_s else None

    @property
    def rotation_mas(self) -> float | None:
        """Tube current x rotation time, mAs per rotation."""
        return self.current_ma * self.rotation_s if self.current_ma and self.rotation_s else None


@dataclass(frozen=True, slots=True)
class Tube:
    """One X-ray source of several: voltage in kV, current in mA, effective charge in mAs."""

    kvp_kv: float | None
    current_ma: float | None
    mas: float | None


def ct_reading(header: FrameHeader, dose: DoseEvent | None, flags: list[str]) -> CtReading:
    """Convert each quantity to one unit; values out of physical range are dropped with a flag."""

    def value(key: str, kind: str, unit: float = 1.0) -> float | None:
        found = header.number(key)
        low, high = RANGES[kind]
        if found is None or low <= found * unit <= high:
            return None if found is None else found * unit
        flags.append(f"out_of_range:{key}")
        return None

    pitch = ct_pitch(header)
    ctdi_vol_mgy, ctdi_phantom_cm = _ctdi(header, dose, flags)
    return CtReading(
        vendor=ct_vendor(header),
        enhanced=header.text("SOPClassUID") == ENHANCED_CT,
        helical=is_helical(header, pitch),
        fg_mas=value("ExposureInmAs", "mas"),
        tag_mas=value("Exposure", "mas"),
        fine_mas=value("ExposureInuAs", "mas", 1e-3),
        current_ma=value("XRayTubeCurrentInmA", "ma")
        or value("XRayTubeCurrent", "ma")
        or value("XRayTubeCurrentInuA", "ma", 1e-3)
        or _current_from_power(header, flags),
        time_s=value("ExposureTimeInms", "time_s", 1e-3)
        or value("ExposureTime", "time_s", 1e-3)
        or value("ExposureTimeInuS", "time_s", 1e-6),
        rotation_s=rotation_time_s(header),
        pitch=pitch,
        kvp_kv=value("KVP", "kvp"),
        ctdi_vol_mgy=ctdi_vol_mgy,
        ctdi_phantom_cm=ctdi_phantom_cm,
        dose=dose,
    )


def _ctdi(header: FrameHeader, dose: DoseEvent | None, flags: list[str]) -> tuple[float | None, int | None]:
    """Return CTDIvol, mGy, and the diameter of its phantom, cm: from the header, else both from the dose report.

    A header without phantom is taken to mean that of the report where both state the same dose.
    """
    found = header.number("CTDIvol") or next(
        (x for x in header.private_numbers(0x7005, "TOSHIBA_MEC_CT3", 0x63) if x > 0), None
    )
    codes = header.items("CTDIPhantomTypeCodeSequence")
    stated = phantom_cm(codes[0]) if codes else None
    if dose is None or dose.ctdi_vol_mgy is None:
        return found, stated
    if not found:
        flags.append("ctdi_vol_from_report")
        return dose.ctdi_vol_mgy, dose.ctdi_phantom_cm
    same = abs(found - dose.ctdi_vol_mgy) <= SAME_CTDI * dose.ctdi_vol_mgy
    return found, dose.ctdi_phantom_cm if same and not codes else stated


def ct_vendor(header: FrameHeader) -> str:
    """Return `ge`, `siemens`, `philips`, `canon` or ""; GE also by private creator, because names may be blanked."""
    name = header.text("Manufacturer").lower()
    if re.match(r"ge\b|general electric", name) or any(c.startswith("GEMS_") for c in private_creators(header.dataset)):
        return "ge"
    patterns = {"siemens": "siemens", "philips": "philips", "canon": "canon|toshiba"}
    return next((vendor for vendor, pattern in patterns.items() if re.search(pattern, name)), "")


def is_helical(header: FrameHeader, pitch: float | None) -> bool | None:
    """Whether the table moved during rotation, by Acquisition Type (0018,9302), else Scan Options, else pitch."""
    kind = header.codes("AcquisitionType")
    options = " ".join((*header.codes("ScanOptions"), *header.codes("ImageType")[3:]))
    if "SPIRAL" in kind or re.search(r"HELI|SPIRAL|CT_SOM\d+ SPI", options):
        return True
    # AXIAL in Image Type may also mean the plane, so the mode is taken from Scan Options only.
    if kind or re.search(r"AXIAL|CINE|CT_SOM\d+ SEQ", options):
        return False
    return True if pitch else None


def rotation_time_s(header: FrameHeader) -> float | None:
    """Return Revolution Time (0018,9305), else GE's private one; both occur in s and in ms."""
    found = header.number("RevolutionTime") or next(iter(header.private_numbers(0x0019, "GEMS_ACQU_01", 0x27)), 0.0)
    if 0.1 <= found <= 10:
        return found
    return found / 1000 if 100 <= found <= 10_000 else None


def ct_pitch(header: FrameHeader) -> float | None:
    """Return Spiral Pitch Factor (0018,9311), else feed / collimation, else a vendor's private value."""
    feed_mm = header.number("TableFeedPerRotation") or next(
        (abs(x) for x in header.private_numbers(0x0019, "GEMS_ACQU_01", 0x23)), None
    )
    collimation_mm = header.number("TotalCollimationWidth")
    ratio = re.match(r"/?([0-9.]+):1", header.private_text(0x0043, "GEMS_PARM_01", 0x27))
    canon = next(iter(header.private_numbers(0x7005, "TOSHIBA_MEC_CT3", 0x23)), None)
    found = (
        header.number("SpiralPitchFactor")
        or (feed_mm / collimation_mm if feed_mm and collimation_mm else None)
        or (float(ratio.group(1)) if ratio else None)
        or canon
    )
    return found if found and 0.05 <= found <= 10 else None


def _current_from_power(header: FrameHeader, flags: list[str]) -> float | None:
    """Estimate mA from Generator Power (0018,1170) in kW, which GE writes in W, and KVP."""
    power, kvp_kv = header.number("GeneratorPower"), header.number("KVP")
    if not power or not kvp_kv:
        return None
    current_ma = (power if power > 200 else power * 1000) / kvp_kv
    if not RANGES["ma"][0] <= current_ma <= RANGES["ma"][1]:
        return None
    flags.append("current_from_generator_power")
    return current_ma


def further_tubes(header: FrameHeader) -> tuple[Tube, ...]:
    """Return the sources of CT Additional X-Ray Source Sequence (0018,9360), root or functional group."""
    return tuple(
        Tube(number(item, "KVP"), number(item, "XRayTubeCurrentInmA"), number(item, "ExposureInmAs"))
        for item in header.items("CTAdditionalXRaySourceSequence")
    )


def multi_energy_tubes(header: FrameHeader) -> tuple[Tube, ...]:
    """Return the acquisitions of Multi-energy CT Acquisition Sequence (0018,9362); () for ordinary images."""
    return tuple(_energy(item) for item in header.items("MultienergyCTAcquisitionSequence"))


def _energy(item: Dataset) -> Tube:
    exposure = (items(item, "CTExposureSequence")[:1] or (item,))[0]
    details = (items(item, "CTXRayDetailsSequence")[:1] or (item,))[0]
    return Tube(number(details, "KVP"), number(exposure, "XRayTubeCurrentInmA"), number(exposure, "ExposureInmAs"))
