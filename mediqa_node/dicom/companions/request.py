"""Companions: DICOM objects with the score map that accompany a report, if a site configures them.

A Secondary Capture shows the map on any workstation; a Parametric Map holds its numbers for software. Both are derived
images in the study of the source, in a separate series. As for reports, the same request gives the same bytes: UIDs
derive from the content, dates are taken from the job's record.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from pydicom import Dataset

from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.header import copy_patient_and_study, fill_in, set_dates, set_equipment
from mediqa_node.dicom.report.items import coded, put_uid, sop_reference
from mediqa_node.dicom.report.request import ReportDevice
from mediqa_node.dicom.report.source import uid_of, value_of
from mediqa_node.dicom.report.uid import deterministic_uid
from mediqa_node.domain.assessment import Assessment, SliceResult

COMPANION_CLASSES = {
    "secondary_capture": "1.2.840.10008.5.1.4.1.1.7",
    "parametric_map": "1.2.840.10008.5.1.4.1.1.30",
}
"""By the keys of `companions` in the configuration: Secondary Capture Image, Parametric Map Storage."""

LAYOUT = "2"
"""Raised with every change of what stands in a companion, because its UID must change with it."""

RESEARCH_ONLY = "For research use only, not for diagnosis."
UNTRAINED = "UNTRAINED WEIGHTS: the values have no meaning."
OUTSIDE_RANGE = "OUTSIDE THE TRAINING RANGE"
NOT_EVALUATED = "NOT EVALUATED: nobody has measured what the values of these weights are worth."
SOURCE_PURPOSE = codes.Code("121322", "DCM", "Source image for image processing operation")

_BODY_PARTS = {
    "head": "HEAD", "brain": "BRAIN", "neck": "NECK", "chest": "CHEST", "heart": "HEART", "abdomen": "ABDOMEN",
    "pelvis": "PELVIS", "spine": "SPINE", "breast": "BREAST", "extremity": "EXTREMITY", "retina": "EYE",
}  # fmt: skip
"""Body Part Examined (0018,0015) by the region of the prompt, PS3.16 annex L."""
_PAIRED = ("breast", "extremity", "retina")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanionRequest:
    """Companions of one kind for one assessment.

    Attributes:
        sources: headers of all instances of the series, scored or not.
        series_number: (0020,0011), allocated by the caller per study.
        first_instance_number: (0020,0013) of the first one; the others follow.
        created_at: timezone-aware, from the job's record, never from the clock.
        time_zone: of the site, used if the source has none in (0008,0201).
    """

    assessment: Assessment
    sources: Sequence[Dataset]
    device: ReportDevice
    series_number: int
    first_instance_number: int
    created_at: datetime
    time_zone: tzinfo = UTC

    @property
    def by_uid(self) -> dict[str, Dataset]:
        """The sources by SOP Instance UID."""
        return {uid_of(source, "SOPInstanceUID"): source for source in self.sources}


def companion_series_uid(kind: str, assessment: Assessment, device: ReportDevice) -> str:
    """Return the UID of the series for all companions of one kind and source series, revisions included."""
    return deterministic_uid(
        "companion series", kind, assessment.study_instance_uid, assessment.series_instance_uid, device.device_uid
    )


def instance_uid(kind: str, request: CompanionRequest, source: Dataset, number: int, pixels: bytes) -> str:
    """Return the SOP Instance UID, derived from the content."""
    assessment = request.assessment
    identity = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "AccessionNumber")
    return deterministic_uid(
        "companion",
        LAYOUT,
        kind,
        *(value_of(source, keyword) for keyword in identity),
        assessment.study_instance_uid,
        assessment.series_instance_uid,
        str(assessment.revision),
        str(number),
        request.device.device_uid,
        request.device.software_version,
        assessment.checkpoint.sha256,
        assessment.fingerprint,
        hashlib.sha256(pixels).hexdigest(),
    )


def clean_header(request: CompanionRequest, source: Dataset) -> Dataset:
    """Return the patient and study of a source, or of others where it names none, in UTF-8, with the study's UID."""
    clean = Dataset()
    clean.SpecificCharacterSet = "ISO_IR 192"
    copy_patient_and_study(clean, source)
    fill_in(clean, (found for _, found in sorted(request.by_uid.items())))
    put_uid(clean, "StudyInstanceUID", request.assessment.study_instance_uid)
    if value_of(source, "LossyImageCompression") == "01":  # once lossy, always lossy (PS3.3 C.7.6.1.1.5)
        for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if text := value_of(source, keyword):
                setattr(clean, keyword, text)
    return clean


def complete(companion: Dataset, kind: str, request: CompanionRequest, source: Dataset) -> None:
    """Set the attributes that both kinds share, replacing existing ones."""
    assessment = request.assessment
    companion.update(clean_header(request, source))
    put_uid(companion, "SeriesInstanceUID", companion_series_uid(kind, assessment, request.device))
    companion.SeriesNumber = request.series_number
    companion.Modality = "OT"
    title = "MedIQA quality map (RESEARCH, not for diagnosis)"
    companion.SeriesDescription = title if assessment.checkpoint.trained else f"UNTRAINED {title}"
    companion.pop("ContributingEquipmentSequence", None)
    set_equipment(companion, assessment, request.device, source)
    _set_body_part(companion, assessment, source)
    companion.DerivationDescription = derivation(assessment)
    set_dates(companion, request.created_at, request.time_zone, source)


def derivation(assessment: Assessment) -> str:
    """Return Derivation Description (0008,2111): how the values were made, and the evidence for them."""
    checkpoint = assessment.checkpoint
    warning = UNTRAINED if not checkpoint.trained else "" if checkpoint.evaluated else NOT_EVALUATED
    if (outside := assessment.primary.outside_range) is not None:
        warning = f"{warning} {OUTSIDE_RANGE} ({outside.words}): the values may have no meaning.".lstrip()
    return (
        f"{warning} {RESEARCH_ONLY} Patch scores of MedIQA checkpoint {checkpoint.name}, "
        f"weights-sha256={checkpoint.sha256} preprocessing={assessment.fingerprint} layout={LAYOUT}"
    ).lstrip()


def source_reference(part: SliceResult) -> Dataset:
    """Return an item of Source Image Sequence (0008,2112): the image or frame that was scored."""
    reference = sop_reference(part.frame.sop_class_uid, part.frame.sop_instance_uid)
    if part.frame.frame_number is not None:
        reference.ReferencedFrameNumber = part.frame.frame_number
    reference.PurposeOfReferenceCodeSequence = [coded(SOURCE_PURPOSE)]
    return reference


def _set_body_part(companion: Dataset, assessment: Assessment, source: Dataset) -> None:
    """Set the body part, and the side of a paired one: Laterality (0020,0060) is type 2C (PS3.3 C.7.3.1)."""
    region = assessment.primary.prompt.region.value
    if region in _BODY_PARTS:
        companion.BodyPartExamined = _BODY_PARTS[region]
    if region in _PAIRED or region not in _BODY_PARTS:
        side = value_of(source, "ImageLaterality") or value_of(source, "Laterality")
        companion.Laterality = side if side in ("L", "R") else ""
