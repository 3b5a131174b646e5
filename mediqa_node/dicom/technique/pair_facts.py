"""What decides about pairs of series, from harvested parameters, the stack, and the header of one of its images."""

from pydicom import Dataset

from mediqa_node.dicom.header import FrameHeader, frame_header, text
from mediqa_node.dicom.prompt_rules import PromptRules
from mediqa_node.dicom.prompts import kernel_class
from mediqa_node.dicom.series_names import names_several_volumes, phase_words
from mediqa_node.dicom.series_pairs import SeriesFacts, Value, same_settings
from mediqa_node.dicom.stacks.passes import seconds
from mediqa_node.dicom.stacks.planes import Plane, planes
from mediqa_node.domain.images import Stack
from mediqa_node.domain.technique import HeaderDoubt, Technique

_CT = (
    "manufacturer", "model", "kvp_kv", "rotation_time_s", "pitch", "total_collimation_mm", "exposure_modulation",
    "gantry_tilt_deg", "filter",
)  # fmt: skip
_MR = (
    "manufacturer", "model", "field_strength_t", "echo_time_ms", "repetition_time_ms", "inversion_time_ms",
    "flip_angle_deg", "echo_train_length", "averages", "pixel_bandwidth_hz", "coil", "coil_type",
    "phase_encoding_steps", "sampling_percent", "phase_fov_percent", "acceleration_in_plane",
    "acceleration_out_of_plane", "partial_fourier", "scanning_sequence", "sequence_variant", "sequence_name",
    "acquisition_type",
)  # fmt: skip
_NO_DOSE = frozenset({"missing_label", "unverified_label", "several_techniques", "range", "doubtful_header"})
"""Exclusions with which a tube charge orders nothing."""
_OTHER_KINDS = frozenset({"multi_energy"})
_NEVER = frozenset({
    "cardiac_phase", "attenuation_correction_ct", "cone_beam", HeaderDoubt.DUPLICATE_POSITION,
    HeaderDoubt.REFUSED_IMAGES,
})  # fmt: skip
"""Flags of series that are part of no pair."""
_STRENGTHS = ((0x0053, "GEHC_CT_ADVAPP_001", 0x40), (0x7005, "TOSHIBA_MEC_CT3", 0x0B))
"""Private texts with the strength of an iterative reconstruction."""


def settings_of(technique: Technique) -> tuple[Value, ...] | None:
    """Return the parameters of acquisition that have to be equal in any pair; None for neither CT nor MR."""
    names = {"mas": _CT, "tesla": _MR}.get(technique.label_name or "")
    return tuple(technique.covariates.get(name) for name in names) if names is not None else None


def may_pair(one: Technique, other: Technique) -> bool:
    """Return whether two series of a study can be a pair by their harvested parameters, before any header is read."""
    mine, theirs = settings_of(one), settings_of(other)
    return (
        mine is not None and theirs is not None and one.label_name == other.label_name and same_settings(mine, theirs)
    )


def has_contrast(technique: Technique) -> bool:
    """Return whether the header of a series names a contrast agent."""
    return technique.covariates.get("contrast_agent") is not None


def pair_facts(
    header: Dataset, stack: Stack, technique: Technique, rules: PromptRules, *, n_stacks: int, acquisition: str | None
) -> SeriesFacts | None:
    """Return what decides about pairs with a series; None for neither CT nor MR.

    Args:
        header: of the instance with the first image of `stack`, the primary one.
        n_stacks: how many stacks the series has.
        acquisition: what names the acquisition, from the same header; None if it does not.
    """
    settings, first = settings_of(technique), stack.frames[0]
    plane = next((one for one in planes([header]) if one.ref.frame_number == first.frame_number), None)
    if settings is None or plane is None:
        return None
    frame = frame_header(header, first.frame_number)
    names = text(header, "SeriesDescription"), text(header, "ProtocolName")
    codes = {exclusion.code for exclusion in technique.exclusions}
    half = (plane.thickness_mm or 0.0) / 2
    return SeriesFacts(
        series_instance_uid=stack.series_instance_uid,
        modality=stack.modality,
        patient=(text(header, "PatientID"), text(header, "IssuerOfPatientID")),
        scanner=tuple(text(header, name) for name in ("StationName", "ManufacturerModelName", "DeviceSerialNumber")),
        acquisition=acquisition,
        acquisition_number=plane.acquisition_number,
        acquired_s=_acquired_s(plane),
        frame_of_reference=stack.frame_of_reference_uid or "",
        image_type=plane.image_type,
        description=names[0],
        protocol=names[1],
        grid=(float(stack.rows), float(stack.columns), *stack.spacing_mm[1:]),
        orientation=stack.orientation,
        reach_mm=(stack.positions_mm[0] - half, stack.positions_mm[-1] + half) if stack.positions_mm else (0.0, 0.0),
        n_slices=len(stack.positions_mm),
        thickness_mm=plane.thickness_mm,
        kernel=plane.kernel,
        kernel_class=kernel_class(frame, rules) if stack.modality == "CT" else None,
        reconstruction=_reconstruction(frame, technique),
        tube_charge_mas=None if codes & _NO_DOSE else technique.tube_charge_mas,
        mas_definition=technique.mas_definition,
        settings=(*settings, *_further(frame, plane)),
        contrast=has_contrast(technique),
        phases=phase_words(*names),
        several=n_stacks > 1
        or names_several_volumes(*names)
        or (frame.integer("NumberOfTemporalPositions") or 1) > 1
        or bool(codes & _OTHER_KINDS or _NEVER & {*technique.flags, *stack.flags}),
    )


def _further(frame: FrameHeader, plane: Plane) -> tuple[Value, ...]:
    """Return what separates series that is not harvested: b-value, echo, position in time, phase encoding."""
    numbers = (plane.b_value, plane.echo_number, plane.temporal_position, plane.cardiac_phase_percent, plane.tilt_deg)
    return (*numbers, "\\".join(frame.codes("InPlanePhaseEncodingDirection")))


def _reconstruction(frame: FrameHeader, technique: Technique) -> tuple[str, ...]:
    """Return class and strength of the reconstruction; a kernel may carry the strength as its second value."""
    kind = technique.covariates.get("recon_class")
    strengths = [frame.private_text(*element) for element in _STRENGTHS]
    return (
        str(kind or ""),
        *frame.codes("ReconstructionAlgorithm"),
        *frame.text("ConvolutionKernel").split("\\")[1:],
        *strengths,
    )


def _acquired_s(plane: Plane) -> float | None:
    """Return the time of acquisition; None without a time of day, since a date alone orders nothing."""
    time = plane.seniority[0]
    digits = time.partition(".")[0]
    return seconds(time) if len(digits) in (6, 14) or len(digits) > 14 else None
