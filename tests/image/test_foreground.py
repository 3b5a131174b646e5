"""What counts as background: air up to the border, never the air inside a body."""

import numpy as np
import pytest

from mediqa_node.image.foreground import background

Y, X = np.mgrid[-64:64, -64:64]
BODY = np.hypot(X, Y) < 50
LUNG = np.hypot(X - 20, Y) < 15


def test_air_around_a_ct_body_is_background_and_a_lung_is_not():
    mask = background(np.where(BODY & ~LUNG, 40.0, -1000.0), modality="CT")

    assert mask[~BODY].mean() > 0.99
    assert not mask[BODY].any()


def test_specks_of_noise_around_an_mr_body_are_background():
    rng = np.random.default_rng(0)
    image = np.where(BODY, 800.0, 0.0) + np.abs(rng.normal(0, 10, BODY.shape))

    mask = background(image, modality="MR")

    assert mask[~BODY].mean() > 0.95
    assert mask[BODY].mean() < 0.01


def test_the_dark_ground_of_a_photograph_is_background():
    image = np.repeat(np.where(BODY, 120, 3).astype(np.uint8)[..., None], 3, axis=-1)

    assert background(image, modality="OP")[0, 0]
    assert not background(image, modality="OP")[64, 64]


@pytest.mark.parametrize("modality", ["CT", "MR", "OP"])
@pytest.mark.parametrize("level", [-1000.0, 0.0, 5000.0])
def test_an_image_of_one_value_has_no_background(modality, level):
    assert not background(np.full((9, 9), level), modality=modality).any()
