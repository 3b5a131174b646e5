"""Values that vendors have bent are understood, dropped, or flagged, and never raise."""

import math
import struct

import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from support.header_builders import CT, MR, dataset, multi_frame, raw, series

from mediqa_node.dicom.header import (
    FrameHeader,
    codes,
    exact,
    frame_count,
    frame_headers,
    has_value,
    items,
    number,
    numbers,
    private_tag,
    text,
    texts,
)
from mediqa_node.dicom.values import with_known_vrs
from mediqa_node.domain.errors import UnreadableElement


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        (b"120 kV", 120.0),
        (b"1,5 kV", 1.5),
        (b" 300 ", 300.0),
        (b"1.2e2", 120.0),
        (b"+42.0", 42.0),
        (b"42\\43", 42.0),
        (b"\\43", 43.0),
        (b"0\\43", 43.0),
        (b"", None),
        (b"0", None),
        (b"-5", None),
        (b"NaN", None),
        (b"inf", None),
        (b"1e999", None),
        (b"unknown", None),
        (b"\xff\xfe", None),
    ],
)
def test_a_decimal_string_is_read_as_a_person_would(written, understood):
    assert number(raw(Dataset(), "KVP", "DS", written), "KVP") == understood


def test_an_absent_element_and_an_empty_one_have_no_value():
    assert number(Dataset(), "KVP") is None
    assert number(dataset(KVP=None), "KVP") is None


def test_an_empty_element_of_an_unknown_representation_has_no_value():
    tag, header = Tag("PatientID"), Dataset()
    header[tag] = RawDataElement(tag, "U\0", 0, None, 0, False, True)

    assert text(header, "PatientID") == ""
    assert not has_value(header, "PatientID")
    assert with_known_vrs(header).PatientID == ""


def test_zero_and_negative_numbers_are_kept_where_the_caller_says_they_mean_something():
    header = raw(Dataset(), "WindowCenter", "DS", b"-600\\0")

    assert numbers(header, "WindowCenter", signed=True) == (-600.0, 0.0)
    assert numbers(header, "WindowCenter") == ()


def test_values_that_differ_by_more_than_one_percent_are_flagged():
    flags: list[str] = []

    assert number(raw(Dataset(), "Exposure", "IS", b"100\\102"), "Exposure", flags=flags) == 100
    assert flags == ["multi_value:Exposure"]


def test_values_within_one_percent_are_not_flagged():
    flags: list[str] = []

    number(raw(Dataset(), "Exposure", "IS", b"100\\100.5"), "Exposure", flags=flags)

    assert flags == []


def test_doubles_are_read_from_raw_bytes_of_unknown_vr():
    header = raw(Dataset(), "CTDIvol", "UN", struct.pack("<d", 12.5))

    assert number(header, "CTDIvol") == 12.5


def test_doubles_that_are_not_a_number_are_dropped():
    header = dataset(CTDIvol=[math.nan, math.inf, 7.0])

    assert numbers(header, "CTDIvol") == (7.0,)


def test_bytes_of_a_length_that_fits_no_double_have_no_value():
    assert number(raw(Dataset(), "CTDIvol", "FD", b"\x01\x02\x03"), "CTDIvol") is None


@given(st.binary(max_size=24), st.sampled_from(["DS", "IS", "FD", "US", "UN", "LO", "CS"]))
def test_no_bytes_in_any_vr_make_the_reader_raise(value, vr):
    found = numbers(raw(Dataset(), "Exposure", vr, value), "Exposure")

    assert all(math.isfinite(x) and x > 0 for x in found)


def test_texts_are_stripped_and_codes_are_upper_case():
    header = raw(Dataset(), "ScanOptions", "CS", b"Helical Mode \\\\ EDR_GEMS\0")

    assert texts(header, "ScanOptions") == ("Helical Mode", "EDR_GEMS")
    assert codes(header, "ScanOptions") == ("HELICAL MODE", "EDR_GEMS")
    assert text(header, "ScanOptions") == "Helical Mode\\EDR_GEMS"


def test_a_sequence_that_is_no_sequence_has_no_items():
    assert items(dataset(PatientComments="x"), "PatientComments") == ()
    assert items(None, "CTExposureSequence") == ()


