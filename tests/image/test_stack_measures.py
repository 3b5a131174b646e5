"""Measures of any stack: positions, repeated slices, and text in the pixels."""

from collections.abc import Callable

import numpy as np
import pytest
from support.op_phantoms import source_of, with_text

from mediqa_node.domain.errors import UndecodablePixels
from mediqa_node.domain.measures import Limit, Measure
from mediqa_node.domain.quantities import REPEATED_SLICES, STACK_QUANTITIES
from mediqa_node.image.measure.burned_in import holds_text
from mediqa_node.image.measure.stack import measure_stack
from mediqa_node.image.measure.stack_source import StackSource, coarse

NAMES = tuple(one.name for one in STACK_QUANTITIES)
SIZE = (160, 192)


def noise(seed: int) -> np.ndarray:
    """Return an image like MR: an oval in dark air, bright fat at one side, with noise."""
    y, x = np.mgrid[-1 : 1 : SIZE[0] * 1j, -1 : 1 : SIZE[1] * 1j]
    body = 180.0 * (np.hypot(y, x) < 0.7) + 250.0 * (np.hypot(y - 0.5, x) < 0.12)
    return (body + np.random.default_rng(seed).rayleigh(12, SIZE)).astype(np.float32)


def stack(count: int = 6, **facts: object) -> StackSource:
    facts.setdefault("positions_mm", tuple(3.0 * index for index in range(count)))
    facts.setdefault("thickness_mm", 3.0)
    return source_of(*(noise(index) for index in range(count)), **facts)


def by_name(source: StackSource) -> dict[str, Measure]:
    return {one.name.removeprefix("stack."): one for one in measure_stack(source, NAMES)}


def test_a_whole_stack_lacks_nothing_and_repeats_nothing() -> None:
    found = by_name(stack())

    assert {name: one.value for name, one in found.items()} == {
        "missing_slices": 0.0,
        "repeated_slices": 0.0,
        "spacing_to_thickness": 1.0,
        "burned_in_text": 0.0,
    }
    assert all(one.n == 6 for one in found.values())


def test_only_what_is_wanted_is_measured() -> None:
    assert [one.name for one in measure_stack(stack(), ["stack.repeated_slices", "ct.dw"])] == ["stack.repeated_slices"]


@pytest.mark.parametrize(
    ("positions_mm", "missing"),
    [
        ((0.0, 3.0, 6.0, 12.0, 15.0, 18.0), 1),
        ((0.0, 3.0, 6.0, 15.0, 18.0, 24.0), 3),
        ((0.0, 3.02, 5.99, 9.01, 11.98, 15.0), 0),
        ((0.0, 0.0, 3.0, 6.0, 12.0, 15.0), 1),
    ],
    ids=["a gap", "two gaps", "rounded positions", "a position twice"],
)
def test_gaps_are_counted_in_steps(positions_mm: tuple[float, ...], missing: int) -> None:
    assert by_name(stack(positions_mm=positions_mm))["missing_slices"].value == missing


@pytest.mark.parametrize(
    ("count", "positions_mm", "limit"),
    [
        (6, (), Limit.NO_POSITIONS),
        (2, (0.0, 3.0), Limit.FEW_SLICES),
        (6, (0.0, 3.0, 4.0, 9.0, 10.5, 14.0), Limit.UNEVEN_STEPS),
        (6, (2.0,) * 6, Limit.NO_POSITIONS),
    ],
    ids=["no positions", "two slices", "no common step", "one place"],
)
def test_without_a_common_step_nothing_can_be_missing(
    count: int, positions_mm: tuple[float, ...], limit: Limit
) -> None:
    assert by_name(stack(count, positions_mm=positions_mm))["missing_slices"].limit is limit


def test_one_odd_step_limits_what_is_missing() -> None:
    found = by_name(stack(positions_mm=(0.0, 3.0, 6.0, 10.0, 13.0, 19.0)))["missing_slices"]

    assert (found.value, found.limit) == (1.0, Limit.UNEVEN_STEPS)


def test_slices_may_be_sparser_or_denser_than_thick() -> None:
    assert by_name(stack(thickness_mm=2.0))["spacing_to_thickness"].value == pytest.approx(1.5)
    assert by_name(stack(thickness_mm=6.0))["spacing_to_thickness"].value == pytest.approx(0.5)
    assert by_name(stack(thickness_mm=None))["spacing_to_thickness"].limit is Limit.NO_THICKNESS
    assert by_name(stack(thickness_mm=0.0))["spacing_to_thickness"].limit is Limit.NO_THICKNESS


