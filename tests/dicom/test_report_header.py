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

from mediqa_node.dicom.identity import CHARACTER_SET, ELEMENTS, identity_of, identity_of_elements
from mediqa_node.dicom.report.build import build_report, report_bytes
from mediqa_node.dicom.report.header import ALWAYS, TAKEN
from mediqa_node.dicom.values import holds_misread
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.domain.identity import Identity

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


def test_what_the_first_image_leaves_empty_is_that_of_the_next():
    empty = dict.fromkeys((*ALWAYS, "IssuerOfPatientID"), "")
    first = as_received(source_header(1, **empty))
    second = as_received(
        source_header(2, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg", IssuerOfPatientID="")
    )
    third = as_received(source_header(3, PatientName="Other^Name"))
    report = reported(third, second, first)

    assert report.PatientName == "Müller^Jörg"
    for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate"):
        assert report[keyword].value == second[keyword].value != "", keyword
    assert report.IssuerOfPatientID == "HOSPITAL"
    assert report.ReferencedRequestSequence[0].AccessionNumber == second.AccessionNumber


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


def encoded(character_set: object, **values: bytes) -> Dataset:
    """A header received with these bytes, whatever its character set is."""
    source = as_received(source_header(SpecificCharacterSet=character_set))
    for keyword, value in values.items():
        tag = Tag(keyword)
        source[tag] = RawDataElement(tag, dictionary_VR(keyword), len(value), value, 0, False, True)
    return source


def identities(source: Dataset, character_set: str | list[str] | None, name: bytes) -> list[Identity]:
    """Whom a header names as parsed, and as its bytes come over the network."""
    sets = "\\".join([character_set] if isinstance(character_set, str) else character_set or [])
    return [identity_of(source), identity_of_elements({CHARACTER_SET: sets.encode(), ELEMENTS["name"]: name})]


YAMADA = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"
JAPANESE, KOREAN = ["", "ISO 2022 IR 87"], ["", "ISO 2022 IR 149"]
MISREAD = {
    "latin 1 in utf-8": ("ISO_IR 192", "Müller^Jörg".encode("latin-1")),
    "utf-8, none declared": (None, "Müller^Jörg".encode()),
    "utf-8 in ascii": ("ISO_IR 6", "Müller^Jörg".encode()),
    "latin 1, none declared": (None, "Müller^Jörg".encode("latin-1")),
    "latin 1 in an unknown set": ("ISO_IR 999", "Müller^Jörg".encode("latin-1")),
    "utf-8 in latin 1": ("ISO_IR 100", "Müller^Jörg".encode()),
    "utf-8 in latin 1, code extensions": (["ISO 2022 IR 100", "ISO 2022 IR 87"], "Müller^Jörg".encode()),
    "utf-8 in latin 2": ("ISO_IR 101", "Müller^Jörg".encode()),
    "utf-8 in latin 5": ("ISO_IR 148", "Gül^Ayşe".encode()),
    "utf-8 in cyrillic": ("ISO_IR 144", "Иванов^Иван".encode()),
    "utf-8 in greek": ("ISO_IR 126", "Διονυσιος".encode()),
    "utf-8 in thai": ("ISO_IR 166", "สมชาย".encode()),
    "chinese utf-8 in latin 1": ("ISO_IR 100", "山".encode()),
    "utf-8 in japanese": (JAPANESE, "Müller^Jörg".encode()),
    "utf-8 in korean": (KOREAN, "홍^길동".encode()),
    "cp850, none declared": (None, "Müller^Jörg".encode("cp850")),
    "cp850 in latin 1": ("ISO_IR 100", "Müller^Jörg".encode("cp850")),
    "shift-jis, none declared": (None, "山田^太郎".encode("shift_jis")),
    "gb 18030, none declared": (None, "王^小东".encode("gb18030")),
    "japanese, none declared": (None, YAMADA),
    "japanese in latin 1": ("ISO_IR 100", YAMADA),
    "japanese in utf-8": ("ISO_IR 192", YAMADA),
    "japanese in korean": (KOREAN, YAMADA),
    "korean in japanese": (JAPANESE, b"Hong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce"),
}  # fmt: skip
"""Specific Character Set and the bytes of a name that is in another one."""
OF_ANOTHER_SCRIPT = {
    f"{name} as {encoding} in {character_set}": (character_set, name.encode(encoding))
    for character_set, encoding, name in (
        ("ISO_IR 100", "gbk", "王^小东"),
        ("ISO_IR 100", "gbk", "王^李"),
        ("ISO_IR 100", "gbk", "Wang^Xiaodong=王^小东"),
        ("ISO 2022 IR 100", "gbk", "王^小东"),
        ("ISO_IR 148", "gbk", "王^小东"),
        ("ISO_IR 100", "euc_kr", "김^희중"),
        ("ISO_IR 100", "euc_jp", "山田^太郎"),
        ("ISO_IR 100", "shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        ("ISO_IR 100", "cp1251", "Иванов^Иван"),
        ("ISO_IR 100", "iso8859_5", "Иванов^Иван"),
        ("ISO_IR 100", "koi8-r", "Иванов^Иван"),
        ("ISO_IR 100", "iso8859_7", "Παπας^Νικος"),
        ("ISO_IR 100", "iso8859_8", "שרון^דבורה"),
        ("ISO_IR 100", "iso8859_6", "قباني^نزار"),
        ("ISO_IR 100", "tis-620", "สมชาย"),
    )
}
"""Specific Character Set and the bytes of a name that it makes a name of strange letters: no byte is impossible."""


@pytest.mark.parametrize("kind", [*MISREAD, *OF_ANOTHER_SCRIPT])
def test_text_in_another_character_set_than_declared_is_left_out(kind):
    character_set, value = (MISREAD | OF_ANOTHER_SCRIPT)[kind]
    source = encoded(character_set, PatientName=value, StudyDescription=value, ReferringPhysicianName=value)
    report = reported(source)

    assert (str(report.PatientName), str(report.ReferringPhysicianName)) == ("", "")
    assert "StudyDescription" not in report
    assert report.PatientID == source.PatientID
    assert holds_misread(source, TAKEN)
    assert {found.name for found in identities(source, character_set, value)} == {""}


@pytest.mark.parametrize("kind", MISREAD)
def test_a_patient_id_in_another_character_set_than_declared_is_refused(kind):
    character_set, value = MISREAD[kind]

    with pytest.raises(InvalidInstance, match=r"Patient ID \(0010,0020\)"):
        reported(encoded(character_set, PatientID=value.replace(b"^", b"1")))


@pytest.mark.parametrize(
    ("character_set", "encoding", "name"),
    [("ISO_IR 100", "big5", "陳^大文"), ("ISO_IR 100", "big5", "林^美玲"), ("ISO_IR 100", "iso8859_2", "Jóźwiak")],
)
def test_a_name_with_symbols_is_left_out(character_set, encoding, name):
    source = encoded(character_set, PatientName=name.encode(encoding), PatientID=name.replace("^", "").encode(encoding))

    assert str(reported(source).PatientName) == ""
    assert reported(source).PatientID == source.PatientID  # as the image has it: it is compared, not read
    assert {found.name for found in identities(source, character_set, name.encode(encoding))} == {""}


def test_a_patient_id_of_two_values_is_refused_and_one_written_twice_is_not():
    with pytest.raises(InvalidInstance, match=r"Patient ID \(0010,0020\) has several values"):
        reported(encoded("ISO_IR 192", PatientID=b"A\\B "))

    assert reported(encoded("ISO_IR 192", PatientID=b"A\\A ")).PatientID == "A"


@pytest.mark.parametrize("value", [b"A\x01B", b"A\tB", b"A\r\nB"])
def test_a_patient_id_with_control_characters_is_refused(value):
    with pytest.raises(InvalidInstance, match=r"Patient ID \(0010,0020\)"):
        reported(encoded("ISO_IR 192", PatientID=value))


@pytest.mark.parametrize(
    ("character_set", "value", "name"),
    [
        (None, b"Doe^Jane", "Doe^Jane"),
        (None, b"Doe\x1b(B^Jane", "Doe^Jane"),
        *(
            (character_set, name.encode(encoding), name)
            for character_set, encoding, name in (
                ("ISO_IR 100", "latin-1", "Müller^Jörg"),
                ("ISO_IR 100", "latin-1", "Ångström^Åse"),
                ("ISO_IR 100", "latin-1", "«CAFÉ»^MÃ"),
                ("ISO_IR 100", "latin-1", "Núñez^Mª José"),
                ("ISO_IR 100", "latin-1", "D´Angelo^Gal·la"),
                ("ISO_IR 100", "latin-1", "Þórður^Ýr"),
                ("ISO_IR 100", "latin-1", "ÄÖÜß^äöüå"),
                ("ISO_IR 101", "iso8859-2", "Żółć^Łukasz"),
                ("ISO_IR 101", "iso8859-2", "Jóźwiak^Łukasz"),
                ("ISO_IR 101", "iso8859-2", "JÓŹWIAK"),
                ("ISO_IR 109", "iso8859-3", "Ĝoja"),
                ("ISO_IR 110", "iso8859-4", "Ķēniņš"),
                ("ISO_IR 144", "iso8859-5", "Иванов^Иван"),
                ("ISO_IR 144", "iso8859-5", "ТАТА"),
                ("ISO_IR 126", "iso8859-7", "Διονυσιος"),
                ("ISO_IR 127", "iso8859-6", "قباني^نزار"),
                ("ISO_IR 138", "iso8859-8", "שרון^דבורה"),
                ("ISO_IR 148", "iso8859-9", "Çavuşoğlu^Gülşen"),
                ("ISO_IR 166", "tis-620", "เดช"),
                ("ISO_IR 13", "shift_jis", "ﾔﾏﾀﾞ^ﾐｱ"),
                ("ISO_IR 192", "utf-8", "Müller^Jörg"),
                ("ISO_IR 192", "utf-8", "MÃ¼ller"),
                ("GB18030", "gb18030", "联通"),
                ("GBK", "gbk", "王^小东"),
            )
        ),
        (JAPANESE, YAMADA, "Yamada^Tarou=山田^太郎"),
        (["", "ISO 2022 IR 58"], b"Wang=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1", "Wang=王^小"),
        (["ISO 2022 IR 100", "ISO 2022 IR 144"], b"M\xfcller=\x1b-L\xb8\xd2\xd0\xdd", "Müller=Иван"),
    ],
)
def test_text_in_its_declared_character_set_is_kept(character_set, value, name):
    source = encoded(character_set, PatientName=value, PatientID=value.replace(b"^", b""))
    report = reported(source)

    assert (str(report.PatientName), report.PatientID) == (name, name.replace("^", ""))
    assert not holds_misread(source, TAKEN)
    assert {found.name for found in identities(source, character_set, value)} == {name}


@pytest.mark.parametrize(
    "change",
    [
        lambda item: {"RequestAttributesSequence": [item]},
        lambda item: {"OtherPatientIDsSequence": [item]},
        lambda item: {"ProcedureCodeSequence": [item]},
    ],
)
def test_misread_text_inside_a_sequence_is_noticed_and_left_out(change):
    item = Dataset()
    item.PatientID = item.RequestedProcedureID = item.CodeMeaning = "MÃ¼ller"
    item.CodeValue, item.CodingSchemeDesignator = "1", "99LOCAL"
    source = as_received(source_header(SpecificCharacterSet="ISO_IR 100", **change(item)))

    assert holds_misread(source, TAKEN)
    assert "MÃ" not in str(reported(source))


def test_an_element_of_unknown_value_representation_is_no_obstacle():
    source = as_received(source_header())
    tag = Tag("StudyDescription")
    source[tag] = RawDataElement(tag, "ZZ", 8, b"Abdomen ", 0, False, True)

    assert reported(source).StudyDescription == "Abdomen"
