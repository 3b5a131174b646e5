"""Frames that the pixels hold and the header does not claim: none of them is dropped in silence."""

import struct
from collections.abc import Callable
from functools import partial

import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from support.header_builders import CT, MR, OP, dataset, multi_frame, series
from support.siblings import before_release

from mediqa_node.dicom.exclusions import exclusions
from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.stored_frames import keep_stored_frames, stored_frames, uses_unstored_bits
from mediqa_node.dicom.technique.harvest import harvest

EDGE = 16
FRAME = EDGE * EDGE * 2
BEGINS = {
    RLELossless: b"\2\0\0\0\x40\0\0\0\x50\0\0\0",
    JPEGBaseline8Bit: b"\xff\xd8\xff\xe0\0\x10",
    JPEGLSLossless: b"\xff\xd8\xff\xf7\0\x0b",
    JPEG2000Lossless: b"\xff\x4f\xff\x51\0\x29",
}


PIXELS = {
    "Rows": EDGE, "Columns": EDGE, "BitsAllocated": 16, "BitsStored": 8, "PixelRepresentation": 0, "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
}  # fmt: skip


def held(
    path, syntax: UID, pixels: bytes, change: Callable[[Dataset], None] = lambda ds: None, **changes: object
) -> Dataset:
    """Write an image of 16 x 16 and read its header."""
    [ds] = series(CT, n=1, **PIXELS | changes)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = pixels
    ds["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    ds["PixelData"].is_undefined_length = syntax.is_encapsulated
    change(ds)
    ds.save_as(path / "image.dcm", enforce_file_format=True)
    return read_header(path / "image.dcm")


def refused(headers: list[Dataset]) -> list[tuple[str, str]]:
    return [(found.code, found.detail) for found in exclusions(headers) if not found.scorable]


@pytest.mark.parametrize("claimed", [{}, {"NumberOfFrames": 0}, {"NumberOfFrames": 1}])
@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, *BEGINS],
)
def test_twelve_frames_in_an_image_of_one_refuse_it(tmp_path, syntax, claimed):
    pixels = encapsulate([BEGINS[syntax]] * 12, has_bot=bool(claimed)) if syntax in BEGINS else bytes(12 * FRAME)

    header = held(tmp_path, syntax, pixels, **claimed)

    [(code, detail)] = refused([header])
    assert (stored_frames(header), code) == (12, "frames_in_single_frame_class")
    assert "12 frames in Pixel Data (7FE0,0010)" in detail
    assert not harvest([header]).eligible


@pytest.mark.parametrize("begins", BEGINS.values(), ids=[syntax.keyword for syntax in BEGINS])
def test_fragments_that_go_on_with_a_frame_are_none(tmp_path, begins):
    header = held(tmp_path, JPEG2000Lossless, encapsulate([begins + bytes(64)], fragments_per_frame=5))

    assert (stored_frames(header), refused([header])) == (1, [])


