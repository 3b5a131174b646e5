"""The table of shapes, the stem, and the paper's options."""

from dataclasses import replace

import pytest
import torch

from mediqa_node.model.network import MedIQA
from mediqa_node.model.sizes import CHANNELS, SIZES, STEMS
from mediqa_node.model.stem import ConvStem, channel_count, input_channels
from mediqa_node.model.tab import FORMS

MILLION = {"n16": 0.877, "t16": 7.33, "s16": 27.4, "b16": 107.3, "b8": 114.2, "e16": 1.33}


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_every_row_is_a_network_of_the_size_it_claims(size):
    with torch.device("meta"):
        network = MedIQA(size)

    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(MILLION[size.name], rel=0.01)
    assert size.grid % size.window == 0, "timm would pad, and it would be another network"
    assert size.grid * size.patch_px == size.image_px
    assert size.trunk or max(size.taps) == size.depth - 1, "a block behind the last tap would be for nothing"
    assert size.stem in STEMS
    assert size.tab in FORMS
    assert set(size.channels) <= set(CHANNELS)
    assert size.prompt_fc in ("stage", "layer")


def test_the_smallest_has_no_more_than_a_million_parameters():
    assert sum(p.numel() for p in MedIQA(SIZES["n16"]).parameters()) <= 1_000_000


def test_every_parameter_of_the_smallest_learns():
    torch.manual_seed(0)
    network = MedIQA(SIZES["n16"], parameters=("mas",))
    answer = network(torch.rand(2, 3, 224, 224), torch.eye(64)[:2])

    (answer.score + answer.slice_logit + answer.parameters[:, 0]).sum().backward()

    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert answer.patch_score.shape == answer.patch_weight.shape == (2, 196)


def test_flat_images_have_no_local_contrast_and_noise_has_it_in_proportion():
    flat = input_channels(torch.full((1, 3, 64, 64), 0.5), ("mscn", "log_sd"))
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).expand(1, 3, 64, 64)
    weak, strong = (input_channels(0.5 + amplitude * noise, CHANNELS) for amplitude in (0.02, 0.04))

    assert flat.abs().max() < 1e-2
    assert weak.shape == (1, channel_count(CHANNELS), 64, 64) == (1, 5, 64, 64)
    assert torch.equal(weak[:, :3], 0.5 + 0.02 * noise)
    sd = (torch.expm1(5 * weak[:, 4]) / 255).mean()
    assert float(sd) == pytest.approx(0.02, rel=0.15)
    assert float((torch.expm1(5 * strong[:, 4]) / torch.expm1(5 * weak[:, 4])).mean()) == pytest.approx(2, rel=0.01)
    assert float(weak[:, 3].std()) == pytest.approx(float(strong[:, 3].std()), rel=0.15), "MSCN forgets the amplitude"


def test_a_token_of_the_convolutional_stem_is_centred_on_its_patch():
    stem = ConvStem(img_size=96, patch_size=16, in_chans=1, embed_dim=32)
    for weight in stem.parameters():
        torch.nn.init.constant_(weight, 0.05)
    image = torch.ones(1, 1, 96, 96, requires_grad=True)

    tokens = stem(image)
    tokens[0, 2 * 6 + 3].sum().backward()

    seen = image.grad[0, 0] / image.grad.sum()
    centre = [float((seen.sum(dim=1 - axis) * torch.arange(96)).sum()) for axis in (0, 1)]
    assert tokens.shape == (1, 36, 32) == (1, stem.num_patches, 32)
    assert centre == pytest.approx([2 * 16 + 7.5, 3 * 16 + 7.5], abs=0.01)
    with pytest.raises(ValueError, match="power of 2"):
        ConvStem(img_size=60, patch_size=12, in_chans=1, embed_dim=32)


def test_prompts_may_be_told_to_every_layer_by_a_connection_of_its_own():
    torch.manual_seed(0)
    network = MedIQA(replace(SIZES["n16"], swin_layers=2, prompt_fc="layer")).eval()
    image, prompt = torch.rand(1, 3, 224, 224), torch.eye(64)[3][None]
    with torch.inference_mode():
        before = float(network(image, prompt).score)
        network.MLP1[1].weight.zero_()
        network.MLP1[1].bias.zero_()
        after = float(network(image, prompt).score)

    assert len(network.MLP1) == len(network.MLP2) == 2
    assert before != after
    assert MedIQA(SIZES["t16"]).MLP1.weight.shape == (192, 64), "one for each stage, as in the public code"
