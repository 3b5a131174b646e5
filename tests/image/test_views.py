"""What of a slice the network is shown."""

import numpy as np
import pytest

from mediqa_node.domain.preprocessing import IntensityRule, PreprocessSpec, View
from mediqa_node.image.preprocess import preprocess
from mediqa_node.image.released import released_indices, released_resize
from mediqa_node.image.views import native_crops, shown, whole_view

CT = {"CT": IntensityRule(kind="window", low=-160, high=240)}


def body(shape: tuple[int, int], *boxes: tuple[slice, slice]) -> np.ndarray:
    """Air with boxes of tissue, HU."""
    image = np.full(shape, -1000, dtype=np.float32)
    for box in boxes:
        image[box] = 40
    return image


def test_the_whole_view_is_the_smallest_square_around_the_slice():
    assert whole_view((100, 60), 2, square=True) == View(slice_index=2, top=0, left=-20, height=100, width=100)
    assert whole_view((60, 101), 0, square=True) == View(slice_index=0, top=-20, left=0, height=101, width=101)
    assert whole_view((60, 101), 0, square=False) == View(slice_index=0, top=0, left=0, height=60, width=101)


def test_crops_show_the_body_and_not_each_other():
    image = body((512, 512), (slice(0, 224), slice(280, 504)), (slice(300, 500), slice(10, 210)))

    crops = native_crops(image, 0, modality="CT", size_px=224, count=3)

    assert len(crops) == 2, "a third would show nothing new"
    assert all(0 <= crop.top <= 288 and 0 <= crop.left <= 288 for crop in crops)
    covered = np.zeros((512, 512), dtype=bool)
    for crop in crops:
        covered[crop.top : crop.top + 224, crop.left : crop.left + 224] = True
    assert covered[image > -300].mean() > 0.95


def test_a_small_slice_gets_one_centred_crop_at_its_own_resolution():
    image = body((128, 200), (slice(20, 100), slice(20, 180)))

    [crop] = native_crops(image, 0, modality="CT", size_px=224, count=3)

    assert crop == View(slice_index=0, top=-48, left=-12, height=224, width=224)
    assert np.array_equal(shown(image, crop)[48:176, 12:212], image)


def test_no_crops_are_made_unless_asked_for_and_never_more():
    image = body((1024, 1024), (slice(0, 1024), slice(0, 1024)))

    assert [len(native_crops(image, 0, modality="CT", size_px=224, count=n)) for n in range(4)] == [0, 1, 2, 3]


def test_views_of_a_slice_stand_side_by_side_and_crops_are_not_resampled():
    rng = np.random.default_rng(1)
    slices = [rng.uniform(-160, 240, (300, 280)).astype(np.float32) for _ in range(2)]

    inputs = preprocess(
        slices, PreprocessSpec(size_px=224, slices=7, intensity=CT, native_crops=2), modality="CT", image_type="soft"
    )

    assert inputs.slice_of.tolist() == sorted(inputs.slice_of.tolist())
    assert set(inputs.slice_of.tolist()) == {0, 1}
    for image, view in zip(inputs.images, inputs.views, strict=True):
        if view.height == 224:
            wanted = (shown(slices[view.slice_index], view) + 160) / 400
            assert image[0] == pytest.approx(wanted, abs=1e-6)


def test_the_range_and_order_of_channels_are_those_of_the_card():
    rgb = np.zeros((50, 50, 3), dtype=np.float32)
    rgb[..., 0] = 255
    spec = PreprocessSpec(size_px=32, slices=7, intensity=CT, colour_order="bgr", output_range=(-1, 1))

    [image] = preprocess([rgb], spec, modality="OP", image_type="cfp").images

    assert image[:, 16, 16].tolist() == [-1, -1, 1]


def test_released_slices_are_those_of_the_public_code():
    assert released_indices(11) == (0, 3, 4, 5, 6, 7, 10)
    assert released_indices(8) == (0, 2, 3, 4, 5, 6, 7)
    assert released_indices(100) == (0, 18, 34, 50, 66, 82, 99)
    assert released_indices(1) == (0,) * 7


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [(np.uint16, 4095, 4095 / 65535), (np.int16, -1024, -1024 / 32767), (np.uint8, 51, 0.2), (np.float32, 700, 700)],
)
def test_released_intensities_are_stored_values_over_the_largest_of_their_type(dtype, value, expected):
    resized = released_resize(np.full((40, 60), value, dtype=dtype), 32)

    assert resized.shape == (32, 32)
    assert resized == pytest.approx(expected, abs=1e-6)
