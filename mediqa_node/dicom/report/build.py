"""From an assessment to the Structured Report that goes to the PACS.

The same request gives the same bytes: UIDs derive from the content, dates are taken from the job's record. Requests
that differ in patient, evidence, software, weights, thresholds, result, SR class or predecessor give different SOP
Instance UIDs, because an archive answers Success to a known UID and keeps its old copy.
"""

import math
from io import BytesIO

import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from mediqa_node.dicom.report.content import LAYOUT, content_tree
from mediqa_node.dicom.report.header import header
from mediqa_node.dicom.report.request import SOP_CLASSES, ReportDevice, ReportRequest
from mediqa_node.dicom.report.source import uid_of
from mediqa_node.dicom.report.uid import deterministic_uid
from mediqa_node.dicom.values import integer
from mediqa_node.domain.assessment import StackResult, mapped, weighted_quality
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.domain.images import FrameRef
from mediqa_node.domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = [
    "SOP_CLASSES",
    "ReportDevice",
    "ReportRequest",
    "build_report",
    "report_bytes",
]


LAW_TOLERANCE = 1e-6
"""Largest difference between Q and the weighted sum of its slices, on the scale of 0..100."""


def build_report(request: ReportRequest) -> Dataset:
    """Return the Structured Report of one series, without file meta.

    Raises:
        InvalidInstance: a source cannot be referenced or belongs to another study or series.
        ValueError: the assessment contradicts itself or its sources.
    """
    sources = _distinct(request)
    _check_numbers(request)
    for result in (request.assessment.primary, *request.assessment.others):
        _check_result(result, sources)
    if request.measured is not None:
        for frame in request.measured.frames:
            _check_frame(frame, sources)
    report = header(request, list(sources.values()))
    tree = content_tree(
        request.assessment,
        request.device,
        report.StudyDate,
        predicted_parameters=request.predicted_parameters,
        measured=request.measured,
        usual=request.usual,
    )
    report.SOPInstanceUID = _instance_uid(request, report, tree)
    report.update(tree)
    return report


def report_bytes(report: Dataset) -> bytes:
    """Return the Part 10 file (PS3.10 section 7), Explicit VR Little Endian, with this node's implementation UID."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = report.SOPClassUID
    meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    file = pydicom.FileDataset("", report, preamble=b"\0" * 128, file_meta=meta)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()


def _instance_uid(request: ReportRequest, report: Dataset, tree: Dataset) -> str:
    """Return a SOP Instance UID derived from everything except dates and the numbers in the series."""
    assessment = request.assessment
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    return deterministic_uid(
        "report",
        LAYOUT,
        report.SOPClassUID,
        *(str(report.get(name, "")) for name in ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")),
        report.AccessionNumber,
        assessment.study_instance_uid,
        assessment.series_instance_uid,
        *(reference.ReferencedSOPInstanceUID for reference in evidence),
        request.device.device_uid,
        request.device.software_version,
        assessment.checkpoint.sha256,
        assessment.fingerprint,
        str(request.predecessor.SOPInstanceUID) if request.predecessor is not None else "",
        report.CompletionFlag,
        tree.to_json(),
    )


def _distinct(request: ReportRequest) -> dict[str, Dataset]:
    """Return the distinct sources, sorted by SOP Instance UID."""
    assessment = request.assessment
    if not request.sources:
        raise ValueError(f"to report on series {assessment.series_instance_uid}: no source headers were given")
    for source in request.sources:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
            expected = getattr(assessment, "study_instance_uid" if "Study" in keyword else "series_instance_uid")
            if (found := uid_of(source, keyword)) != expected:
                raise InvalidInstance(f"{keyword} {found} of a source is not {expected} of the assessment")
    by_uid = {uid_of(source, "SOPInstanceUID"): source for source in request.sources}
    return {uid: by_uid[uid] for uid in sorted(by_uid)}


def _check_numbers(request: ReportRequest) -> None:
    if request.created_at.tzinfo is None:
        raise ValueError("to report: created_at has no time zone")
    if request.predecessor is not None and request.instance_number <= int(request.predecessor.InstanceNumber):
        raise ValueError(
            f"to revise a report: instance number {request.instance_number} must be above its predecessor's "
            f"{request.predecessor.InstanceNumber}, because viewers show the last one"
        )


def _check_result(result: StackResult, sources: dict[str, Dataset]) -> None:
    """Raise ValueError for a number that must not be archived: out of range, or not the weighted sum of its parts."""
    parts = result.slices
    quality, of_slices = mapped(result.quality), [mapped(part.quality) for part in parts]
    values = [quality, *of_slices, *(part.weight for part in parts)]
    if not parts or not all(math.isfinite(value) and 0.0 <= value <= 1.0 for value in values):
        raise ValueError(f"to report: qualities and weights must lie in 0..1, found {values}")
    law = weighted_quality(of_slices, [part.weight for part in parts])
    if 100 * abs(law - quality) > LAW_TOLERANCE:
        raise ValueError(f"to report: Q is {quality}, but its slices sum to {law}")
    for part in parts:
        _check_frame(part.frame, sources)


def _check_frame(frame: FrameRef, sources: dict[str, Dataset]) -> None:
    source = sources.get(frame.sop_instance_uid)
    if source is None:
        raise ValueError(f"to report: scored instance {frame.sop_instance_uid} is not among the sources")
    if frame.frame_number is not None and not 1 <= frame.frame_number <= (integer(source, "NumberOfFrames") or 1):
        raise ValueError(f"to report: {frame.sop_instance_uid} has no frame {frame.frame_number}")
