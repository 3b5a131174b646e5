"""The header of an image-quality report: patient and study from the images, everything else from this node.

Modules of PS3.3 A.35.13 (Comprehensive 3D SR): Patient, Clinical Trial, General Study, Patient
Study, SR Document Series, General Equipment, SR Document General, SOP Common. Always UTF-8.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo

from pydicom import Dataset

from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.content import algorithm_version
from mediqa_node.dicom.report.items import coded, put_uid, sop_reference
from mediqa_node.dicom.report.request import SOP_CLASSES, ReportDevice, ReportRequest
from mediqa_node.dicom.report.source import (
    copied_codes,
    copied_items,
    patient_id,
    uid_of,
    utc_offset,
    value_of,
    values_of,
)
from mediqa_node.dicom.report.uid import deterministic_uid
from mediqa_node.dicom.values import items
from mediqa_node.domain.assessment import Assessment

SERIES_DESCRIPTION = "MedIQA image quality (RESEARCH, not for diagnosis)"

ALWAYS = (
    "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID",
    "ReferringPhysicianName",
)  # fmt: skip
"""Type 2: present, if only empty."""

IF_KNOWN = (
    "IssuerOfPatientID", "PatientBirthTime", "OtherPatientNames", "EthnicGroup", "PatientComments",
    "PatientIdentityRemoved", "DeidentificationMethod", "PatientSpeciesDescription", "StudyDescription",
    "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "PatientAge", "PatientSize", "PatientWeight",
    "AdmissionID",
)  # fmt: skip
"""Type 3 and 1C: copied where the source holds a usable value."""

CODES = ("ProcedureCodeSequence", "DeidentificationMethodCodeSequence")
DEIDENTIFICATION = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
ISSUER = ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType")

TRIAL_MANDATORY = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialSubjectID")
TRIAL_EMPTY = ("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialTimePointID")

REQUEST_TEXTS = (
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
)

SCANNER = ("Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName")
TAKEN = (
    "PatientID", *ALWAYS, *IF_KNOWN, *CODES, *TRIAL_MANDATORY, *TRIAL_EMPTY, *SCANNER, *REQUEST_TEXTS,
    "IssuerOfAccessionNumberSequence", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence",
    "RequestAttributesSequence", "RequestedProcedureCodeSequence",
)  # fmt: skip
"""Every element of the first source with text that a report may hold."""


def header(request: ReportRequest, sources: Sequence[Dataset]) -> Dataset:
    """Return the report's dataset without SOP Instance UID and content tree.

    Args:
        sources: every instance of the series once, sorted by SOP Instance UID; patient and study are taken from the
            first, and what it leaves empty from the next one that names it.

    Raises:
        InvalidInstance: a source cannot be referenced, or its Patient ID cannot be carried.
    """
    report = Dataset()
    report.SpecificCharacterSet = "ISO_IR 192"
    report.SOPClassUID = SOP_CLASSES[request.sop_class]
    copy_patient_and_study(report, sources[0])
    fill_in(report, sources)
    put_uid(report, "StudyInstanceUID", request.assessment.study_instance_uid)
    _set_series(report, request)
    set_equipment(report, request.assessment, request.device, sources[0])
    _set_document(report, request, sources)
    set_dates(report, request.created_at, request.time_zone, sources[0])
    return report


def copy_patient_and_study(report: Dataset, source: Dataset) -> None:
    """Copy patient and study of an image in valid form, except the study's UID.

    Raises:
        InvalidInstance: the Patient ID cannot be carried.
    """
    report.PatientID = patient_id(source)
    for keyword in ALWAYS:
        setattr(report, keyword, value_of(source, keyword))
    for keyword in IF_KNOWN:
        if values := values_of(source, keyword):
            setattr(report, keyword, values)
    for keyword in CODES:
        _set_items(report, keyword, copied_codes(source, keyword))
    for keyword, members, required in (
        ("IssuerOfAccessionNumberSequence", ISSUER, ()),
        ("IssuerOfPatientIDQualifiersSequence", ("UniversalEntityID", "UniversalEntityIDType"), ("UniversalEntityID",)),
        ("OtherPatientIDsSequence", ("PatientID", "IssuerOfPatientID", "TypeOfPatientID"), ("PatientID",)),
    ):
        copies = [_without_half_pair(item) for item in copied_items(source, keyword, members, required)]
        _set_items(report, keyword, [item for item in copies if len(item)])
    _complete(report, source)
    _copy_trial(report, source)


def fill_in(report: Dataset, sources: Iterable[Dataset]) -> None:
    """Take what an image leaves empty of patient, study and visit from the first of the others that names it."""
    for keyword in (*ALWAYS, "IssuerOfPatientID"):
        if not report.get(keyword) and (value := next(filter(None, (value_of(one, keyword) for one in sources)), "")):
            setattr(report, keyword, value)


def _complete(report: Dataset, source: Dataset) -> None:
    """Add what the standard requires in addition to what was copied (types 1C and 2C of PS3.3 C.7.1.1, C.7.2.2)."""
    for item in report.get("OtherPatientIDsSequence", ()):
        item.TypeOfPatientID = item.get("TypeOfPatientID", "TEXT")
    if report.get("PatientIdentityRemoved") == "YES" and not any(keyword in report for keyword in DEIDENTIFICATION):
        report.DeidentificationMethod = "not stated by the source"
    if "PatientSpeciesDescription" in report:
        for keyword in ("PatientBreedDescription", "PatientSexNeutered", "ResponsibleOrganization"):
            setattr(report, keyword, value_of(source, keyword))
        report.PatientBreedCodeSequence = []
        report.BreedRegistrationSequence = []
        report.ResponsiblePerson = ""


def _without_half_pair(item: Dataset) -> Dataset:
    """Drop Universal Entity ID (0040,0032) without its type, and the reverse."""
    pair = ("UniversalEntityID", "UniversalEntityIDType")
    if not all(keyword in item for keyword in pair):
        for keyword in pair:
            item.pop(keyword, None)
    return item


def _copy_trial(report: Dataset, source: Dataset) -> None:
    """Clinical Trial Subject and Study (PS3.3 C.7.1.3, C.7.2.3), if the source has all required attributes."""
    known = {keyword: value_of(source, keyword) for keyword in TRIAL_MANDATORY}
    if all(known.values()):
        for keyword in TRIAL_MANDATORY + TRIAL_EMPTY:
            setattr(report, keyword, value_of(source, keyword))


def _set_series(report: Dataset, request: ReportRequest) -> None:
    """SR Document Series (C.17.1): one for each source series, patient and installation, revisions included."""
    series = (request.assessment.study_instance_uid, request.assessment.series_instance_uid)
    series_uid = deterministic_uid("series", *series, request.device.device_uid)
    if (old := request.predecessor) is not None:
        # of one patient and study only: a corrected report starts a series of its own
        whose = [
            tuple(str(found.get(name, "")) for name in ("PatientID", "StudyInstanceUID", "IssuerOfPatientID"))
            for found in (old, report)
        ]
        series_uid = (
            str(old.SeriesInstanceUID)
            if whose[0] == whose[1]
            else deterministic_uid("series", *series, request.device.device_uid, *whose[1])
        )
    report.Modality = "SR"
    report.SeriesInstanceUID = series_uid
    report.SeriesNumber = request.series_number
    report.SeriesDescription = SERIES_DESCRIPTION
    report.ReferencedPerformedProcedureStepSequence = []


def set_equipment(report: Dataset, assessment: Assessment, device: ReportDevice, source: Dataset) -> None:
    """General Equipment (C.7.5.1): this node; the scanner as contributing equipment (C.12.1.1.5)."""
    report.Manufacturer = device.manufacturer
    report.ManufacturerModelName = device.model_name
    report.DeviceSerialNumber = device.serial_number
    report.SoftwareVersions = algorithm_version(assessment, device)
    if value_of(source, "Manufacturer"):
        scanner = Dataset()
        scanner.PurposeOfReferenceCodeSequence = [coded(codes.ACQUISITION_EQUIPMENT)]
        for keyword in SCANNER:
            if text := value_of(source, keyword):
                setattr(scanner, keyword, text)
        report.ContributingEquipmentSequence = [scanner]


def _set_document(report: Dataset, request: ReportRequest, sources: Sequence[Dataset]) -> None:
    """SR Document General (C.17.2) and SOP Common (C.12.1)."""
    report.InstanceNumber = request.instance_number
    failed = len(request.assessment.failed_slices)
    report.CompletionFlag = "PARTIAL" if failed else "COMPLETE"
    if failed:
        report.CompletionFlagDescription = f"{failed} selected slice(s) could not be decoded"
    report.VerificationFlag = "UNVERIFIED"
    report.PreliminaryFlag = "PRELIMINARY"
    report.ContentQualification = "RESEARCH"
    report.PerformedProcedureCodeSequence = []
    _set_items(report, "ReferencedRequestSequence", _requests(report, sources[0]))
    report.CurrentRequestedProcedureEvidenceSequence = evidence(sources)
    if request.predecessor is not None:
        report.PredecessorDocumentsSequence = evidence([request.predecessor])
    scheme = Dataset()
    scheme.CodingSchemeDesignator = codes.PRIVATE_SCHEME
    scheme.CodingSchemeUID = codes.PRIVATE_SCHEME_UID
    scheme.CodingSchemeName = "MedIQA image quality codes"
    scheme.CodingSchemeVersion = codes.PRIVATE_SCHEME_VERSION
    scheme.CodingSchemeResponsibleOrganization = request.device.manufacturer
    report.CodingSchemeIdentificationSequence = [scheme]


def _requests(report: Dataset, source: Dataset) -> list[Dataset]:
    """Referenced Request Sequence (0040,A370): one item per requested procedure, or one for the accession."""
    requests = [_request(report, entry) for entry in items(source, "RequestAttributesSequence")]
    if not requests and report.AccessionNumber:
        requests = [_request(report, source)]
    return requests


def _request(report: Dataset, entry: Dataset) -> Dataset:
    item = Dataset()
    put_uid(item, "StudyInstanceUID", str(report.StudyInstanceUID))
    item.ReferencedStudySequence = []
    item.AccessionNumber = value_of(entry, "AccessionNumber") or report.AccessionNumber
    if "IssuerOfAccessionNumberSequence" in report:
        item.IssuerOfAccessionNumberSequence = report.IssuerOfAccessionNumberSequence
    for keyword in REQUEST_TEXTS:
        setattr(item, keyword, value_of(entry, keyword))
    item.RequestedProcedureCodeSequence = copied_codes(entry, "RequestedProcedureCodeSequence")
    return item


def evidence(instances: Iterable[Dataset]) -> list[Dataset]:
    """Return instances of one study as Hierarchical SOP Instance Reference macro (C.17.2.1), by series."""
    by_series: dict[str, list[Dataset]] = {}
    study = Dataset()
    for instance in instances:
        put_uid(study, "StudyInstanceUID", uid_of(instance, "StudyInstanceUID"))
        reference = sop_reference(uid_of(instance, "SOPClassUID"), uid_of(instance, "SOPInstanceUID"))
        by_series.setdefault(uid_of(instance, "SeriesInstanceUID"), []).append(reference)
    study.ReferencedSeriesSequence = []
    for series_uid, references in by_series.items():
        series = Dataset()
        put_uid(series, "SeriesInstanceUID", series_uid)
        series.ReferencedSOPSequence = references
        study.ReferencedSeriesSequence.append(series)
    return [study]


def set_dates(report: Dataset, created_at: datetime, time_zone: tzinfo, source: Dataset) -> None:
    """Set content and creation time: in the source's time zone, which is written, else in the site's, which is not."""
    offset = utc_offset(source)
    local = created_at.astimezone(offset or time_zone)
    if offset is not None:
        report.TimezoneOffsetFromUTC = local.strftime("%z")
    report.InstanceCreationDate = report.ContentDate = local.strftime("%Y%m%d")
    report.InstanceCreationTime = report.ContentTime = local.strftime("%H%M%S")


def _set_items(report: Dataset, keyword: str, items: list[Dataset]) -> None:
    if items:
        setattr(report, keyword, items)
