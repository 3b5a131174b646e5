"""The shipped checkpoint on images of the clone: whatever a technologist would see as worse lowers its score."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from mediqa_node.model.predict import NetworkScorer, load_scorer
from training.data.collection import StackImages, stacks_of
from training.evaluate.series import prepared, score_of

DATA = Path(__file__).parents[1] / "data"
Images = list[np.ndarray]


@pytest.fixture(scope="module")
def scorer() -> NetworkScorer:
    return load_scorer()


def first_stack(name: str, scorer: NetworkScorer) -> StackImages:
    return next(stack for stack in stacks_of(DATA / name, scorer.spec) if stack.prompt is not None and stack.images)


def with_noise(images: Images, inside: Callable[[np.ndarray], np.ndarray], deviation: Callable[[np.ndarray], float]):
    random = np.random.default_rng(0)
    values = np.concatenate([image[inside(image)] for image in images])
    return [image + random.normal(0.0, deviation(values), image.shape) for image in images]


def noisier_ct(images: Images) -> Images:
    return with_noise(images, lambda image: image > -500, lambda _: 30.0)


def noisier_mr(images: Images) -> Images:
    return with_noise(images, lambda image: image > 0.1 * image.max(), lambda body: 0.1 * float(body.mean()))


def half_dark(images: Images) -> Images:
    shade = np.where(np.arange(images[0].shape[1]) < images[0].shape[1] // 2, 0.05, 1.0)[:, None]
    return [image * shade for image in images]


def blurred(images: Images) -> Images:
    edge = images[0].shape[0] / 150
    return [ndimage.gaussian_filter(image, (edge, edge, 0.0)) for image in images]


@pytest.mark.parametrize(
    ("name", "worse"),
    [
        ("ct_body_totalseg_j2k", noisier_ct),
        ("ct_sts036_lowdose", noisier_ct),
        ("mr_breast_ucsf06", noisier_mr),
        ("mr_brain_dti_achieva", noisier_mr),
        ("fundus_chasedb1", half_dark),
        ("fundus_chasedb1", blurred),
    ],
)
def test_what_looks_worse_scores_lower(scorer, name, worse):
    stack = first_stack(name, scorer)
    kind = stack.images[0].dtype
    clean = [np.asarray(image, dtype=np.float64) for image in stack.images]

    scores = [
        score_of(prepared([image.astype(kind) for image in images], stack, scorer), stack, scorer)
        for images in (clean, worse(clean))
    ]

    assert scores[0] - scores[1] > 0.05


def test_a_photograph_with_half_its_field_in_the_dark_is_not_called_good(scorer):
    stack = first_stack("fundus_chasedb1", scorer)

    dark = [image.astype(np.uint8) for image in half_dark(list(stack.images))]

    assert score_of(prepared(dark, stack, scorer), stack, scorer) < 0.8
