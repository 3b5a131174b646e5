"""One series as a pseudonymised row of the manifest: technique, prompts and header values."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset

from mediqa_node.dicom.deidentify.instance import (
    METHODS,
    age_decade,
    clean_meaning,
    clean_text,
    identifying_words,
    patient_identity,
)
from mediqa_node.dicom.deidentify.pseudonyms import Pseudonyms
from mediqa_node.dicom.header import FrameHeader, frame_headers, text
from mediqa_node.domain.images import Stack
from mediqa_node.domain.measures import Measure, Validity
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.rating import Mos, Rating
from mediqa_node.domain.technique import REPAIRED, FrameTechnique, Technique
from mediqa_node.exchange.columns import MEASURE_COLUMNS, SCHEMA_VERSION

# Column of the manifest by covariate of the harvest (`dicom.technique`).
_COVARIATES = {
    "kvp_kv": "kvp", "rotation_time_s": "revolution_time", "pitch": "pitch",
    "total_collimation_mm": "collimation_total", "table_feed_mm": "table_feed", "ctdi_phantom_cm": "ctdi_phantom",
    "dlp_mgy_cm": "dlp",
    "water_equivalent_diameter_mm": "dw_mm", "ssde_mgy": "ssde", "recon_class": "recon_class",
    "slice_thickness_mm": "slice_thickness", "reconstruction_diameter_mm": "recon_diameter",
    "gantry_tilt_deg": "gantry_tilt", "focal_spot_mm": "focal_spot", "window_center_hu": "window_center",
    "window_width_hu": "window_width", "field_strength_t": "b0_tesla", "echo_time_ms": "te", "repetition_time_ms": "tr",
    "inversion_time_ms": "ti", "flip_angle_deg": "flip", "echo_train_length": "etl", "averages": "nsa",
    "pixel_bandwidth_hz": "pixel_bw", "phase_encoding_steps": "n_phase_enc", "sampling_percent": "pct_sampling",
    "phase_fov_percent": "pct_pfov", "acceleration_in_plane": "accel_ip", "acceleration_out_of_plane": "accel_oop",
    "acquisition_duration_s": "acq_duration", "voxel_volume_mm3": "voxel_volume",
    "acquired_voxel_volume_mm3": "acq_voxel_volume", "horizontal_field_of_view_deg": "hfov",
    "degree_of_dilation_mm": "dilation",
}  # fmt: skip
# Column by keyword, through the filter of `dicom.deidentify`.
_TEXTS = {
    "Manufacturer": "manufacturer", "ManufacturerModelName": "model", "SoftwareVersions": "software_versions",
    "ImageType": "image_type", "BodyPartExamined": "body_part_raw", "ImageLaterality": "laterality",
    "PatientSex": "patient_sex", "ExposureModulationType": "aec_type", "ConvolutionKernel": "kernel",
    "FilterType": "filter", "ReceiveCoilName": "coil", "PartialFourier": "partial_fourier",
    "ScanningSequence": "scanning_sequence", "SequenceVariant": "sequence_variant",
    "PulseSequenceName": "sequence_name", "SequenceName": "sequence_name",
    "MRAcquisitionType": "acq_type", "PupilDilated": "pupil_dilated",
}  # fmt: skip
_MAS = {"median": "mas_eff_median", "mean": "mas_eff_mean", "hmean": "mas_eff_hmean", "min": "mas_eff_min",
        "max": "mas_eff_max", "cv": "mas_eff_cv"}  # fmt: skip
_DEVICE = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "StationName")
_READ_AS_WRITTEN = frozenset({"exposure", "exposure_uas", "fg_exposure", "tesla_tag"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedSeries:
    """The facts of a series before pseudonymisation.

    Attributes:
        header: of the first frame of the primary stack.
        technique: with its frames.
        measures: of its newest content.
        acquisition: identifier shared by the reconstructions of one acquisition, or None.
        received_year: year in which the node received its first instance.
        headers_sha256, pixels_sha256: of the kept datasets, and of the middle slice; None if it is not distinctive.
    """

    header: Dataset
    stack: Stack
    prompt: Prompt
    technique: Technique
    measures: tuple[Measure, ...]
    n_instances: int
    acquisition: str | None
    received_year: str
    headers_sha256: str
    pixels_sha256: str | None


def series_row(series: DescribedSeries, pseudonyms: Pseudonyms) -> dict[str, Any]:
    """Return the row of a series, without split, label map and path."""
    frame, forbidden = _frame_header(series), identifying_words(series.header)
    row: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **_keys(series, pseudonyms),
        **_context(series, frame, forbidden),
        **{column: series.technique.covariates.get(name) for name, column in _COVARIATES.items()},
        **_geometry(series, frame),
        **_measured(series.measures),
        **_label(series.technique),
    }
    if row["label_name"] == "mas":
        row |= _ct(series.technique)
    elif row["label_name"] == "tesla":
        row |= _mr(series.technique, forbidden)
    flags = [*series.technique.flags, *series.stack.flags]
    flags += ["no_pid"] * (not text(series.header, "PatientID"))
    return row | {
        "flags": ";".join(dict.fromkeys(flags)) or None,
        "received_utc": series.received_year,
        "deid_profile": METHODS[0][1],
        "deid_options": ";".join(code for code, _ in METHODS),
    }


_MOS = ("mos", "mos_sd", "n_readers", "mos_norm", "scale_min", "scale_max")
_AS_GIVEN = (
    "criterion", "score", "scale_min", "scale_max", "scale_direction", "repeat", "experience_years", "confidence",
    "usable",
)  # fmt: skip


def opinion(mos: Mos | None) -> dict[str, Any]:
    """Return the columns of a mean opinion score."""
    return {name: getattr(mos, name) if mos else None for name in _MOS}


def rating_row(series_key: str, rating: Rating, pseudonyms: Pseudonyms) -> dict[str, Any]:
    """Return a raw rating for `annotations.csv`, without comment, date or other free text of the reader."""
    image = rating.sop_instance_uid
    return {
        "series_key": series_key,
        "instance_key": pseudonyms.key("instance", image) if image else None,
        "reader_key": pseudonyms.key("reader", rating.reader_id),
        "reading_key": pseudonyms.key("reading", rating.study_id) if rating.study_id else None,
        **{name: getattr(rating, name) for name in _AS_GIVEN},
    }


def slice_rows(series_key: str, frames: Iterable[FrameTechnique], pseudonyms: Pseudonyms) -> list[dict[str, Any]]:
    """Return the rows of a series' frames for `slices.parquet`, in order of position."""
    rows = [
        {
            "series_key": series_key,
            "instance_key": pseudonyms.key("instance", frame.sop_instance_uid),
            "flags": ";".join(frame.flags) or None,
            **{name: getattr(frame, name) for name in ("frame_number", "z_mm", "tube_current_ma", "tube_charge_mas")},
            **{name: getattr(frame, name) for name in ("field_strength_t", "ctdi_vol_mgy", "source")},
        }
        for frame in frames
    ]
    return sorted(rows, key=lambda row: (row["z_mm"] or 0.0, row["instance_key"], row["frame_number"] or 0))


