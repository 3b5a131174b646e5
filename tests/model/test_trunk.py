"""Tokens of a pretrained trunk: folding, taps, pooling."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from mediqa_node.model.network import MedIQA
from mediqa_node.model.sizes import SIZES, Trunk
from mediqa_node.model.trunk import TokenEmbedding, TrunkTokens, create, folded, pruned
from training.fit.pretrained import load_pretrained, pretrained

LITE = SIZES["e16"].trunk
RESNET = Trunk(network="resnet18", taps=(1, 2, 3), mean=(0.45,) * 3, sd=(0.25,) * 3, features=96)
VIT = Trunk(network="vit_tiny_patch16_224", taps=(3, 5), mean=(0.5,) * 3, sd=(0.5,) * 3, features=96)


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(seed))


def with_statistics(model: nn.Module) -> nn.Module:
    """Give every normalisation statistics and gains of its own, as training would."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5), (module.bias.data, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2.0),
            ):  # fmt: skip
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    return model


@pytest.mark.parametrize("trunk", [LITE, RESNET], ids=lambda trunk: trunk.network)
def test_folding_changes_no_output_and_leaves_no_statistics(trunk: Trunk) -> None:
    model = pruned(with_statistics(create(trunk)), trunk)
    with torch.no_grad():
        before = model(image())
        after = folded(model)(image())

    assert float((after - before).abs().max() / before.abs().max()) < 1e-4
    assert not [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]


@pytest.mark.parametrize(("trunk", "width"), [(LITE, 352), (RESNET, 64 + 128 + 256 + 64 + 128), (VIT, 2 * 192)])
def test_tokens_are_means_of_every_tap_textures_of_the_finer_ones_and_details_of_the_image(
    trunk: Trunk, width: int
) -> None:
    tokens = TrunkTokens(trunk, image_px=224, grid=14)

    with torch.no_grad():
        found = tokens(image())

    assert found.shape == (1, 196, tokens.width) == (1, 196, width + 4)


@pytest.mark.parametrize("deviation", [0.01, 0.05, 0.2])
def test_details_read_how_strong_noise_is(deviation: float) -> None:
    noise = torch.randn(1, 1, 224, 224, generator=torch.Generator().manual_seed(2)).expand(1, 3, 224, 224)

    with torch.no_grad():
        tokens = TrunkTokens(LITE, image_px=224, grid=14)(0.5 + deviation * noise)

    mean, sd, fine, half = tokens[0, :, -4:].T
    assert float(mean.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(sd.exp().mean()) == pytest.approx(deviation, rel=0.03)
    assert float(fine.exp().mean()) == pytest.approx(deviation, rel=0.03)
    assert float(half.exp().mean()) == pytest.approx(deviation / 2, rel=0.06), "pixels joined by four"


def test_a_token_lies_where_its_cell_is() -> None:
    torch.manual_seed(0)
    tokens = TrunkTokens(LITE, image_px=224, grid=14)
    spot = torch.zeros(1, 3, 224, 224)
    spot[:, :, 16 * 5 : 16 * 6, 16 * 9 : 16 * 10] = 1.0

    with torch.no_grad():
        apart = (tokens(spot) - tokens(torch.zeros_like(spot)))[0, :, :16].abs().sum(dim=1)

    assert int(apart.argmax()) == 14 * 5 + 9


def test_texture_follows_noise_and_not_brightness() -> None:
    network = MedIQA(SIZES["e16"])
    load_pretrained(network, pretrained(SIZES["e16"])[0])  # of random weights it depends on the draw
    tokens = network.trunk
    noise = image() - 0.5

    with torch.no_grad():
        weak, strong = (tokens(0.5 + amplitude * noise)[0].mean(dim=0) for amplitude in (0.02, 0.2))

    textures = slice(16, 32)  # of the first tap, behind its means
    assert float((strong - weak)[textures].mean()) > 0.5


def test_a_name_that_timm_would_look_up_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="no such network"):
        create(replace(RESNET, network="hf-hub:someone/something"))


def test_a_grid_that_does_not_divide_a_tap_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        TrunkTokens(RESNET, image_px=224, grid=13)(image())


def test_every_parameter_learns_and_tokens_may_stand_for_images() -> None:
    torch.manual_seed(0)
    network = MedIQA(SIZES["e16"], parameters=("mas",))
    prompts = torch.eye(64)[:2]
    answer = network(torch.cat([image(0), image(1)]), prompts)

    (answer.score + answer.slice_logit + answer.parameters[:, 0]).sum().backward()

    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    network.eval()
    with torch.inference_mode():
        images = torch.cat([image(0), image(1)])
        assert torch.equal(network(images, prompts).score, network(network.trunk(images), prompts).score)


def test_standardised_tokens_have_mean_0_and_deviation_1() -> None:
    embedding = TokenEmbedding(5, 3)
    tokens = torch.rand(4, 7, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10, 100, 0.1, 0])

    embedding.standardise(tokens)

    z = ((tokens - embedding.shift) / embedding.scale).reshape(-1, 5)[:, :4]
    assert float(z.mean(dim=0).abs().max()) < 1e-4
    assert float((z.std(dim=0) - 1).abs().max()) < 1e-3


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(timm.models._builder, "load_pretrained", lambda *args, **_: asked.append(args))

    MedIQA(SIZES["e16"])

    assert asked == []
