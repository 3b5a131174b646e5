"""Measures of CT come back from phantoms of known truth, and odd stacks get a reason."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from support.ct_phantoms import (
    BONE_HU,
    FAT_HU,
    LUNG_HU,
    SHARP,
    SOFT,
    Kernel,
    Part,
    Scan,
    circular_field,
    disc,
    ellipse,
    imaged,
    noise,
    peak_frequency,
    repeated,
    stack,
    table,
)

from mediqa_node.domain.measure_facts import CtDose, CtFacts
from mediqa_node.domain.measures import Limit, Measure, Validity
from mediqa_node.domain.quantities import CT_QUANTITIES
from mediqa_node.image.measure.ct.series import measure_ct
from mediqa_node.image.measure.stack_source import StackSource

NAMES = [quantity.name for quantity in CT_QUANTITIES]
SIZES = ["ct.dw", "ct.lateral", "ct.ap", "ct.truncation"]
SMALL = Scan(size_px=256, pixel_mm=1.4)
BODY = CtFacts(dose=CtDose(ctdi_vol_mgy=10.0, phantom_cm=32), body_part="body")


def measured(
    images: list[np.ndarray] | StackSource, *, pixel_mm: float = SMALL.pixel_mm, facts: CtFacts = BODY
) -> dict[str, Measure]:
    source = images if isinstance(images, StackSource) else stack(images, pixel_mm)
    return {one.name: one for one in measure_ct(source, facts, NAMES)}


@cache
def water(diameter_mm: float = 240.0, noise_hu: float = 10.0, count: int = 2) -> tuple[np.ndarray, ...]:
    return tuple(repeated([disc(diameter_mm, 50.0)], replace(SMALL, noise_hu=noise_hu), count))


def sizes(*parts: Part, pixel_mm: float = SMALL.pixel_mm) -> dict[str, Measure]:
    return measured([imaged(parts, replace(SMALL, pixel_mm=pixel_mm))], pixel_mm=pixel_mm)


def test_every_quantity_that_is_asked_for_comes_back_in_the_order_of_the_catalogue() -> None:
    found = measure_ct(stack(list(water())), BODY, ["ct.ssde", "mr.snr", "ct.dw"])

    assert [one.name for one in found] == ["ct.dw", "ct.ssde"]
    assert [one.name for one in measure_ct(stack(list(water())), BODY, NAMES)] == NAMES


@pytest.mark.parametrize("diameter_mm", [100.0, 200.0, 300.0])
def test_the_water_equivalent_diameter_of_a_water_cylinder_is_its_diameter(diameter_mm: float) -> None:
    found = sizes(disc(diameter_mm))

    assert found["ct.dw"].value == pytest.approx(diameter_mm, rel=0.015)
    assert found["ct.lateral"].value == pytest.approx(diameter_mm, abs=6)
    assert found["ct.ap"].value == pytest.approx(diameter_mm, abs=6)


def test_a_table_that_the_patient_lies_on_is_no_part_of_it() -> None:
    patient = ellipse(-30.0, 0.0, 200.0, 280.0, 0.0)

    alone, on_table = sizes(patient), sizes(*table(69.0, 320.0), patient)

    assert on_table["ct.dw"].value == pytest.approx(alone["ct.dw"].value, rel=0.01)
    assert on_table["ct.ap"].value == pytest.approx(alone["ct.ap"].value, abs=6)


def test_arms_beside_the_trunk_belong_to_the_patient() -> None:
    trunk, arms = ellipse(0.0, 0.0, 180.0, 220.0, 0.0), [disc(60.0, 0.0, 0.0, side * 145.0) for side in (-1, 1)]

    found = sizes(trunk, *arms)

    assert found["ct.dw"].value == pytest.approx(np.sqrt(180.0 * 220.0 + 2 * 60.0**2), rel=0.015)
    assert found["ct.lateral"].value == pytest.approx(350.0, abs=6)


def test_lungs_count_with_their_density() -> None:
    lungs = [ellipse(0.0, side * 60.0, 120.0, 80.0, LUNG_HU) for side in (-1, 1)]

    found = sizes(ellipse(0.0, 0.0, 200.0, 280.0, 0.0), *lungs)

    assert found["ct.dw"].value == pytest.approx(np.sqrt(200.0 * 280.0 - 2 * 0.85 * 120.0 * 80.0), rel=0.015)


def test_dw_depends_neither_on_noise_nor_on_padding() -> None:
    plain = water(noise_hu=0.0)[0]
    noisy = np.maximum(plain + noise(replace(SMALL, noise_hu=60.0, seed=3)), -1024).astype(np.float32)
    padded = np.pad(circular_field(noisy), 32, constant_values=-1024)

    dw = [measured([image])["ct.dw"].value for image in (plain, noisy, circular_field(noisy), padded)]

    assert dw == pytest.approx([dw[0]] * 4, rel=0.005)


@pytest.mark.parametrize("circular", [False, True])
def test_a_patient_whom_the_field_cuts_has_limited_sizes(circular: bool) -> None:
    image = imaged([ellipse(0.0, 0.0, 240.0, 400.0, 0.0)], SMALL)

    found = measured([circular_field(image) if circular else image])

    assert found["ct.truncation"].value is not None
    assert found["ct.truncation"].value > 0.05
    for name in ("ct.dw", "ct.ssde", "ct.lateral"):
        assert (found[name].validity, found[name].limit) == (Validity.LIMITED, Limit.TRUNCATED)
    assert found["ct.figure_of_merit"].limit is Limit.PART_MISSING


@pytest.mark.parametrize("noise_hu", [4.0, 15.0, 50.0])
def test_the_noise_of_soft_tissue_comes_back(noise_hu: float) -> None:
    assert measured(list(water(noise_hu=noise_hu)))["ct.noise.soft"].value == pytest.approx(noise_hu, rel=0.04)


def test_noise_follows_the_dose() -> None:
    once, four_times = (measured(list(water(noise_hu=sd)))["ct.noise.soft"].value for sd in (20.0, 10.0))

    assert once == pytest.approx(2 * four_times, rel=0.03)


def test_fat_and_bone_leave_noise_alone() -> None:
    parts = [disc(260.0, FAT_HU), disc(220.0, 60.0), disc(50.0, BONE_HU, 50.0), disc(30.0, 110.0, -40.0, -40.0)]

    found = measured(repeated(parts, replace(SMALL, noise_hu=12.0), 3))

    assert found["ct.noise.soft"].value == pytest.approx(12.0, rel=0.05)


def test_the_skull_is_no_brain() -> None:
    head = [disc(180.0, 40.0), disc(170.0, BONE_HU), disc(156.0, 30.0)]
    images = repeated(head, replace(SMALL, pixel_mm=0.9, noise_hu=4.0), 3)

    found = measured(images, pixel_mm=0.9, facts=replace(BODY, body_part="head"))

    assert found["ct.noise.soft"].value == pytest.approx(4.0, rel=0.06)
    assert found["ct.ssde"].limit is Limit.NO_HEAD_FACTORS


@pytest.mark.parametrize("kernel", [SOFT, SHARP])
def test_the_peak_of_the_noise_spectrum_follows_the_kernel(kernel: Kernel) -> None:
    scan = replace(SMALL, pixel_mm=0.8, kernel=kernel)

    found = measured(repeated([disc(160.0, 50.0)], scan, 4), pixel_mm=0.8)

    assert found["ct.noise.peak_frequency"].value == pytest.approx(peak_frequency(scan), abs=0.04)
    assert found["ct.noise.peak_frequency"].uncertainty is not None


def test_noise_that_falls_with_frequency_has_no_peak() -> None:
    images = repeated([disc(160.0, 50.0)], replace(SMALL, pixel_mm=0.8, spectrum="low"), 4)

    assert measured(images, pixel_mm=0.8)["ct.noise.peak_frequency"].limit is Limit.TEXTURE


@pytest.mark.parametrize("f50_per_mm", [0.2, 0.3])
def test_the_sharpness_of_the_skin_is_that_of_the_kernel(f50_per_mm: float) -> None:
    scan = replace(SMALL, kernel=Kernel(f50_per_mm))
    skin_over_fat = [disc(240.0, 30.0), disc(236.0, FAT_HU), disc(200.0, 50.0)]

    found = measured(repeated(skin_over_fat, scan, 2))

    assert found["ct.sharpness"].value == pytest.approx(f50_per_mm, rel=0.07)


def test_sharpness_beyond_the_pixels_is_censored() -> None:
    found = measured([imaged([disc(240.0, 50.0)], replace(SMALL, kernel=SHARP))])

    assert found["ct.sharpness"].value == pytest.approx(0.5 / SMALL.pixel_mm)
    assert found["ct.sharpness"].limit is Limit.CENSORED


def test_sharpness_of_few_or_of_different_slices_is_limited() -> None:
    soft, medium, hard = (
        imaged([disc(240.0, 50.0)], replace(SMALL, kernel=Kernel(f50_per_mm))) for f50_per_mm in (0.2, 0.3, 0.45)
    )

    few, even, uneven = (measured(images)["ct.sharpness"] for images in ([soft] * 2, [soft] * 5, [soft, medium, hard]))

    assert (few.limit, few.reason) == (Limit.FEW_SLICES, "too few slices (2 of at least 3)")
    assert even.limit is None
    assert uneven.limit is Limit.UNCERTAIN


def test_the_border_of_the_field_on_a_cut_patient_is_no_skin() -> None:
    found = measured([circular_field(imaged([ellipse(0.0, 0.0, 420.0, 420.0, 20.0)], SMALL))])

    assert found["ct.sharpness"].limit is Limit.NO_EDGE


def test_ssde_is_ctdi_vol_times_the_factor_of_its_phantom_and_size() -> None:
    found = measured(list(water()))
    dw_cm = found["ct.dw"].value / 10

    assert found["ct.ssde"].value == pytest.approx(10.0 * 3.704369 * np.exp(-0.03671937 * dw_cm))
    assert found["ct.ssde"].uncertainty == pytest.approx(0.10 * found["ct.ssde"].value, rel=0.01)


@pytest.mark.parametrize(
    ("facts", "limit"),
    [
        (CtFacts(), Limit.NO_DOSE),
        (CtFacts(dose=CtDose(ctdi_vol_mgy=10.0)), Limit.PHANTOM_UNKNOWN),
        (CtFacts(dose=CtDose(ctdi_vol_mgy=10.0, phantom_cm=16)), Limit.BODY_OR_HEAD),
        (replace(BODY, body_part="head"), Limit.NO_HEAD_FACTORS),
        (replace(BODY, axial=False), Limit.NOT_ACROSS),
    ],
)
def test_without_dose_phantom_or_region_there_is_no_ssde_and_no_figure_of_merit(facts: CtFacts, limit: Limit) -> None:
    found = measured(list(water()), facts=facts)

    assert (found["ct.ssde"].value, found["ct.ssde"].limit) == (None, limit)
    assert found["ct.figure_of_merit"].limit is Limit.PART_MISSING
    assert "ct.ssde" in found["ct.figure_of_merit"].reason


def test_the_figure_of_merit_is_the_same_at_any_dose() -> None:
    found = [
        measured(list(water(noise_hu=sd)), facts=replace(BODY, dose=CtDose(ctdi_vol_mgy=mgy, phantom_cm=32)))
        for sd, mgy in ((20.0, 5.0), (10.0, 20.0))
    ]
    low, high = (one["ct.figure_of_merit"] for one in found)

    assert low.value == pytest.approx(high.value, rel=0.06)
    assert low.value == pytest.approx(1 / (20.0**2 * found[0]["ct.ssde"].value * 5.0), rel=0.06)


def test_an_oblique_stack_has_noise_but_no_sizes() -> None:
    found = measured(list(water()), facts=replace(BODY, axial=False))

    assert {found[name].limit for name in SIZES} == {Limit.NOT_ACROSS}
    assert found["ct.noise.soft"].value == pytest.approx(10.0, rel=0.04)


def test_slices_that_cannot_be_decoded_are_left_out() -> None:
    one, other = water()

    found = measured([one, None, other])

    assert found["ct.dw"].n == 2
    assert {measure.limit for measure in measured([None, None]).values()} <= {Limit.UNDECODABLE, Limit.PART_MISSING}


@pytest.mark.parametrize(
    ("source", "facts", "limit"),
    [
        (stack(list(water())), replace(BODY, is_hu=False), Limit.DOUBTFUL_PIXELS),
        (stack(list(water()), pixel_mm=0.0), BODY, Limit.NO_SPACING),
        (stack(list(water()), pixel_mm=float("nan")), BODY, Limit.NO_SPACING),
    ],
)
def test_without_units_or_spacing_nothing_is_measured(source: StackSource, facts: CtFacts, limit: Limit) -> None:
    assert {one.limit for one in measured(source, facts=facts).values()} == {limit}


@pytest.mark.parametrize(
    "image",
    [
        np.full((256, 256), 40.0, dtype=np.float32),
        np.full((256, 256), -1024.0, dtype=np.float32),
        np.full((8, 8), 40.0, dtype=np.float32),
        np.full((1, 1), 0.0, dtype=np.float32),
        np.full((256, 3), 40.0, dtype=np.float32),
        np.full((256, 256), np.nan, dtype=np.float32),
        np.full((256, 256, 3), 40.0, dtype=np.float32),
        np.where(np.arange(256 * 256).reshape(256, 256) % 7 == 0, np.inf, 20.0).astype(np.float32),
        np.random.default_rng(0).normal(0, 2000, (256, 256)).astype(np.float32),
    ],
    ids=["constant", "air", "tiny", "pixel", "narrow", "nan", "colour", "infinite", "noise"],
)
def test_odd_pixels_give_finite_values_or_a_reason(image: np.ndarray) -> None:
    found = measured([image, image])

    assert list(found) == NAMES
    for one in found.values():
        for number in (one.value, one.uncertainty, one.spread):
            assert number is None or np.isfinite(number)
        assert one.value is not None or one.reason