def _frame_header(series: DescribedSeries) -> FrameHeader:
    frames = frame_headers(series.header)
    return frames[min(series.stack.frames[0].frame_number or 1, len(frames)) - 1]


def _keys(series: DescribedSeries, pseudonyms: Pseudonyms) -> dict[str, Any]:
    header = series.header
    device = [text(header, name) for name in _DEVICE]

    def key(domain: str, *parts: str) -> str | None:
        return pseudonyms.key(domain, *parts) if any(parts) else None

    return {
        "patient_key": pseudonyms.patient(patient_identity(header)),
        "study_key": key("study", series.stack.study_instance_uid),
        "series_key": key("series", series.stack.series_instance_uid),
        # within its study: some devices give every patient the same event UID
        "acq_group_key": key("acquisition", series.stack.study_instance_uid, series.acquisition)
        if series.acquisition
        else None,
        "frame_of_reference_key": key("frame of reference", series.stack.frame_of_reference_uid or ""),
        "site_key": key("site", text(header, "InstitutionName")),
        "device_key": key("device", *device),
        "pixel_sha256": pseudonyms.digest("pixels", series.pixels_sha256) if series.pixels_sha256 else None,
        "header_sha256": pseudonyms.digest("headers", series.headers_sha256),
    }


def _context(series: DescribedSeries, frame: FrameHeader, forbidden: frozenset[str]) -> dict[str, Any]:
    prompt = series.prompt
    decade = age_decade(series.header)
    texts: dict[str, str | None] = dict.fromkeys(_TEXTS.values())
    texts |= {
        column: kept for name, column in _TEXTS.items() if (kept := clean_text(name, frame.text(name), forbidden))
    }
    return {
        **texts,
        "sop_class_uid": text(series.header, "SOPClassUID") or None,
        "modality": prompt.modality.value,
        "region": prompt.region.value,
        "region_source": prompt.region.source,
        "type": prompt.type.value,
        "type_source": prompt.type.source,
        "kernel_class": prompt.type.value if prompt.type.source == "kernel" else None,
        "prompt_dim": prompt.dimension.value,
        "prompt_mod": prompt.modality.value,
        "prompt_reg": prompt.region.value,
        "prompt_type": prompt.type.value,
        "conflict_flags": ";".join(prompt.conflicts) or None,
        "contrast_agent": True if frame.text("ContrastBolusAgent") else None,
        "age_band": None if decade is None else f"{decade}-{decade + 9}" if decade < 90 else "90+",
    }


