"""Header values that cannot be true: refused by name, or scored with a flag that people see; never a silent default."""

import re
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import RLELossless
from support.bench import StandInScorer
from support.series import ct_series

import mediqa_node
from mediqa_node import config
from mediqa_node.cli import score, series
from mediqa_node.composition import checkpoints
from mediqa_node.dicom.photograph import wrap_photograph
from mediqa_node.dicom.report.content import comment
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.technique import DOUBTS, SPOILING, HeaderDoubt
from mediqa_node.pipeline.score import Assessor, assess, harvest_series, read_headers

PHYSICS = Path(mediqa_node.__file__).parent / "docs" / "physics.md"

Change = Callable[[Dataset, int], Any]


def to(**values: Any) -> Change:
    """Set elements by keyword; None removes."""

    def change(ds: Dataset, index: int) -> None:
        for keyword, value in values.items():
            if value is None:
                del ds[keyword]
            else:
                setattr(ds, keyword, value)

    return change


def of_one(**values: Any) -> Change:
    """Change the image in the middle only."""
    return lambda ds, index: to(**values)(ds, index) if index == 1 else None


def padded(*ends: int) -> Change:
    def change(ds: Dataset, index: int) -> None:
        for tag, end in zip((0x00280120, 0x00280121), ends, strict=True):
            ds.add_new(tag, "SS", end)

    return change


def written(keyword: str, value: bytes, vr: str = "DS") -> Change:
    """Put the bytes of an element in its place, whatever they are."""
    tag = Tag(keyword)
    element = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return lambda ds, index: ds.__setitem__(tag, element)


def cropped(rows: int, columns: int) -> Change:
    def change(ds: Dataset, index: int) -> None:
        pixels = ds.pixel_array[:rows, :columns]
        ds.Rows, ds.Columns, ds.PixelData = *pixels.shape, pixels.tobytes()

    return change


REFUSED = {
    "slope 0": (to(RescaleSlope=0), "implausible", "Rescale Slope (0028,1053) 0"),
    "slope -1": (to(RescaleSlope=-1), "implausible", "Rescale Slope (0028,1053) -1"),
    "slope 1e30": (written("RescaleSlope", b"1e30"), "implausible", "Rescale Slope (0028,1053) 1e+30"),
    "slope nan": (written("RescaleSlope", b"nan "), "unreadable", "RescaleSlope (0028,1053) 'nan'"),
    "slope of words": (written("RescaleSlope", b"one "), "unreadable", "RescaleSlope (0028,1053) 'one'"),
    "two slopes": (written("RescaleSlope", b"1\\2 "), "unreadable", "RescaleSlope (0028,1053) '1\\2'"),
    "intercept of thousands": (written("RescaleIntercept", b"-1,024"), "unreadable", "RescaleIntercept (0028,1052)"),
    "slope of 1 or 1000": (written("RescaleSlope", b"1,000 "), "unreadable", "RescaleSlope (0028,1053) '1,000'"),
    "intercept with a Fortran exponent": (written("RescaleIntercept", b"-1.024D+03"), "unreadable", "'-1.024D+03'"),
    "position of 1 or 1000": (written("ImagePositionPatient", b"0\\0\\1,000"), "unreadable", "ImagePositionPatient"),
    "intercept 1e30": (written("RescaleIntercept", b"-1e30 "), "implausible", "Rescale Intercept (0028,1052) -1e+30"),
    "intercept inf": (written("RescaleIntercept", b"inf "), "unreadable", "RescaleIntercept (0028,1052) 'inf'"),
    "17 of 16 bits": (to(BitsStored=17, HighBit=16), "implausible", "Bits Stored (0028,0101) 17 of 16 allocated"),
    "0 bits stored": (to(BitsStored=0), "implausible", "Bits Stored (0028,0101) 0"),
    "0 bits allocated": (to(BitsAllocated=0), "implausible", "Bits Allocated (0028,0100) 0"),
    "12 bits allocated": (to(BitsAllocated=12), "implausible", "Bits Allocated (0028,0100) 12"),
    "representation 2": (to(PixelRepresentation=2), "implausible", "Pixel Representation (0028,0103) 2"),
    "8 x 8": (cropped(8, 8), "implausible", "Rows, Columns (0028,0010), (0028,0011) are 8, 8"),
    "1 x 1": (cropped(1, 1), "implausible", "Rows, Columns (0028,0010), (0028,0011) are 1, 1"),
    "64 x 8": (cropped(64, 8), "implausible", "are 64, 8"),
    "64 x 2": (cropped(64, 2), "strip", "64 x 2 pixels"),
    "no rows": (to(Rows=0), "implausible", "Rows, Columns (0028,0010), (0028,0011) are 0, 64"),
    "palette without table": (to(PhotometricInterpretation="PALETTE COLOR"), "implausible", "RedPaletteColorLookup"),
    "RGB of one sample": (to(PhotometricInterpretation="RGB"), "implausible", "Photometric Interpretation (0028,0004)"),
    "no colour model": (to(PhotometricInterpretation="SEPIA"), "implausible", "'SEPIA'"),
    "position of words": (written("ImagePositionPatient", b"a\\b\\c "), "unreadable", "ImagePositionPatient"),
    "orientation of two": (written("ImageOrientationPatient", b"1\\0 "), "unreadable", "ImageOrientationPatient"),
    "frames": (to(NumberOfFrames=2), "frames_in_single_frame_class", "2 frames"),
}  # fmt: skip
"""What is wrong: the change, the reason code, and what the refusal names."""


