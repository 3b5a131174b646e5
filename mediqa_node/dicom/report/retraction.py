"""Take back what this node has sent: a void revision of a report, or a note that rejects the node's own objects.

Both are built from the sent objects alone, because the headers of the images may have changed since. As for reports,
the same input gives the same bytes.
"""

from collections.abc import Sequence
from copy import deepcopy
from datetime import UTC, datetime, tzinfo

from pydicom import Dataset

from mediqa_node.dicom.reject_note import KEY_OBJECT_SELECTION
from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.content import CONTAINS, LAYOUT, MODIFIER, RESEARCH_ONLY, observer
from mediqa_node.dicom.report.header import copy_patient_and_study, evidence, set_dates
from mediqa_node.dicom.report.items import code_item, container, put_uid, reference_item, text_item
from mediqa_node.dicom.report.request import ReportDevice
from mediqa_node.dicom.report.source import uid_of
from mediqa_node.dicom.report.uid import deterministic_uid
from mediqa_node.dicom.values import items, text
from mediqa_node.domain.retraction import VoidReason

VOID = {
    VoidReason.WRONG_PATIENT: "VOID: this report does not belong to this patient",
    VoidReason.REJECTED: "VOID: the images were rejected for quality reasons",
    VoidReason.UNSAFE: "VOID: the images were rejected for patient safety reasons",
    VoidReason.WITHDRAWN: "VOID: this report was withdrawn",
}
"""Series Description and first sentence of a void report, at most 64 characters."""

TITLES = {
    VoidReason.WRONG_PATIENT: codes.INCORRECT_WORKLIST_ENTRY,
    VoidReason.REJECTED: codes.REJECTED_FOR_QUALITY,
    VoidReason.UNSAFE: codes.REJECTED_FOR_SAFETY,
    VoidReason.WITHDRAWN: codes.REJECTED_FOR_QUALITY,
}
"""Title of a note. A withdrawn report is rejected for its quality: 113037 would claim a danger, 113039 its expiry."""

_NOT_COPIED = (
    "ContentSequence",
    "CurrentRequestedProcedureEvidenceSequence",
    "CompletionFlagDescription",
    "CodingSchemeIdentificationSequence",
)


def void_report(
    delivered: Dataset,
    reason: VoidReason,
    *,
    device: ReportDevice,
    created_at: datetime,
    instance_number: int | None = None,
    time_zone: tzinfo = UTC,
) -> Dataset:
    """Return the void revision of a delivered report, without file meta: same series, patient and study, no result.

    It refers to no image, because images may have moved to another patient.

    Args:
        delivered: the report as it was sent.
        created_at: timezone-aware, from the job's record.
        instance_number: (0020,0013), above the delivered report's and below that of a later revision, because viewers
            show the last document of an SR series. None: the next one.
        time_zone: of the site, used if the delivered report has none in (0008,0201).
    """
    report = Dataset()
    for element in delivered:
        if element.keyword not in _NOT_COPIED:
            report.add(deepcopy(element))
    predecessor = uid_of(delivered, "SOPInstanceUID")
    report.SOPInstanceUID = deterministic_uid("void", LAYOUT, predecessor, reason, device.software_version)
    report.InstanceNumber = int(delivered.InstanceNumber) + 1 if instance_number is None else instance_number
    report.SeriesDescription = VOID[reason]
    report.CompletionFlag = "COMPLETE"
    report.SoftwareVersions = device.software_version
    report.PredecessorDocumentsSequence = evidence([delivered])
    set_dates(report, created_at, time_zone, delivered)
    report.update(_void_tree(delivered, reason, device))
    return report


