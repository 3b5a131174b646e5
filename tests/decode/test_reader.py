"""Frames from real files in every encoding that can be written here; bombs; a child that dies."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pydicom
import pytest
from openjpeg.utils import encode_array
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from support.siblings import before_release

from mediqa_node.decode import wire
from mediqa_node.decode.limits import MIB, DecodeLimits
from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.part10 import read_header
from mediqa_node.domain.errors import UndecodablePixels

DATA = Path(__file__).parents[1] / "data"
CT = sorted((DATA / "ct_sts003_lowdose").glob("*.dcm"))[0]
MR = sorted((DATA / "mr_brain_dti_achieva").glob("*.dcm"))[0]
ENHANCED = next((DATA / "mr_brain_t1_xa30_enhanced").glob("*.dcm"))
RGB = next((DATA / "refuse" / "secondary_capture_rgb").glob("*.dcm"))
J2K = sorted((DATA / "ct_body_totalseg_j2k").glob("*.dcm"))[0]
DCMCJPEG = shutil.which("/usr/bin/dcmcjpeg")


@pytest.fixture(scope="module")
def reader():
    with FrameReader() as shared:
        yield shared


@pytest.fixture(scope="module")
def quick():
    """A reader of little patience, shared: it must be as good as new after whatever a test has shown it."""
    with FrameReader(limits=DecodeLimits(wall_s=20, cpu_s=0.5)) as own:
        yield own


def written(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def bare(source: Path) -> Dataset:
    """Only what describes the pixels: real headers are not free to change their syntax."""
    original, dataset = pydicom.dcmread(source), Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns",
                    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):  # fmt: skip
        setattr(dataset, keyword, original[keyword].value)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.PixelData = original.PixelData
    return dataset


def as_syntax(source: Path, syntax: UID, path: Path) -> Path:
    dataset = bare(source)
    dataset.file_meta.TransferSyntaxUID = syntax
    dtype = pydicom.dcmread(source).pixel_array.dtype.newbyteorder("<" if syntax.is_little_endian else ">")
    dataset.PixelData = pydicom.dcmread(source).pixel_array.astype(dtype).tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(
        path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian, enforce_file_format=True
    )
    return path


def as_jpeg_2000(source: Path, syntax: UID, path: Path, change=lambda codestream: codestream) -> Path:
    """Encode by OpenJPEG itself; pydicom's plugin for it also wants pylibjpeg."""
    dataset = bare(source)
    space = 1 if dataset.SamplesPerPixel == 3 else 2
    pixels = pydicom.dcmread(source).pixel_array
    codestream = encode_array(pixels, dataset.BitsStored, photometric_interpretation=space, use_mct=False)
    dataset.PixelData = encapsulate([change(bytes(codestream))])
    dataset.file_meta.TransferSyntaxUID = syntax
    return written(dataset, path)


def as_compressed(source: Path, syntax: UID, path: Path, change=lambda codestream: codestream) -> Path:
    """Compress losslessly, and let `change` have the codestream."""
    if syntax in (JPEG2000Lossless, HTJ2KLossless):
        return as_jpeg_2000(source, syntax, path, change)
    dataset = pydicom.dcmread(source)
    dataset.compress(syntax, generate_instance_uid=False)
    [codestream] = generate_frames(dataset.PixelData, number_of_frames=1)
    dataset.PixelData = encapsulate([change(codestream)])
    return written(dataset, path)


