"""What a checkpoint was trained on: patients lie within, whatever is none outside."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.limits import ABDOMEN, DATA, DEMO, PELVIS, THIGH, statistics_of

from mediqa_node.domain.preprocessing import NetworkInput, PreprocessSpec
from mediqa_node.domain.range_position import RangeTest
from mediqa_node.image.measure.slice_statistics import (
    COLOUR,
    LOCAL,
    WINDOW,
    SliceStatistics,
    slice_statistics,
    window_names,
)
from mediqa_node.image.preprocess import preprocess
from mediqa_node.image.training_range import TrainingRange, fit_training_range
from mediqa_node.model.card import DEFAULT_PREPROCESSING as SPEC


def shown(images: list[np.ndarray], modality: str, image_type: str, spec: PreprocessSpec = SPEC) -> NetworkInput:
    return preprocess(images, spec, modality=modality, image_type=image_type)


def statistics(images: list[np.ndarray], modality: str = "CT", image_type: str = "soft") -> SliceStatistics:
    return slice_statistics(shown(images, modality, image_type), SPEC, modality=modality)


@pytest.fixture(scope="module")
def sources() -> dict[str, list[SliceStatistics]]:
    return {folder.name: statistics_of(folder) for folder in (THIGH, PELVIS, DEMO)}


@pytest.fixture(scope="module")
def ct(sources) -> TrainingRange:
    return fit_training_range(sources, modality="CT", fingerprint=SPEC.fingerprint())


def photograph() -> np.ndarray:
    with Image.open(DATA / "fundus_chasedb1" / "Image_01L.jpg") as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.float32)


def hu_disc(inside: float) -> np.ndarray:
    y, x = np.mgrid[-256:256, -256:256]
    return np.where(np.hypot(x, y) < 200, inside, -1000.0).astype(np.float32)


def test_a_patient_that_was_not_learnt_from_lies_within(ct):
    [patient] = statistics_of(ABDOMEN)

    assert ct.outside(patient) is None
    assert all((ratios < 1).mean() > 0.5 for ratios in ct.ratios(patient).values())


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (photograph().mean(axis=-1), "local statistics"),
        (photograph().mean(axis=-1) * 8 - 1024, "inside the window"),
        (np.random.default_rng(0).uniform(-160, 240, (512, 512)), "local statistics"),
        (np.full((512, 512), 40.0), "local statistics"),
        (np.full((512, 512), -1000.0), "0.0% of the pixels inside the window"),
        (hu_disc(2000), "inside the window"),
        (hu_disc(40), "statistics"),
    ],
    ids=["photograph", "photograph over the scale", "noise", "constant", "air", "disc of metal", "disc of water"],
)
def test_what_is_no_patient_lies_outside_and_the_sentence_says_by_which_test(ct, image, said):
    found = ct.outside(statistics([image.astype(np.float32)] * 3))

    assert found is not None
    assert said in found


def test_the_sentence_counts_slices_and_limits(ct, sources):
    [patient] = sources[DEMO.name]
    far = replace(patient, local=patient.local + 100 * np.array(ct.local.mean))

    found = ct.position(far)

    times = float(np.median(ct.local.ratios(far.local)))
    assert found.details() == f"local statistics {times:.2f} x the limit, outside on 7 of 7 slices"
    assert found.summary("CT") == f"unlike the CT images it was trained on ({times:.2f} x the limit)"


def test_the_position_is_measured_inside_too(ct, sources):
    [patient] = sources[DEMO.name]

    found = ct.position(patient)

    assert not found.is_outside
    assert (found.n_outside, found.n_slices) == (0, 7)
    assert found.details() == f"{found.test} statistics {found.times_limit:.2f} x the limit"
    assert found.share_inside == pytest.approx(float(np.median(patient.inside)))


def test_a_black_stack_has_a_finite_distance(ct):
    found = ct.position(statistics([np.full((512, 512), -1000.0, dtype=np.float32)] * 3))

    assert found.test is RangeTest.INSIDE_WINDOW
    assert 1 < found.times_limit < 1000
    assert found.summary("CT") == ("unlike the CT images it was trained on (only 0.0% of the pixels inside the window)")


def test_one_odd_slice_refuses_no_patient_and_four_of_seven_do(ct, sources):
    [patient] = sources[DEMO.name]

    def with_odd(count: int) -> SliceStatistics:
        local = patient.local.copy()
        local[:count] += 50
        return replace(patient, local=local)

    assert ct.outside(with_odd(1)) is None
    assert ct.outside(with_odd(3)) is None
    assert "on 4 of 7 slices" in str(ct.outside(with_odd(4)))


def test_a_photograph_without_a_round_field_is_refused_before_any_statistic():
    images = [photograph(), photograph()[::-1].copy(), np.rot90(photograph()).copy()]
    eyes = {str(i): [statistics([image], "OP", "cfp")] for i, image in enumerate(images)}
    domain = fit_training_range(eyes, modality="OP", fingerprint=SPEC.fingerprint())
    [eye] = eyes["0"]
    with Image.open(DATA / "refuse" / "screen_capture_png" / "screenshot.png") as picture:
        screen = statistics([np.asarray(picture.convert("RGB"), dtype=np.float32)], "OP", "cfp")

    assert domain.round_field
    assert domain.outside(eye) is None
    assert str(domain.outside(screen)).startswith("not a fundus photograph: ")
    assert str(domain.outside(replace(eye, round_field=np.array([False])))).startswith("not a fundus photograph: ")
    assert domain.outside(replace(eye, lit=np.array([0.3]))) == "field too dark: only 30 % of the field is lit"
    covered = replace(eye, lit=np.array([0.3]), covered=np.array([0.6]))
    assert domain.outside(covered) == "field covered: 60 % of the field is under reflections"


def test_padding_is_not_part_of_a_slice():
    rows = np.random.default_rng(1).uniform(-100, 200, (200, 400)).astype(np.float32)
    wide, square = statistics([rows]), statistics([np.tile(rows, (2, 1))])

    assert wide.inside[0] > 0.99
    assert wide.window[0] == pytest.approx(square.window[0], abs=0.02)


def test_range_and_order_of_channels_that_weights_want_change_no_statistic():
    other = replace(SPEC, output_range=(-1.0, 1.0), colour_order="bgr")
    image = [photograph()]

    plain = slice_statistics(shown(image, "OP", "cfp"), SPEC, modality="OP")
    turned = slice_statistics(shown(image, "OP", "cfp", other), other, modality="OP")

    assert turned.window == pytest.approx(plain.window, abs=1e-3)
    assert turned.local == pytest.approx(plain.local, abs=1e-2)
    assert turned.round_field.tolist() == plain.round_field.tolist() == [True]


def test_statistics_are_finite_for_anything_and_as_many_as_their_names():
    for image in (np.zeros((64, 64)), np.eye(64) * 1e9, hu_disc(300), np.full((1, 900), 40.0)):
        found = statistics([image.astype(np.float32)])
        assert found.window.shape == (1, len(WINDOW))
        assert found.local.shape == (1, len(LOCAL))
        assert np.isfinite(found.window).all()
        assert np.isfinite(found.local).all()
    assert window_names("OP") == WINDOW + COLOUR


def test_every_source_weighs_alike_however_many_stacks_it_has(ct, sources):
    many = {**sources, DEMO.name: sources[DEMO.name] * 20}

    assert fit_training_range(many, modality="CT", fingerprint=SPEC.fingerprint()).local.mean == pytest.approx(
        ct.local.mean
    )


def test_two_sources_are_too_few(sources):
    with pytest.raises(ValueError, match="2 sources of CT; at least 3"):
        fit_training_range(dict(list(sources.items())[:2]), modality="CT", fingerprint="")
