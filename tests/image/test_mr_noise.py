"""The noise of magnitude images: of the air, by its distribution, and of the body, by Rice's."""

import numpy as np
import pytest

from mediqa_node.image.measure.mr.air import air_noise
from mediqa_node.image.measure.mr.noise import correction, noise
from mediqa_node.image.measure.mr.regions import Regions, regions


def magnitude(shape: tuple[int, ...], *, coils: int = 1, signal: float = 0.0, sigma: float = 1.0) -> np.ndarray:
    parts = np.random.default_rng(4).standard_normal((2, coils, *shape)) * sigma
    parts[0, 0] += signal
    return np.sqrt((parts**2).sum(axis=(0, 1)))


def everywhere_air(image: np.ndarray) -> Regions:
    here = np.ones(image.shape, bool)
    return Regions(body=~here, air=here, flat=~here)


@pytest.mark.parametrize("snr", [0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0])
def test_the_variance_of_a_magnitude_is_that_of_rice(snr: float) -> None:
    assert correction(snr) == pytest.approx(magnitude((1000, 400), signal=snr).var(), rel=0.01)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 250.0])
def test_air_of_a_single_coil_is_recognised_and_measured(sigma: float) -> None:
    image = magnitude((128, 128), sigma=sigma)

    found = air_noise(image, everywhere_air(image))

    assert found is not None
    assert found.single_coil
    assert found.sigma == pytest.approx(sigma, rel=0.03)


@pytest.mark.parametrize("coils", [2, 4, 8, 32])
def test_air_of_many_coils_is_not_taken_for_that_of_one(coils: int) -> None:
    image = magnitude((128, 128), coils=coils)

    found = air_noise(image, everywhere_air(image))

    assert found is not None
    assert not found.single_coil


def test_air_with_a_ghost_rounded_air_and_air_brighter_in_a_quarter_are_not_taken_for_noise() -> None:
    image = magnitude((128, 128))
    ghost = magnitude((128, 128), signal=1.0)
    rounded = np.rint(image * 0.4)
    uneven = image * np.where(np.indices(image.shape).sum(axis=0) < 100, 1.5, 1.0)

    assert not any(
        found.single_coil for one in (ghost, rounded, uneven) if (found := air_noise(one, everywhere_air(one)))
    )


@pytest.mark.parametrize("signal", [4.0, 10.0, 100.0])
def test_the_noise_of_a_uniform_body_is_found_by_its_details(signal: float) -> None:
    image = magnitude((192, 192), signal=signal)

    found = noise(image, np.ones(image.shape, bool), (1.0, 1.0))

    assert found is not None
    assert found.sigma == pytest.approx(1.0, rel=0.07)
    assert found.flatness == pytest.approx(1.0, abs=0.2)
    assert found.unevenness == pytest.approx(1.0, abs=0.1)


def test_no_noise_is_no_noise() -> None:
    y, x = np.indices((96, 96))

    assert noise(100.0 + y + x, np.ones((96, 96), bool), (1.0, 1.0)) is None


def test_the_body_is_found_in_noise_and_air_keeps_away_from_it() -> None:
    y, x = np.indices((128, 128))
    disc = np.hypot(y - 63.5, x - 63.5) < 40
    image = magnitude((128, 128), sigma=0.15, signal=disc * 1.0)

    found = regions(image)

    assert found is not None
    assert (found.body ^ disc).sum() < 0.04 * disc.sum()
    assert not (found.air & disc).any()
    assert found.air.mean() > 0.4


def test_noise_alone_has_a_body_of_hardly_anything() -> None:
    found = regions(magnitude((128, 128)))

    assert found is None or found.body.mean() < 0.8
