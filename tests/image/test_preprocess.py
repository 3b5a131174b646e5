"""Images to network input."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from mediqa_node.dicom.pixels import to_image
from mediqa_node.domain.preprocessing import IntensityRule, PreprocessSpec
from mediqa_node.image.preprocess import intensity_range, preprocess

DATA = Path(__file__).parents[1] / "data"
SPEC = PreprocessSpec(
    size_px=224,
    slices=7,
    intensity={
        "CT": IntensityRule(kind="window", low=-160, high=240),
        "CT/lung": IntensityRule(kind="window", low=-1350, high=150),
        "MR": IntensityRule(kind="percentile", low=1, high=99),
    },
)


def prepared(*images: np.ndarray, modality: str = "CT", image_type: str = "soft") -> np.ndarray:
    return preprocess(images, SPEC, modality=modality, image_type=image_type).images


def test_a_real_ct_slice_keeps_its_window_and_stays_upright():
    dataset = pydicom.dcmread(min((DATA / "ct_body_totalseg_j2k").glob("*.dcm")))
    image = to_image(dataset.pixel_array, dataset, None)

    batch = prepared(image)

    assert (batch.shape, batch.dtype) == ((1, 3, 224, 224), np.float32)
    assert np.array_equal(batch[0, 0], batch[0, 2])
    reference = np.clip((image + 160) / 400, 0, 1)
    blocks = reference.reshape(32, 16, 32, 16).mean(axis=(1, 3))
    small = batch[0, 0].reshape(32, 7, 32, 7).mean(axis=(1, 3))
    assert np.corrcoef(blocks.ravel(), small.ravel())[0, 1] > 0.99


def test_the_window_is_a_fixed_affine_of_hounsfield_units():
    batch = prepared(*(np.full((64, 64), hu, dtype=np.float32) for hu in (-1024, -160, 40, 240, 3000)))

    assert batch[:, 0, 100, 100].tolist() == pytest.approx([0, 0, 0.5, 1, 1])


def test_one_metal_pixel_changes_nothing_else():
    plain = np.full((224, 224), 40, dtype=np.float32)
    metal = plain.copy()
    metal[10, 10] = 30_000

    assert np.array_equal(prepared(plain)[0, :, 50:, 50:], prepared(metal)[0, :, 50:, 50:])


def test_a_lung_has_its_own_window():
    lung = np.full((64, 64), -600, dtype=np.float32)

    assert prepared(lung, image_type="lung")[0, 0, 100, 100] == pytest.approx(0.5)
    assert prepared(lung)[0, 0, 100, 100] == 0


def test_mr_percentiles_are_of_the_body_over_all_slices():
    rng = np.random.default_rng(1)
    slices = [rng.rayleigh(2, (128, 128)) for _ in range(3)]
    for k, one in enumerate(slices):
        one[32:96, 32:96] = np.linspace(400 + 200 * k, 600 + 200 * k, 64)

    low, high = intensity_range(slices, SPEC.intensity["MR"])

    assert 395 < low < 415
    assert 985 < high < 1001
    assert prepared(*slices, modality="MR").max() == 1


def test_scaling_the_signal_of_a_whole_mr_stack_changes_nothing():
    slices = list(pydicom.dcmread(next((DATA / "mr_brain_t1_xa30_enhanced").glob("*.dcm"))).pixel_array[30:60:10])

    one = prepared(*slices, modality="MR")
    other = prepared(*(7.5 * image for image in slices), modality="MR")

    assert one.mean() > 0.05
    assert np.allclose(one, other, atol=1e-4)


def test_a_wide_image_is_padded_and_not_stretched():
    wide = np.full((112, 224), 240, dtype=np.float32)

    image = prepared(wide)[0, 0]

    assert image[:54].max() == 0
    assert image[170:].max() == 0
    assert image[58:166].min() == 1


def test_fine_noise_is_averaged_and_not_aliased():
    checkers = np.where(np.indices((896, 896)).sum(axis=0) % 2, 240.0, -160.0)

    image = prepared(checkers.astype(np.float32))[0, 0, 20:200, 20:200]

    assert abs(image - 0.5).max() < 0.02


@pytest.mark.parametrize("edge", [224, 300, 512, 700])
def test_sampled_views_keep_the_deviation_of_noise_at_every_size(edge):
    noise = 40.0 + 20.0 * np.random.default_rng(0).normal(size=(edge, edge))

    sampled, averaged = (
        preprocess([noise], replace(SPEC, sampled=names), modality="CT", image_type="soft").images[0, 0]
        for names in (("CT",), ("MR",))
    )

    assert float(sampled.std()) == pytest.approx(20.0 / 400.0, rel=0.02)
    if edge > 500:
        assert float(averaged.std()) < 0.6 * float(sampled.std())


def test_a_spec_that_samples_nothing_is_that_of_an_older_card():
    assert replace(SPEC, sampled=()).fingerprint() == SPEC.fingerprint() != replace(SPEC, sampled=("CT",)).fingerprint()


def test_colour_is_divided_by_255_and_keeps_its_channels():
    red = np.zeros((50, 50, 3), dtype=np.float32)
    red[..., 0], red[..., 1] = 255, 51

    batch = prepared(red, modality="OP", image_type="cfp")

    assert batch[0, :, 100, 100].tolist() == pytest.approx([1, 0.2, 0])


def test_a_gray_photograph_needs_no_rule():
    assert prepared(np.full((8, 8), 51.0), modality="OP")[0, 1, 4, 4] == pytest.approx(0.2)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_constant_or_broken_image_gives_finite_numbers(value, modality):
    batch = prepared(np.full((32, 32), value, dtype=np.float32), modality=modality)

    assert np.isfinite(batch).all()
    assert 0 <= batch.min() <= batch.max() <= 1


def test_a_modality_without_a_rule_is_a_key_error():
    with pytest.raises(KeyError):
        prepared(np.zeros((8, 8)), modality="PT")


def test_no_images_and_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="no images"):
        prepared()
    with pytest.raises(ValueError, match="minmax"):
        intensity_range([np.zeros((2, 2))], IntensityRule(kind="minmax", low=0, high=1))