def test_private_elements_are_found_by_creator_in_whatever_block():
    header = Dataset()
    header.private_block(0x0019, "SOMEBODY", create=True).add_new(0x27, "DS", "9")
    header.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0x27, "DS", "0.8")

    assert private_tag(header, 0x0019, "GEMS_ACQU_01", 0x27) == 0x00191127
    assert FrameHeader(header).private_numbers(0x0019, "gems_acqu_01", 0x27) == (0.8,)
    assert FrameHeader(header).private_numbers(0x0019, "ABSENT", 0x27) == ()


def test_a_frame_answers_before_the_shared_group_and_that_before_the_root():
    shared = dataset(CTExposureSequence=dataset(ExposureInmAs=50.0, XRayTubeCurrentInmA=100.0))
    own = dataset(CTExposureSequence=dataset(ExposureInmAs=60.0))
    header = multi_frame(CT, shared, [own, Dataset()], KVP=120)

    first, second = frame_headers(header)

    assert (first.number("ExposureInmAs"), second.number("ExposureInmAs")) == (60.0, 50.0)
    assert first.number("XRayTubeCurrentInmA") == 100.0
    assert first.number("KVP") == 120
    assert (first.frame_number, second.frame_number) == (1, 2)


def test_values_that_a_legacy_converter_could_not_place_are_found():
    own = dataset(UnassignedPerFrameConvertedAttributesSequence=dataset(Exposure=77))
    shared = dataset(UnassignedSharedConvertedAttributesSequence=dataset(Exposure=1, KVP=140))
    header = multi_frame(CT, shared, [own])

    [frame] = frame_headers(header)

    assert frame.number("Exposure") == 77
    assert frame.number("KVP") == 140


def test_a_classic_object_is_one_frame_without_a_number():
    [frame] = frame_headers(series(n=1)[0])

    assert frame.frame_number is None


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        (b"-1024,0", -1024.0),
        (b"-1024\0", -1024.0),
        (b" -1024 ", -1024.0),
        (b"-1024\\-1024", -1024.0),
        (b"-1024\\", -1024.0),
        (b"-1024 HU", -1024.0),
        (b"-1.024E3", -1024.0),
        (b"-1024 [HU]", -1024.0),
        (b"0", 0.0),
        (b"0,488", 0.488),
        (b"-0,488", -0.488),
        (b"12,5", 12.5),
        (b"-10,25", -10.25),
        (b"1,2345", 1.2345),
        (b"1234,567", 1234.567),
        (b",125", 0.125),
        (b"1,5e3", 1500.0),
    ],
)
def test_a_bent_number_that_has_one_meaning_is_read(written, understood):
    assert exact(raw(Dataset(), "RescaleIntercept", "DS", written), "RescaleIntercept") == (understood,)


@pytest.mark.parametrize(
    "written",
    [
        b"unknown",
        b"-1024\\0",
        b"1,024.5",
        b"1.024,5",
        b"10 20",
        b"0x10",
        b"NaN",
        b"1e999",
        b"5-3",
        b"\xa0 -1024.0",
        b"1,250",
        b"-1,024",
        b"1,000",
        b"+12,500",
        b"-100,000",
        b"1,024 HU",
        b"1,024e1",
        b"1,024,000",
        b"-1.024D+03",
        b"-1024 mm",
        b"-1024 H U",
        b"?",
    ],
)
def test_a_value_without_one_meaning_is_refused_by_name(written):
    with pytest.raises(UnreadableElement, match=r"^RescaleIntercept \(0028,1052\) '.*' is not a number$"):
        exact(raw(Dataset(), "RescaleIntercept", "DS", written), "RescaleIntercept")