@pytest.mark.parametrize("source", [CT, RGB], ids=["CT", "RGB"])
@pytest.mark.parametrize("changes", [{"Rows": 2}, {"Columns": 2}, {"Rows": 4, "Columns": 3}], ids=str)
def test_rle_of_more_pixels_than_the_header_is_no_image_of_half_of_them(reader, tmp_path, source, changes):
    path = as_compressed(source, RLELossless, tmp_path / "rle.dcm")
    assert np.array_equal(reader.raw(path, None), pydicom.dcmread(source).pixel_array)
    dataset = pydicom.dcmread(path)
    for keyword, divisor in changes.items():
        setattr(dataset, keyword, dataset[keyword].value // divisor)

    with pytest.raises(UndecodablePixels, match="pixels in a frame of"):
        reader.raw(written(dataset, tmp_path / "half.dcm"), None)


@pytest.mark.parametrize("source", [CT, MR, RGB], ids=["signed CT", "MR", "RGB"])
def test_a_native_frame_equals_what_pydicom_reads(reader, source):
    assert np.array_equal(reader.raw(source, None), pydicom.dcmread(source).pixel_array)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_every_native_syntax_gives_the_same_values(reader, tmp_path, syntax):
    array = reader.raw(as_syntax(CT, syntax, tmp_path / "a.dcm"), None)

    assert np.array_equal(array, pydicom.dcmread(CT).pixel_array)
    assert array.dtype.isnative


def test_one_frame_of_an_enhanced_object_is_read_without_the_others():
    frames = pydicom.dcmread(ENHANCED).pixel_array
    before = psutil.Process().io_counters().read_chars

    with FrameReader() as own:
        assert np.array_equal(own.raw(ENHANCED, 96), frames[95])
        after_header = psutil.Process().io_counters().read_chars
        assert np.array_equal(own.raw(ENHANCED, 2), frames[1])
        assert own.child_pid is None

    second_frame = psutil.Process().io_counters().read_chars - after_header
    assert second_frame < 4 * frames[0].nbytes < after_header - before


@pytest.mark.parametrize("number", [97, -1])
def test_a_frame_that_is_not_there_is_refused(reader, number):
    with pytest.raises(UndecodablePixels, match="96 frames"):
        reader.raw(ENHANCED, number)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("source", [CT, MR, RGB], ids=["signed CT", "MR", "RGB"])
def test_lossless_compression_gives_the_same_values(reader, tmp_path, source, syntax):
    path = as_compressed(source, syntax, tmp_path / "a.dcm")

    assert np.array_equal(reader.raw(path, None), pydicom.dcmread(source).pixel_array)


def test_a_real_jpeg_2000_series_is_decoded_by_one_child(quick):
    paths = sorted((DATA / "ct_body_totalseg_j2k").glob("*.dcm"))[:3]

    arrays = {path: quick.raw(path, None) for path in paths[:1]}
    child = quick.child_pid
    arrays |= {path: quick.raw(path, None) for path in paths[1:]}

    assert quick.child_pid == child
    assert all(np.array_equal(array, pydicom.dcmread(path).pixel_array) for path, array in arrays.items())


def test_frames_of_a_compressed_multi_frame_file_come_one_by_one(reader, tmp_path):
    dataset = pydicom.dcmread(ENHANCED)
    frames = dataset.pixel_array
    dataset.PixelData, dataset.NumberOfFrames = frames[:5].tobytes(), 5
    dataset.compress(RLELossless, generate_instance_uid=False)
    path = written(dataset, tmp_path / "a.dcm")

    assert np.array_equal(reader.raw(path, 4), frames[3])
    assert np.array_equal(reader.raw(path, 1), frames[0])


FRAMES = [np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8) // 2 + 40 * k for k in range(3)]
"""Three frames that differ in every pixel."""
OFFSETS: dict[str, Callable[[list[int]], list[int]]] = {
    "none": lambda right: [],
    "right": lambda right: right,
    "zeros": lambda right: [0] * len(right),
    "too short": lambda right: right[:2],
    "too long": lambda right: [*right, right[-1] + 8],
    "off by two": lambda right: [offset + 2 for offset in right],
    "counted from the table": lambda right: [offset + 8 + 4 * len(right) for offset in right],
    "rotated": lambda right: right[1:] + right[:1],
}
"""What Basic Offset Tables hold, by what they should."""


def item(value: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(value).to_bytes(4, "little") + value


def small_codestreams(syntax: UID) -> tuple[Dataset, list[bytes]]:
    """An object without pixels, and its frames as fragments of even length."""
    dataset = bare(RGB)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.NumberOfFrames = 1, "MONOCHROME2", len(FRAMES)
    dataset.Rows, dataset.Columns = FRAMES[0].shape
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = b"".join(frame.tobytes() for frame in FRAMES)
    if syntax == JPEG2000Lossless:
        found = [bytes(encode_array(frame, 8, photometric_interpretation=2)) for frame in FRAMES]
    else:
        dataset.compress(syntax, generate_instance_uid=False)
        found = list(generate_frames(dataset.PixelData, number_of_frames=len(FRAMES)))
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset, [one + bytes(len(one) % 2) for one in found]


@pytest.mark.parametrize("pieces", [1, 2], ids=["one fragment", "two fragments"])
@pytest.mark.parametrize("kind", OFFSETS)
@pytest.mark.parametrize("syntax", [RLELossless, *before_release(JPEGLSLossless), JPEG2000Lossless])
def test_a_wrong_basic_offset_table_takes_no_frame_for_another(reader, tmp_path, syntax, kind, pieces):
    dataset, codestreams = small_codestreams(syntax)
    middles = [len(one) // 4 * 2 for one in codestreams] if pieces == 2 else [0] * 3
    parts = [[one[:at], one[at:]] for at, one in zip(middles, codestreams, strict=True)]
    runs = [b"".join(item(part) for part in each if part) for each in parts]
    table = OFFSETS[kind]([sum(map(len, runs[:k])) for k in range(3)])
    dataset.PixelData = item(b"".join(offset.to_bytes(4, "little") for offset in table)) + b"".join(runs)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    path = written(dataset, tmp_path / "a.dcm")

    assert all(np.array_equal(reader.raw(path, k + 1), frame) for k, frame in enumerate(FRAMES))


def test_a_wrong_extended_offset_table_takes_no_frame_for_another(reader, tmp_path):
    dataset, codestreams = small_codestreams(RLELossless)
    dataset.PixelData = item(b"") + b"".join(map(item, codestreams))
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.ExtendedOffsetTable = bytes(24)
    dataset.ExtendedOffsetTableLengths = b"".join(len(one).to_bytes(8, "little") for one in codestreams)
    path = written(dataset, tmp_path / "a.dcm")

    assert all(np.array_equal(reader.raw(path, k + 1), frame) for k, frame in enumerate(FRAMES))


@pytest.mark.skipif(DCMCJPEG is None, reason="needs /usr/bin/dcmcjpeg: apt-get install dcmtk")
@pytest.mark.parametrize(
    ("option", "source", "tolerance"),
    [("+e1", CT, 0), ("+el", MR, 0), ("+eb", RGB, 12)],
    ids=["SV1", "lossless", "baseline"],
)
def test_jpeg_of_dcmtk_is_decoded(reader, tmp_path, option, source, tolerance):
    path = tmp_path / "a.dcm"
    subprocess.run([DCMCJPEG, option, "+cy" if option == "+eb" else "+ua", source, path], check=True, timeout=600)

    expected = pydicom.dcmread(source).pixel_array

    difference = np.abs(reader.raw(path, None).astype(int) - expected.astype(int))
    assert np.percentile(difference, 90) <= tolerance
    assert (difference > 0).any() == (tolerance > 0)


@pytest.mark.parametrize("label", ["YBR_FULL", "ybr_full", "Ybr_Full "])
def test_ybr_colour_comes_back_as_rgb(reader, tmp_path, label):
    dataset = pydicom.dcmread(RGB)
    expected = dataset.pixel_array.astype(int)
    dataset.PixelData = pydicom.pixels.convert_color_space(dataset.pixel_array, "RGB", "YBR_FULL").tobytes()
    dataset.PhotometricInterpretation = label

    array = reader.raw(written(dataset, tmp_path / "a.dcm"), None)

    assert np.abs(array - expected).max() <= 2


def test_colour_by_plane_comes_back_by_pixel(reader, tmp_path):
    dataset = pydicom.dcmread(RGB)
    expected = dataset.pixel_array
    dataset.PixelData, dataset.PlanarConfiguration = np.ascontiguousarray(np.moveaxis(expected, 2, 0)).tobytes(), 1

    assert np.array_equal(reader.raw(written(dataset, tmp_path / "a.dcm"), None), expected)


def test_a_deflated_file_is_read_by_the_child(reader, tmp_path):
    path = as_syntax(CT, DeflatedExplicitVRLittleEndian, tmp_path / "a.dcm")

    assert np.array_equal(reader.raw(path, None), pydicom.dcmread(CT).pixel_array)
    assert read_header(path).Rows == 158


def test_a_deflated_bomb_stops_at_its_budget(tmp_path):
    dataset = pydicom.dcmread(CT)
    dataset.add_new(0x00091010, "OB", bytes(40 * MIB))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "bomb.dcm", implicit_vr=False, little_endian=True)
    assert (tmp_path / "bomb.dcm").stat().st_size < MIB

    with pytest.raises(UndecodablePixels, match="inflates"):
        read_header(tmp_path / "bomb.dcm", max_inflated_bytes=8 * MIB)
    with (
        FrameReader(limits=DecodeLimits(inflated_bytes=8 * MIB)) as own,
        pytest.raises(UndecodablePixels, match="inflates"),
    ):
        own.raw(tmp_path / "bomb.dcm", None)


def test_a_deflated_file_that_is_cut_short_is_refused(reader, tmp_path):
    path = as_syntax(CT, DeflatedExplicitVRLittleEndian, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-2000])

    with pytest.raises(UndecodablePixels, match="truncated"):
        reader.raw(path, None)


def test_an_htj2k_file_goes_to_openjpeg(reader, tmp_path):
    """OpenJPEG reads both kinds of codestream by what they say of themselves; no encoder for HT is at hand."""
    path = as_compressed(MR, HTJ2KLossless, tmp_path / "a.dcm")

    assert np.array_equal(reader.raw(path, None), pydicom.dcmread(MR).pixel_array)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000])
