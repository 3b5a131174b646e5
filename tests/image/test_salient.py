"""Which slices are scored."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediqa_node.dicom.pixels import to_image
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.image.foreground import body_fraction, body_pixels, otsu_threshold
from mediqa_node.image.salient import relevant_range, salient_indices, salient_slices

DEMO = Path(__file__).parents[2] / "mediqa_node" / "demo_series"
DATA = Path(__file__).parents[1] / "data"


def disc(inside: float, outside: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[-32:32, -32:32]
    return np.where(np.hypot(x, y) < radius, inside, outside).astype(np.float32)


AIR, BODY = disc(-1000, -1000, 1), disc(40, -1000, 20)
TABLE = np.full((64, 64), -1000, dtype=np.float32)
TABLE[40:42, 4:60] = 300


def test_the_middles_of_seven_regions_are_those_of_the_paper():
    assert salient_indices(7) == (0, 1, 2, 3, 4, 5, 6)
    assert salient_indices(8) == (0, 1, 2, 3, 4, 5, 7)
    assert salient_indices(14) == (1, 3, 5, 7, 9, 11, 13)
    assert salient_indices(100) == (7, 21, 35, 49, 64, 78, 92)


@pytest.mark.parametrize("count", range(7))
def test_a_short_stack_gives_every_slice_once(count):
    assert salient_indices(count) == tuple(range(count))


@given(count=st.integers(7, 5000), wanted=st.integers(1, 7))
def test_each_region_gives_its_middle_and_no_slice_comes_twice(count, wanted):
    chosen = salient_indices(count, wanted)

    assert len(chosen) == len(set(chosen)) == wanted
    for i, index in enumerate(chosen):
        region = range(i * count // wanted, (i + 1) * count // wanted)
        assert index == region[len(region) // 2]


@given(count=st.integers(1, 400), first=st.integers(0, 400), last=st.integers(0, 400))
def test_air_at_both_ends_of_a_ct_is_left_out_whatever_its_length(count, first, last):
    first, last = sorted((first % count, last % count))

    bounds = relevant_range(count, lambda k: BODY if first <= k <= last else AIR, modality="CT")

    assert bounds == (first, last + 1)


def test_only_the_ends_are_decoded():
    asked = []

    def image_at(index):
        asked.append(index)
        return AIR if index < 3 else BODY

    assert relevant_range(500, image_at, modality="CT") == (3, 500)
    assert asked == [0, 1, 2, 3, 499]


def test_air_between_two_legs_of_the_scan_stays():
    assert relevant_range(5, [AIR, BODY, AIR, BODY, AIR].__getitem__, modality="CT") == (1, 4)


def test_a_table_alone_is_no_body():
    assert (TABLE > -300).mean() > 0.02
    assert body_fraction(TABLE) < 0.02
    assert relevant_range(3, [TABLE, BODY, TABLE].__getitem__, modality="CT") == (1, 2)


def test_a_stack_without_any_body_is_kept_whole():
    assert relevant_range(9, lambda _: AIR, modality="CT") == (0, 9)


def test_mr_slices_outside_the_head_are_left_out_by_the_scale_of_the_middle_slice():
    noise = np.random.default_rng(0)
    slices = [noise.rayleigh(10, (64, 64)) + disc(500, 0, radius) for radius in (0, 2, 15, 25, 15, 2, 0)]

    assert relevant_range(7, slices.__getitem__, modality="MR") == (2, 5)


def test_a_slice_that_cannot_be_decoded_counts_as_content():
    def image_at(index):
        if index == 1:
            raise UndecodablePixels("broken")
        return BODY if index == 4 else AIR

    assert relevant_range(6, image_at, modality="CT") == (1, 5)


def test_an_mr_stack_whose_middle_cannot_be_decoded_is_kept_whole():
    def image_at(index):
        raise UndecodablePixels("broken")

    assert relevant_range(5, image_at, modality="MR") == (0, 5)


def test_photographs_are_all_relevant_and_none_is_decoded():
    def image_at(index):
        raise AssertionError(index)

    assert salient_slices(1, image_at, modality="OP") == (0,)


def test_slices_are_counted_from_the_start_of_the_stack_and_not_of_the_range():
    assert salient_slices(20, lambda k: BODY if k >= 6 else AIR, modality="CT") == (7, 9, 11, 13, 15, 17, 19)


def test_the_demo_chest_is_relevant_from_end_to_end():
    datasets = [pydicom.dcmread(path) for path in sorted(DEMO.glob("*.dcm"))]
    [stack] = assemble_stacks(datasets)

    def image_at(index):
        dataset = datasets[stack.frames[index].instance_index]
        return to_image(dataset.pixel_array, dataset, None)

    assert salient_slices(8, image_at, modality="CT") == (0, 1, 2, 3, 4, 5, 7)


def test_the_sides_of_a_sagittal_head_are_left_out():
    dataset = pydicom.dcmread(next((DATA / "mr_brain_t1_xa30_enhanced").glob("*.dcm")))
    [stack] = assemble_stacks([dataset])
    pixels = dataset.pixel_array

    start, stop = relevant_range(
        96, lambda k: to_image(pixels[stack.frames[k].frame_number - 1], dataset, 1), modality="MR"
    )

    assert 3 <= start <= 20
    assert 76 <= stop <= 93


def test_otsu_parts_two_populations_between_them():
    pixels = np.concatenate([np.full(900, 10.0), np.full(100, 200.0)])

    assert 10 < otsu_threshold(pixels) < 200


def test_nothing_exceeds_the_threshold_of_a_constant_image():
    assert not (np.full((4, 4), 3.0) > otsu_threshold(np.full((4, 4), 3.0))).any()


def test_the_body_of_a_real_head_holds_tissue_and_not_background():
    dataset = pydicom.dcmread(next((DATA / "mr_brain_t1_xa30_enhanced").glob("*.dcm")))

    body = body_pixels(list(dataset.pixel_array[20:80:10].astype(np.float32)))

    assert 0.2 < body.size / (6 * 128 * 128) < 0.6
    assert np.percentile(body, 1) > np.median(dataset.pixel_array)
