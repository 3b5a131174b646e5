"""The colour model of a frame: the codestream where it is unambiguous, else the label."""

import io
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from mediqa_node.decode import openjpeg_plugin
from mediqa_node.decode.colour import ColourModel, colour_model
from mediqa_node.decode.frame import DecodedFrame, locate_pixels, read_frame
from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.deidentify.native_pixels import put_pixels
from mediqa_node.dicom.photograph import wrap_photograph
from mediqa_node.dicom.pixels import to_image
from mediqa_node.domain.errors import UndecodablePixels

LABELS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
JPEG_2000_SYNTAXES = (JPEG2000Lossless, JPEG2000, HTJ2KLossless)


@cache
def photograph() -> np.ndarray:
    """Red on black, with structure; (64, 64, 3), uint8."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    inside = (np.hypot(x, y) < 0.9)[..., np.newaxis]
    colours = np.stack([170 + 40 * np.sin(3 * x), 70 + 30 * np.cos(4 * y), 25 + 0 * x], axis=-1)
    return np.asarray(np.where(inside, colours, 0).astype(np.uint8))


@cache
def luminance_first() -> np.ndarray:
    return np.asarray(Image.fromarray(photograph()).convert("YCbCr"))


def jpeg(*, subsampling: int = 0, rgb: bool = False) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(photograph()).save(stream, "JPEG", quality=95, subsampling=subsampling, keep_rgb=rgb)
    return stream.getvalue()


def bare(codestream: bytes) -> bytes:
    """Leave out the application markers."""
    kept, position = [codestream[:2]], 2
    while codestream[position + 1] != 0xDA:
        end = position + 2 + struct.unpack_from(">H", codestream, position + 2)[0]
        if not 0xE0 <= codestream[position + 1] <= 0xEF:
            kept.append(codestream[position:end])
        position = end
    return b"".join((*kept, codestream[position:]))


def numbered(codestream: bytes) -> bytes:
    """Name the components 1, 2, 3 instead of R, G, B."""
    changed = bytearray(codestream)
    frame, scan = codestream.index(b"\xff\xc0"), codestream.index(b"\xff\xda")
    for index in range(3):
        changed[frame + 10 + 3 * index] = changed[scan + 5 + 2 * index] = index + 1
    return bytes(changed)


def adobe(codestream: bytes, transform: int) -> bytes:
    return codestream[:2] + b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, transform) + codestream[2:]


CERTAIN: dict[str, Callable[[], bytes]] = {
    "JFIF 4:2:0": lambda: jpeg(subsampling=2),
    "JFIF 4:4:4": jpeg,
    "no marker 4:2:0": lambda: bare(jpeg(subsampling=2)),
    "no marker 4:2:2": lambda: bare(jpeg(subsampling=1)),
    "Adobe 0": lambda: adobe(numbered(bare(jpeg(rgb=True))), 0),
    "Adobe 1": lambda: adobe(bare(jpeg()), 1),
    "components R G B": lambda: bare(jpeg(rgb=True)),
    "fill bytes before a marker": lambda: (s := bare(jpeg(subsampling=2)))[:2] + b"\xff\xff" + s[2:],
}


def labelled(label: str, syntax: UID, codestream: bytes) -> Dataset:
    ds = wrap_photograph(photograph())
    ds.PhotometricInterpretation = label
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([codestream])
    ds["PixelData"].VR = "OB"
    return ds


def decoded(ds: Dataset) -> DecodedFrame:
    stream = io.BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    openjpeg_plugin.register()
    return read_frame(stream, locate_pixels(stream), None, max_frame_bytes=1 << 20)


def shows(frame: DecodedFrame, expected: np.ndarray) -> bool:
    return bool(np.abs(frame.values.astype(int) - expected).mean() < 6)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("kind", CERTAIN)
def test_a_jpeg_stream_that_tells_its_colour_model_wins_over_any_label(kind, label):
    frame = decoded(labelled(label, JPEGBaseline8Bit, CERTAIN[kind]()))

    assert shows(frame, photograph())
    assert frame.colour_confirmed


@pytest.mark.parametrize("label", LABELS)
def test_a_jpeg_stream_without_marker_and_subsampling_keeps_its_label_and_is_flagged(label):
    of_label = numbered(bare(jpeg(rgb=True))) if label == "RGB" else bare(jpeg())

    frame = decoded(labelled(label, JPEGBaseline8Bit, of_label))

    assert shows(frame, photograph())
    assert not frame.colour_confirmed


def named_rgb(codestream: bytes) -> bytes:
    """Name the components R, G, B instead of 1, 2, 3."""
    changed = bytearray(codestream)
    frame, scan = codestream.index(b"\xff\xc0"), codestream.index(b"\xff\xda")
    for index, name in enumerate(b"RGB"):
        changed[frame + 10 + 3 * index] = changed[scan + 5 + 2 * index] = name
    return bytes(changed)


CONTRADICTORY: dict[str, Callable[[], bytes]] = {
    "4:2:0, Adobe 0": lambda: adobe(bare(jpeg(subsampling=2)), 0),
    "4:2:2, Adobe 0": lambda: adobe(bare(jpeg(subsampling=1)), 0),
    "4:2:0, components R G B": lambda: named_rgb(bare(jpeg(subsampling=2))),
    "4:2:0, Adobe 0, components R G B": lambda: adobe(named_rgb(bare(jpeg(subsampling=2))), 0),
    "JFIF 4:2:0, Adobe 0": lambda: adobe(jpeg(subsampling=2), 0),
    "JFIF 4:4:4, Adobe 0": lambda: adobe(numbered(bare(jpeg(rgb=True))), 0).replace(*JFIF, 1),
    "JFIF 4:4:4, components R G B": lambda: bare(jpeg(rgb=True)).replace(*JFIF, 1),
    "Adobe 1, components R G B": lambda: adobe(named_rgb(bare(jpeg())), 1),
}
JFIF = b"\xff\xd8", b"\xff\xd8\xff\xe0" + struct.pack(">H5s9B", 16, b"JFIF\0", 1, 1, 0, 0, 1, 0, 1, 0, 0)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("kind", CONTRADICTORY)
def test_a_jpeg_stream_whose_markers_contradict_each_other_is_flagged(kind, label):
    """Subsampled chroma decides, then Adobe, then the names of the components."""
    frame = decoded(labelled(label, JPEGBaseline8Bit, CONTRADICTORY[kind]()))

    assert shows(frame, photograph())
    assert not frame.colour_confirmed


def jpeg_2000(pixels: np.ndarray, *, transformed: bool) -> bytes:
    return bytes(encode_array(pixels, bits_stored=8, photometric_interpretation=1, use_mct=transformed))


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("syntax", JPEG_2000_SYNTAXES, ids=lambda uid: uid[-3:])
def test_a_component_transformation_of_jpeg_2000_wins_over_any_label(syntax, label):
    frame = decoded(labelled(label, syntax, jpeg_2000(photograph(), transformed=True)))

    assert np.array_equal(frame.values, photograph())
    assert frame.colour_confirmed


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("syntax", JPEG_2000_SYNTAXES, ids=lambda uid: uid[-3:])
def test_without_a_transformation_the_label_decides_and_an_impossible_one_is_flagged(syntax, label):
    stored = luminance_first() if label.startswith("YBR_FULL") else photograph()

    frame = decoded(labelled(label, syntax, jpeg_2000(stored, transformed=False)))

    assert shows(frame, photograph())
    assert frame.colour_confirmed is (label in ("RGB", "YBR_FULL"))


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless], ids=lambda uid: uid[-3:])
def test_where_there_is_nothing_but_the_label_it_decides_and_an_impossible_one_is_flagged(syntax, label):
    ds = wrap_photograph(luminance_first() if label.startswith("YBR_FULL") else photograph())
    if syntax != ExplicitVRLittleEndian:
        ds.compress(syntax, generate_instance_uid=False)
    ds.PhotometricInterpretation = label

    frame = decoded(ds)

    assert shows(frame, photograph())
    possible = {"RGB", "YBR_FULL"} if syntax == ExplicitVRLittleEndian else {"RGB", "YBR_FULL", "YBR_FULL_422"}
    assert frame.colour_confirmed is (label in possible)


@pytest.mark.parametrize("label", ["YBR_PARTIAL_422", "YBR_PARTIAL_420"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless], ids=lambda uid: uid[-3:])
def test_a_retired_colour_model_is_refused_by_name_and_never_shown_as_rgb(syntax, label):
    ds = wrap_photograph(luminance_first())
    if syntax != ExplicitVRLittleEndian:
        ds.compress(syntax, generate_instance_uid=False)
    ds.PhotometricInterpretation = label

    with pytest.raises(UndecodablePixels, match=rf"^Photometric Interpretation \(0028,0004\) {label}"):
        decoded(ds)


@pytest.mark.parametrize("label", ["YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1], ids=lambda uid: uid[-3:])
def test_a_subsampled_label_of_a_lossless_stream_that_is_not_is_flagged(syntax, label):
    stream = jpeg_2000(photograph(), transformed=False) if syntax == JPEG2000Lossless else bare(jpeg())

    assert colour_model(stream, syntax, label) == ColourModel("YBR_FULL", confirmed=False)


@pytest.mark.parametrize("length", range(0, 400, 7))
def test_a_stream_that_is_cut_short_anywhere_tells_nothing_and_raises_nothing(length):
    for codestream, syntax in ((jpeg(), JPEGBaseline8Bit), (jpeg_2000(photograph(), transformed=True), JPEG2000)):
        assert colour_model(codestream[:length], syntax, "RGB").name in ("RGB", "YBR_FULL")


def test_a_reader_names_the_file_and_an_export_holds_the_true_colours(tmp_path: Path) -> None:
    sure, unsure = tmp_path / "sure.dcm", tmp_path / "unsure.dcm"
    labelled("RGB", JPEGBaseline8Bit, CERTAIN["no marker 4:2:0"]()).save_as(sure, enforce_file_format=True)
    labelled("YBR_FULL", JPEGBaseline8Bit, bare(jpeg())).save_as(unsure, enforce_file_format=True)

    with FrameReader() as reader:
        frames = [reader.raw(path, None) for path in (sure, unsure)]
        assert reader.of_unconfirmed_colour == {unsure}

    header = pydicom.dcmread(sure, stop_before_pixels=True)
    exported = Dataset()
    put_pixels(exported, frames[:1], header)
    assert exported.PhotometricInterpretation == "RGB"
    left = np.frombuffer(exported.PixelData, dtype=np.uint8).reshape(64, 64, 3)
    assert np.abs(left.astype(int) - photograph()).mean() < 6
    assert np.abs(to_image(frames[0], header, None) - photograph()).mean() < 6