def test_a_header_that_claims_a_huge_frame_is_refused_before_anything_is_decoded(quick, tmp_path, syntax):
    dataset = pydicom.dcmread(MR)
    if syntax.is_compressed:
        dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(100)])
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.Rows = dataset.Columns = 65535

    with pytest.raises(UndecodablePixels, match="at most 268,435,456"):
        quick.raw(written(dataset, tmp_path / "a.dcm"), None)


def j2k_claiming(rows: int, columns: int, codestream: bytes) -> bytes:
    at = codestream.index(b"\xff\x51") + 6
    size = columns.to_bytes(4, "big") + rows.to_bytes(4, "big")
    return codestream[:at] + size + codestream[at + 8 : at + 16] + size + codestream[at + 24 :]


def jls_claiming(rows: int, columns: int, codestream: bytes) -> bytes:
    at = codestream.index(b"\xff\xf7") + 5
    return codestream[:at] + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + codestream[at + 4 :]


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.parametrize(
    ("syntax", "forge", "edge"), [(JPEG2000Lossless, j2k_claiming, 60_000), (JPEGLSLossless, jls_claiming, 20_000)]
)
def test_a_codestream_larger_than_its_header_claims_costs_no_memory(tmp_path, syntax, forge, edge):
    good = as_compressed(MR, syntax, tmp_path / "good.dcm")
    bomb = as_compressed(MR, syntax, tmp_path / "bomb.dcm", lambda codestream: forge(edge, edge, codestream))

    with FrameReader() as own:
        own.raw(good, None)
        with pytest.raises(UndecodablePixels):
            own.raw(bomb, None)

        assert own.child_pid is None or peak_bytes(own.child_pid) < 320 * MIB
        assert np.array_equal(own.raw(good, None), pydicom.dcmread(MR).pixel_array)


