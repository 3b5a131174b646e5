"""Every form that the same images may come in: objects, transfer syntaxes, character sets, dirty headers.

In this process, through the functions that the worker calls: headers, assessment, report, validators. The model is a
stand-in whose score is a mean of pixels: what counts is that the same pixels reach it.
"""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.pixels import convert_color_space
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from support.bench import StandInScorer
from support.factories import DEVICE
from support.series import ct_series, uid, write
from support.siblings import before_release, one_in

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.photograph import wrap_photograph
from mediqa_node.dicom.prompts import default_rules
from mediqa_node.dicom.report.build import ReportRequest, build_report, report_bytes
from mediqa_node.dicom.stacks.assemble import concatenation_complete
from mediqa_node.domain.assessment import Assessment, StackResult
from mediqa_node.domain.errors import InvalidInstance, NotScorable
from mediqa_node.pipeline.score import Assessor, assess, harvest_series, read_headers

DATA = Path(__file__).parents[1] / "data"
CT = DATA / "ct_sts003_lowdose"
MR = DATA / "mr_breast_ucsf06"
XA30 = DATA / "mr_brain_t1_xa30_enhanced" / "000.dcm"
ENHANCED_CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1"
NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
    pytest.mark.filterwarnings("ignore::UserWarning:mediqa_node"),
    pytest.mark.usefixtures("one_decoder"),
]


# ── what the worker does ─────────────────────────────────────────────────────


@cache
def assessor() -> Assessor:
    return Assessor(scorer=StandInScorer(), prompts=default_rules())


def judged(paths: Sequence[Path]) -> Assessment:
    files = read_headers(paths)
    return assess(files, harvest_series(files), assessor(), revision=1, assessed_at=NOW)


def reported(paths: Sequence[Path]) -> Dataset:
    return build_report(
        ReportRequest(
            assessment=judged(paths),
            sources=read_headers(paths).headers,
            device=DEVICE,
            series_number=9000,
            instance_number=1,
            created_at=NOW,
        )
    )


def score(result: StackResult) -> tuple[object, ...]:
    """Everything that must be equal bit for bit if the pixels are."""
    slices = tuple((part.quality, part.raw, part.weight) for part in result.slices)
    return result.quality, result.raw_score, slices


def complaints(report: Dataset, folder: Path) -> list[str]:
    """Return what dciodvfy and dsrdump find wrong; PixelMed has its turn in the collection's run."""
    for program, package in (("dciodvfy", "dicom3tools"), ("dsrdump", "dcmtk")):
        if shutil.which(program) is None:
            pytest.skip(f"apt-get install {package}")
    path = folder / "report.dcm"
    path.write_bytes(report_bytes(report))
    iod = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False, errors="replace")
    tree = subprocess.run(["dsrdump", path], capture_output=True, text=True, check=False, errors="replace")
    said = [line for line in (iod.stdout + iod.stderr).splitlines() if line.startswith("Error")]
    said += [line for line in tree.stderr.splitlines() if line.startswith("E:")]
    return said + ([f"dsrdump: {tree.returncode}"] if tree.returncode else [])


def copies(source: Path, target: Path, change: Callable[[Dataset, int], None]) -> list[Path]:
    """Write every file of a folder again, changed."""
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, path in enumerate(sorted(source.glob("*.dcm"))):
        ds = pydicom.dcmread(path)
        change(ds, index)
        paths.append(target / path.name)
        pydicom.dcmwrite(paths[-1], ds)
    return paths


def item(**values: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, Items([value]) if isinstance(value, Dataset) else value)
    return ds


# ── transfer syntaxes ────────────────────────────────────────────────────────


def by_gdcm(source: Path, target: Path) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


