"""Read what a CT image says of its exposure: one unit each, standard tags first, private ones by creator.

Classic values are at the root (PS3.3 C.8.2.1), Enhanced ones in functional groups (C.8.15.3). Private
fallbacks were tried on few files; each is accepted only within a plausible range.
"""

import math
import re
from dataclasses import dataclass

from pydicom import Dataset

from mediqa_node.dicom.dose_sr import DoseEvent
from mediqa_node.dicom.header import FrameHeader, items, number, private_creators, text

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
# What a diagnostic CT can do; beyond it a number is a writing error.
RANGES = {"mas": (0.5, 3000.0), "ma": (1.0, 2000.0), "kvp": (40.0, 160.0), "time_s": (0.001, 600.0)}

# Names of reconstructions, most specific first; the last is Siemens kernel notation without a strength.
_RECON = (
    ("dlr", re.compile(r"\b(AiCE|DLIR|TrueFidelity|Precise ?Image|PIQE)\b", re.I)),
    ("mbir", re.compile(r"\b(IMR|VEO|MBIR)\b|\bFIRST (body|lung|cardiac|brain|bone)", re.I)),
    ("hybrid_ir", re.compile(r"\b(ASIR|iDose|AIDR|SAFIRE|ADMIRE|IRIS)|\bSS\d0\b|\b[BHITUQ][a-z]?\d\d[a-z]?\\\d", re.I)),
    ("fbp", re.compile(r"^[BHTU]\d\d[a-z]( |$)")),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CtReading:
    """What one CT image says of its exposure, in one unit each; None where it is silent.

    Attributes:
        fg_mas: ExposureInmAs (0018,9332) of an Enhanced object: effective mAs by definition.
        tag_mas: Exposure (0018,1152); `fine_mas`: ExposureInuAs (0018,1153) / 1000.
        time_s: ExposureTime; on GE the total beam-on time of the image, elsewhere per rotation.
        helical: None where the header does not tell.
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
    """Bring what an image says to one unit each; values out of physical range are dropped with a flag."""

    def value(key: str, kind: str, unit: float = 1.0) -> float | None:
        found = header.number(key)
        low, high = RANGES[kind]
        if found is None or low <= found * unit <= high:
            return None if found is None else found * unit
        flags.append(f"out_of_range:{key}")
        return None

    pitch = ct_pitch(header)
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
        ctdi_vol_mgy=header.number("CTDIvol")
        or next((x for x in header.private_numbers(0x7005, "TOSHIBA_MEC_CT3", 0x63) if x > 0), None),
        dose=dose,
    )


def ct_vendor(header: FrameHeader) -> str:
    """Return `ge`, `siemens`, `philips`, `canon` or ""; GE also by private creator, as names get blanked."""
    name = header.text("Manufacturer").lower()
    if re.match(r"ge\b|general electric", name) or any(c.startswith("GEMS_") for c in private_creators(header.dataset)):
        return "ge"
    patterns = {"siemens": "siemens", "philips": "philips", "canon": "canon|toshiba"}
    return next((vendor for vendor, pattern in patterns.items() if re.search(pattern, name)), "")


def is_helical(header: FrameHeader, pitch: float | None) -> bool | None:
    """Whether the table moved during rotation: Acquisition Type (0018,9302), else Scan Options, else pitch."""
    kind = header.codes("AcquisitionType")
    options = " ".join((*header.codes("ScanOptions"), *header.codes("ImageType")[3:]))
    if "SPIRAL" in kind or re.search(r"HELI|SPIRAL|CT_SOM\d+ SPI", options):
        return True
    # Values of Image Type name the plane as AXIAL too, so only the options speak of the mode.
    if kind or re.search(r"AXIAL|CINE|CT_SOM\d+ SEQ", options):
        return False
    return True if pitch else None


def rotation_time_s(header: FrameHeader) -> float | None:
    """Return Revolution Time (0018,9305), else GE's private one; both are met in s and in ms."""
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


def ct_covariates(header: FrameHeader, reading: CtReading) -> dict[str, float | str | None]:
    """Return what else decides the noise of a CT image; units in the names, None where the header is silent."""
    phantom = " ".join(text(item, "CodeMeaning") for item in header.items("CTDIPhantomTypeCodeSequence")[:1])
    phantom_cm = 16.0 if re.search(r"16\s*cm|head", phantom, re.I) else 32.0 if phantom else None
    dw_mm = header.number("WaterEquivalentDiameter")
    ctdi = reading.ctdi_vol_mgy
    # SSDE by AAPM 204/220 holds for the 32 cm phantom only; another phantom has another factor.
    factor = 3.704369 * math.exp(-0.03671937 * dw_mm / 10) if dw_mm and phantom_cm == 32.0 else None
    return {
        "manufacturer": header.text("Manufacturer"),
        "model": header.text("ManufacturerModelName"),
        "kvp_kv": reading.kvp_kv,
        "rotation_time_s": reading.rotation_s,
        "pitch": reading.pitch,
        "rotation_mas_over_pitch": reading.rotation_mas / reading.pitch
        if reading.rotation_mas and reading.pitch
        else None,
        "total_collimation_mm": header.number("TotalCollimationWidth"),
        "table_feed_mm": header.number("TableFeedPerRotation"),
        "exposure_modulation": "\\".join(header.codes("ExposureModulationType")) or None,
        "ctdi_vol_mgy": ctdi,
        "ctdi_phantom_cm": phantom_cm,
        "water_equivalent_diameter_mm": dw_mm,
        "ssde_mgy": ctdi * factor if ctdi and factor else None,
        "dlp_mgy_cm": next(iter(header.private_numbers(0x7005, "TOSHIBA_MEC_CT3", 0x40)), None)
        or next(iter(header.private_numbers(0x00E1, "ELSCINT1", 0x21)), None),
        "kernel": header.text("ConvolutionKernel") or None,
        "recon_class": recon_class(header),
        "slice_thickness_mm": header.number("SliceThickness"),
        "reconstruction_diameter_mm": header.number("ReconstructionDiameter"),
        "pixel_spacing_row_mm": next(iter(header.numbers("PixelSpacing")), None),
        "pixel_spacing_column_mm": next(iter(header.numbers("PixelSpacing")[1:]), None),
        "gantry_tilt_deg": header.number("GantryDetectorTilt", signed=True),
        "filter": header.text("FilterType") or None,
        "focal_spot_mm": header.number("FocalSpots"),
        "window_center_hu": header.number("WindowCenter", signed=True),
        "window_width_hu": header.number("WindowWidth"),
        "contrast_agent": "yes" if header.text("ContrastBolusAgent") else None,
    }


def recon_class(header: FrameHeader) -> str:
    """Return `fbp`, `hybrid_ir`, `mbir`, `dlr` or `unknown`: noise falls as mAs^-1/2 under `fbp` alone.

    Classic CT does not say; kernel, private texts and descriptions hint at it.
    """
    words = [header.text(key) for key in ("ConvolutionKernel", "SeriesDescription", "ProtocolName", "FilterType")]
    words += [header.private_text(0x7005, "TOSHIBA_MEC_CT3", 0x0B)]
    words += [header.private_text(0x0053, "GEHC_CT_ADVAPP_001", 0x40)]
    found = next((name for name, pattern in _RECON if pattern.search(" ".join(words))), None)
    algorithm = header.codes("ReconstructionAlgorithm")
    if found is None and algorithm:
        found = {"FILTER_BACK_PROJ": "fbp", "ITERATIVE": "hybrid_ir"}.get(algorithm[0])
    return found or "unknown"


def ct_series_flags(header: FrameHeader) -> tuple[str, ...]:
    """Return what a physicist should know of a CT series beside its numbers."""
    words = f"{header.text('SeriesDescription')} {header.text('ProtocolName')}"
    cardiac = header.number("NominalPercentageOfCardiacPhase") or re.search(
        r"best\s*(dia|sys)|\d\s*% *r-?r", words, re.I
    )
    attenuation = re.search(r"(^|[^a-z])(ct ?ac|ac ?ct|ac wb)([^a-z]|$)|attenuation", words, re.I)
    cone_beam = re.search(r"cbct|cone.?beam", words, re.I)
    flags = {"cardiac_phase": cardiac, "attenuation_correction_ct": attenuation, "cone_beam": cone_beam}
    return tuple(name for name, present in flags.items() if present)
