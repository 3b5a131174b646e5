"""Secondary Capture and Parametric Map of a score: valid, the same twice, nobody's name in the pixels."""

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from support.factories import (
    ASSESSED_AT,
    DEVICE,
    ENHANCED_MR,
    FUNDUS,
    assessment,
    frame_references,
    prompt,
    range_position,
    references,
    source_header,
    stack_result,
)

from mediqa_node.dicom.companions.parametric_map import build_parametric_map
from mediqa_node.dicom.companions.request import CompanionRequest, derivation
from mediqa_node.dicom.companions.secondary_capture import build_captures
from mediqa_node.dicom.header import frame_header
from mediqa_node.dicom.report.build import report_bytes
from mediqa_node.dicom.report.source import patient_id
from mediqa_node.domain.scoring import CheckpointId

SHAPE = (128, 128)
FRAME = "1.2.826.0.1.3680043.2.1125.9"
UNTRAINED = CheckpointId(name="default", sha256="3f" * 32, trained=False, size="t16")


def located(index: int, **changes) -> Dataset:
    """A CT header that says where it lies: slice `index` at 5 x index mm, turned a little about the row."""
    return source_header(
        index,
        **{
            "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 0.8, 0.6],
            "ImagePositionPatient": [-40.5, -31.25, 5.0 * index],
            "PixelSpacing": [0.7, 0.7],
            "SliceThickness": 5.0,
            "FrameOfReferenceUID": FRAME,
        }
        | changes,
    )


def enhanced(frames: int) -> Dataset:
    """An enhanced MR header: every frame's place in its functional groups."""
    header = source_header(sop_class=ENHANCED_MR, frames=frames, FrameOfReferenceUID=FRAME)
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.7], 5.0
    plane.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 0.8, 0.6]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = []
    for index in range(frames):
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [0.0, 0.0, 3.0 * index]
        group.PlanePositionSequence = [place]
        header.PerFrameFunctionalGroupsSequence.append(group)
    return header


def request(headers, frames, words, **changes) -> CompanionRequest:
    n = len(frames)
    result = stack_result(frames, [0.5] * n, [1 / n] * n, prompt=prompt(*words))
    stack = replace(result.stack, orientation=(1.0, 0.0, 0.0, 0.0, 0.8, 0.6), origin_mm=(0.0, 0.0, 0.0))
    judged = assessment(replace(result, stack=stack), **changes)
    return CompanionRequest(
        assessment=judged,
        sources=headers,
        device=DEVICE,
        series_number=9001,
        first_instance_number=1,
        created_at=ASSESSED_AT,
    )


def ct(**changes) -> CompanionRequest:
    headers = [located(index) for index in range(1, 6)]
    return request(headers, [references(headers)[i] for i in (0, 2, 4)], ("3D", "CT", "chest", "lung"), **changes)


def enhanced_mr() -> CompanionRequest:
    header = enhanced(6)
    return request([header], frame_references(header, (2, 3, 5)), ("3D", "MR", "brain", "t1"))


def fundus() -> CompanionRequest:
    headers = [source_header(sop_class=FUNDUS, ImageLaterality="L")]
    return request(headers, references(headers), ("2D", "OP", "retina", "cfp"))


def dirty() -> CompanionRequest:
    """Missing type 2 elements, a sex that is none, half a date, a name in another character set, an odd UID."""
    changes = {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "YAMADA^TAROU=山田^太郎", "PatientSex": "U",
        "PatientBirthDate": "1960", "StudyDate": None, "StudyTime": None, "StudyID": None, "AccessionNumber": None,
        "ReferringPhysicianName": None, "StudyDescription": "A" * 80,
    }  # fmt: skip
    headers = [located(index, **changes) for index in range(1, 4)]
    return request(headers, references(headers), ("3D", "CT", "unknown", "unknown"), checkpoint=UNTRAINED)


REQUESTS = {"ct": ct, "enhanced-mr": enhanced_mr, "fundus": fundus, "dirty": dirty}