SYNTAXES = {
    "1.2.840.10008.1.2": ("dcmconv", "+ti"),
    "1.2.840.10008.1.2.1": ("dcmconv", "+te"),
    "1.2.840.10008.1.2.2": ("dcmconv", "+tb"),
    "1.2.840.10008.1.2.1.99": ("dcmconv", "+td"),
    "1.2.840.10008.1.2.5": ("dcmcrle",),
    "1.2.840.10008.1.2.4.57": ("dcmcjpeg", "+el"),
    "1.2.840.10008.1.2.4.70": ("dcmcjpeg", "+e1"),
    "1.2.840.10008.1.2.4.80": ("dcmcjpls", "+el"),
    "1.2.840.10008.1.2.4.90": (),
}
"""Lossless transfer syntaxes and the DCMTK command that writes them; GDCM writes JPEG 2000."""


@pytest.mark.parametrize("source", [CT, *before_release(MR)], ids=["signed CT", "unsigned MR"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_the_same_pixels_score_the_same_in_any_lossless_syntax(syntax, source, tmp_path):
    files = sorted(source.glob("*.dcm"))[:3]
    paths = [tmp_path / path.name for path in files]
    for path, target in zip(files, paths, strict=True):
        if command := SYNTAXES[syntax]:
            if shutil.which(command[0]) is None:
                pytest.skip("apt-get install dcmtk")
            subprocess.run([*command, path, target], check=True, capture_output=True)
        else:
            by_gdcm(path, target)

    assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in paths} == {syntax}
    assert score(judged(paths).primary) == score(judged(files).primary)


# ── multi-frame objects and concatenations ───────────────────────────────────


def enhanced(paths: Sequence[Path], target: Path) -> Path:
    """Put the slices of a classic series into one enhanced object, what all share into the shared groups."""
    slices = [pydicom.dcmread(path) for path in paths]
    first, is_ct = slices[0], slices[0].Modality == "CT"
    ds = Dataset()
    keep = (
        "SpecificCharacterSet PatientID PatientName PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyTime "
        "StudyID AccessionNumber ReferringPhysicianName StudyDescription SeriesDescription ProtocolName Manufacturer "
        "BodyPartExamined ManufacturerModelName StationName SeriesNumber FrameOfReferenceUID Rows Columns "
        "SamplesPerPixel Modality "
        "PhotometricInterpretation BitsAllocated BitsStored HighBit PixelRepresentation MagneticFieldStrength"
    )
    for keyword in keep.split():
        if keyword in first:
            ds[keyword] = first[keyword]
    ds.SOPClassUID = ENHANCED_CT if is_ct else ENHANCED_MR
    ds.SOPInstanceUID, ds.SeriesInstanceUID = uid("enhanced", target), uid("enhanced series", first.SeriesInstanceUID)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.InstanceNumber, ds.NumberOfFrames = 1, len(slices)
    ds.SharedFunctionalGroupsSequence = Items([_shared(first, is_ct)])
    ds.PerFrameFunctionalGroupsSequence = Items([_own(one, is_ct) for one in slices])
    ds.PixelData = b"".join(one.pixel_array.tobytes() for one in slices)
    write(ds, target)
    return target


def _shared(first: Dataset, is_ct: bool) -> Dataset:
    shared = item(
        PixelMeasuresSequence=item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness),
        PlaneOrientationSequence=item(ImageOrientationPatient=first.ImageOrientationPatient),
    )
    if is_ct:
        shared.CTReconstructionSequence = Items([item(ConvolutionKernel=first.get("ConvolutionKernel", "STANDARD"))])
        shared.CTAcquisitionTypeSequence = Items([item(AcquisitionType="SPIRAL")])
        shared.CTXRayDetailsSequence = Items([item(KVP=120.0)])
        shared.CTImageFrameTypeSequence = Items([item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])])
    else:
        shared.MREchoSequence = Items([item(EffectiveEchoTime=float(first.EchoTime))])
        timing = item(RepetitionTime=float(first.RepetitionTime), FlipAngle=float(first.get("FlipAngle", 20)))
        shared.MRTimingAndRelatedParametersSequence = Items([timing])
    return shared