def test_an_rle_segment_that_unpacks_to_more_than_the_frame_is_refused(quick, tmp_path):
    dataset = pydicom.dcmread(MR)
    header = (2).to_bytes(4, "little") + (64).to_bytes(4, "little") + (64 + 2_000_000).to_bytes(4, "little") + bytes(52)
    dataset.PixelData = encapsulate([header + b"\x81\x00" * 2_000_000])
    dataset.file_meta.TransferSyntaxUID = RLELossless

    with pytest.raises(UndecodablePixels):
        quick.raw(written(dataset, tmp_path / "bomb.dcm"), None)
    assert np.array_equal(quick.raw(J2K, None), pydicom.dcmread(J2K).pixel_array)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_a_truncated_compressed_frame_is_refused_and_the_next_is_decoded(quick, tmp_path, syntax):
    broken = as_compressed(MR, syntax, tmp_path / "broken.dcm", lambda codestream: codestream[: len(codestream) // 3])
    good = as_compressed(MR, syntax, tmp_path / "good.dcm")

    with pytest.raises(UndecodablePixels):
        quick.raw(broken, None)
    assert np.array_equal(quick.raw(good, None), pydicom.dcmread(MR).pixel_array)


def test_native_pixels_that_are_cut_short_are_refused(reader, tmp_path):
    (tmp_path / "a.dcm").write_bytes(CT.read_bytes()[:-5000])

    with pytest.raises(UndecodablePixels):
        reader.raw(tmp_path / "a.dcm", None)


def test_a_file_that_is_no_dicom_is_refused(reader):
    with pytest.raises(UndecodablePixels, match="not a DICOM file"):
        reader.raw(next((DATA / "refuse" / "screen_capture_png").iterdir()), None)


def test_a_file_without_pixels_is_refused(reader, tmp_path):
    dataset = pydicom.dcmread(CT)
    del dataset.PixelData

    with pytest.raises(UndecodablePixels, match="7FE0,0010"):
        reader.raw(written(dataset, tmp_path / "a.dcm"), None)


def test_a_file_that_is_gone_is_an_operating_system_error(reader, tmp_path):
    with pytest.raises(FileNotFoundError):
        reader.raw(tmp_path / "gone.dcm", None)


def test_a_child_killed_between_frames_is_replaced(quick):
    first = quick.raw(J2K, None)
    killed = quick.child_pid
    os.kill(killed, signal.SIGKILL)

    second = quick.raw(J2K, None)

    assert np.array_equal(first, second)
    assert quick.child_pid != killed


def test_a_child_killed_while_it_decodes_makes_the_frame_undecodable():
    dies = "import os, sys; sys.stdin.readline(); os.write(1, b'\\0\\0'); os.kill(os.getpid(), 9)"

    with FrameReader(command=[sys.executable, "-c", dies]) as own, pytest.raises(UndecodablePixels, match="died"):
        own.raw(J2K, None)


def test_a_child_that_dies_on_its_second_frame_is_replaced_for_it():
    answer = wire.reply(np.full((2, 2), 7, dtype=np.uint8))
    serves_one = f"import os, sys; sys.stdin.readline(); os.write(1, {b''.join(answer)!r}); sys.stdin.readline()"

    with FrameReader(command=[sys.executable, "-c", serves_one]) as own:
        frames = [own.raw(J2K, None).tolist() for _ in range(3)]

    assert frames == [[[7, 7], [7, 7]]] * 3


def test_a_child_that_never_answers_is_killed_at_the_deadline():
    silent = [sys.executable, "-c", "import sys; sys.stdin.read()"]

    with FrameReader(command=silent, limits=DecodeLimits(wall_s=0.3)) as own:
        with pytest.raises(UndecodablePixels, match="too long"):
            own.raw(J2K, None)
        assert own.child_pid is None


def test_a_child_that_burns_processor_time_is_stopped():
    burns = (
        "import json, sys; from mediqa_node.decode import child; child._allow(address_bytes=1 << 30, cpu_s=-0.5)\n"
        "while True: pass"
    )

    with FrameReader(command=[sys.executable, "-c", burns]) as own, pytest.raises(UndecodablePixels, match="died"):
        own.raw(J2K, None)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\x02[]",
        b"\0\0\0\x05{oops",
        b'\0\0\0\x28{"shape": [99999, 99999], "dtype": "<u2"}',
        b'\0\0\0\x21{"shape": [2, 2], "dtype": "|O"}  ',
    ],
)
def test_an_answer_that_is_no_frame_is_refused(answer):
    babbles = [sys.executable, "-c", f"import os,sys; sys.stdin.readline(); os.write(1, {answer + bytes(64)!r})"]

    with FrameReader(command=babbles) as own, pytest.raises(UndecodablePixels, match=r"invalid answer|died"):
        own.raw(J2K, None)


def test_closing_the_reader_leaves_no_process_behind():
    with FrameReader() as own:
        own.raw(J2K, None)
        child = psutil.Process(own.child_pid)

    assert not child.is_running()
