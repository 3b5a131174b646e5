"""A synthetic phantom of known noise comes back as it was made."""

import numpy as np
import pytest
from support.siblings import before_release

from mediqa_node.image.measure.phantom import find_disc, measure_phantom


def phantom(
    size_px: int = 256,
    *,
    diameter_px: float = 180.0,
    centre_px: tuple[float, float] = (127.3, 129.6),
    inside: float = 0.0,
    outside: float = -1000.0,
    noise: float = 5.0,
    cupping: float = 0.0,
    tilt: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """A disc with Gaussian noise; `cupping` is what the edge has more than the centre, `tilt` right more than left."""
    y, x = np.mgrid[:size_px, :size_px].astype(float)
    r = np.hypot(y - centre_px[0], x - centre_px[1]) / (diameter_px / 2)
    shading = cupping * r**2 + tilt * (x - centre_px[1]) / diameter_px
    image = np.where(r <= 1, inside + shading, outside)
    return (image + np.random.default_rng(seed).normal(0, noise, image.shape)).astype(np.float32)


@pytest.mark.parametrize("noise", [1.0, 5.0, 20.0, 60.0])
@pytest.mark.parametrize("diameter_px", [60.0, 120.0, 230.0])
def test_mean_noise_and_size_of_water_come_back(noise: float, diameter_px: float) -> None:
    found = measure_phantom(phantom(noise=noise, diameter_px=diameter_px, inside=0.5), modality="CT")

    n = np.pi * (0.4 * diameter_px / 2) ** 2
    assert found.mean == pytest.approx(0.5, abs=4 * noise / np.sqrt(n))
    assert found.noise == pytest.approx(noise, rel=4 / np.sqrt(2 * n))
    assert found.diameter_px == pytest.approx(diameter_px, abs=1.5)
    assert found.centre_px == pytest.approx((127.3, 129.6), abs=0.5)
    assert found.uniformity < 5 * noise / np.sqrt(n / 16)


def test_cupping_is_what_uniformity_of_ct_says() -> None:
    found = measure_phantom(phantom(noise=0.5, cupping=12.0), modality="CT")

    assert found.uniformity == pytest.approx(12.0 * (0.8**2 - 0.4**2 / 2), rel=0.05)


def test_uniformity_of_mr_is_the_percent_integral_over_the_regions() -> None:
    image = np.abs(phantom(inside=1000.0, outside=0.0, noise=10.0, tilt=200.0))

    found = measure_phantom(image, modality="MR")

    low, high = 1000 - 0.4 * 200, 1000 + 0.4 * 200
    assert found.uniformity == pytest.approx(100 * (1 - (high - low) / (high + low)), abs=0.5)
    assert found.mean == pytest.approx(1000, abs=2)


def test_noise_is_not_taken_for_shading_in_mr() -> None:
    even = measure_phantom(np.abs(phantom(inside=1000.0, outside=0.0, noise=30.0)), modality="MR")

    assert even.uniformity > 99


def test_a_table_a_holder_and_an_insert_do_not_move_the_disc() -> None:
    clean = phantom(512, diameter_px=360, centre_px=(240.0, 256.0))
    image = clean.copy()
    image[419:425, 40:472] = 80.0  # the table touches the phantom
    image[300:420, 60:64] = 200.0  # a rail of the holder
    y, x = np.mgrid[:512, :512]
    image[np.hypot(y - 130, x - 200) < 15] = -950.0  # an insert of air

    found, expected = (measure_phantom(one, modality="CT") for one in (image, clean))

    assert found.centre_px == pytest.approx(expected.centre_px, abs=0.5)
    assert found.diameter_px == pytest.approx(expected.diameter_px, abs=1.0)
    assert found.noise == pytest.approx(expected.noise, rel=0.02)


def ellipse() -> np.ndarray:
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    return np.where((x / 0.9) ** 2 + (y / 0.5) ** 2 < 1, 0.0, -1000.0).astype(np.float32)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.full((128, 128), -1000.0, dtype=np.float32), "nothing stands out"),
        (np.zeros((128, 128), dtype=np.float32), "cut off"),
        (phantom(diameter_px=400.0), "cut off"),
        (phantom(diameter_px=9.0), "no phantom"),
        (phantom(64, diameter_px=20.0, centre_px=(32, 32)), "diameter of 20 pixels"),
        (ellipse(), "no round phantom"),
    ],
    ids=["air", "all water", "too large", "a speck", "small", "oval"],
)
def test_what_is_no_whole_disc_is_refused_by_name(image: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        measure_phantom(image, modality="CT")


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("diameter_px", [*before_release(120.0), 180.0, *before_release(230.0)])
@pytest.mark.parametrize("towards", [(1, 0), (0, -1), (-1, 1)], ids=["below", "left", "a corner"])
def test_a_disc_beyond_the_edge_is_refused_or_measured_right(
    modality: str, diameter_px: float, towards: tuple[int, int]
) -> None:
    inside = 0.0 if modality == "CT" else 1000.0
    for beyond in (-0.05, 0.0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 0.8):  # of the radius; answers change below 0.12
        out = 127.5 - (1 - beyond) * diameter_px / 2
        centre_px = (127.5 + towards[0] * out, 127.5 + towards[1] * out)
        image = phantom(diameter_px=diameter_px, centre_px=centre_px, inside=inside, outside=inside - 1000.0)
        try:
            found = measure_phantom(np.abs(image) if modality == "MR" else image, modality=modality)
        except ValueError as reason:
            assert beyond > 0.04, reason
        else:
            assert beyond < 0.12
            assert found.diameter_px == pytest.approx(diameter_px, abs=1.5)
            assert found.centre_px == pytest.approx(centre_px, abs=0.5)


def test_values_that_are_not_finite_are_refused() -> None:
    image = phantom()
    image[127, 130] = np.nan

    with pytest.raises(ValueError, match="not finite"):
        measure_phantom(image, modality="CT")


def test_the_largest_of_several_things_is_the_phantom() -> None:
    image = phantom(diameter_px=100.0, centre_px=(150.0, 150.0))
    image[20:40, 20:60] = 500.0

    row, column, radius = find_disc(image, threshold=-500.0)

    assert (row, column) == pytest.approx((150.0, 150.0), abs=0.5)
    assert radius == pytest.approx(50.0, abs=1.0)
