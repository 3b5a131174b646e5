"""Measures of MR phantoms of known truth, and of images that no method holds for."""

import numpy as np
import pytest
from support.mr_phantoms import Protocol, Scan, scan, source_of, stack

from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.domain.measure_facts import MrFacts
from mediqa_node.domain.measures import Limit, Measure, Validity
from mediqa_node.domain.quantities import MR_QUANTITIES
from mediqa_node.image.measure.mr.series import measure_mr
from mediqa_node.image.measure.stack_source import StackSource

ALL = tuple(one.name for one in MR_QUANTITIES)


def measured(source: StackSource, facts: MrFacts | None = None) -> dict[str, Measure]:
    return {one.name: one for one in measure_mr(source, facts or MrFacts(phase_axis=0), ALL)}


def of(kind: str, protocol: Protocol, *, count: int = 2, **facts: object) -> tuple[dict[str, Measure], Scan]:
    source, first = stack(kind, protocol, count, seed=3)
    return measured(source, MrFacts(**{"phase_axis": protocol.phase_axis, **facts})), first


# ── what is asked for ────────────────────────────────────────────────────────


def test_each_wanted_name_is_answered_once_and_no_other() -> None:
    source, _ = stack("head", Protocol(), 1, seed=0)

    found = measure_mr(source, MrFacts(), {"mr.snr", "mr.support.rows", "ct.dw"})

    assert [one.name for one in found] == ["mr.snr", "mr.support.rows"]
    assert measure_mr(source, MrFacts(), ()) == ()


def test_nothing_is_decoded_if_nothing_is_wanted() -> None:
    def never(index: int) -> np.ndarray:
        raise AssertionError(index)

    source = StackSource(count=3, image_at=never, coarse_at=never, spacing_mm=(1.0, 1.0))

    assert measure_mr(source, MrFacts(), {"ct.dw"}) == ()


def test_at_most_sixteen_slices_of_a_long_stack_are_decoded() -> None:
    image = scan("disc", Protocol(matrix=(64, 64), acquired=(64, 64)), 0).image
    decoded = []

    def image_at(index: int) -> np.ndarray:
        decoded.append(index)
        return image

    measured(StackSource(count=400, image_at=image_at, coarse_at=image_at, spacing_mm=(1.0, 1.0)))

    assert len(decoded) == 16
    assert max(decoded) > 380


# ── signal to noise ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(sigma=0.02),
        Protocol(sigma=0.1),
        Protocol(sigma=0.05, matrix=(256, 256)),
        Protocol(sigma=0.05, matrix=(192, 160), acquired=(120, 160)),
        Protocol(sigma=0.05, partial=0.75),
        Protocol(sigma=0.05, elliptical=True),
    ],
    ids=["high", "low", "filled", "filled along rows", "partial Fourier", "ellipse"],
)
def test_snr_of_a_single_coil_is_that_of_the_phantom(protocol: Protocol) -> None:
    found, truth = of("head", protocol, acquired_matrix=protocol.acquired)

    assert found["mr.snr"].validity is Validity.VALID
    assert found["mr.snr"].value == pytest.approx(truth.snr, rel=0.1)


@pytest.mark.parametrize("kind", ["head", "trunk"])
@pytest.mark.parametrize("sigma", [0.05, 0.1])
def test_snr_without_air_is_that_of_the_body_within_a_quarter(kind: str, sigma: float) -> None:
    found, truth = of(kind, Protocol(sigma=sigma, mask_air=True), acquired_matrix=(128, 128))

    assert found["mr.snr"].value == pytest.approx(truth.snr, rel=0.25)


def test_snr_of_many_coils_is_near_where_the_signal_is_strong() -> None:
    found, truth = of("disc", Protocol(coils=8), acquired_matrix=(128, 128))

    assert found["mr.snr"].validity is Validity.VALID
    assert found["mr.snr"].value == pytest.approx(truth.snr, rel=0.1)


def test_snr_is_limited_where_the_noise_of_many_coils_adds_to_the_signal() -> None:
    found, truth = of("disc", Protocol(coils=32, sigma=0.1), acquired_matrix=(128, 128))

    assert found["mr.snr"].limit is Limit.MANY_COILS
    assert found["mr.snr"].value > 1.2 * truth.snr


