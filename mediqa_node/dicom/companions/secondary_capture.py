"""The pictures of a score map as Secondary Capture (PS3.3 A.8.1): any workstation shows them next to the images."""

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset

from mediqa_node.dicom.companions.request import (
    CompanionRequest,
    companion_series_uid,
    complete,
    instance_uid,
    source_reference,
)

KIND = "secondary_capture"


def build_captures(request: CompanionRequest, pictures: Sequence[np.ndarray]) -> list[Dataset]:
    """Return one object for each scored slice, without file meta.

    Args:
        pictures: of the scored slices in their order, RGB, uint8, (rows, columns, 3); no text in them
            names the patient.

    Raises:
        InvalidInstance: a source cannot be referenced, or its Patient ID cannot be carried.
        ValueError: not one picture for each scored slice.
    """
    by_uid = request.by_uid
    captures = []
    for index, (picture, part) in enumerate(zip(pictures, request.assessment.primary.slices, strict=True)):
        source = by_uid[part.frame.sop_instance_uid]
        capture = _capture(request, np.ascontiguousarray(picture), index, source)
        capture.SourceImageSequence = [source_reference(part)]
        captures.append(capture)
    return captures


def _capture(request: CompanionRequest, picture: np.ndarray, index: int, source: Dataset) -> Dataset:
    capture = hd.sc.SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid="2.25.0",
        series_instance_uid=companion_series_uid(KIND, request.assessment, request.device),
        series_number=request.series_number,
        sop_instance_uid=instance_uid(KIND, request, source, index + 1, picture.tobytes()),
        instance_number=request.first_instance_number + index,
        manufacturer=request.device.manufacturer,
    )
    complete(capture, KIND, request, source)
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.ConversionType = "WSD"
    # no patient data, but burned-in text: must not be taken for a plain image
    capture.BurnedInAnnotation = "YES"
    capture.PatientOrientation = []  # two panels and text: the picture has no orientation
    capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture = capture.ContentDate, capture.ContentTime
    return capture