def pictures(asked: CompanionRequest) -> list[np.ndarray]:
    noise = np.random.default_rng(7)
    return [noise.integers(0, 256, (60, 90, 3), dtype=np.uint8) for _ in asked.assessment.primary.slices]


def maps(asked: CompanionRequest) -> list[np.ndarray]:
    """Distinct values, no two the same, so that nothing can be swapped or turned unseen."""
    n = len(asked.assessment.primary.slices)
    return list(np.random.default_rng(8).random((n, *SHAPE), dtype=np.float32))


def objects(kind: str) -> list[Dataset]:
    """All companions of a request; a photograph has no parametric map."""
    asked = REQUESTS[kind]()
    made = build_parametric_map(asked, maps(asked))
    assert (made is None) == (kind == "fundus")
    return build_captures(asked, pictures(asked)) + ([] if made is None else [made])


def numbers_of(values) -> list[float]:
    return [float(value) for value in values]


def read(dataset: Dataset, tmp_path: Path) -> Dataset:
    path = tmp_path / "companion.dcm"
    path.write_bytes(report_bytes(dataset))
    return pydicom.dcmread(path)


# ── by the standard ──────────────────────────────────────────────────────────


@pytest.mark.peers
@pytest.mark.parametrize("kind", REQUESTS)
def test_dciodvfy_finds_no_error_and_dcmdump_reads_it(kind, tmp_path):
    tools = [shutil.which(name, path="/usr/bin") for name in ("dciodvfy", "dcmdump")]
    if None in tools:
        pytest.skip("apt-get install dicom3tools dcmtk")
    for dataset in objects(kind):
        path = tmp_path / "companion.dcm"
        path.write_bytes(report_bytes(dataset))
        verified = subprocess.run([tools[0], "-new", path], capture_output=True, text=True, check=False)
        dumped = subprocess.run([tools[1], "-q", path], capture_output=True, text=True, check=False)

        said = (verified.stdout + verified.stderr).splitlines()
        assert [line for line in said if line.startswith("Error")] == []
        assert (dumped.returncode, dumped.stderr) == (0, "")


@pytest.mark.parametrize("kind", REQUESTS)
def test_patient_and_study_are_those_of_the_source(kind, tmp_path):
    asked = REQUESTS[kind]()
    source = asked.sources[0]
    for dataset in objects(kind):
        found = read(dataset, tmp_path)
        assert found.StudyInstanceUID == source.StudyInstanceUID
        assert found.PatientID == patient_id(source)
        assert str(found.PatientName) == str(source.PatientName)
        assert found.AccessionNumber == source.get("AccessionNumber", "")
        assert found.StudyDate == source.get("StudyDate", "")
        assert found.SpecificCharacterSet == "ISO_IR 192"
        assert found.Modality == "OT"
        assert found.SeriesInstanceUID not in (source.SeriesInstanceUID, "")


def test_a_capture_says_what_it_is_and_of_what(tmp_path):
    asked = ct()
    captures = [read(capture, tmp_path) for capture in build_captures(asked, pictures(asked))]

    for number, (capture, part, picture) in enumerate(
        zip(captures, asked.assessment.primary.slices, pictures(asked), strict=True), start=1
    ):
        assert capture.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
        assert list(capture.ImageType) == ["DERIVED", "SECONDARY"]
        assert (capture.ConversionType, capture.BurnedInAnnotation) == ("WSD", "YES")
        assert (capture.SeriesNumber, capture.InstanceNumber) == (9001, number)
        [reference] = capture.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == part.frame.sop_instance_uid
        assert np.array_equal(capture.pixel_array, picture)
        assert "not for diagnosis" in capture.SeriesDescription
        assert "research use only" in capture.DerivationDescription
    assert len({capture.SOPInstanceUID for capture in captures}) == 3
    assert len({capture.SeriesInstanceUID for capture in captures}) == 1


def test_the_side_of_an_eye_is_that_of_the_photograph(tmp_path):
    [capture] = (read(found, tmp_path) for found in objects("fundus"))

    assert (capture.BodyPartExamined, capture.Laterality) == ("EYE", "L")