@pytest.mark.parametrize(
    ("keyword", "vr", "written", "understood"),
    [
        ("Exposure", "IS", b"1,250", ()),
        ("Exposure", "IS", b"12,5", ()),
        ("Exposure", "UT", b"12,5", ()),
        ("KVP", "IS", b"12,5", ()),
        ("Exposure", "IS", b"12.5", (12.5,)),
        ("Exposure", "IS", b"100 mAs", (100.0,)),
        ("Exposure", "IS", b"100 uAs", ()),
        ("XRayTubeCurrent", "IS", b"1,200", ()),
        ("XRayTubeCurrent", "IS", b"0.2 A", ()),
        ("ExposureTime", "IS", b"0.5 s", ()),
        ("ExposureTime", "IS", b"500 ms", (500.0,)),
        ("ExposureTimeInuS", "DS", b"500 \xb5s", (500.0,)),
        ("MagneticFieldStrength", "DS", b"1,494", ()),
        ("MagneticFieldStrength", "DS", b"1,5 Tesla", (1.5,)),
        ("MagneticFieldStrength", "DS", b"15000 G", ()),
        ("ImagePositionPatient", "DS", b"0\\0\\1,000", (0.0, 0.0)),
        ("ImagePositionPatient", "DS", b"-0,5\\12,25\\1,000", (-0.5, 12.25, 1.0)),
        ("ImagePositionPatient", "UT", b"-0,5\\12,25\\1,000", (-0.5, 12.25, 1.0)),
        ("ImagePositionPatient", "LO", b"-0,5\\12,25\\1,000", (-0.5, 12.25, 1.0)),
        ("ImagePositionPatient", "DS", b"1,000\\2,000\\3,000", ()),
        ("PixelSpacing", "DS", b"3,125\\3,125", (3.125, 3.125)),
        ("PixelSpacing", "DS", b"0.05 cm\\0.05 cm", ()),
        ("PixelSpacing", "DS", b"0.5 mm\\0.5 (mm)", (0.5, 0.5)),
        ("WindowCenter", "DS", b"1,024\\40", (40.0,)),
    ],
)
def test_a_comma_or_a_unit_that_may_mean_something_else_gives_no_number(keyword, vr, written, understood):
    assert numbers(raw(Dataset(), keyword, vr, written), keyword, signed=True) == understood


@pytest.mark.parametrize("written", [b"0\\0\\1,000", b"1,000\\2,000\\3,000"])
def test_a_position_with_a_comma_for_thousands_is_refused(written):
    with pytest.raises(UnreadableElement, match=r"^ImagePositionPatient"):
        exact(raw(Dataset(), "ImagePositionPatient", "DS", written), "ImagePositionPatient", 3)


@pytest.mark.parametrize("written", [b"", b"  ", b"\0\0"])
def test_an_empty_element_is_absent_and_not_unreadable(written):
    header = raw(Dataset(), "RescaleIntercept", "DS", written)

    assert exact(header, "RescaleIntercept") is None
    assert exact(Dataset(), "RescaleIntercept") is None


def test_a_binary_zero_is_a_value():
    header = raw(Dataset(), "PixelRepresentation", "US", b"\0\0")

    assert has_value(header, "PixelRepresentation")
    assert exact(header, "PixelRepresentation") == (0.0,)


@pytest.mark.parametrize(
    ("vr", "written"),
    [
        ("UT", b"1\\2\\-3.5"),
        ("LO", b"1\\2\\-3.5"),
        ("UN", b"1\\2\\-3.5"),
        ("OB", b"1\\2\\-3.5"),
        ("ZZ", b"1\\2\\-3.5"),
        ("FD", struct.pack("<3d", 1, 2, -3.5)),
        ("FL", struct.pack("<3f", 1, 2, -3.5)),
    ],
)
def test_a_position_is_read_in_whatever_value_representation(vr, written):
    header = raw(Dataset(), "ImagePositionPatient", vr, written)

    assert exact(header, "ImagePositionPatient", 3) == (1.0, 2.0, -3.5)


@pytest.mark.parametrize("written", [b"1\\2", b"1\\2\\3\\4", b"1\\\\3", b"1\\two\\3"])
def test_a_position_of_other_than_three_numbers_is_refused_by_name(written):
    with pytest.raises(UnreadableElement, match=r"^ImagePositionPatient \(0020,0032\) '.*' is not 3 numbers$"):
        exact(raw(Dataset(), "ImagePositionPatient", "DS", written), "ImagePositionPatient", 3)


def test_a_sequence_under_the_tag_of_a_number_is_refused_by_name():
    header = dataset(RescaleIntercept=0)
    header["RescaleIntercept"] = pydicom.DataElement(0x00281052, "SQ", [dataset(KVP=120)])

    with pytest.raises(UnreadableElement, match="RescaleIntercept"):
        exact(header, "RescaleIntercept")


