"""Baselines: one contract for seven networks, published sizes, and that each of them can learn."""

import numpy as np
import pytest
import torch
from support.siblings import one_in

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.image.measure.noise import immerkaer
from mediqa_node.reader_study.statistics import srcc
from training.baselines import NETWORKS, baseline
from training.baselines.noise import score
from training.baselines.patchwise import patches
from training.baselines.statistics_svr import fit_svr

MILLIONS = {
    "vgg": 134.3, "resnet": 23.5, "swin": 27.5, "vit": 85.8, "deepvit": 27.0, "cnniqanet": 0.73, "wadiqam": 5.2
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_baseline_has_the_published_size_and_a_small_one_fits_two_cores(name):
    with torch.device("meta"):
        published, small = (sum(p.numel() for p in baseline(name, small=s).parameters()) / 1e6 for s in (False, True))

    assert published == pytest.approx(MILLIONS[name], rel=0.06)
    assert small < 1.5


def noisy(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Discs under noise of growing strength, (n, 3, 224, 224), and the strength, (n,)."""
    random = torch.Generator().manual_seed(2)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 224)] * 2, indexing="ij")
    strength = torch.linspace(0, 1, n)
    disc = (x.square() + y.square() < 0.6).float() / 2 + 0.2
    noise = torch.randn(n, 1, 224, 224, generator=random) * 0.15 * strength.reshape(-1, 1, 1, 1)
    return (disc + noise).clamp(0, 1).expand(n, 3, 224, 224), strength


@pytest.mark.parametrize("name", one_in(3, NETWORKS))
def test_a_small_baseline_gives_one_score_an_image_and_learns_noise(name):
    torch.manual_seed(0)
    network = baseline(name, small=True)
    images, strength = noisy(2)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    first = last = 0.0
    for step in range(6):
        found = network(images)
        loss = (found - strength).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first, last = (loss.item(), last) if step == 0 else (first, loss.item())

    assert found.shape == (2,)
    assert all(p.grad is not None for p in network.parameters())
    assert last < first


def test_patches_lie_side_by_side_row_by_row():
    images = torch.arange(64.0 * 64).reshape(1, 1, 64, 64)

    cut = patches(images)

    assert cut.shape == (1, 4, 1, 32, 32)
    assert cut[0, :, 0, 0, 0].tolist() == [0, 32, 32 * 64, 32 * 64 + 32]


@pytest.mark.parametrize("name", ["resnext", ""])
def test_an_unknown_baseline_is_answered_with_the_known_ones(name):
    with pytest.raises(ConfigurationError, match="known: vgg, resnet, swin, vit, deepvit, cnniqanet, wadiqam"):
        baseline(name)


def test_noise_of_a_known_strength_is_found_behind_edges_and_without_the_air():
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    body = x**2 + y**2 < 0.5
    image = body * (1.0 + 0.5 * (x > 0)) + body * np.random.default_rng(1).normal(size=x.shape) * 0.05

    assert immerkaer(image, body) == pytest.approx(0.05, rel=0.15)
    assert immerkaer(image) < 0.04, "air counts where nobody says which pixels are the body"
    assert score(immerkaer(image, body)) < score(immerkaer(image * 0.5, body))


def test_statistics_and_svr_learn_a_smooth_function_and_judge_other_groups():
    random = np.random.default_rng(4)
    features = random.normal(size=(200, 5))
    target = 10 * (features[:, 0] + 0.3 * features[:, 1] ** 2)
    groups = [str(i // 40) for i in range(200)]

    fitted = fit_svr(features[:120], target[:120], groups[:120])

    assert srcc(fitted(features[120:]), target[120:]) > 0.9
    again = fit_svr(features[:120], target[:120], groups[:120])
    assert np.array_equal(fitted(features), again(features))


def test_one_group_is_enough_to_fit_but_not_to_choose():
    features = np.linspace(0, 1, 30)[:, None]

    assert srcc(fit_svr(features, features[:, 0], ["a"] * 30)(features), features[:, 0]) > 0.99