@pytest.mark.parametrize("kind", ["ct", "enhanced-mr", "dirty"])
def test_a_map_holds_the_values_where_the_slices_lie(kind, tmp_path):
    asked = REQUESTS[kind]()
    given = maps(asked)
    made = read(build_parametric_map(asked, given), tmp_path)
    slices = asked.assessment.primary.slices
    numbers = [(part.frame.sop_instance_uid, part.frame.frame_number) for part in slices]

    frames = np.frombuffer(made.FloatPixelData, "<f4").reshape(-1, *SHAPE)
    assert len(frames) == len(slices)
    for frame, values in zip(made.PerFrameFunctionalGroupsSequence, frames, strict=True):
        [step] = frame.DerivationImageSequence
        [named] = step.SourceImageSequence
        index = numbers.index((named.ReferencedSOPInstanceUID, named.get("ReferencedFrameNumber")))
        assert np.array_equal(values, given[index])
        source = asked.by_uid[named.ReferencedSOPInstanceUID]
        plane = frame_header(source, numbers[index][1])
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert numbers_of(position) == numbers_of(plane.exact("ImagePositionPatient", 3))
    shared = made.SharedFunctionalGroupsSequence[0]
    assert numbers_of(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.7, 0.7]
    assert numbers_of(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1.0, 0.0, 0.0, 0.0, 0.8, 0.6]
    assert made.FrameOfReferenceUID == FRAME


def test_highdicom_reads_a_map_back(tmp_path):
    asked = ct()
    read(build_parametric_map(asked, maps(asked)), tmp_path)

    found = hd.imread(tmp_path / "companion.dcm").get_frames(apply_real_world_transform=True)

    assert sorted(found.ravel()) == sorted(np.stack(maps(asked)).ravel())


def test_a_map_says_that_its_values_are_quality_from_0_to_1(tmp_path):
    made = read(build_parametric_map(ct(), maps(ct())), tmp_path)

    group = made.SharedFunctionalGroupsSequence[0]
    mapping = group.RealWorldValueMappingSequence[0]
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "{0:1}"
    [quantity] = mapping.QuantityDefinitionSequence
    code = quantity.ConceptCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("111101", "DCM")
    assert made.ContentQualification == "RESEARCH"


def test_frames_of_a_multi_frame_source_are_named(tmp_path):
    asked = enhanced_mr()
    made = read(build_parametric_map(asked, maps(asked)), tmp_path)
    captures = [read(capture, tmp_path) for capture in build_captures(asked, pictures(asked))]

    named = [frame.DerivationImageSequence[0].SourceImageSequence[0] for frame in made.PerFrameFunctionalGroupsSequence]
    assert {item.ReferencedFrameNumber for item in named} == {2, 3, 5}
    assert {item.ReferencedSOPInstanceUID for item in named} == {asked.sources[0].SOPInstanceUID}
    assert [capture.SourceImageSequence[0].ReferencedFrameNumber for capture in captures] == [2, 3, 5]
    [series] = made.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == asked.assessment.series_instance_uid
    assert len(series.ReferencedInstanceSequence) == 1


