"""Patient and study arrive in the report as the images have them, and whatever is broken does not."""

from dataclasses import replace
from datetime import timedelta, timezone
from io import BytesIO

import pydicom
import pytest
from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian
from support.factories import ct_image, source_header

from mediqa_node.dicom.report.build import build_report, report_bytes
from mediqa_node.domain.errors import InvalidInstance

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # dirt is what these tests are about

COPIED = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientWeight",
    "PatientAge", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription",
    "AccessionNumber", "ReferringPhysicianName", "TimezoneOffsetFromUTC",
)  # fmt: skip
TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "IssuerOfPatientID", "Manufacturer",
)  # fmt: skip


def as_received(header: Dataset) -> Dataset:
    """The header after a journey through bytes, so that its text is in its own character set."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, pydicom.FileDataset("", header, file_meta=meta, preamble=b"\0" * 128))
    return pydicom.dcmread(BytesIO(buffer.getvalue()))


def reported(*sources: Dataset, **changes: object) -> Dataset:
    request = replace(ct_image(), sources=list(sources), **changes)
    return pydicom.dcmread(BytesIO(report_bytes(build_report(request))))


def dirty(**values: object) -> Dataset:
    """A header with values that no validation would let through; as_received after that."""
    header = source_header()
    for keyword, value in values.items():
        vr = dictionary_VR(keyword)
        header.add(DataElement(keyword, "LO" if vr == "DS" else vr, value, validation_mode=IGNORE))
    return as_received(header)


def test_patient_and_study_are_those_of_the_images():
    source = source_header(PatientWeight="71.5", PatientAge="066Y", TimezoneOffsetFromUTC="+0900")
    report = reported(as_received(source))

    for keyword in COPIED:
        assert report[keyword].value == source[keyword].value, keyword


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小东="),
        ("GB18030", "Wang^XiaoDong=王^小东="),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
    ids=["latin 1", "utf-8", "gb18030", "japanese", "katakana", "korean"],
)
def test_names_survive_their_character_set(character_set, name):
    source = as_received(source_header(SpecificCharacterSet=character_set, PatientName=name, StudyDescription=None))
    report = reported(source)

    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert str(report.PatientName).rstrip("=") == name.rstrip("=")


def test_missing_type_2_elements_are_present_and_empty():
    missing = dict.fromkeys(TYPE_2)
    report = reported(as_received(source_header(**missing)))

    for keyword in missing.keys() - {"IssuerOfPatientID", "Manufacturer"}:
        assert keyword in report
        assert not report[keyword].value
    assert "IssuerOfPatientID" not in report
    assert report.Manufacturer == "MedIQA project"


@pytest.mark.parametrize(
    ("keyword", "found", "written"),
    [
        ("PatientSex", "U", ""),
        ("PatientSex", "f", "F"),
        ("PatientSex", "Male", "M"),
        ("PatientBirthDate", "1960", ""),
        ("PatientBirthDate", "19601301", ""),
        ("PatientBirthDate", "1960-01-02", "19600102"),
        ("PatientBirthDate", "1960.01.02", "19600102"),
        ("StudyDate", "20260230", ""),
        ("StudyTime", "25:00", ""),
        ("StudyTime", "10:15:00", "101500"),
        ("StudyTime", "101500.123456", "101500.123456"),
        ("StudyID", "S1\\S2", "S1"),
        ("AccessionNumber", "A" * 17, ""),
        ("AccessionNumber", " A123 ", "A123"),
        ("StudyDescription", "x" * 80, "x" * 64),
        ("StudyDescription", "two\r\nlines", "two lines"),
        ("PatientName", "A^B^C^D^E^F^G=H=I=J", "A^B^C^D^E=H=I"),
    ],
)
def test_dirty_values_are_cleaned_or_left_empty(keyword, found, written):
    assert str(reported(dirty(**{keyword: found}))[keyword].value or "") == written


@pytest.mark.parametrize(("keyword", "value"), [("PatientWeight", "0"), ("PatientWeight", "n/a"), ("PatientAge", "66")])
def test_optional_values_that_say_nothing_are_left_out(keyword, value):
    assert keyword not in reported(dirty(**{keyword: value}))


def test_a_patient_id_is_never_shortened():
    with pytest.raises(InvalidInstance, match="64 characters") as refusal:
        reported(dirty(PatientID="7" * 65))
    assert "777" not in str(refusal.value)


def test_a_uid_with_leading_zeros_is_referenced_as_it_is():
    source = dirty(StudyInstanceUID="1.2.03.004")
    judgement = replace(ct_image().assessment, study_instance_uid="1.2.03.004")
    report = reported(source, assessment=judgement)

    assert report.StudyInstanceUID == "1.2.03.004"
    assert report.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID == "1.2.03.004"


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_instance_that_cannot_be_referenced_is_refused(keyword):
    header = source_header(2)
    del header[keyword]

    with pytest.raises(InvalidInstance, match=keyword):
        reported(source_header(), header)


def test_times_are_in_the_zone_of_the_source():
    report = reported(source_header(TimezoneOffsetFromUTC="+0900"))

    assert (report.ContentDate, report.ContentTime) == ("20261122", "183000")
    assert report.TimezoneOffsetFromUTC == "+0900"


@pytest.mark.parametrize("offset", [None, "9", "+9900", "+0575"])
def test_without_a_usable_zone_times_are_the_site_s_and_no_zone_is_claimed(offset):
    source = source_header() if offset is None else dirty(TimezoneOffsetFromUTC=offset)
    report = reported(source, time_zone=timezone(timedelta(hours=-5)))

    assert (report.ContentDate, report.ContentTime) == ("20261122", "043000")
    assert "TimezoneOffsetFromUTC" not in report


def request_attributes() -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTTHX", "99LOCAL", "CT thorax"
    item = Dataset()
    item.RequestedProcedureID = "RP1"
    item.RequestedProcedureDescription = "CT thorax"
    item.RequestedProcedureCodeSequence = [code]
    return item


def test_the_request_is_referenced_by_procedure_and_accession():
    source = source_header(RequestAttributesSequence=[request_attributes()], ProcedureCodeSequence=[Dataset()])
    report = reported(as_received(source))
    [request] = report.ReferencedRequestSequence

    assert (request.RequestedProcedureID, request.AccessionNumber) == ("RP1", "A123")
    assert request.RequestedProcedureCodeSequence[0].CodeMeaning == "CT thorax"
    assert request.StudyInstanceUID == report.StudyInstanceUID
    assert "PlacerOrderNumberImagingServiceRequest" in request
    assert "ProcedureCodeSequence" not in report


def test_without_request_and_accession_no_request_is_claimed():
    assert "ReferencedRequestSequence" not in reported(source_header(AccessionNumber=None))


def test_a_clinical_trial_is_named_only_if_all_it_demands_is_there():
    trial = {
        "ClinicalTrialSponsorName": "Sponsor",
        "ClinicalTrialProtocolID": "P1",
        "ClinicalTrialSubjectID": "7",
    }

    assert reported(source_header(**trial)).ClinicalTrialSubjectID == "7"
    assert "ClinicalTrialSponsorName" not in reported(source_header(**trial | {"ClinicalTrialSubjectID": None}))


def test_the_scanner_is_contributing_equipment_and_this_node_the_manufacturer():
    report = reported(source_header())
    [scanner] = report.ContributingEquipmentSequence

    assert (scanner.Manufacturer, scanner.StationName) == ("SCANNER MAKER", "CT_ROOM_3")
    assert (report.Manufacturer, report.DeviceSerialNumber) == ("MedIQA project", "SN0001")
    assert "BodyPartExamined" not in reported(source_header(BodyPartExamined="CHEST"))


def test_an_instance_that_came_twice_is_evidence_once():
    report = reported(source_header(), source_header())

    [series] = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert len(series.ReferencedSOPSequence) == 1


def misread(keyword: str, value: bytes) -> Dataset:
    """A header in UTF-8 with bytes that are none."""
    tag = Tag(keyword)
    source = as_received(source_header(SpecificCharacterSet="ISO_IR 192"))
    source[tag] = RawDataElement(tag, dictionary_VR(keyword), len(value), value, 0, False, True)
    return source


@pytest.mark.parametrize("keyword", ["PatientName", "StudyDescription", "ReferringPhysicianName"])
def test_text_in_another_character_set_than_declared_is_left_out(keyword):
    report = reported(misread(keyword, "Müller^Jörg".encode("latin-1")))

    assert not report.get(keyword)
    assert "\ufffd" not in str(report)


def test_a_patient_id_in_another_character_set_than_declared_is_refused():
    with pytest.raises(InvalidInstance, match=r"Patient ID \(0010,0020\)"):
        reported(misread("PatientID", "Müller1".encode("latin-1")))


def test_an_element_of_unknown_value_representation_is_no_obstacle():
    source = as_received(source_header())
    tag = Tag("StudyDescription")
    source[tag] = RawDataElement(tag, "ZZ", 8, b"Abdomen ", 0, False, True)

    assert reported(source).StudyDescription == "Abdomen"