def _void_tree(delivered: Dataset, reason: VoidReason, device: ReportDevice) -> Dataset:
    """Return TID 1500 without measurement groups; viewers expect its two containers, even if nothing is in them."""
    children = [
        code_item(MODIFIER, codes.LANGUAGE, codes.ENGLISH),
        *observer(device),
        *_found(delivered, codes.PROCEDURE_REPORTED),
        container(codes.IMAGE_LIBRARY, [_acquisition(delivered)]),
        container(codes.MEASUREMENTS, []),
        container(
            codes.QUALITATIVE_EVALUATIONS,
            [text_item(CONTAINS, codes.COMMENT, f"{VOID[reason]}. Its scores must not be used. {RESEARCH_ONLY}")],
        ),
    ]
    return container(codes.REPORT, children, relationship=None, template="1500")


def _acquisition(delivered: Dataset) -> Dataset:
    """Return an Image Library Group with the modality and study date of the delivered one, and no image."""
    [library] = _found(delivered, codes.IMAGE_LIBRARY)
    group = library.ContentSequence[0]
    return container(codes.LIBRARY_GROUP, [*_found(group, codes.MODALITY), *_found(group, codes.STUDY_DATE)])


def _found(parent: Dataset, concept: codes.Code) -> list[Dataset]:
    """Return copies of the children with a concept name."""
    return [deepcopy(item) for item in items(parent, "ContentSequence") if _concept(item) == concept[:2]]


def _concept(item: Dataset) -> tuple[str, str]:
    name = item.ConceptNameCodeSequence[0]
    return name.CodeValue, name.CodingSchemeDesignator


def retraction_note(
    own_objects: Sequence[Dataset],
    reason: VoidReason,
    *,
    device: ReportDevice,
    created_at: datetime,
    series_number: int,
    time_zone: tzinfo = UTC,
) -> Dataset:
    """Return a Key Object Selection (PS3.3 A.35.4, TID 2010) that rejects the node's own objects, without file meta.

    Args:
        own_objects: sent reports, captures and maps of one study, or their headers.
        created_at: timezone-aware, from the job's record.
        series_number: (0020,0011), allocated by the caller per study.
        time_zone: of the site, used if the objects have none in (0008,0201).

    Raises:
        ValueError: no object, or objects of several patients or studies.
    """
    rejected = sorted(own_objects, key=lambda found: ("Rows" not in found, uid_of(found, "SOPInstanceUID")))
    if len({(text(found, "PatientID"), uid_of(found, "StudyInstanceUID")) for found in rejected}) != 1:
        raise ValueError(f"to reject {len(rejected)} objects: they must be of one patient and study")
    identity = (LAYOUT, reason, device.software_version, *(uid_of(found, "SOPInstanceUID") for found in rejected))
    note = Dataset()
    note.SpecificCharacterSet = "ISO_IR 192"
    note.SOPClassUID = KEY_OBJECT_SELECTION
    note.SOPInstanceUID = deterministic_uid("retraction", *identity)
    copy_patient_and_study(note, rejected[0])
    put_uid(note, "StudyInstanceUID", uid_of(rejected[0], "StudyInstanceUID"))
    note.Modality = "KO"
    note.SeriesInstanceUID = deterministic_uid("retraction series", *identity)
    note.SeriesNumber = series_number
    note.InstanceNumber = 1
    note.SeriesDescription = f"MedIQA objects: {TITLES[reason].meaning}"
    note.ReferencedPerformedProcedureStepSequence = []
    note.Manufacturer = device.manufacturer
    note.ManufacturerModelName = device.model_name
    note.DeviceSerialNumber = device.serial_number
    note.SoftwareVersions = device.software_version
    note.CurrentRequestedProcedureEvidenceSequence = evidence(rejected)
    set_dates(note, created_at, time_zone, rejected[0])
    children = [
        code_item(MODIFIER, codes.LANGUAGE, codes.ENGLISH),
        *observer(device),
        text_item(CONTAINS, codes.KEY_OBJECT_DESCRIPTION, f"{VOID[reason]}. Only objects made by MedIQA are rejected."),
        *(reference_item(found) for found in rejected),  # the template's order: images first
    ]
    note.update(container(TITLES[reason], children, relationship=None, template="2010"))
    return note