@pytest.mark.parametrize("lost", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_images_without_a_place_have_no_map(lost):
    asked = ct()
    for header in asked.sources:
        del header[lost]

    assert build_parametric_map(asked, maps(asked)) is None


# ── what must never be ───────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", REQUESTS)
def test_untrained_weights_are_said_so_in_words(kind, tmp_path):
    for trained in (True, False):
        asked = REQUESTS[kind]()
        checkpoint = replace(UNTRAINED, trained=trained)
        asked = replace(asked, assessment=replace(asked.assessment, checkpoint=checkpoint))
        made = [*build_captures(asked, pictures(asked)), build_parametric_map(asked, maps(asked))]
        for dataset in (read(found, tmp_path) for found in made if found is not None):
            assert dataset.SeriesDescription.startswith("UNTRAINED") is not trained
            assert ("UNTRAINED" in dataset.DerivationDescription) is not trained
            assert dataset.SoftwareVersions.endswith("-untrained") is not trained
            assert "NOT EVALUATED" not in dataset.DerivationDescription


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_stack_outside_the_training_range_is_described_as_such(kind, tmp_path):
    asked = REQUESTS[kind]()
    outside = replace(asked.assessment.primary, range_position=range_position())
    trained = replace(UNTRAINED, trained=True)
    asked = replace(asked, assessment=replace(asked.assessment, checkpoint=trained, primary=outside))

    made = [*build_captures(asked, pictures(asked)), build_parametric_map(asked, maps(asked))]

    for dataset in (read(found, tmp_path) for found in made if found is not None):
        assert dataset.DerivationDescription.startswith("OUTSIDE THE TRAINING RANGE (1.03 x the limit): ")
        if "ContentLabel" in dataset:
            assert dataset.ContentLabel == "OUTSIDE_RANGE"
            assert dataset.ContentDescription == "OUTSIDE THE TRAINING RANGE, 1.03 x the limit"


def test_weights_that_nobody_has_evaluated_are_described_as_such():
    asked = fundus()
    checkpoint = replace(UNTRAINED, trained=True, evaluated=False)

    description = derivation(replace(asked.assessment, checkpoint=checkpoint))

    assert description.startswith("NOT EVALUATED: nobody has measured")


@pytest.mark.parametrize("kind", REQUESTS)
def test_the_same_request_gives_the_same_bytes(kind):
    first, second = ([report_bytes(dataset) for dataset in objects(kind)] for _ in range(2))

    assert first == second


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_date_is_the_records_or_the_sources(kind):
    asked = replace(REQUESTS[kind](), created_at=datetime(2019, 5, 6, 7, 8, 9, tzinfo=UTC))
    made = [*build_captures(asked, pictures(asked)), build_parametric_map(asked, maps(asked))]

    for dataset in (found for found in made if found is not None):
        dates = {str(element.value) for element in dataset.iterall() if element.VR in ("DA", "DT") and element.value}
        times = {str(element.value) for element in dataset.iterall() if element.VR == "TM" and element.value}
        assert dates - {str(asked.sources[0].get(name)) for name in ("StudyDate", "PatientBirthDate")} == {"20190506"}
        assert times - {str(asked.sources[0].get("StudyTime"))} == {"070809"}


@pytest.mark.parametrize(
    "change",
    [{"revision": 2}, {"checkpoint": replace(UNTRAINED, sha256="4e" * 32)}, {"fingerprint": "f" * 16}],
    ids=lambda change: next(iter(change)),
)
def test_another_judgement_has_other_names_in_the_same_series(change):
    asked, other = ct(), ct(**change)
    for build, content in ((lambda r, c: build_captures(r, c)[0], pictures), (build_parametric_map, maps)):
        first, second = build(asked, content(asked)), build(other, content(other))
        assert first.SOPInstanceUID != second.SOPInstanceUID
        assert first.SeriesInstanceUID == second.SeriesInstanceUID


def test_other_values_have_another_name():
    asked = ct()
    given, changed = maps(asked), maps(asked)
    changed[1][3, 4] += 1e-3

    assert build_parametric_map(asked, given).SOPInstanceUID != build_parametric_map(asked, changed).SOPInstanceUID


def test_kinds_are_series_of_their_own():
    asked = ct()

    captures, made = build_captures(asked, pictures(asked)), build_parametric_map(asked, maps(asked))

    assert captures[0].SeriesInstanceUID != made.SeriesInstanceUID


def test_nobody_is_warned_of_by_name(capsys, recwarn, caplog):
    headers = [located(index, PatientName="Canary Karla", PatientID="CANARY7") for index in range(1, 4)]
    asked = request(headers, references(headers), ("3D", "CT", "chest", "lung"))

    build_captures(asked, pictures(asked))
    build_parametric_map(asked, maps(asked))

    said = caplog.text + "".join(capsys.readouterr()) + " ".join(str(warning.message) for warning in recwarn)
    assert "anary" not in said.lower()
