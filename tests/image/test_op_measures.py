"""Measures of fundus photographs find what synthetic photographs were made with."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from support.op_phantoms import Fundus, render, share_inside, source_of, tilt_unevenness

from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.domain.measures import Limit, Measure, Validity
from mediqa_node.domain.quantities import OP_QUANTITIES
from mediqa_node.image.measure.op.series import measure_op
from mediqa_node.image.measure.stack_source import StackSource

NAMES = tuple(one.name for one in OP_QUANTITIES)
PHANTOM = Fundus(shape=(400, 460), diameter_px=380.0, vessels=10)


@cache
def measured(phantom: Fundus) -> dict[str, Measure]:
    return by_name(source_of(render(phantom)))


def by_name(source: StackSource, names: Sequence[str] = NAMES) -> dict[str, Measure]:
    return {one.name: one for one in measure_op(source, names)}


def value(phantom: Fundus, name: str) -> float:
    found = measured(phantom)[f"op.{name}"].value
    assert found is not None
    return found


def test_every_wanted_quantity_has_one_measure_and_no_other_has() -> None:
    found = measure_op(source_of(render(PHANTOM)), ["op.focus", "op.clipped", "ct.dw"])

    assert [one.name for one in found] == ["op.focus", "op.clipped"]
    assert all(one.validity is Validity.VALID for one in found)


def test_the_diameter_of_the_field_is_that_of_the_circle() -> None:
    assert value(PHANTOM, "field_diameter") == pytest.approx(380.0, abs=0.5)
    assert measured(PHANTOM)["op.field_diameter"].validity is Validity.VALID


def test_a_cut_field_is_measured_from_its_arcs_and_says_so() -> None:
    cut = replace(PHANTOM, shape=(310, 460))

    diameter = measured(cut)["op.field_diameter"]

    assert diameter.value == pytest.approx(380.0, abs=1.0)
    assert (diameter.validity, diameter.limit) == (Validity.LIMITED, Limit.FIELD_CUT)
    assert value(cut, "field_coverage") == pytest.approx(share_inside(cut), abs=0.01)
    assert value(PHANTOM, "field_coverage") == pytest.approx(1.0, abs=0.01)


def test_focus_falls_with_every_step_of_blur() -> None:
    blurs = (0.0, 0.0015, 0.003, 0.006)

    values = [value(replace(PHANTOM, blur=blur), "focus") for blur in blurs]

    assert all(after < 0.9 * before for before, after in pairwise(values))


def test_focus_does_not_depend_on_the_number_of_pixels() -> None:
    blurred = replace(PHANTOM, blur=0.002)
    larger = replace(blurred, shape=(800, 920), diameter_px=760.0)

    assert value(larger, "focus") == pytest.approx(value(blurred, "focus"), rel=0.04)


def test_noise_that_looks_like_structure_limits_focus() -> None:
    noisy = measured(replace(PHANTOM, blur=0.006, noise=12.0))["op.focus"]

    assert (noisy.validity, noisy.limit) == (Validity.LIMITED, Limit.NOISY)


def test_an_evenly_lit_field_is_even_and_a_tilted_one_is_not() -> None:
    assert value(PHANTOM, "illumination") < 0.01
    assert value(replace(PHANTOM, tilt=0.3), "illumination") == pytest.approx(tilt_unevenness(0.3), rel=0.05)


def test_the_clipped_share_is_that_of_the_white_strip() -> None:
    assert value(PHANTOM, "clipped") == 0.0
    assert value(replace(PHANTOM, clipped=0.1), "clipped") == pytest.approx(0.1, abs=0.005)


def test_the_contrast_of_vessels_is_linear_in_their_depth() -> None:
    depths = np.array([0.1, 0.2, 0.4])
    wide = replace(PHANTOM, widths=(0.010, 0.016))

    values = np.array([value(replace(wide, depth=depth), "vessel_contrast") for depth in depths])

    assert values / depths == pytest.approx(0.95, abs=0.05)
    assert np.ptp(values / depths) < 0.02


def test_noise_without_vessels_has_no_contrast_of_vessels() -> None:
    missing = measured(replace(PHANTOM, vessels=0, disc=False, noise=6.0))["op.vessel_contrast"]

    assert (missing.value, missing.limit) == (None, Limit.NO_VESSELS)


def test_a_gray_photograph_is_measured_but_limited() -> None:
    gray = by_name(source_of(render(PHANTOM)[..., 1]))

    assert gray["op.focus"].value == pytest.approx(value(PHANTOM, "focus"), rel=0.02)
    assert gray["op.focus"].limit is Limit.NO_COLOUR
    assert gray["op.field_coverage"].validity is Validity.VALID


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((300, 400, 3), dtype=np.float32),
        np.full((300, 400, 3), 255.0, dtype=np.float32),
        np.full((3, 5, 3), 9.0, dtype=np.float32),
        np.full((1, 1), 9.0, dtype=np.float32),
        np.random.default_rng(1).uniform(0, 255, (300, 400, 3)).astype(np.float32),
        np.pad(np.full((2, 300), 200.0, dtype=np.float32), ((150, 150), (50, 50))),
    ],
    ids=["black", "white", "tiny", "one pixel", "noise", "line"],
)
def test_what_is_no_fundus_has_no_field(image: np.ndarray) -> None:
    found = measure_op(source_of(image), NAMES)

    assert [one.limit for one in found] == [Limit.NO_FIELD] * len(NAMES)


def test_a_small_photograph_has_a_field_but_no_focus() -> None:
    small = measured(replace(PHANTOM, shape=(120, 140), diameter_px=110.0))

    assert small["op.field_diameter"].value == pytest.approx(110.0, abs=1.0)
    assert small["op.focus"].limit is small["op.vessel_contrast"].limit is Limit.SMALL_IMAGE


def test_a_series_is_the_median_of_its_photographs_without_those_that_cannot_be_decoded() -> None:
    images = [render(replace(PHANTOM, tilt=tilt)) for tilt in (0.1, 0.2, 0.3)]

    def image_at(index: int) -> np.ndarray:
        if index == 1:
            raise UndecodablePixels("broken")
        return images[index]

    source = StackSource(count=3, image_at=image_at, coarse_at=image_at, spacing_mm=(0.0, 0.0))
    found = by_name(source, ["op.illumination"])["op.illumination"]

    assert (found.n, found.value) == (2, pytest.approx(tilt_unevenness(0.2), rel=0.06))
    assert found.spread is not None
    assert found.uncertainty is not None


def test_photographs_that_cannot_be_decoded_are_not_measurable() -> None:
    def broken(_: int) -> np.ndarray:
        raise UndecodablePixels("broken")

    found = measure_op(StackSource(count=2, image_at=broken, coarse_at=broken, spacing_mm=(0.0, 0.0)), NAMES)

    assert {one.limit for one in found} == {Limit.UNDECODABLE}
    assert len(found) == len(NAMES)
