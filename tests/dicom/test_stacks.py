"""Series to stacks, on real series first."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence
from support.header_builders import CT, MR, OP, raw

from mediqa_node.dicom.header import frame_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks, concatenation_complete, stack_label
from mediqa_node.dicom.technique.diffusion import b_value
from mediqa_node.domain.errors import NotScorable

DATA = Path(__file__).parents[1] / "data"
DEMO = Path(__file__).parents[2] / "mediqa_node" / "demo_series"


def headers_of(folder: Path) -> list[Dataset]:
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.glob("*.dcm"))]


def image(z_mm: float, *, number: int = 1, modality: str = "CT", **changes: object) -> Dataset:
    header = Dataset()
    header.SOPClassUID = {"OP": OP, "MR": MR}.get(modality, CT)
    header.SOPInstanceUID = f"1.2.3.{number}.{round(z_mm * 100) + 10**6}"
    header.StudyInstanceUID, header.SeriesInstanceUID, header.Modality = "1.2.1", "1.2.2", modality
    header.Rows = header.Columns = 64
    header.PixelSpacing = [0.5, 0.75]
    header.ImageOrientationPatient, header.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10, -20, z_mm]
    header.InstanceNumber, header.ImageType = number, ["ORIGINAL", "PRIMARY", "AXIAL"]
    for keyword, value in changes.items():
        setattr(header, keyword, value)
    return header


def series(n: int = 4, *, number: int = 1, step_mm: float = 5.0, **changes: object) -> list[Dataset]:
    return [image(step_mm * k, number=number + k, **changes) for k in range(n)]


def positions(headers: list[Dataset], stack) -> list[float]:
    return [float(headers[frame.instance_index].ImagePositionPatient[2]) for frame in stack.frames]


def test_the_demo_chest_is_one_stack_ordered_from_foot_to_head():
    headers = headers_of(DEMO)

    [stack] = assemble_stacks(headers)

    assert len(stack.frames) == 8
    assert positions(headers, stack) == sorted(positions(headers, stack))
    assert list(stack.positions_mm) == pytest.approx(positions(headers, stack))
    assert stack.spacing_mm == (24.0, 0.646484375, 0.646484375)
    assert stack.origin_mm == tuple(headers[stack.frames[0].instance_index].ImagePositionPatient)
    assert {frame.frame_number for frame in stack.frames} == {None}
    assert stack.is_volume


@pytest.mark.parametrize(
    "name", ["ct_body_totalseg_j2k", "mr_breast_ucsf06", "mr_brain_epi_ge750", "ct_sts003_lowdose"]
)
def test_a_plain_series_is_one_stack_with_every_slice(name):
    headers = headers_of(DATA / name)

    [stack] = assemble_stacks(headers)

    assert sorted(frame.instance_index for frame in stack.frames) == list(range(len(headers)))
    assert np.all(np.diff(stack.positions_mm) > 0)
    assert "duplicate_position" not in stack.flags


def test_a_philips_diffusion_series_is_a_stack_for_each_b_value():
    stacks = assemble_stacks(headers_of(DATA / "mr_brain_dti_achieva"))

    assert [stack.key.b_value for stack in stacks] == [0.0, 2000.0]
    assert [len(stack.frames) for stack in stacks] == [5, 5]
    assert stacks[1].key.label() == "echo 60.728 ms, b 2000"


def test_an_enhanced_object_gives_its_frames_in_order_of_position():
    [header] = headers_of(DATA / "mr_brain_t1_xa30_enhanced")

    [stack] = assemble_stacks([header])

    assert len(stack.frames) == header.NumberOfFrames == 96
    assert sorted(frame.frame_number for frame in stack.frames) == list(range(1, 97))
    assert stack.spacing_mm == (2.0, 2.0, 2.0)
    assert stack.key.echo_time_ms == 2.41
    first = header.PerFrameFunctionalGroupsSequence[stack.frames[0].frame_number - 1]
    assert stack.origin_mm == tuple(first.PlanePositionSequence[0].ImagePositionPatient)
    assert stack.flags == ()


def test_two_localiser_directions_are_two_stacks():
    stacks = assemble_stacks(headers_of(DATA / "refuse" / "mr_localizer_phantom_ge"))

    assert [len(stack.frames) for stack in stacks] == [1, 1]
    assert stacks[0].key.orientation != stacks[1].key.orientation


def test_two_echoes_at_one_position_are_two_stacks():
    stacks = assemble_stacks(headers_of(DATA / "refuse" / "mr_phase_map"))

    assert [stack.key.echo_time_ms for stack in stacks] == [7.001, 10.0]


def test_a_mosaic_is_not_scorable():
    with pytest.raises(NotScorable, match="mosaic"):
        assemble_stacks(headers_of(DATA / "refuse" / "mr_mosaic_siemens_trio"))


def test_a_mosaic_that_lost_the_word_is_found_in_the_csa_header():
    [header] = headers_of(DATA / "refuse" / "mr_mosaic_siemens_trio")
    header.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    del header.AcquisitionMatrix

    with pytest.raises(NotScorable, match="NumberOfImagesInMosaic"):
        assemble_stacks([header])


def test_a_mosaic_without_private_elements_is_found_by_its_size():
    [header] = headers_of(DATA / "refuse" / "mr_mosaic_siemens_trio")
    header.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    header.remove_private_tags()

    with pytest.raises(NotScorable, match=r"384 x 384 .* 64"):
        assemble_stacks([header])


def test_an_image_interpolated_to_twice_its_matrix_is_no_mosaic():
    [stack] = assemble_stacks(series(Manufacturer="SIEMENS", modality="MR", AcquisitionMatrix=[32, 0, 0, 32]))

    assert len(stack.frames) == 4


def test_a_private_number_of_images_tells_a_mosaic():
    headers = series(modality="MR")
    headers[2].private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 48)

    with pytest.raises(NotScorable, match="48"):
        assemble_stacks(headers)


def test_a_grid_of_united_imaging_is_a_mosaic_by_its_word():
    headers = series(modality="MR", Manufacturer="UIH", ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"])

    with pytest.raises(NotScorable, match="VFRAME"):
        assemble_stacks(headers)


def test_a_grid_of_united_imaging_that_lost_the_word_is_found_by_its_size():
    headers = series(modality="MR", Manufacturer="United Imaging Healthcare", Rows=256, Columns=320)
    for header in headers:
        header.AcquisitionMatrix = [64, 0, 0, 64]

    with pytest.raises(NotScorable, match=r"256 x 320 .* 64"):
        assemble_stacks(headers)


def test_the_number_of_slices_of_a_volume_makes_no_mosaic():
    headers = series(modality="MR", Manufacturer="UIH")
    for header in headers:
        header.private_block(0x0065, "Image Private Header", create=True).add_new(0x50, "DS", "20")

    [stack] = assemble_stacks(headers)

    assert len(stack.frames) == 4


def test_a_photograph_is_a_stack_of_one_without_geometry():
    headers = [image(0, number=n, modality="OP") for n in (2, 1)]
    for header in headers:
        del header.ImageOrientationPatient, header.ImagePositionPatient

    stacks = assemble_stacks(headers)

    assert [stack.frames[0].instance_index for stack in stacks] == [1, 0]
    assert all(stack.positions_mm == () and stack.orientation is None and stack.flags == () for stack in stacks)
    assert not stacks[0].is_volume


def test_a_secondary_capture_is_a_stack_of_one():
    [stack] = assemble_stacks(headers_of(DATA / "refuse" / "secondary_capture_rgb"))

    assert (len(stack.frames), stack.flags, stack.spacing_mm[0]) == (1, (), 0.0)


def test_instance_numbers_do_not_order_slices():
    headers = [image(z, number=n) for n, z in enumerate((10, 0, 15, 5))]

    [stack] = assemble_stacks(headers)

    assert positions(headers, stack) == [0, 5, 10, 15]
    assert stack.spacing_mm == (5.0, 0.5, 0.75)


@pytest.mark.parametrize("name", ["mr_brain_dti_achieva", "ct_sts036_lowdose", "refuse/mr_localizer_phantom_ge"])
def test_the_order_of_arrival_changes_nothing(name):
    headers = headers_of(DATA / name)
    shuffled = random.Random(7).sample(headers, len(headers))

    def anonymous(stacks):
        return [replace(s, frames=tuple(replace(f, instance_index=0) for f in s.frames)) for s in stacks]

    assert anonymous(assemble_stacks(headers)) == anonymous(assemble_stacks(shuffled))


def test_a_head_scan_of_one_acquisition_per_slice_is_one_stack():
    [stack] = assemble_stacks([image(5.0 * k, number=k, AcquisitionNumber=k) for k in range(14)])

    assert len(stack.frames) == 14
    assert stack.key.acquisition_number is None


def test_one_slice_taken_twice_does_not_shatter_a_head_scan():
    headers = [image(5.0 * k, number=k, AcquisitionNumber=k) for k in range(14)]
    headers.append(image(25.0, number=99, AcquisitionNumber=99))

    [stack] = assemble_stacks(headers)

    assert len(stack.frames) == 14
    assert stack.flags == ("duplicate_position",)
    assert 14 not in {frame.instance_index for frame in stack.frames}


def test_of_two_slices_at_one_position_the_first_acquired_stays():
    late, early = image(5.0, number=1, AcquisitionTime="120500"), image(5.0, number=2, AcquisitionTime="120100")

    [stack] = assemble_stacks([image(0, number=9, AcquisitionTime="120000"), late, early])

    assert [frame.instance_index for frame in stack.frames] == [0, 2]


def test_acquisitions_that_repeat_all_positions_are_told_apart():
    stacks = assemble_stacks(series(AcquisitionNumber=1) + series(number=50, AcquisitionNumber=2))

    assert [stack.key.acquisition_number for stack in stacks] == [1, 2]
    assert [len(stack.frames) for stack in stacks] == [4, 4]
    assert all(stack.flags == () for stack in stacks)


def test_magnitude_and_phase_at_the_same_positions_are_told_apart():
    magnitude = series(modality="MR", ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    phase = series(number=50, modality="MR", ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])

    stacks = assemble_stacks(magnitude + phase)

    assert [stack.key.image_type for stack in stacks] == ["M", "P"]


def test_image_types_that_do_not_repeat_positions_stay_together():
    headers = series()
    headers[1].ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "ADD"]

    [stack] = assemble_stacks(headers)

    assert (len(stack.frames), stack.key.image_type) == (4, None)


def test_time_points_are_told_apart():
    stacks = assemble_stacks(
        series(modality="MR", TemporalPositionIdentifier=1)
        + series(number=50, modality="MR", TemporalPositionIdentifier=2)
    )

    assert [stack.key.temporal_position for stack in stacks] == [1, 2]


def test_a_temporal_position_that_counts_slices_splits_nothing():
    [stack] = assemble_stacks([image(5.0 * k, number=k, TemporalPositionIdentifier=k + 1) for k in range(5)])

    assert len(stack.frames) == 5


def test_an_odd_size_is_set_apart_and_flagged():
    headers = [*series(), image(50, number=80, Rows=32)]

    stacks = assemble_stacks(headers)

    assert [(stack.rows, len(stack.frames)) for stack in stacks] == [(64, 4), (32, 1)]
    assert all("mixed_size" in stack.flags for stack in stacks)


def test_a_missing_slice_is_flagged_and_the_rest_is_kept():
    headers = series(8)
    del headers[3]

    [stack] = assemble_stacks(headers)

    assert (len(stack.frames), stack.flags) == (7, ("gap",))


def test_a_tilted_gantry_is_flagged_by_its_tag():
    [stack] = assemble_stacks(series(GantryDetectorTilt="18.5"))

    assert stack.flags == ("gantry_tilt",)


def test_a_tilted_gantry_is_flagged_by_the_shear_of_its_origins():
    [stack] = assemble_stacks(series(ImageOrientationPatient=[1, 0, 0, 0, 0.9483237, -0.3173047]))

    assert stack.flags == ("gantry_tilt",)
    assert stack.spacing_mm[0] == pytest.approx(5 * 0.9483237, abs=1e-4)


@pytest.mark.parametrize(
    "junk",
    [
        {"ImageOrientationPatient": None},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"ImagePositionPatient": [1, 2]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
    ],
)
def test_a_slice_with_junk_for_geometry_is_set_apart_and_flagged(junk):
    stacks = assemble_stacks([*series(), image(77, number=77, **junk)])

    assert [len(stack.frames) for stack in stacks] == [4, 1]
    assert stacks[1].flags == ("missing_geometry",)


def test_a_header_with_nothing_in_it_is_a_flagless_stack_of_one():
    [stack] = assemble_stacks([Dataset()])

    assert (stack.rows, stack.positions_mm, stack.modality) == (0, (), "")


def test_bytes_that_are_no_numbers_cost_a_flag_and_no_crash():
    headers = series()
    headers[0]._dict[pydicom.tag.Tag("ImagePositionPatient")] = pydicom.dataelem.RawDataElement(
        pydicom.tag.Tag("ImagePositionPatient"), "DS", 12, b"here\\there\\x", 0, False, True
    )
    headers[0].EchoTime = None

    stacks = assemble_stacks(headers)

    assert [len(stack.frames) for stack in stacks] == [3, 1]


@pytest.mark.acceptance
def test_a_claim_of_two_billion_frames_is_cut():
    header = image(0, modality="OP", NumberOfFrames=2_000_000_000)
    del header.ImageOrientationPatient

    assert len(assemble_stacks([header])) == 20_000


def test_a_number_of_frames_in_a_single_frame_class_means_nothing():
    [stack] = assemble_stacks(series(3, NumberOfFrames=2_000_000_000))

    assert [frame.frame_number for frame in stack.frames] == [None] * 3


def test_a_stack_that_nothing_sets_apart_is_told_by_its_size():
    photographs = [image(0, number=n, modality="OP") for n in range(2)]
    for header in photographs:
        del header.ImageOrientationPatient

    assert [stack_label(stack) for stack in assemble_stacks(photographs)] == ["1 image", "1 image"]
    assert [stack_label(stack) for stack in assemble_stacks(series(4, EchoTime=80))] == ["echo 80 ms"]


def test_no_headers_are_no_stacks():
    assert assemble_stacks([]) == ()


def test_near_equal_b_values_are_one_stack_and_others_are_not():
    values = {0: 995.0, 1: 1000.0, 2: 1005.0, 3: 2000.0}

    stacks = assemble_stacks([image(5.0 * k, number=k, modality="MR", DiffusionBValue=b) for k, b in values.items()])

    assert [len(stack.frames) for stack in stacks] == [3, 1]


@pytest.mark.parametrize(
    ("creator", "group", "element", "vr", "value", "expected"),
    [
        ("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", "1000", 1000),
        ("SIEMENS MR HEADER", 0x0019, 0x0C, "UN", b"1000 ", 1000),
        ("Philips Imaging DD 001", 0x2001, 0x03, "FL", 800.0, 800),
        ("Philips Imaging DD 001", 0x2001, 0x03, "UN", np.float32(800).tobytes(), 800),
        ("GEMS_PARM_01", 0x0043, 0x39, "IS", [1_000_000_800, 8, 0, 0], 800),
        ("SOMEBODY ELSE", 0x0043, 0x39, "IS", [700, 8, 0, 0], None),
    ],
)
def test_a_private_b_value_is_found_by_its_creator(creator, group, element, vr, value, expected):
    header = image(0, modality="MR")
    header.private_block(group, "OCCUPIES 10", create=True).add_new(element, "LO", "no number")
    header.private_block(group, creator, create=True).add_new(element, vr, value)

    assert b_value(frame_header(header, None)) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("*ep_b0", 0), ("*ep_b1000t", 1000), ("ep_b700#12", 700), ("*epfid2d1_64", None)]
)
def test_a_siemens_sequence_names_its_b_value(name, expected):
    assert b_value(frame_header(image(0, modality="MR", SequenceName=name), None)) == expected


def enhanced(z_mm: list[float], *, shared: bool = False, **root: object) -> Dataset:
    header = image(0, modality="MR", NumberOfFrames=len(z_mm), **root)
    del header.ImageOrientationPatient, header.ImagePositionPatient, header.PixelSpacing
    plane, measures, content = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient, measures.PixelSpacing = [1, 0, 0, 0, 1, 0], [2, 3]
    general = Dataset()
    general.PlaneOrientationSequence, general.PixelMeasuresSequence = Sequence([plane]), Sequence([measures])
    header.SharedFunctionalGroupsSequence = Sequence([general])
    frames = []
    for z in z_mm:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, z]
        frame.PlanePositionSequence = Sequence([position])
        frame.FrameContentSequence = Sequence([content])
        frames.append(frame)
    header.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return header


def test_what_a_frame_says_goes_before_what_all_frames_share():
    header = enhanced([0, 2, 4, 0, 2, 4])
    header.SharedFunctionalGroupsSequence[0].MREchoSequence = Sequence([Dataset()])
    header.SharedFunctionalGroupsSequence[0].MREchoSequence[0].EffectiveEchoTime = 10.0
    for frame in header.PerFrameFunctionalGroupsSequence[3:]:
        frame.MREchoSequence = Sequence([Dataset()])
        frame.MREchoSequence[0].EffectiveEchoTime = 80.0

    stacks = assemble_stacks([header])

    assert [stack.key.echo_time_ms for stack in stacks] == [10.0, 80.0]
    assert [frame.frame_number for frame in stacks[1].frames] == [4, 5, 6]
    assert stacks[0].spacing_mm == (2.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("group", "keyword", "values", "label"),
    [
        ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", (40.0, 75.0), "phase 40 %"),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", (20.0, 60.0), "trigger 20 ms"),
        ("TemporalPositionSequence", "TemporalPositionTimeOffset", (0.0, 12.5), "offset 0 s"),
        ("FrameContentSequence", "StackID", ("1", "2"), "stack 1"),
        ("FrameContentSequence", "DimensionIndexValues", ([1, 7], [2, 7]), "index 1"),
    ],
)
def test_frames_of_an_enhanced_object_are_told_apart_by_their_groups(group, keyword, values, label):
    header = enhanced([0, 2, 4, 0, 2, 4])
    for index, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        setattr(item, keyword, values[index // 3])
        setattr(frame, group, Sequence([item]))

    stacks = assemble_stacks([header])

    assert [len(stack.frames) for stack in stacks] == [3, 3]
    assert stacks[0].key.label() == label


def test_a_legacy_converted_object_is_read_through_its_unassigned_groups():
    header = enhanced([0, 2, 0, 2])
    for index, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        frame.UnassignedPerFrameConvertedAttributesSequence = Sequence([Dataset()])
        frame.UnassignedPerFrameConvertedAttributesSequence[0].EchoTime = 5.0 if index < 2 else 9.0

    stacks = assemble_stacks([header])

    assert [stack.key.echo_time_ms for stack in stacks] == [5.0, 9.0]


def test_a_concatenation_is_one_stack_over_its_instances():
    parts = [
        enhanced([0, 2], number=1, ConcatenationUID="1.9", InConcatenationNumber=1, InConcatenationTotalNumber=2),
        enhanced([4, 6], number=2, ConcatenationUID="1.9", InConcatenationNumber=2, InConcatenationTotalNumber=2),
    ]

    [stack] = assemble_stacks(parts)

    assert [(frame.instance_index, frame.frame_number) for frame in stack.frames] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert concatenation_complete(parts) is True
    assert concatenation_complete(parts[1:]) is False
    assert concatenation_complete(series()) is None


@pytest.mark.parametrize("told_by", ["ConcatenationFrameOffsetNumber", "InConcatenationNumber"])
def test_a_concatenation_of_frames_without_geometry_keeps_its_order(told_by):
    parts = [image(0, number=9 - n, modality="OP", NumberOfFrames=2, ConcatenationUID="1.9") for n in range(2)]
    for n, part in enumerate(parts):
        del part.ImageOrientationPatient
        setattr(part, told_by, 2 * n)

    stacks = assemble_stacks(parts[::-1])

    assert [(s.frames[0].instance_index, s.frames[0].frame_number) for s in stacks] == [(1, 1), (1, 2), (0, 1), (0, 2)]
    assert concatenation_complete(parts) is None


def test_a_stack_with_more_positions_comes_first():
    stacks = assemble_stacks(series(3, modality="MR", EchoTime=10) + series(5, number=50, modality="MR", EchoTime=90))

    assert [len(stack.frames) for stack in stacks] == [5, 3]


@pytest.mark.parametrize("vr", ["UT", "LO", "UN", "ZZ"])
def test_geometry_in_another_value_representation_makes_one_stack(vr):
    headers = series(n=10)
    for header in headers:
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            raw(header, keyword, vr, "\\".join(map(str, header[keyword].value)).encode())

    [stack] = assemble_stacks(headers)

    assert (len(stack.frames), stack.spacing_mm, stack.flags) == (10, (5.0, 0.5, 0.75), ())