@pytest.mark.parametrize("factor", [1e-30, 1e-3, 7.0, 1e30])
def test_snr_and_all_else_do_not_depend_on_the_scale(factor: float) -> None:
    image = scan("head", Protocol(sigma=0.05), 1).image

    one = measured(source_of([image]))
    other = measured(source_of([(image.astype(np.float64) * factor).astype(np.float32)]))

    for name, measure in one.items():
        assert other[name].value == pytest.approx(measure.value, rel=1e-3), name


def test_snr_is_limited_if_k_space_was_filtered() -> None:
    found, _ = of("head", Protocol(hann=True, matrix=(192, 192)))

    assert found["mr.snr"].limit is Limit.FILTERED
    assert found["mr.support.rows"].limit is Limit.FILTERED


@pytest.mark.parametrize(
    ("facts", "limit"), [({"normalised": True}, Limit.NORMALISED), ({"filtered": True}, Limit.FILTERED)]
)
def test_snr_is_limited_if_the_header_says_that_noise_was_changed(facts: dict[str, bool], limit: Limit) -> None:
    found, _ = of("head", Protocol(), acquired_matrix=(128, 128), **facts)

    assert (found["mr.snr"].validity, found["mr.snr"].limit) == (Validity.LIMITED, limit)


def test_snr_says_that_fine_anatomy_counts_as_noise() -> None:
    found, truth = of("head", Protocol(sigma=0.005, mask_air=True), acquired_matrix=(128, 128))

    assert found["mr.snr"].limit is Limit.FINE_ANATOMY
    assert found["mr.snr"].value < truth.snr


def test_snr_is_not_measured_where_the_header_contradicts_the_spectrum() -> None:
    found, _ = of("head", Protocol(), acquired_matrix=(96, 128))

    assert found["mr.snr"].limit is Limit.UNKNOWN_SUPPORT
    assert "0.75" in found["mr.snr"].reason


# ── the acquired part of k-space ─────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["head", "trunk"])
@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.1])
def test_zero_filling_is_seen_along_each_axis(kind: str, sigma: float) -> None:
    found, _ = of(kind, Protocol(sigma=sigma, matrix=(256, 192), acquired=(128, 144)))

    assert found["mr.support.rows"].value == pytest.approx(0.5, abs=0.02)
    assert found["mr.support.columns"].value == pytest.approx(0.75, abs=0.02)
    assert found["mr.support.rows"].validity is Validity.VALID


def test_k_space_that_noise_fills_is_whole_even_without_a_header() -> None:
    found, _ = of("head", Protocol(sigma=0.1))

    assert (found["mr.support.rows"].value, found["mr.support.rows"].validity) == (1.0, Validity.VALID)


def test_partial_fourier_is_not_taken_for_zero_filling() -> None:
    found, _ = of("trunk", Protocol(partial=0.75), acquired_matrix=(128, 128))

    assert found["mr.support.rows"].value == 1.0


# ── ghosts ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("axis", [0, 1])
def test_the_ghost_ratio_is_linear_above_the_floor(axis: int) -> None:
    inserted = [0.02, 0.04, 0.08, 0.12]

    found = [of("disc", Protocol(ghost=ghost, phase_axis=axis))[0]["mr.ghost_ratio"].value for ghost in inserted]
    slope, offset = np.polyfit(inserted, found, 1)

    assert slope == pytest.approx(1.0, abs=0.08)
    assert abs(offset) < 0.005


def test_noise_alone_is_no_ghost() -> None:
    found, _ = of("head", Protocol(sigma=0.1))

    assert found["mr.ghost_ratio"].value < 0.03


def test_ghosts_along_readout_do_not_count() -> None:
    found, _ = of("disc", Protocol(ghost=0.1, phase_axis=1), phase_axis=0)

    assert found["mr.ghost_ratio"].value < 0.01


def test_ghosts_need_the_phase_direction() -> None:
    found = measured(stack("head", Protocol(), 1, seed=0)[0], MrFacts())

    assert found["mr.ghost_ratio"].limit is Limit.NO_PHASE_DIRECTION


