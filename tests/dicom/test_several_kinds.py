"""Images or frames of several kinds in one series: a minority is left out in any order, most refuse the whole."""

from itertools import permutations

import pytest
from pydicom import Dataset
from support.header_builders import CT, MR, OP, dataset, multi_frame, series

from mediqa_node.dicom.exclusions import exclusions, series_modality
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.dicom.technique.harvest import harvest
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.technique import Technique

ENHANCED = {"CT": CT + ".1", "MR": MR + ".1"}
KINDS = {
    "localizer": ("CT", {"FrameType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]}, "localizer"),
    "MIP": ("CT", {"FrameType": ["DERIVED", "PRIMARY", "MIP", "NONE"]}, "reformat"),
    "projection": ("CT", {"VolumeBasedCalculationTechnique": "MAX_IP"}, "reformat"),
    "curved": ("CT", {"VolumetricProperties": "SAMPLED"}, "reformat"),
    "phase": ("MR", {"FrameType": ["ORIGINAL", "PRIMARY", "PHASE", "NONE"]}, "map"),
    "imaginary": ("MR", {"ComplexImageComponent": "IMAGINARY"}, "map"),
    "ADC": ("MR", {"FrameType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "map"),
}
VOLUME = {"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]}


def enhanced(modality: str, kinds: list[dict[str, object]]) -> Dataset:
    """An enhanced object of frames with these frame type groups."""
    frames = [dataset(**{f"{modality}ImageFrameTypeSequence": dataset(**kind)}) for kind in kinds]
    return multi_frame(ENHANCED[modality], Dataset(), frames, Modality=modality)


def frames_of(technique: Technique) -> list[int | None]:
    return [frame.frame_number for frame in technique.frames]


def refusals(headers: list[Dataset]) -> list[tuple[str, str]]:
    return [(found.code, found.detail) for found in exclusions(headers) if not found.scorable]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", [{0}, {9}, set(range(10))], ids=["the first", "one", "half"])
def test_a_minority_of_frames_is_left_out_and_does_not_train(kind, where):
    modality, wrong, code = KINDS[kind]
    header = enhanced(modality, [wrong if index in where else VOLUME for index in range(20)])

    technique = harvest([header])
    [stack] = assemble_stacks([header])

    left = [number for number in range(1, 21) if number - 1 not in where]
    assert frames_of(technique) == [frame.frame_number for frame in stack.frames] == left
    assert (technique.refusal, technique.eligible, "refused_images" in technique.flags) == (None, False, True)
    assert any(found.code == code and f"({len(where)} of 20 frames)" in found.detail for found in technique.exclusions)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [11, 20])
def test_most_frames_refuse_the_object_even_if_the_first_is_a_slice(kind, count):
    modality, wrong, code = KINDS[kind]

    [(found, detail)] = refusals([enhanced(modality, [VOLUME] * (20 - count) + [wrong] * count)])

    assert (found, "(11 of 20 frames)" in detail) == (code, count == 11)


def test_an_object_of_which_no_frame_is_left_is_refused():
    kinds = [KINDS[name][1] for name in ("localizer", "MIP")]

    assert {code for code, _ in refusals([enhanced("CT", kinds * 10)])} == {"localizer", "reformat"}


def test_an_object_that_its_image_type_refuses_is_refused_though_few_frames_agree():
    header = enhanced("CT", [VOLUME] * 18 + [KINDS["localizer"][1]] * 2)
    header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]

    assert [code for code, _ in refusals([header])] == ["localizer"]


@pytest.mark.parametrize(
    ("group", "wrong", "code"),
    [
        ("PixelMeasuresSequence", {"SliceThickness": 60}, "localizer"),
        ("PixelValueTransformationSequence", {"RescaleType": "MGML"}, "map"),
    ],
)
def test_every_frame_of_a_ct_object_counts(group, wrong, code):
    frames = [dataset(**{group: dataset(**wrong)}) if index in (3, 4) else Dataset() for index in range(12)]

    technique = harvest([multi_frame(ENHANCED["CT"], Dataset(), frames, Modality="CT")])

    assert frames_of(technique) == [1, 2, 3, 6, 7, 8, 9, 10, 11, 12]
    assert code in [found.code for found in technique.exclusions]


LABELLED = {
    CT: {"Exposure": 100, "KVP": 120, "ExposureTime": 500, "XRayTubeCurrent": 200, "RescaleSlope": 1,
         "RescaleIntercept": 0},
    MR: {"MagneticFieldStrength": 3, "ImagingFrequency": 127.7, "ImageType": ["ORIGINAL", "PRIMARY", "M"]},
}  # fmt: skip


@pytest.mark.parametrize(("own", "other"), list(permutations([CT, MR], 2)))
@pytest.mark.parametrize("at", [0, 5, 11])
def test_an_image_of_another_sop_class_is_left_out_wherever_it_stands(own, other, at):
    headers = series(own, n=12, **LABELLED[own])
    headers[at].SOPClassUID = other

    technique = harvest(headers)

    assert (technique.refusal, technique.eligible) == (None, False)
    assert technique.label_name == {CT: "mas", MR: "tesla"}[own]
    assert {technique.tube_charge_mas, technique.field_strength_t} == {None, {CT: 100, MR: 3}[own]}
    assert len(technique.frames) == 11
    assert [found.code for found in technique.exclusions if "of 12 images" in found.detail] == ["modality"]
    assert "refused_images" in technique.flags


@pytest.mark.parametrize("others", [[MR] * 6, [OP] * 6, [MR] * 3 + [OP] * 4])
@pytest.mark.parametrize("first", [True, False])
def test_a_series_without_a_majority_is_refused(others, first):
    headers = series(CT, n=12)
    for header, sop_class in zip(headers if first else headers[::-1], others, strict=False):
        header.SOPClassUID = sop_class

    assert series_modality(headers) == ""
    assert "modality" in [code for code, _ in refusals(headers)]


@pytest.mark.parametrize("sop_class", [CT, MR, ENHANCED["CT"], ENHANCED["MR"]])
@pytest.mark.parametrize("stated", ["OT", "", "US", "CT", "MR"])
def test_images_without_geometry_are_flagged_whatever_modality_they_state(sop_class, stated):
    headers = series(sop_class, n=3, Modality=stated)
    for header in headers:
        del header.ImagePositionPatient

    stacks = assemble_stacks(headers)

    modality = "CT" if sop_class.startswith(CT) and not sop_class.startswith(MR) else "MR"
    assert [(stack.flags, stack.modality) for stack in stacks] == [(("missing_geometry",), modality)] * 3


@pytest.mark.parametrize("stated", ["MR", "CT", "OT", ""])
def test_a_mosaic_by_its_size_is_refused_whatever_modality_it_states(stated):
    tiled = {"Manufacturer": "SIEMENS", "AcquisitionMatrix": [64, 0, 0, 64], "Rows": 384, "Columns": 384}
    headers = series(MR, n=8, Modality=stated, **tiled)

    assert [code for code, _ in refusals(headers)] == ["mosaic"]
    with pytest.raises(NotScorable, match="Acquisition Matrix"):
        assemble_stacks(headers)
    assert len(assemble_stacks(series(CT, n=8, Modality="MR", **tiled))) == 1
