"""Values that vendors have bent are understood, dropped, or flagged, and never raise."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from support.header_builders import CT, dataset, multi_frame, raw, series

from mediqa_node.dicom.header import FrameHeader, codes, frame_headers, items, number, numbers, private_tag, text, texts


@pytest.mark.parametrize(
    ("written", "understood"),
    [
        (b"120 kV", 120.0),
        (b"1,5 T", 1.5),
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