def _own(one: Dataset, is_ct: bool) -> Dataset:
    frame = item(PlanePositionSequence=item(ImagePositionPatient=one.ImagePositionPatient))
    slope, intercept = one.get("RescaleSlope", 1), one.get("RescaleIntercept", 0)
    frame.PixelValueTransformationSequence = Items(
        [item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU" if is_ct else "US")]
    )
    if is_ct:
        frame.CTExposureSequence = Items([item(ExposureInmAs=80.0)])
    return frame


def concatenation(path: Path, folder: Path, *, parts: int) -> list[Path]:
    """Split a multi-frame object by frames (PS3.3 C.7.6.16.2.2.4)."""
    whole = pydicom.dcmread(path)
    pixels = whole.pixel_array
    bounds = [len(pixels) * part // parts for part in range(parts + 1)]
    paths = []
    for number, (start, stop) in enumerate(pairwise(bounds), start=1):
        ds = pydicom.dcmread(path)
        ds.SOPInstanceUID = uid(path, number)
        ds.SOPInstanceUIDOfConcatenationSource = whole.SOPInstanceUID
        ds.ConcatenationUID = uid(path, "concatenation")
        ds.InConcatenationNumber, ds.InConcatenationTotalNumber = number, parts
        ds.ConcatenationFrameOffsetNumber = start
        ds.NumberOfFrames = stop - start
        ds.PerFrameFunctionalGroupsSequence = Items(whole.PerFrameFunctionalGroupsSequence[start:stop])
        ds.PixelData = pixels[start:stop].tobytes()
        paths.append(folder / f"part{number}.dcm")
        write(ds, paths[-1])
    return paths


@pytest.mark.parametrize("source", [CT, *before_release(MR)], ids=["CT", "MR"])
def test_an_enhanced_object_scores_as_its_classic_twin(source, tmp_path):
    classic = sorted(source.glob("*.dcm"))
    twin = judged([enhanced(classic, tmp_path / "enhanced.dcm")])
    original = judged(classic)

    assert twin.n_stacks == 1
    assert [term.value for term in _terms(twin)] == [term.value for term in _terms(original)]
    assert score(twin.primary) == score(original.primary)
    by_number = {one.SOPInstanceUID: place for place, one in enumerate(map(pydicom.dcmread, classic), start=1)}
    assert [part.frame.frame_number for part in twin.primary.slices] == [
        by_number[part.frame.sop_instance_uid] for part in original.primary.slices
    ]
    if source is CT:
        assert twin.technique.tube_charge_mas == 80.0
        assert twin.technique.source == "fg_exposure"


def _terms(judgement: Assessment) -> list[Any]:
    prompt = judgement.primary.prompt
    return [prompt.dimension, prompt.modality, prompt.region, prompt.type]


@pytest.mark.peers
def test_the_report_of_an_enhanced_ct_is_valid_and_names_frames(tmp_path):
    path = enhanced(sorted(CT.glob("*.dcm")), tmp_path / "enhanced.dcm")

    report = reported([path])

    assert complaints(report, tmp_path) == []
    [reference] = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert reference.ReferencedSOPInstanceUID == pydicom.dcmread(path).SOPInstanceUID


def _synthetic_enhanced(folder: Path) -> Path:
    return enhanced(ct_series(folder / "classic", "long", slices=range(20)), folder / "whole.dcm")


@pytest.mark.parametrize("make", [*before_release(lambda folder: XA30), _synthetic_enhanced], ids=["MR", "CT"])
def test_a_concatenation_scores_as_the_whole_object(make, tmp_path):
    whole = make(tmp_path)
    parts = concatenation(whole, tmp_path, parts=2)

    result = judged(parts)
    backwards = judged(parts[::-1])

    assert result.n_stacks == 1
    assert score(result.primary) == score(backwards.primary) == score(judged([whole]).primary)
    assert {part.frame.sop_instance_uid for part in result.primary.slices} == {uid(whole, 1), uid(whole, 2)}
    headers = read_headers(parts).headers
    assert concatenation_complete(headers) is True
    assert concatenation_complete(headers[:1]) is False


@pytest.mark.peers
def test_the_report_of_a_concatenation_is_valid(tmp_path):
    assert complaints(reported(concatenation(XA30, tmp_path, parts=2)), tmp_path) == []


# ── character sets ───────────────────────────────────────────────────────────


@pytest.mark.peers
@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("GBK", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東="),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_names_in_any_script_reach_the_report(charset, name, tmp_path):
    paths = ct_series(tmp_path / "in", "name", slices=[0], charset=charset, patient_name=name)

    report = reported(paths)

    assert str(report.PatientName).rstrip("=") == name.rstrip("=")
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert complaints(report, tmp_path) == []


# ── dirty headers ────────────────────────────────────────────────────────────


def raw(ds: Dataset, keyword: str, vr: str, value: bytes) -> None:
    """Put bytes into an element past every check of pydicom."""
    tag = Tag(keyword)
    ds[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "StudyID", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber", "Manufacturer", "FrameOfReferenceUID",
    "KVP", "AcquisitionNumber",
)  # fmt: skip


def without_type_2(ds: Dataset) -> None:
    for keyword in TYPE_2:
        ds.pop(keyword, None)


def empty_strings(ds: Dataset) -> None:
    for element in list(ds):
        if element.VR in {"LO", "SH", "PN", "DA", "TM", "CS", "IS", "DS", "LT", "ST"} and element.keyword not in (
            "PhotometricInterpretation", "Modality", "ImagePositionPatient", "ImageOrientationPatient",
        ):  # fmt: skip
            raw(ds, element.keyword, element.VR, b"")


def raws(**values: tuple[str, bytes]) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        for keyword, (vr, value) in values.items():
            raw(ds, keyword, vr, value)

    return change


DIRTY: dict[str, Callable[[Dataset], None]] = {
    "missing type 2": without_type_2,
    "empty strings": empty_strings,
    "sex U": raws(PatientSex=("CS", b"U ")),
    "sex lower case": raws(PatientSex=("CS", b"female")),
    "year of birth only": raws(PatientBirthDate=("DA", b"1960")),
    "partial dates": raws(StudyDate=("DA", b"202611"), PatientBirthDate=("DA", b"19600000")),
    "dates with dots and dashes": raws(StudyDate=("DA", b"2026.11.20"), PatientBirthDate=("DA", b"1960-01-02")),
    "impossible date": raws(StudyDate=("DA", b"20261345"), StudyTime=("TM", b"25:61:99")),
    "words for dates": raws(StudyDate=("DA", b"unknown "), StudyTime=("TM", b"noon")),
    "several study dates": raws(StudyDate=("DA", b"20261120\\20261121")),
    "several names": raws(PatientName=("PN", b"One^A\\Two^B "), PatientID=("LO", b"ID1\\ID1 ")),
    "several patient IDs": raws(PatientID=("LO", b"ID1\\ID2 ")),
    "several of what is one": raws(
        AccessionNumber=("SH", b"A1\\A2 "), StudyID=("SH", b"1\\2 "), StudyDescription=("LO", b"a\\b "),
        SeriesNumber=("IS", b"3\\4 "), InstanceNumber=("IS", b"1\\2 "),
        Manufacturer=("LO", b"X\\Y "), StationName=("SH", b"S1\\S2 "), ConvolutionKernel=("SH", b"I30f\\3 "),
    ),
    "long identifiers": raws(
        AccessionNumber=("SH", b"A" * 40), StudyID=("SH", b"S" * 30), StationName=("SH", b"T" * 40),
    ),
    "long texts": raws(
        StudyDescription=("LO", b"D" * 2000), PatientName=("PN", b"N" * 300), PatientComments=("LT", b"C" * 20_000),
        OperatorsName=("PN", b"O" * 1000), Manufacturer=("LO", b"M" * 500), ProtocolName=("LO", b"P" * 5000),
    ),
    "long patient ID": raws(PatientID=("LO", b"I" * 100)),
    "control characters": raws(PatientName=("PN", b"A\x00B\x1b^C\r\n"), StudyDescription=("LO", b"x\ty\x7f\x01")),
    "bytes of no charset": raws(PatientName=("PN", b"\xff\xfe\x80^\x81 "), StudyDescription=("LO", b"\xc3\x28\xe4 ")),
    "unknown charset": raws(SpecificCharacterSet=("CS", b"ISO_IR 999"), PatientName=("PN", b"M\xfcller^J ")),
    "numbers that are words": raws(
        KVP=("DS", b"high"), Exposure=("IS", b"12.5"), ExposureTime=("IS", b"n/a "), XRayTubeCurrent=("IS", b"1E400 "),
        PatientWeight=("DS", b"80 kg "), PatientSize=("DS", b"-1"), PatientAge=("AS", b"42"),
        SliceThickness=("DS", b"thin"),
    ),
    "huge numbers": raws(
        SeriesNumber=("IS", b"99999999999999"), InstanceNumber=("IS", b"-2147483649 "), Exposure=("IS", b"999999999 "),
        PatientWeight=("DS", b"1e308 "), AcquisitionNumber=("IS", b"9" * 20), SliceThickness=("DS", b"0 "),
    ),
    "not numbers": raws(
        RescaleSlope=("DS", b"nan "), RescaleIntercept=("DS", b"inf "), PixelSpacing=("DS", b"nan\\0 "),
    ),
    "spacing of one value": raws(
        PixelSpacing=("DS", b"0.7 "), WindowCenter=("DS", b"40\\x\\"), WindowWidth=("DS", b"\\"),
    ),
    "broken orientation": raws(ImageOrientationPatient=("DS", b"1\\1\\1\\1\\1\\1 ")),
    "no orientation": raws(ImageOrientationPatient=("DS", b"")),
    "broken position": raws(ImagePositionPatient=("DS", b"a\\b\\c ")),
    "no Modality": raws(Modality=("CS", b"")),
    "another Modality": raws(Modality=("CS", b"MR")),
    "empty Image Type": raws(ImageType=("CS", b"")),
    "zone beyond the world": raws(TimezoneOffsetFromUTC=("SH", b"+9900 ")),
    "no frames": raws(NumberOfFrames=("IS", b"0 ")),
    "many frames": raws(NumberOfFrames=("IS", b"2000000000")),
    "no rows": raws(Rows=("US", b"\0\0")),
    "no bits": raws(BitsAllocated=("US", b"\0\0")),
    "more bits than allocated": raws(BitsStored=("US", b"\x20\0"), HighBit=("US", b"\x1f\0")),
    "samples of colour": raws(SamplesPerPixel=("US", b"\x03\0")),
    "unknown photometric": raws(PhotometricInterpretation=("CS", b"SEPIA ")),
    "UID with leading zeros": raws(FrameOfReferenceUID=("UI", b"1.02.003\0"), IrradiationEventUID=("UI", b"1..2")),
    "UID of words": raws(FrameOfReferenceUID=("UI", b"not a uid\0")),
}  # fmt: skip

REFUSED = {
    "long patient ID": "Patient ID longer than 64 characters",
    "several patient IDs": "several values",
    "no rows": "Rows, Columns",
    "no bits": "Bits Allocated",
    "samples of colour": "colour",
    "more bits than allocated": "Bits Stored",
    "unknown photometric": "Photometric Interpretation",
    "not numbers": "RescaleSlope (0028,1053)",
    "broken position": "ImagePositionPatient (0020,0032)",
}
"""What cannot be reported, and a word of the refusal that must be given; "" where a report is also fine."""

UNHARMED = {"no Modality", "another Modality", "sex U", "missing type 2", "several of what is one", "long texts"}
"""Dirt that must not change a score."""


@pytest.mark.peers
@pytest.mark.parametrize("dirt", one_in(3, DIRTY))
def test_a_dirty_header_gives_a_valid_report_or_a_named_refusal(dirt, tmp_path):
    paths = ct_series(tmp_path / "in", "dirty", slices=range(3))
    for path in paths:
        ds = pydicom.dcmread(path)
        DIRTY[dirt](ds)
        pydicom.dcmwrite(path, ds)

    try:
        report = reported(paths)
    except (NotScorable, InvalidInstance) as refusal:
        assert dirt in REFUSED, str(refusal)
        assert REFUSED[dirt] in str(refusal)
        return
    assert REFUSED.get(dirt, "") == ""
    assert complaints(report, tmp_path) == []


@pytest.mark.parametrize("dirt", one_in(2, sorted(UNHARMED)))
def test_dirt_that_says_nothing_of_the_pixels_does_not_change_the_score(dirt, tmp_path):
    clean = ct_series(tmp_path / "clean", "dirty", slices=range(3))
    dirty = copies(tmp_path / "clean", tmp_path / "dirty", lambda ds, index: DIRTY[dirt](ds))

    assert score(judged(dirty).primary) == score(judged(clean).primary)


# ── pixels ───────────────────────────────────────────────────────────────────


def test_inverted_storage_scores_as_its_positive(tmp_path):
    """MONOCHROME1 of MR: low values are bright."""

    def invert(ds: Dataset, index: int) -> None:
        top = (1 << ds.BitsStored) - 1
        ds.PixelData = (top - ds.pixel_array).astype(ds.pixel_array.dtype).tobytes()
        ds.PhotometricInterpretation = "MONOCHROME1"

    def clean(ds: Dataset, index: int) -> None:
        top = (1 << ds.BitsStored) - 1
        ds.PixelRepresentation = 0
        ds.PixelData = np.clip(ds.pixel_array, 0, top).astype("<u2").tobytes()
        for keyword in ("PixelPaddingValue", "SmallestImagePixelValue", "LargestImagePixelValue"):
            ds.pop(keyword, None)

    positive = copies(MR, tmp_path / "positive", clean)
    negative = copies(tmp_path / "positive", tmp_path / "negative", invert)

    assert score(judged(negative).primary) == score(judged(positive).primary)


def test_signed_and_unsigned_storage_of_the_same_hounsfield_units_score_alike(tmp_path):
    signed = ct_series(tmp_path / "signed", "hu", slices=range(3))

    def unsign(ds: Dataset, index: int) -> None:
        ds.PixelData = (ds.pixel_array.astype(np.int32) + 2048).astype("<u2").tobytes()
        ds.PixelRepresentation, ds.RescaleIntercept = 0, -2048

    unsigned = copies(tmp_path / "signed", tmp_path / "unsigned", unsign)

    assert score(judged(unsigned).primary) == score(judged(signed).primary)


def test_padding_scores_as_air(tmp_path):
    ct_series(tmp_path / "in", "padding", slices=range(3))

    def corners(value: int) -> Callable[[Dataset, int], None]:
        def change(ds: Dataset, index: int) -> None:
            y, x = np.mgrid[-1 : 1 : ds.Rows * 1j, -1 : 1 : ds.Columns * 1j]
            ds.PixelData = np.where(x**2 + y**2 > 1, value, ds.pixel_array).astype("<i2").tobytes()
            ds.add_new("PixelPaddingValue", "SS", value)

        return change

    padded = [judged(copies(tmp_path / "in", tmp_path / str(value), corners(value))) for value in (-1024, -2000, 3000)]

    assert score(padded[0].primary) == score(padded[1].primary) == score(padded[2].primary)


@cache
def photograph() -> np.ndarray:
    return np.asarray(Image.open(DATA / "fundus_chasedb1" / "Image_01L.jpg").convert("RGB").resize((400, 384)))


def wrapped(path: Path, **changes: Any) -> list[Path]:
    ds = wrap_photograph(photograph())
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.save_as(path, enforce_file_format=True)
    return [path]


def test_a_photograph_scores_alike_by_pixel_and_by_plane(tmp_path):
    planes = np.moveaxis(photograph(), -1, 0).tobytes()

    by_plane = judged(wrapped(tmp_path / "plane.dcm", PlanarConfiguration=1, PixelData=planes))

    assert score(by_plane.primary) == score(judged(wrapped(tmp_path / "pixel.dcm")).primary)


def test_a_ybr_photograph_scores_as_its_rgb(tmp_path):
    stored = convert_color_space(photograph(), "RGB", "YBR_FULL")
    rgb = convert_color_space(stored, "YBR_FULL", "RGB")

    of_ybr = wrapped(tmp_path / "ybr.dcm", PhotometricInterpretation="YBR_FULL", PixelData=stored.tobytes())
    of_rgb = wrapped(tmp_path / "rgb.dcm", PixelData=rgb.tobytes())

    with FrameReader() as reader:
        assert np.array_equal(reader.raw(of_ybr[0], None), rgb)
    assert score(judged(of_ybr).primary) == score(judged(of_rgb).primary)


def test_a_palette_photograph_scores_as_its_colours(tmp_path):
    indexed = Image.fromarray(photograph()).quantize(256)
    table = np.asarray(indexed.getpalette(), dtype=np.uint8).reshape(-1, 3)
    table = np.vstack([table, np.zeros((256 - len(table), 3), np.uint8)])
    changes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR", "SamplesPerPixel": 1}
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        changes[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        changes[f"{colour}PaletteColorLookupTableData"] = (table[:, channel].astype("<u2") * 257).tobytes()

    of_palette = judged(wrapped(tmp_path / "palette.dcm", PixelData=np.asarray(indexed).tobytes(), **changes))
    of_rgb = judged(wrapped(tmp_path / "rgb.dcm", PixelData=np.asarray(indexed.convert("RGB")).tobytes()))

    assert of_palette.primary.prompt.type.value == "cfp"
    assert of_palette.quality == pytest.approx(of_rgb.quality, abs=1e-6)


# ── how many, in which order ─────────────────────────────────────────────────


@pytest.mark.parametrize("count", one_in(3, range(1, 8)))
def test_a_few_slices_are_each_scored_once(count, tmp_path):
    paths = ct_series(tmp_path, "few", slices=range(count))
    result = judged(paths)

    scored = [part.frame.sop_instance_uid for part in result.primary.slices]
    assert scored == [uid("few", number) for number in range(count)]
    assert result.primary.prompt.dimension.value == ("3D" if count == 7 else "2D")
    assert len(result.primary.stack.frames) == count


@pytest.mark.peers
@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_report_of_a_few_slices_is_valid(count, tmp_path):
    report = reported(ct_series(tmp_path / "in", "few", slices=range(count)))

    assert complaints(report, tmp_path) == []


@pytest.mark.parametrize("name", ["mr_mosaic_siemens_trio"])
def test_a_mosaic_is_refused_by_name(name):
    with pytest.raises(NotScorable, match=r"^mosaic: "):
        judged(sorted((DATA / "refuse" / name).glob("*.dcm")))


def test_instance_numbers_do_not_order_a_volume(tmp_path):
    ordered = ct_series(tmp_path / "ordered", "order", slices=range(12))
    numbers = np.random.default_rng(7).permutation(12)

    def shuffle(ds: Dataset, index: int) -> None:
        ds.InstanceNumber = int(numbers[index]) + 1

    shuffled = copies(tmp_path / "ordered", tmp_path / "shuffled", shuffle)
    first, second = judged(ordered), judged([shuffled[number] for number in numbers[::-1]])

    assert score(second.primary) == score(first.primary)
    assert [part.frame.sop_instance_uid for part in second.primary.slices] == [
        part.frame.sop_instance_uid for part in first.primary.slices
    ]
