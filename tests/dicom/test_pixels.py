"""Stored values to Hounsfield units, MR signal and RGB."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from support.header_builders import raw as put_raw

from mediqa_node.dicom.pixels import to_image, uses_unstored_bits
from mediqa_node.domain.errors import UndecodablePixels, UnreadableElement

DATA = Path(__file__).parents[1] / "data"


def gray(modality: str = "CT", *, bits: int = 16, signed: bool = False, **changes: object) -> Dataset:
    header = Dataset()
    header.Modality, header.PhotometricInterpretation, header.SamplesPerPixel = modality, "MONOCHROME2", 1
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, bits, bits - 1
    header.PixelRepresentation = int(signed)
    for keyword, value in changes.items():
        setattr(header, keyword, value)
    return header


def test_a_real_ct_slice_is_in_hounsfield_units():
    dataset = pydicom.dcmread(
        DATA / "ct_body_totalseg_j2k" / sorted(p.name for p in (DATA / "ct_body_totalseg_j2k").iterdir())[0]
    )

    image = to_image(dataset.pixel_array, dataset, None)

    assert (image.shape, image.dtype) == ((512, 512), np.float32)
    assert image.min() == -1024
    assert np.median(image[200:300, 200:300]) == pytest.approx(40, abs=100)


def test_a_real_philips_slice_is_rescaled_by_its_own_slope():
    dataset = pydicom.dcmread(min((DATA / "mr_brain_dti_achieva").glob("*.dcm")))

    image = to_image(dataset.pixel_array, dataset, None)

    assert image.max() == pytest.approx(dataset.pixel_array.max() * 1.08205128205128, rel=1e-6)


def test_a_real_colour_capture_stays_0_to_255():
    dataset = pydicom.dcmread(next((DATA / "refuse" / "secondary_capture_rgb").glob("*.dcm")))

    image = to_image(dataset.pixel_array, dataset, None)

    assert image.shape == (100, 100, 3)
    assert image[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("padding", [-3024, -2000, -1500])
def test_padding_and_everything_below_air_is_minus_1024(padding):
    raw = np.array([[padding, -1100], [-1000, 40]], dtype=np.int16)

    image = to_image(raw, gray(signed=True, PixelPaddingValue=padding, RescaleSlope=1, RescaleIntercept=0), None)

    assert image.tolist() == [[-1024, -1024], [-1000, 40]]


def test_padding_that_would_read_as_tissue_is_air():
    raw = np.array([[63536, 1064]], dtype=np.uint16)

    image = to_image(raw, gray(bits=12, PixelPaddingValue=63536, RescaleIntercept=-1024), None)

    assert image.tolist() == [[-1024, 40]]


def test_negative_padding_in_unsigned_pixels_is_found():
    raw = np.array([[65536 - 2000, 1064]], dtype=np.uint16)

    image = to_image(raw, gray(PixelPaddingValue=-2000, RescaleIntercept=-1024), None)

    assert image.tolist() == [[-1024, 40]]


def test_a_range_of_padding_is_all_air():
    raw = np.array([[100, 150, 200, 1064]], dtype=np.uint16)
    header = gray(PixelPaddingValue=100, PixelPaddingRangeLimit=200, RescaleIntercept=-1000)

    assert to_image(raw, header, None).tolist() == [[-1024, -1024, -1024, 64]]


def test_mr_padding_takes_the_lowest_real_value():
    raw = np.array([[0, 5000, 7, 9]], dtype=np.uint16)

    assert to_image(raw, gray("MR", PixelPaddingValue=5000), None).tolist() == [[0, 0, 7, 9]]


def test_an_overlay_in_unused_bits_is_cut_off():
    raw = np.array([[0x8000 | 1064]], dtype=np.uint16)

    assert to_image(raw, gray(bits=12, RescaleIntercept=-1024), None).tolist() == [[40]]


def test_the_sign_of_a_twelve_bit_value_is_kept():
    raw = np.array([[0x0FFF, 0x0001, -5]], dtype=np.int16)

    assert to_image(raw, gray(bits=12, signed=True), None).tolist() == [[-1, 1, -5]]


@pytest.mark.parametrize(
    ("values", "signed", "changes", "expected"),
    [
        ([0, 4095], False, {}, False), ([0, 4096], False, {}, True), ([0, 63536], False, {}, True),
        ([0, 63536], False, {"PixelPaddingValue": 63536}, False),
        ([-2048, 2047], True, {}, False), ([0, 2048], True, {}, False), ([0, 4096], True, {}, True),
        ([0, -2049], True, {}, True), ([0, -3000], True, {"PixelPaddingValue": -3000}, False),
        ([0, 4096], False, {"HighBit": 15}, False),
    ],
)  # fmt: skip
def test_values_above_bits_stored_are_noticed_unless_sign_or_padding(values, signed, changes, expected):
    raw = np.array([values], dtype=np.int16 if signed else np.uint16)
    header = gray("MR", bits=12, signed=signed, **changes)

    assert uses_unstored_bits(raw, header) is expected
    header.add_new(0x60000102, "US", 12)
    assert not uses_unstored_bits(raw, header)


def test_values_above_a_high_bit_that_is_not_the_lowest_possible_are_shifted_down():
    raw = np.array([[40 << 4]], dtype=np.uint16)

    assert to_image(raw, gray("MR", bits=12, HighBit=15), None).tolist() == [[40]]


@pytest.mark.parametrize("label", ["MONOCHROME1", "Monochrome1", "monochrome1 "])
def test_monochrome1_is_inverted_for_mr(label):
    header = gray("MR", bits=12, PhotometricInterpretation=label)

    assert to_image(np.array([[0, 4095, 95]], dtype=np.uint16), header, None).tolist() == [[4095, 0, 4000]]


def test_monochrome1_leaves_hounsfield_units_alone():
    header = gray(PhotometricInterpretation="MONOCHROME1", RescaleIntercept=-1024)

    assert to_image(np.array([[1064]], dtype=np.uint16), header, None).tolist() == [[40]]


def test_each_frame_has_its_own_rescale():
    header = gray("MR", NumberOfFrames=2, RescaleSlope=99)
    header.PerFrameFunctionalGroupsSequence = Sequence([Dataset(), Dataset()])
    for frame, slope in zip(header.PerFrameFunctionalGroupsSequence, (2, 3), strict=True):
        frame.PixelValueTransformationSequence = Sequence([Dataset()])
        frame.PixelValueTransformationSequence[0].RescaleSlope = slope
        frame.PixelValueTransformationSequence[0].RescaleIntercept = 1
    raw = np.array([[10]], dtype=np.uint16)

    assert [to_image(raw, header, number).item() for number in (1, 2)] == [21, 31]


def test_a_modality_lut_is_looked_up():
    header = gray("MR")
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType, lut.LUTData = [3, 0, 16], "US", [100, 200, 400]
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    header.ModalityLUTSequence = Sequence([lut])

    assert to_image(np.array([[0, 1, 2]], dtype=np.uint16), header, None).tolist() == [[100, 200, 400]]


@pytest.mark.parametrize("first", [0, 10])
@pytest.mark.parametrize(
    ("bits", "dtype", "factor", "segmented"),
    [(16, "<u2", 257, False), (8, "u1", 1, False), (8, "<u2", 1, False), (16, "<u2", 1, False), (16, "<u2", 1, True),
     (16, "<u2", 257, True)],
    ids=["16 bits", "8 bits", "8 bits in words", "8 bits called 16", "8 bits called 16, segmented", "segmented"],
)  # fmt: skip
def test_palette_colours_come_out_as_rgb(first, bits, dtype, factor, segmented):
    header = gray("OP", bits=8, PhotometricInterpretation="PALETTE COLOR", BitsAllocated=8)
    header.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    for colour, values in (("Red", (0, 255)), ("Green", (0, 128)), ("Blue", (0, 0))):
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [2, first, bits])
        header[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        table = np.array(values, dtype=dtype) * factor
        if segmented:
            table = np.array([0, 2, *table], dtype=dtype)  # one discrete segment of two
        name = f"{colour}PaletteColorLookupTableData"
        setattr(header, f"Segmented{name}" if segmented else name, table.astype(dtype).tobytes())

    image = to_image(np.array([[first, first + 1], [first, first]], dtype=np.uint8), header, None)

    assert image.shape == (2, 2, 3)
    assert image[0].tolist() == [[0, 0, 0], [255, 128, 0]]
    assert to_image(np.array([[first]], dtype=np.uint8), header, None).max() == 0  # the tables decide, not the image


def test_gray_photographs_use_the_range_0_to_255():
    assert to_image(np.array([[0, 4095]], dtype=np.uint16), gray("OP", bits=12), None).tolist() == [[0, 255]]


def test_infinities_and_nans_of_float_pixels_become_finite():
    raw = np.array([[np.nan, np.inf, -np.inf, 7]], dtype=np.float32)

    image = to_image(raw, gray("MR"), None)

    assert np.isfinite(image).all()
    assert image[0, 3] == 7


def test_four_samples_per_pixel_are_refused():
    with pytest.raises(UndecodablePixels, match="shape"):
        to_image(np.zeros((2, 2, 4), dtype=np.uint8), gray("OP", PhotometricInterpretation="ARGB"), None)


def test_a_decimal_comma_in_the_intercept_is_understood():
    header = put_raw(gray(), "RescaleIntercept", "DS", b"-1024,0")

    assert to_image(np.array([[1064]], dtype=np.uint16), header, None).tolist() == [[40]]


@pytest.mark.parametrize(
    "keyword", ["RescaleIntercept", "RescaleSlope", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"]
)
def test_an_unreadable_element_is_named_and_never_a_default(keyword):
    header = put_raw(gray(bits=12), keyword, "LO", b"unknown")

    with pytest.raises(UnreadableElement, match=keyword):
        to_image(np.array([[1064]], dtype=np.uint16), header, None)


def test_a_broken_lookup_table_is_an_error_of_the_data():
    header = gray("MR")
    header.ModalityLUTSequence = Sequence([Dataset()])
    palette = gray("OP", PhotometricInterpretation="PALETTE COLOR")

    for broken in (header, palette):
        with pytest.raises(UndecodablePixels, match="cannot be applied"):
            to_image(np.array([[1]], dtype=np.uint16), broken, None)
