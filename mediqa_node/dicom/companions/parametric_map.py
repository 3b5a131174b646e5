"""Local quality as a Parametric Map (PS3.3 A.75): one float32 frame for each scored slice, on the slice's own pixels.

Frames have the rows, columns and position of their source, so that a viewer can overlay them without resampling. Values
are patch scores from 0 (poor) to 1 (good), NaN where no view covers a pixel.
"""

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from mediqa_node.dicom.companions.request import (
    OUTSIDE_RANGE,
    CompanionRequest,
    companion_series_uid,
    complete,
    derivation,
    instance_uid,
    source_reference,
)
from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.content import algorithm_version
from mediqa_node.dicom.report.header import ALWAYS
from mediqa_node.dicom.report.items import put_uid, sop_reference
from mediqa_node.dicom.report.uid import deterministic_uid
from mediqa_node.dicom.stacks.planes import Plane, planes
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.images import Stack
from mediqa_node.domain.uid import is_canonical_uid

KIND = "parametric_map"


def build_parametric_map(request: CompanionRequest, maps: Sequence[np.ndarray]) -> Dataset | None:
    """Return the map of a series without file meta, or None if its images have no position in space.

    Args:
        maps: local quality 0..1 of the scored slices in their order, (rows, columns).

    Raises:
        InvalidInstance: a source cannot be referenced, or its Patient ID cannot be carried.
        ValueError: not one map for each scored slice.
    """
    stack, slices = request.assessment.primary.stack, request.assessment.primary.slices
    located, frame = _planes(request), stack.frame_of_reference_uid or ""
    if len(located) < len(slices) or not is_canonical_uid(frame) or min(stack.spacing_mm[1:]) <= 0:
        return None
    if len(maps) != len(slices):
        raise ValueError(f"to map {len(slices)} slices: {len(maps)} maps of quality were given")
    source = request.by_uid[slices[0].frame.sop_instance_uid]
    pixels = np.stack(maps).astype(np.float32)
    uid = instance_uid(KIND, request, source, 1, pixels.tobytes())
    stand_ins = [_stand_in(stack, plane, index) for index, plane in enumerate(located)]
    made = _made(request, pixels, stand_ins, uid)
    complete(made, KIND, request, source)
    _refer(made, request)
    organisation = deterministic_uid("dimensions", uid)
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    put_uid(made, "FrameOfReferenceUID", frame)
    return made


def _planes(request: CompanionRequest) -> list[Plane]:
    """Return the planes of the scored slices that have a position and an orientation."""
    known = {(plane.ref.sop_instance_uid, plane.ref.frame_number): plane for plane in planes(request.sources)}
    frames = [part.frame for part in request.assessment.primary.slices]
    found = [known.get((frame.sop_instance_uid, frame.frame_number)) for frame in frames]
    return [plane for plane in found if plane is not None and plane.origin_mm is not None]


def _stand_in(stack: Stack, plane: Plane, index: int) -> Dataset:
    """Return a clean single-frame header of one scored slice, as highdicom requires.

    It omits the patient's name, which highdicom would repeat in warnings; `complete` sets it later. Its SOP Instance
    UID is a placeholder, the index of the slice; `_refer` replaces it with the real reference.
    """
    header = Dataset()
    for keyword in ALWAYS:
        setattr(header, keyword, "")
    header.PatientID, header.StudyInstanceUID, header.SpecificCharacterSet = "", "2.25.0", "ISO_IR 192"
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2" if stack.modality == "CT" else "1.2.840.10008.5.1.4.1.1.4"
    header.SOPInstanceUID = f"2.25.{index + 1}"
    header.SeriesInstanceUID = "2.25.1"
    header.FrameOfReferenceUID = "2.25.2"
    header.PositionReferenceIndicator = ""
    header.Rows, header.Columns = stack.rows, stack.columns
    header.PixelSpacing = list(stack.spacing_mm[1:])
    header.SliceThickness = stack.spacing_mm[0] or None
    header.ImageOrientationPatient = [round(float(cosine), 12) for cosine in stack.orientation or ()]
    header.ImagePositionPatient = [round(float(place), 9) for place in plane.origin_mm or ()]
    return header


def _made(request: CompanionRequest, pixels: np.ndarray, headers: list[Dataset], uid: str) -> Dataset:
    device, assessment = request.device, request.assessment
    label, description = _labelled(assessment)
    return hd.pm.ParametricMap(
        source_images=headers,
        pixel_array=pixels,
        series_instance_uid=companion_series_uid(KIND, assessment, device),
        series_number=request.series_number,
        sop_instance_uid=uid,
        instance_number=request.first_instance_number,
        manufacturer=device.manufacturer,
        manufacturer_model_name=device.model_name,
        software_versions=algorithm_version(assessment, device),
        device_serial_number=device.serial_number,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_meaning()],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label=label,
        content_description=description,
    )


def _labelled(assessment: Assessment) -> tuple[str, str]:
    """Return Content Label (0070,0080) and Content Description (0070,0081)."""
    if not assessment.checkpoint.trained:
        return "UNTRAINED", "UNTRAINED WEIGHTS: no meaning"
    if (outside := assessment.primary.outside_range) is not None:
        return "OUTSIDE_RANGE", f"{OUTSIDE_RANGE}, {outside.words}"
    return "QUALITY", "Local image quality, 0 to 1"


def _meaning() -> hd.pm.RealWorldValueMapping:
    """Return the meaning of stored values: image quality (111101, DCM), 0 to 1, without rescaling."""
    return hd.pm.RealWorldValueMapping(
        lut_label="QUALITY",
        lut_explanation="Local image quality, 0 poor to 1 good",
        unit=Code(codes.UNIT_RANGE.value, codes.UNIT_RANGE.scheme, codes.UNIT_RANGE.meaning),
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=Code(codes.IMAGE_QUALITY.value, codes.IMAGE_QUALITY.scheme, codes.IMAGE_QUALITY.meaning),
    )


def _refer(made: Dataset, request: CompanionRequest) -> None:
    """Replace the placeholder references with those to the scored images and frames."""
    slices = request.assessment.primary.slices
    for frame in made.PerFrameFunctionalGroupsSequence:
        for step in frame.DerivationImageSequence:
            step.DerivationDescription = derivation(request.assessment)
            index = int(str(step.SourceImageSequence[0].ReferencedSOPInstanceUID).removeprefix("2.25.")) - 1
            step.SourceImageSequence[0].update(source_reference(slices[index]))
    made.SourceImageSequence = [source_reference(part) for part in slices]
    instances = {part.frame.sop_instance_uid: part.frame.sop_class_uid for part in slices}
    series = Dataset()
    put_uid(series, "SeriesInstanceUID", request.assessment.series_instance_uid)
    series.ReferencedInstanceSequence = [sop_reference(kind, uid) for uid, kind in instances.items()]
    made.ReferencedSeriesSequence = [series]