def test_ghosts_need_air_that_was_not_masked() -> None:
    found, _ = of("head", Protocol(mask_air=True))

    assert (found["mr.ghost_ratio"].value, found["mr.ghost_ratio"].limit) == (None, Limit.MASKED_AIR)


def test_ghosts_need_air_beyond_the_body_along_readout() -> None:
    image = scan("head", Protocol(), 0).image[:, 30:98]

    found = measured(source_of([image]))

    assert found["mr.ghost_ratio"].limit is Limit.NO_AIR


# ── nonuniformity ────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "bias", [(0.0, 0.0, 0.0, 0.0), (0.3, 0.0, 0.0, 0.0), (0.0, 0.5, 0.0, 0.0), (0.1, 0.0, -0.4, -0.4)]
)
@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_nonuniformity_of_a_uniform_disc_is_that_of_the_field(
    bias: tuple[float, float, float, float], sigma: float
) -> None:
    found, truth = of("disc", Protocol(bias=bias, sigma=sigma))

    low, middle, high = np.percentile(truth.field[truth.body], (25, 50, 75))
    assert found["mr.nonuniformity"].value == pytest.approx((high - low) / middle, abs=0.03)


def test_anatomy_adds_little_to_nonuniformity() -> None:
    found, _ = of("head", Protocol(), count=4)

    assert found["mr.nonuniformity"].value < 0.12


# ── images that no method holds for ──────────────────────────────────────────

ODD = {
    "constant": np.full((64, 64), 7.0, np.float32),
    "zero": np.zeros((64, 64), np.float32),
    "negative": -scan("head", Protocol(matrix=(64, 64), acquired=(64, 64)), 0).image,
    "not a number": np.full((64, 64), np.nan, np.float32),
    "infinite": np.where(np.eye(64) > 0, np.inf, 1.0).astype(np.float32),
    "colour": np.ones((64, 64, 3), np.float32),
    "one pixel": np.ones((1, 1), np.float32),
    "one row": np.arange(100, dtype=np.float32)[None],
    "8 x 8": np.arange(64, dtype=np.float32).reshape(8, 8),
    "one bright pixel": np.pad([[1.0]], 40).astype(np.float32),
    "noise alone": np.abs(np.random.default_rng(0).standard_normal((64, 64))).astype(np.float32),
    "integers of two values": (np.indices((64, 64)).sum(axis=0) % 2).astype(np.int16),
    "largest numbers": np.full((64, 64), np.finfo(np.float32).max, np.float32) * np.eye(64, dtype=np.float32),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("error")
def test_odd_pixels_give_measures_and_never_raise(name: str) -> None:
    found = measured(source_of([ODD[name]] * 2))

    assert set(found) == set(ALL)
    assert all(one.value is None or np.isfinite(one.value) for one in found.values())
    assert all(one.reason for one in found.values() if one.validity is Validity.NOT_MEASURABLE)


def test_a_slice_that_cannot_be_decoded_is_left_out() -> None:
    image = scan("head", Protocol(), 0).image

    def image_at(index: int) -> np.ndarray:
        if index == 1:
            raise UndecodablePixels("broken")
        return image

    found = measured(StackSource(count=3, image_at=image_at, coarse_at=image_at, spacing_mm=(1.0, 1.0)))

    assert found["mr.nonuniformity"].n == 2


def test_a_stack_without_a_slice_that_can_be_decoded_says_so() -> None:
    def image_at(index: int) -> np.ndarray:
        raise UndecodablePixels("broken")

    found = measured(StackSource(count=3, image_at=image_at, coarse_at=image_at, spacing_mm=(1.0, 1.0)))

    assert {one.limit for one in found.values()} == {Limit.UNDECODABLE}


def test_phase_images_are_not_measured() -> None:
    found, _ = of("head", Protocol(), magnitude=False)

    assert {one.limit for one in found.values()} == {Limit.UNSUITABLE}


def test_the_same_stack_gives_the_same_measures() -> None:
    source, _ = stack("head", Protocol(), 3, seed=1)

    assert measured(source) == measured(source)


def test_one_slice_has_neither_uncertainty_nor_spread() -> None:
    found = measured(stack("head", Protocol(), 1, seed=0)[0])

    assert (found["mr.snr"].uncertainty, found["mr.snr"].spread) == (None, None)