@pytest.mark.parametrize(
    ("length", "frames"),
    [
        (FRAME, 1), (FRAME + 2, 1), (FRAME + 300, 1), (FRAME - 2, 1), (FRAME // 2, 0), (2 * FRAME - 2, 2),
        (2 * FRAME, 2), (3 * FRAME + 90, 3),
    ],
)  # fmt: skip
def test_padding_is_no_frame_and_a_frame_may_lack_its_last_bytes(tmp_path, length, frames):
    header = held(tmp_path, ExplicitVRLittleEndian, bytes(length))

    assert (stored_frames(header), len(refused([header]))) == (frames, frames > 1)


@pytest.mark.parametrize("changes", [{"Rows": EDGE // 2, "Columns": 2 * EDGE}, {"SamplesPerPixel": 3}, {"Rows": 0}])
def test_a_frame_has_the_size_that_the_header_claims(tmp_path, changes):
    rows, columns = changes.get("Rows", EDGE), changes.get("Columns", EDGE)
    frame_bytes = rows * columns * changes.get("SamplesPerPixel", 1) * 2

    header = held(tmp_path, ExplicitVRLittleEndian, bytes(5 * frame_bytes or 10), **changes)

    assert stored_frames(header) == (5 if frame_bytes else None)


def test_half_the_rows_of_its_pixels_refuse_an_image(tmp_path):
    header = held(tmp_path, ExplicitVRLittleEndian, bytes(4 * FRAME), Rows=EDGE, Columns=2 * EDGE)

    assert [code for code, _ in refused([header])] == ["frames_in_single_frame_class"]


def jpeg(rows: int, columns: int, *, marker: int = 0xC0, before: bytes = b"") -> bytes:
    return b"\xff\xd8" + before + struct.pack(">BBHBHHB", 0xFF, marker, 11, 8, rows, columns, 1) + bytes(40)


def j2k(rows: int, columns: int, *, origin: int = 0, before: bytes = b"", samples: int = 1, bits: int = 12) -> bytes:
    area = (columns + origin, rows + origin, origin, origin)
    size = struct.pack(">4H8IHB", 0xFF4F, 0xFF51, 41, 0, *area, columns, rows, 0, 0, samples, bits - 1)
    return before + size + bytes(40)


APP1 = b"\xff\xe1" + struct.pack(">H", 502) + b"\xff\xd8\xff\xc0\0\x0b\x08\0\x04\0\x04" + bytes(489)
JP2 = b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60)


@pytest.mark.parametrize(
    ("syntax", "write"),
    [
        (JPEGBaseline8Bit, jpeg), (JPEGLSLossless, partial(jpeg, marker=0xF7)),
        (JPEGBaseline8Bit, partial(jpeg, before=APP1)), (JPEG2000Lossless, j2k),
        (JPEG2000Lossless, partial(j2k, origin=9)), (JPEG2000Lossless, partial(j2k, before=JP2)),
    ],
    ids=["JPEG", "JPEG-LS", "JPEG with a thumbnail", "JPEG 2000", "JPEG 2000 off the origin", "JP2"],
)  # fmt: skip
@pytest.mark.parametrize(("rows", "frames"), [(EDGE, 1), (EDGE + 1, 1), (EDGE // 2, 1), (2 * EDGE, 2), (12 * EDGE, 12)])
def test_a_codestream_of_more_rows_than_the_header_counts_as_frames(tmp_path, syntax, write, rows, frames):
    header = held(tmp_path, syntax, encapsulate([write(rows, EDGE)]))

    expected = ["frames_in_single_frame_class"] if frames > 1 else ["implausible"] if rows != EDGE else []
    assert (stored_frames(header), [code for code, _ in refused([header])]) == (frames, expected)


@pytest.mark.parametrize(
    ("write", "changes", "named"),
    [
        (partial(j2k, EDGE, EDGE + 8), {}, "16 x 24 pixels"),
        (partial(jpeg, EDGE, 2 * EDGE), {"Rows": 2 * EDGE}, "16 x 32 pixels, the header of 32 x 16"),
        (partial(jpeg, 2 * EDGE, EDGE), {"Columns": 2 * EDGE}, "32 x 16 pixels, the header of 16 x 32"),
        (partial(j2k, EDGE, EDGE, samples=3), {}, "3 samples"),
        (partial(j2k, EDGE, EDGE, bits=8), {"BitsStored": 12}, "8 bits"),
        (partial(jpeg, EDGE, EDGE), {"BitsStored": 16}, "8 bits"),
    ],
)
def test_a_codestream_that_contradicts_its_header_refuses_the_image(tmp_path, write, changes, named):
    header = held(tmp_path, JPEG2000Lossless, encapsulate([write()]), **changes)

    [(code, detail)] = refused([header])
    assert (code, named in detail) == ("implausible", True), detail
    assert not harvest([header]).eligible


@pytest.mark.parametrize(("bits", "stored"), [(16, 12), (12, 16), (12, 12), (9, 12), (8, 8)])
def test_a_codestream_may_have_more_bits_than_are_stored_or_a_few_less(tmp_path, bits, stored):
    header = held(tmp_path, JPEG2000Lossless, encapsulate([j2k(EDGE, EDGE, bits=bits)]), BitsStored=stored)

    assert refused([header]) == []


@pytest.mark.parametrize(
    "missing", ["BitsStored", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"]
)
@pytest.mark.parametrize("absent", [True, False])
def test_pixels_that_no_decoder_can_read_refuse_the_image(tmp_path, missing, absent):
    def without(ds: Dataset) -> None:
        ds[missing].value = None
        if absent:
            del ds[missing]

    header = held(tmp_path, JPEG2000Lossless, encapsulate([j2k(EDGE, EDGE)]), without)

    [(code, detail)] = refused([header])
    assert (code, f"{missing} (0028," in detail) == ("implausible", True), detail
    assert not harvest([header]).eligible


@pytest.mark.parametrize("rows", [EDGE - 1, EDGE - 4])
def test_native_pixels_that_go_on_behind_the_header_refuse_the_image(tmp_path, rows):
    pixels = bytes(range(256)) * (FRAME // 256)

    header = held(tmp_path, ExplicitVRLittleEndian, pixels, Rows=rows, Columns=EDGE)

    assert [code for code, _ in refused([header])] == ["implausible"]


SIGN = {"PixelRepresentation": 1}
TWELVE = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, *before_release(ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)]
)
@pytest.mark.parametrize(
    ("changes", "value", "flagged"),
    [
        (TWELVE, 4095, False), (TWELVE, 4096, True), (TWELVE, 60000, True), (TWELVE, 0xF000, True),
        (TWELVE | SIGN, 2047, False), (TWELVE | SIGN, 0x0800, False), (TWELVE | SIGN, 0xF800, False),
        (TWELVE | SIGN, 0xF7FF, True), (TWELVE | SIGN, 0x0FFF, False), (TWELVE | SIGN, 0xFFFF, False),
        ({"BitsStored": 12}, 5000, True), ({"BitsStored": 10, "HighBit": 9}, 1024, True),
        ({"BitsStored": 16, "HighBit": 15}, 60000, False), ({"BitsStored": 12, "HighBit": 15}, 60000, False),
        (TWELVE | {"PixelPaddingValue": 63536}, 63536, False), (TWELVE | {"PixelPaddingValue": 63536}, 63535, True),
        (TWELVE | SIGN | {"PixelPaddingValue": -32768}, 0x8000, False),
        (TWELVE | SIGN | {"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": -32000}, 0x8080, False),
        (TWELVE | SIGN | {"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": -32000}, 0x9000, True),
    ],
)  # fmt: skip
def test_values_above_bits_stored_are_noticed_unless_sign_or_padding(tmp_path, syntax, changes, value, flagged):
    pixels = struct.pack(f"{'<' if syntax.is_little_endian else '>'}{EDGE * EDGE}H", *[7] * 255, value)

    assert uses_unstored_bits(held(tmp_path, syntax, pixels, **changes)) is flagged


@pytest.mark.parametrize(("position", "flagged"), [(12, False), (15, False), (0, True)])
def test_a_declared_overlay_may_use_bits_above(tmp_path, position, flagged):
    pixels = struct.pack(f"<{EDGE * EDGE}H", *[0x1007] * 256)

    def with_overlay(ds: Dataset) -> None:
        ds.add_new(0x60020102, "US", position)

    assert uses_unstored_bits(held(tmp_path, ExplicitVRLittleEndian, pixels, with_overlay, **TWELVE)) is flagged


@pytest.mark.parametrize("sop_class", [CT, MR])
@pytest.mark.parametrize(("wrong", "scored"), [(2, True), (6, True), (7, False), (12, False)])
def test_a_minority_with_too_many_frames_is_left_out_and_does_not_train(sop_class, wrong, scored):
    headers = series(sop_class, n=12, Exposure=100, KVP=120, ExposureTime=500, MagneticFieldStrength=3)
    for header in headers[:wrong]:
        keep_stored_frames(header, 12)

    technique = harvest(headers)

    assert (technique.refusal is None, technique.eligible) == (scored, False)
    assert len(technique.frames) == (12 - wrong if scored else 0)


ENHANCED_CT, ENHANCED_MR = CT + ".1", MR + ".1"


def multi(sop_class: str, claimed: object, groups: int, pixels: int | None) -> Dataset:
    header = multi_frame(sop_class, Dataset(), [Dataset() for _ in range(groups)], NumberOfFrames=claimed)
    if not groups:
        del header.PerFrameFunctionalGroupsSequence
    keep_stored_frames(header, pixels)
    return header


@pytest.mark.parametrize("sop_class", [ENHANCED_CT, ENHANCED_MR])
@pytest.mark.parametrize(
    ("claimed", "groups", "pixels", "named"),
    [
        (10, 20, None, ["(0028,0008) is 10", "(5200,9230) has 20 items"]),
        (1, 20, 20, ["(0028,0008) is 1", "(5200,9230) has 20 items"]),
        (20, 10, None, ["(0028,0008) is 20", "(5200,9230) has 10 items"]),
        (20, 1, 20, ["(0028,0008) is 20", "(5200,9230) has 1 items"]),
        (None, 20, 20, ["(0028,0008) is missing", "(5200,9230) has 20 items"]),
        (-3, 2, 2, ["(0028,0008) is -3", "(5200,9230) has 2 items"]),
        (10, 10, 20, ["(0028,0008) is 10", "(7FE0,0010) holds 20 frames"]),
        (1, 1, 2, ["(0028,0008) is 1", "(7FE0,0010) holds 2 frames"]),
        (10, 0, 20, ["(0028,0008) is 10", "(7FE0,0010) holds 20 frames"]),
    ],
)
def test_a_multi_frame_object_whose_parts_count_differently_is_refused(sop_class, claimed, groups, pixels, named):
    header = multi(sop_class, claimed, groups, pixels)

    [(code, detail)] = refused([header])

    assert (code, [part for part in named if part not in detail]) == ("implausible", [])
    assert not harvest([header]).eligible


@pytest.mark.parametrize(("claimed", "groups", "pixels"), [(20, 20, 20), (20, 20, None), (20, 20, 19), (1, 1, 1)])
def test_a_multi_frame_object_whose_parts_agree_is_scored(claimed, groups, pixels):
    assert refused([multi(ENHANCED_CT, claimed, groups, pixels)]) == []


def test_a_photograph_that_holds_a_second_one_is_refused():
    header = dataset(SOPClassUID=OP, Rows=64, Columns=64, SamplesPerPixel=3, PhotometricInterpretation="RGB")
    keep_stored_frames(header, 2)

    assert refused([header]) == [
        ("implausible", "Number of Frames (0028,0008) is missing, Pixel Data (7FE0,0010) holds 2 frames")
    ]
