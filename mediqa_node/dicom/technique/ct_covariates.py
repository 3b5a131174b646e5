"""Read what affects the noise of a CT image in addition to tube charge: voltage, voxel, kernel, reconstruction."""

import re

from mediqa_node.dicom.header import FrameHeader
from mediqa_node.dicom.technique.ct_exposure import CtReading
from mediqa_node.domain.size_specific_dose import size_factor

# Names of reconstructions, most specific first; the last is Siemens kernel notation without a strength.
_RECON = (
    ("dlr", re.compile(r"\b(AiCE|DLIR|TrueFidelity|Precise ?Image|PIQE)\b", re.I)),
    ("mbir", re.compile(r"\b(IMR|VEO|MBIR)\b|\bFIRST (body|lung|cardiac|brain|bone)", re.I)),
    ("hybrid_ir", re.compile(r"\b(ASIR|iDose|AIDR|SAFIRE|ADMIRE|IRIS)|\bSS\d0\b|\b[BHITUQ][a-z]?\d\d[a-z]?\\\d", re.I)),
    ("fbp", re.compile(r"^[BHTU]\d\d[a-z]( |$)")),
)  # fmt: skip

# Defined Terms of Body Part Examined (PS3.16 annex L), and how they are written.
_HEAD = re.compile(r"head|brain|skull|cran|\bIAC\b|orbit|sinus|\bface|facial|pituitary|temporal", re.I)
_BODY = re.compile(r"neck|chest|thorax|lung|heart|abd|pelvi|body|spine|liver|kidney|pancreas|hip|shoulder|breast", re.I)


def ct_covariates(header: FrameHeader, reading: CtReading) -> dict[str, float | str | None]:
    """Return the covariates of CT noise; units in the names, None if absent."""
    phantom_cm = reading.ctdi_phantom_cm
    dw_mm = header.number("WaterEquivalentDiameter")
    ctdi = reading.ctdi_vol_mgy
    factor = size_factor(dw_mm, phantom_cm, body_or_head(header)) if dw_mm else None
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
        "ctdi_phantom_cm": None if phantom_cm is None else float(phantom_cm),
        "water_equivalent_diameter_mm": dw_mm,
        "ssde_mgy": ctdi * factor if ctdi and isinstance(factor, float) else None,
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


def body_or_head(header: FrameHeader) -> str | None:
    """Return `head` or `body` by Body Part Examined (0018,0015), None where it is neither, both, or missing."""
    words = header.text("BodyPartExamined")
    head, body = _HEAD.search(words), _BODY.search(words)
    return None if bool(head) == bool(body) else "head" if head else "body"


def recon_class(header: FrameHeader) -> str:
    """Return `fbp`, `hybrid_ir`, `mbir`, `dlr` or `unknown`: noise falls as mAs^-1/2 under `fbp` alone.

    Classic CT has no element for it, so it is inferred from kernel, private texts and descriptions.
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
    """Return flags of a CT series for a physicist."""
    words = f"{header.text('SeriesDescription')} {header.text('ProtocolName')}"
    cardiac = header.number("NominalPercentageOfCardiacPhase") or re.search(
        r"best\s*(dia|sys)|\d\s*% *r-?r", words, re.I
    )
    attenuation = re.search(r"(^|[^a-z])(ct ?ac|ac ?ct|ac wb)([^a-z]|$)|attenuation", words, re.I)
    cone_beam = re.search(r"cbct|cone.?beam", words, re.I)
    flags = {"cardiac_phase": cardiac, "attenuation_correction_ct": attenuation, "cone_beam": cone_beam}
    return tuple(name for name, present in flags.items() if present)