@example(bytes(7) + b"\1" + bytes(7) + b"\1\0", "SQ")
@given(
    st.binary(min_size=1, max_size=24), st.sampled_from(["DS", "IS", "FD", "US", "UN", "LO", "UT", "OB", "ZZ", "SQ"])
)
def test_whatever_the_bytes_a_number_is_read_or_refused(value, vr):
    header = raw(Dataset(), "RescaleSlope", vr, value)
    try:
        found = exact(header, "RescaleSlope")
    except UnreadableElement as error:
        assert str(error).startswith("RescaleSlope (0028,1053) ")
        assert str(error).isprintable()
    else:
        assert found is None or (len(found) == 1 and math.isfinite(found[0]))


def test_evidence_that_is_unreadable_is_flagged_and_zero_is_unknown():
    flags: list[str] = []

    assert number(raw(Dataset(), "Exposure", "IS", b"high"), "Exposure", flags=flags) is None
    assert number(raw(Dataset(), "KVP", "DS", b"0"), "KVP", flags=flags) is None
    assert flags == ["unreadable:Exposure"]


@pytest.mark.parametrize("vr", ["ZZ", "UN", "OB", "??"])
def test_a_text_of_unknown_value_representation_is_read(vr):
    header = raw(Dataset(), "StationName", vr, b"CT_ROOM1")

    assert text(header, "StationName") == "CT_ROOM1"


def test_a_text_in_an_unknown_character_set_is_read():
    header = raw(raw(Dataset(), "SpecificCharacterSet", "CS", b"ISO 9999"), "StationName", "SH", b"CT\xe4")

    assert text(header, "StationName").startswith("CT")


def test_unassigned_values_come_after_both_groups_and_before_the_top_level():
    own = dataset(UnassignedPerFrameConvertedAttributesSequence=dataset(EchoTime=1, RepetitionTime=2, FlipAngle=3))
    shared = dataset(MREchoSequence=dataset(EchoTime=80))
    header = multi_frame(MR, shared, [own], RepetitionTime=500, NumberOfAverages=4)

    [frame] = frame_headers(header)

    assert (frame.number("EchoTime"), frame.number("RepetitionTime"), frame.number("NumberOfAverages")) == (80, 2, 4)


def test_the_diffusion_group_is_read_at_the_top_level_of_a_classic_image_too():
    [frame] = frame_headers(dataset(SOPClassUID=MR, MRDiffusionSequence=dataset(DiffusionBValue=800.0)))

    assert frame.number("DiffusionBValue") == 800


def test_the_exposure_group_is_not_read_there_since_its_time_is_in_seconds():
    header = dataset(SOPClassUID=CT, CTExposureSequence=dataset(ExposureTimeInms=0.8), ExposureTime=800)
    [frame] = frame_headers(header)

    assert (frame.number("ExposureTimeInms"), frame.number("ExposureTime")) == (None, 800)


def test_private_elements_of_a_frame_come_before_those_that_a_converter_could_not_place():
    own, left = Dataset(), Dataset()
    own.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", ["1000000800", "8"])
    left.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", ["1"])
    own.UnassignedPerFrameConvertedAttributesSequence = [left]

    [frame] = frame_headers(multi_frame(MR, Dataset(), [own]))

    assert frame.private_numbers(0x0043, "GEMS_PARM_01", 0x39) == (1000000800, 8)


@pytest.mark.parametrize(
    ("own", "b_value"), [(Dataset(), None), (dataset(MRDiffusionSequence=dataset(DiffusionBValue=800.0)), 800)]
)
def test_a_single_frame_class_stays_one_with_functional_groups_of_one_item(own, b_value):
    """A frame number in a reference to it would make the report invalid, but what the item says is read."""
    header = multi_frame("1.2.840.10008.5.1.4.1.1.4", Dataset(), [own])

    [frame] = frame_headers(header)

    assert (frame_count(header), frame.frame_number) == (None, None)
    assert frame.number("DiffusionBValue") == b_value


def test_a_number_of_frames_that_is_no_count_gives_way_to_the_functional_groups():
    header = multi_frame(CT, Dataset(), [Dataset(), Dataset()])

    assert frame_count(raw(header, "NumberOfFrames", "IS", b"-3")) == 2
