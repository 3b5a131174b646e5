"""What is measured of a slice: finite whatever it holds, in one order, and what each number answers to."""

import numpy as np
import pytest
from scipy import ndimage

from mediqa_node.image.measure.quality_statistics import LARGEST_PX, as_vector, names, quality_statistics

WINDOWS = {"CT": (-160.0, 240.0), "MR": (0.0, 600.0), "OP": (0.0, 255.0)}


def body(edge: int = 128, *, noise: float = 10.0, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : edge * 1j, -1 : 1 : edge * 1j]
    clean = np.where(x**2 + y**2 < 0.5, 200.0, 0.0)
    return (clean + np.random.default_rng(seed).normal(0, noise, clean.shape)).astype(np.float32)


def holed(image: np.ndarray) -> np.ndarray:
    holed = image.copy()
    holed[10:20, 10:20], holed[60, 60] = np.nan, np.inf
    return holed


def colour(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=2)


IMAGES = {
    "constant": np.full((96, 96), 40.0, dtype=np.float32),
    "zero": np.zeros((96, 96), dtype=np.float32),
    "tiny": body(48),
    "narrow": body(200)[:, 90:138],
    "huge": body(1500),
    "huge values": body() * np.float32(1e6),
    "NaN and infinity": holed(body()),
    "colour": colour(body()),
    "integers": body().astype(np.int16),
}


@pytest.mark.parametrize("modality", WINDOWS)
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_whatever_a_slice_holds_all_numbers_are_finite_and_in_order(modality, image):
    with np.errstate(all="ignore"):
        found = quality_statistics(image, modality=modality, window=WINDOWS[modality])

    assert tuple(found) == names(modality)
    assert np.isfinite(as_vector(found)).all()
    assert as_vector(found).shape == (len(names(modality)),)


@pytest.mark.parametrize("modality", WINDOWS)
def test_a_window_without_width_is_no_fault(modality):
    with np.errstate(all="ignore"):
        found = quality_statistics(body(), modality=modality, window=(5.0, 5.0))

    assert np.isfinite(as_vector(found)).all()


@pytest.mark.parametrize("modality", WINDOWS)
def test_noise_raises_the_finest_scale(modality):
    levels = [
        quality_statistics(body(noise=noise), modality=modality, window=WINDOWS[modality])["noise_0"]
        for noise in (2.0, 8.0, 32.0)
    ]

    assert levels == sorted(levels)
    assert levels[2] - levels[1] == pytest.approx(np.log(4.0), abs=0.35)


def test_the_display_window_does_not_touch_hounsfield_units():
    narrow, wide = (quality_statistics(body(), modality="CT", window=window) for window in ((-160, 240), (-1350, 150)))

    assert {name for name in narrow if narrow[name] != wide[name]} == {"log_window"}


def test_mr_is_measured_in_its_own_window():
    one = quality_statistics(body(), modality="MR", window=(0.0, 300.0))
    other = quality_statistics(7.0 * body(), modality="MR", window=(0.0, 2100.0))

    assert as_vector(one) == pytest.approx(as_vector(other), abs=1e-3)


def test_left_out_lines_leave_a_comb():
    image = body(128, noise=20.0)
    kspace = np.fft.fft2(image)
    line = np.arange(128)
    kspace[(line % 2 == 1) & (np.minimum(line, 128 - line) > 8)] = 0.0

    whole, combed = (
        quality_statistics(one, modality="MR", window=(0.0, 300.0)) for one in (image, np.abs(np.fft.ifft2(kspace)))
    )

    assert combed["comb_2_high"] > whole["comb_2_high"] + 0.5


def test_a_blurred_photograph_has_weaker_fine_bands():
    rgb = colour(np.clip(body(256, noise=30.0), 0, 255))
    sharp, soft = (
        quality_statistics(one, modality="OP", window=WINDOWS["OP"])
        for one in (rgb, ndimage.gaussian_filter(rgb, (2.0, 2.0, 0.0)))
    )

    assert soft["band_0.7"] < sharp["band_0.7"] - 1.0


def test_large_pictures_are_measured_at_one_size():
    small = quality_statistics(body(LARGEST_PX), modality="MR", window=(0.0, 300.0))
    large = quality_statistics(body(2 * LARGEST_PX), modality="MR", window=(0.0, 300.0))

    assert small["log_edge"] == large["log_edge"] == pytest.approx(np.log(LARGEST_PX))