def _geometry(series: DescribedSeries, frame: FrameHeader) -> dict[str, Any]:
    stack = series.stack
    between, row_mm, column_mm = (spacing or None for spacing in stack.spacing_mm)
    matrix = [int(n) for n in frame.numbers("AcquisitionMatrix")]
    device = next(map(clean_meaning, frame.items("AcquisitionDeviceTypeCodeSequence")), None)
    return {
        "n_instances": series.n_instances,
        "n_slices": len(stack.frames),
        "rows": stack.rows,
        "cols": stack.columns,
        "slice_spacing": between,
        "pixel_spacing_row": row_mm,
        "pixel_spacing_col": column_mm,
        "acq_matrix": "x".join(map(str, matrix)) or None,
        "device_type": device,
    }


def _measured(measures: Iterable[Measure]) -> dict[str, Any]:
    known = [one for one in measures if one.name in MEASURE_COLUMNS]
    limited = [one.name for one in known if one.validity is Validity.LIMITED]
    return {
        **dict.fromkeys(MEASURE_COLUMNS.values()),
        **{MEASURE_COLUMNS[one.name]: one.value for one in known},
        "measures_limited": ";".join(limited) or None,
    }


def measure_rows(series_key: str, measures: Iterable[Measure]) -> list[dict[str, Any]]:
    """Return the rows of a series for `measures.csv`."""
    as_they_are = ("name", "value", "unit", "uncertainty", "spread", "n")
    return [
        {
            "series_key": series_key,
            **{name: getattr(one, name) for name in as_they_are},
            "validity": str(one.validity),
            "reason": one.reason or None,
            "method": one.method.name,
            "method_version": one.method.version,
            "citation": one.method.citation,
        }
        for one in measures
    ]


def _label(technique: Technique) -> dict[str, Any]:
    mas = technique.label_name == "mas"
    value = technique.tube_charge_mas if mas else technique.field_strength_t
    known = value is not None
    return {
        "label_name": technique.label_name,
        "label_value": value,
        "label_unit": ("mA.s" if mas else "T") if known else None,
        "label_quality": _label_quality(technique) if known else None,
        "stage1_eligible": technique.eligible,
        "exclude_reason": ";".join(dict.fromkeys(found.code for found in technique.exclusions)) or None,
    }


def _label_quality(technique: Technique) -> str:
    if not technique.eligible:
        return "review"
    if REPAIRED & set(technique.flags):
        return "repaired"
    return "ok" if technique.source in _READ_AS_WRITTEN else "derived"


def _ct(technique: Technique) -> dict[str, Any]:
    current = [f.tube_current_ma for f in technique.frames if f.tube_current_ma is not None]
    dose = [f.ctdi_vol_mgy for f in technique.frames if f.ctdi_vol_mgy is not None]
    over: dict[str, Callable[[Any], Any]] = {
        "median": np.median, "mean": np.mean, "min": np.min, "max": np.max,
        "p5": lambda x: np.percentile(x, 5), "p95": lambda x: np.percentile(x, 95),
    }  # fmt: skip
    n_valid = technique.statistics.get("n_valid")
    return {
        **{f"ma_{name}": float(of(current)) if current else None for name, of in over.items()},
        **{column: technique.statistics.get(name) for name, column in _MAS.items()},
        "exposure_tag_median": _median(technique, "Exposure"),
        "exposure_uas": _median(technique, "ExposureInuAs"),
        "exposure_time": _median(technique, "ExposureTime"),
        "ctdivol_mean": float(np.mean(dose)) if dose else None,
        "mas_definition": technique.mas_definition,
        "mas_source": technique.source,
        "n_valid": None if n_valid is None else int(n_valid),
    }


def _mr(technique: Technique, forbidden: frozenset[str]) -> dict[str, Any]:
    n_valid = technique.statistics.get("n_valid")
    nuclei = (str(found) for one in technique.frames if (found := one.candidates.get("ImagedNucleus")))
    return {
        "b0_raw": _median(technique, "MagneticFieldStrength"),
        "b0_nominal": technique.field_strength_t,
        "b0_source": technique.source,
        "imaging_freq": _median(technique, "ImagingFrequency"),
        "nucleus": clean_text("ImagedNucleus", next(nuclei, ""), forbidden),
        "n_valid": None if n_valid is None else int(n_valid),
    }


def _median(technique: Technique, keyword: str) -> float | None:
    found = [v for f in technique.frames if isinstance(v := f.candidates.get(keyword), int | float)]
    return float(np.median(found)) if found else None