def spaced(ds: Dataset, index: int) -> None:
    ds.PixelSpacing = [3 + index % 2 / 10, 3]


def placed(origin: Callable[[int], list[float]], **counted: Callable[[int], Any]) -> Change:
    """Give every image a position, and elements that count."""
    return lambda ds, index: to(
        ImagePositionPatient=origin(index), **{key: value(index) for key, value in counted.items()}
    )(ds, index)


def sixteen_bits(ds: Dataset, index: int) -> None:
    """Claim 12 bits of values that reach 16."""
    ds.BitsStored, ds.HighBit = 12, 11
    ds.PixelData = (ds.pixel_array.astype("<i2") * 12).tobytes()


def of_bits(count: int) -> Change:
    """Store values of fewer bits, and say so."""

    def change(ds: Dataset, index: int) -> None:
        ds.BitsStored, ds.HighBit = count, count - 1
        ds.PixelData = (ds.pixel_array.astype("<i2") >> 16 - count).tobytes()

    return change


FLAGGED = {
    "frame of reference with an empty component": (to(FrameOfReferenceUID="1.2..3"), "malformed_uid"),
    "frame of reference with leading zeros": (to(FrameOfReferenceUID="1.2.003"), "malformed_uid"),
    "an event that is a word": (to(IrradiationEventUID="EVENT 7"), "malformed_uid"),
    "a name in another character set": (written("PatientName", "Müller".encode("latin-1"), "PN"), "misread_text"),
    "high bit 7": (to(HighBit=7), "high_bit"),
    "high bit 11 of 16": (to(HighBit=11), "high_bit"),
    "12 bits on top": (to(BitsStored=12, HighBit=15), "high_bit"),
    "no rescale": (to(RescaleSlope=None, RescaleIntercept=None), "rescale_missing_signed"),
    "no rescale, unsigned": (to(RescaleIntercept=None, PixelRepresentation=0), "rescale_missing"),
    "intercept 1024": (to(RescaleIntercept=1024), "rescale_unusual"),
    "slope 500": (to(RescaleSlope=500), "rescale_unusual"),
    "slope 1e-4": (to(RescaleSlope=1e-4), "rescale_unusual"),
    "intercept with a decimal comma": (written("RescaleIntercept", b"-1024,0 "), "rescale_format"),
    "intercept with a unit": (written("RescaleIntercept", b"-1024 HU"), "rescale_format"),
    "slope with a decimal comma, as text": (written("RescaleSlope", b"1,0 ", "LO"), "rescale_format"),
    "intercept 0 of unsigned pixels": (to(RescaleIntercept=0, PixelRepresentation=0), "rescale_unusual"),
    "another intercept in one slice": (of_one(RescaleIntercept=-2048), "rescale_varies"),
    "padding up to 0 HU": (padded(-2000, 0), "padding_range"),
    "8 bits of 16": (of_bits(8), "few_bits"),
    "10 bits of 16": (of_bits(10), "few_bits"),
    "16 bits used, 12 stored": (sixteen_bits, "unstored_bits"),
    "pixels like strips": (to(PixelSpacing=[0.7, 70]), "pixel_spacing"),
    "spacing 0.001": (to(PixelSpacing=[0.001, 0.001]), "pixel_spacing"),
    "spacing 99": (to(PixelSpacing=[99, 99]), "pixel_spacing"),
    "no spacing": (to(PixelSpacing=None), "pixel_spacing_missing"),
    "spacing 0": (to(PixelSpacing=[0, 0]), "pixel_spacing"),
    "negative spacing": (to(PixelSpacing=[-3, 3]), "pixel_spacing"),
    "spacing 1e6": (to(PixelSpacing=[1e6, 1e6]), "pixel_spacing"),
    "spacing of words": (written("PixelSpacing", b"fine\\fine "), "pixel_spacing"),
    "spacing in cm": (written("PixelSpacing", b"0.05 cm\\0.05 cm"), "pixel_spacing"),
    "spacing of one value": (written("PixelSpacing", b"0.7 "), "pixel_spacing"),
    "unequal spacing": (spaced, "pixel_spacing_varies"),
    "32 x 32": (cropped(32, 32), "coarse_matrix"),
    "64 x 40": (cropped(64, 40), "coarse_matrix"),
    "positions up to 3e30": (lambda ds, i: to(ImagePositionPatient=[0, 0, 1e30 * (i + 1)])(ds, i), "position"),
    "orientation 0": (to(ImageOrientationPatient=[0] * 6), "orientation"),
    "orientation of length 2": (to(ImageOrientationPatient=[2, 0, 0, 0, 2, 0]), "orientation"),
    "parallel axes": (to(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "orientation"),
    "axes at 45 degrees": (to(ImageOrientationPatient=[1, 0, 0, 0.7071, 0.7071, 0]), "orientation"),
    "2,000,000,000 frames": (to(NumberOfFrames=2_000_000_000), "number_of_frames"),
    "no orientation": (to(ImageOrientationPatient=None), "missing_geometry"),
    "no position": (to(ImagePositionPatient=None), "missing_geometry"),
    "one image without position": (lambda ds, i: i or to(ImagePositionPatient=None)(ds, i), "missing_geometry"),
    "one image with orientation 0": (lambda ds, i: i or to(ImageOrientationPatient=[0] * 6)(ds, i), "orientation"),
    "one position": (to(ImagePositionPatient=[0, 0, 0]), "duplicate_position"),
    "one position, acquisitions and Slice Location count": (
        placed(lambda i: [0, 0, 0], AcquisitionNumber=lambda i: i + 1, SliceLocation=lambda i: 5 * i),
        "duplicate_position",
    ),
    "positions that run along the plane": (placed(lambda i: [5 * i, 0, 0.5 * i]), "orientation"),
    "MR in a CT class": (to(Modality="MR"), "modality"),
    "ultrasound in a CT class": (to(Modality="US"), "modality"),
    "no Modality": (to(Modality=""), "modality"),
    "a localizer among the slices": (of_one(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "refused_images"),
}  # fmt: skip
"""What is wrong: the change, and the flag with which the series is scored."""

READ_ALL_THE_SAME = {
    "rows": written("Rows", b"\x40\x00", "ZZ"),
    "photometric": written("PhotometricInterpretation", b"MONOCHROME2 ", "ZZ"),
    "slope": written("RescaleSlope", b"1 ", "ZZ"),
    "station": written("StationName", b"CT_ROOM1", "ZZ"),
    "kernel": written("ConvolutionKernel", b"B30f", "ZZ"),
    "orientation": written("ImageOrientationPatient", b"1\\0\\0\\0\\1\\0 ", "ZZ"),
    "spacing with commas": written("PixelSpacing", b"3,125\\3,125 "),
    "spacing as text": written("PixelSpacing", b"3.125\\3.125 ", "UT"),
}
"""Elements of an unknown or other value representation: they are read as in the data dictionary."""


@cache
def plain_series() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        return tuple(path.read_bytes() for path in ct_series(Path(folder), "untrue", slices=range(3)))


@cache
def assessor() -> Assessor:
    return Assessor(scorer=StandInScorer(), prompts=checkpoints.prompt_rules(config.load(None, {})))


def judged(folder: Path, change: Change) -> Assessment:
    """Score a series of three slices after a change of each header."""
    paths = []
    folder.mkdir(exist_ok=True)
    for index, content in enumerate(plain_series()):
        ds = pydicom.dcmread(BytesIO(content))
        change(ds, index)
        paths.append(folder / f"{index}.dcm")
        ds.save_as(paths[-1])
    files = read_headers(paths)
    return assess(files, harvest_series(files), assessor(), revision=1, assessed_at=datetime.now(UTC))


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_cannot_be_true_is_refused_by_name(tmp_path, wrong):
    change, code, named = REFUSED[wrong]

    with pytest.raises(NotScorable) as refusal:
        judged(tmp_path, change)

    assert (refusal.value.code, named in refusal.value.detail) == (code, True), refusal.value.detail


@pytest.mark.parametrize("wrong", FLAGGED)
def test_what_is_doubtful_is_scored_with_its_flag_and_trains_only_where_the_pixels_are_clear(tmp_path, wrong):
    change, flag = FLAGGED[wrong]

    assessment = judged(tmp_path, change)

    doubts = [doubt for doubt in assessment.doubts if doubt != "missing_geometry" or flag == doubt]
    assert doubts == [flag]
    assert DOUBTS[HeaderDoubt(flag)] in comment(assessment)
    assert ("doubtful_header" in [found.code for found in assessment.technique.exclusions]) is (flag in SPOILING)


@pytest.mark.parametrize("element", READ_ALL_THE_SAME)
def test_another_value_representation_changes_nothing(tmp_path, element):
    assert judged(tmp_path, READ_ALL_THE_SAME[element]).doubts == ()


REFUSED_ALONE = {
    "a slope": (of_one(RescaleSlope=1e12), "implausible"),
    "a localizer": (of_one(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    "a screen": (of_one(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "secondary_capture"),
    "a reformat": (of_one(ImageType=["DERIVED", "PRIMARY", "MIP"]), "reformat"),
    "frames": (of_one(NumberOfFrames=2), "frames_in_single_frame_class"),
    "half the rows": (of_one(Rows=32), "frames_in_single_frame_class"),
}
"""What refuses one image of three, and the reason."""


@pytest.mark.parametrize("wrong", REFUSED_ALONE)
def test_an_image_that_is_refused_alone_is_left_out_and_named(tmp_path, wrong):
    change, code = REFUSED_ALONE[wrong]

    assessment = judged(tmp_path, change)

    assert [frame.instance_index for frame in assessment.primary.stack.frames] == [0, 2]
    assert [part.frame.instance_index for part in assessment.primary.slices] == [0, 2]
    assert (assessment.n_stacks, assessment.others, assessment.failed_slices) == (1, (), ())
    assert [frame.sop_instance_uid for frame in assessment.technique.frames] == [
        frame.sop_instance_uid for frame in assessment.primary.stack.frames
    ]
    named = {found.code: found.detail for found in assessment.technique.exclusions}
    assert "(1 of 3 images)" in named[code]
    assert assessment.doubts == ("refused_images",)


def test_a_series_of_which_nothing_is_left_is_refused(tmp_path):
    types = ["LOCALIZER", "MIP", "MPR"]

    with pytest.raises(NotScorable) as refusal:
        judged(tmp_path, lambda ds, index: to(ImageType=["ORIGINAL", "PRIMARY", types[index]])(ds, index))

    assert refusal.value.code in ("localizer", "reformat")


def test_values_that_are_cut_in_few_bits_or_behind_a_compression_are_flagged_too(tmp_path):
    def compressed(ds: Dataset, index: int) -> None:
        sixteen_bits(ds, index)
        ds.compress(RLELossless, generate_instance_uid=False)

    assert judged(tmp_path / "few", to(BitsStored=10, HighBit=9)).doubts == ("few_bits", "unstored_bits")
    assert judged(tmp_path / "compressed", compressed).doubts == ("unstored_bits",)


def test_a_photograph_with_an_impossible_colour_model_is_scored_with_a_flag(tmp_path):
    ds = wrap_photograph(np.full((64, 64, 3), (170, 70, 30), dtype=np.uint8))
    ds.PhotometricInterpretation = "YBR_ICT"
    ds.save_as(tmp_path / "photograph.dcm", enforce_file_format=True)

    files = read_headers([tmp_path / "photograph.dcm"])
    assessment = assess(files, harvest_series(files), assessor(), revision=1, assessed_at=datetime.now(UTC))

    assert assessment.doubts == ("colour_model",)


def test_show_and_score_print_doubts_in_words(capsys):
    flags = {"technique": {"flags": ["high_bit", "gap"]}, "stacks": [{"flags": ["colour_model"]}]}
    words = f"{DOUBTS[HeaderDoubt.HIGH_BIT]}; {DOUBTS[HeaderDoubt.COLOUR_MODEL]}"

    score._print_doubts({"raw_score": 0.5, "files": ["a.dcm"], **flags})

    assert capsys.readouterr().out == f"a.dcm: in doubt: {words}\n"
    assert series._doubts(flags["technique"], {"primary": {"stack": flags["stacks"][0]}}) == words
    assert series._doubts(None, None) == ""


def test_the_documents_list_every_doubt_and_every_refusal():
    table = PHYSICS.read_text(encoding="utf-8").partition("## Headers that cannot be true")[2].partition("\n## ")[0]

    assert set(re.findall(r"`(\w+)`", table)) >= {*HeaderDoubt, *(code for _, code, _ in REFUSED.values())}
    assert {flag for _, flag in FLAGGED.values()} | {"colour_model"} == {*HeaderDoubt} == set(DOUBTS)
    for row in (row for row in table.splitlines() if row.startswith("|")):
        flags = [doubt for doubt in HeaderDoubt if f"`{doubt}`" in row]
        assert ("not for training" in row) is bool(SPOILING.intersection(flags)), row