def test_a_copy_of_the_slice_before_is_repeated_and_an_empty_slice_is_not() -> None:
    empty = np.zeros(SIZE, dtype=np.float32)

    repeated = by_name(source_of(noise(1), noise(2), noise(2), noise(2), noise(3)))["repeated_slices"]
    padded = by_name(source_of(empty, empty, noise(1), empty, empty))["repeated_slices"]

    assert (repeated.value, padded.value) == (2.0, 0.0)


def test_no_more_than_16_whole_slices_are_decoded() -> None:
    decoded: list[int] = []

    def image_at(index: int) -> np.ndarray:
        decoded.append(index)
        return noise(0)

    source = StackSource(count=90, image_at=image_at, coarse_at=lambda at: coarse(noise(at)), spacing_mm=(1.0, 1.0))
    measure_stack(source, NAMES)

    assert len(decoded) == len(set(decoded)) == 16


def broken_at(*indices: int) -> Callable[[int], np.ndarray]:
    def image_at(index: int) -> np.ndarray:
        if index in indices:
            raise UndecodablePixels("broken")
        return noise(index)

    return image_at


def test_slices_that_cannot_be_decoded_are_passed_over() -> None:
    some, none = broken_at(2), broken_at(*range(5))

    left = by_name(StackSource(count=5, image_at=some, coarse_at=some, spacing_mm=(1.0, 1.0)))
    nothing = by_name(StackSource(count=5, image_at=none, coarse_at=none, spacing_mm=(1.0, 1.0)))

    assert (left["repeated_slices"].n, left["burned_in_text"].n) == (4, 4)
    assert nothing["repeated_slices"].limit is nothing["burned_in_text"].limit is Limit.UNDECODABLE


@pytest.mark.parametrize("size_px", [10, 14, 24])
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("place", [(4, 4), (60, 50)])
def test_text_of_10_pixels_and_more_is_suspected(size_px: int, smooth: bool, place: tuple[int, int]) -> None:
    image = noise(1)

    drawn = with_text(image, "DOE 42", size_px=size_px, place=place, value=1.3 * float(image.max()), smooth=smooth)

    assert holds_text(drawn)
    assert not holds_text(image)


def test_text_in_a_photograph_is_suspected() -> None:
    photograph = np.stack([noise(1) / 4, noise(2) / 6, noise(3) / 20], axis=-1).clip(0, 255)
    drawn = np.stack(
        [
            with_text(photograph[..., colour], "OD 2019", size_px=12, place=(6, 6), value=255.0, smooth=True)
            for colour in range(3)
        ],
        axis=-1,
    )

    assert holds_text(drawn)
    assert not holds_text(photograph)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros(SIZE, dtype=np.float32),
        np.full(SIZE, 7.0, dtype=np.float32),
        np.eye(64, dtype=np.float32),
        np.kron(np.eye(2), np.ones((40, 40))).astype(np.float32),
        np.zeros((0, 0), dtype=np.float32),
        np.zeros((3, 3), dtype=np.float32),
    ],
    ids=["empty", "constant", "line", "blocks", "no pixels", "tiny"],
)
def test_shapes_that_are_no_text_are_not_suspected(image: np.ndarray) -> None:
    found = by_name(source_of(image, image))

    assert found["burned_in_text"].value == 0.0


def test_clipped_metal_is_no_text() -> None:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = noise(1)
    for column in (30, 45, 60, 75):
        image += 9000.0 * np.exp(-((y - 60) ** 2 + (x - column) ** 2) / 18)

    assert not holds_text(np.minimum(image, 3071.0))


def test_a_long_stack_is_looked_at_in_part_and_says_so() -> None:
    seen = set()

    def coarse_at(index: int) -> np.ndarray:
        seen.add(index)
        return np.random.default_rng(index).normal(size=(32, 32)).astype(np.float32)

    source = StackSource(count=3000, image_at=coarse_at, coarse_at=coarse_at, spacing_mm=(1.0, 1.0), most_coarse=100)
    [found] = measure_stack(source, {REPEATED_SLICES.name})

    assert found.limit is Limit.FEW_SLICES
    assert found.detail == f"{len(seen)} of 3000 were compared"
    assert 100 <= len(seen) <= 116
    assert len(source.coarse_indices((7, 2999))) <= 102
    assert {7, 2999} <= set(source.coarse_indices((7, 2999)))
