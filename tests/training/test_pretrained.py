"""Pretrained weights of the encoder: where they come from, and what is refused."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.network import MedIQA
from mediqa_node.model.sizes import SIZES
from mediqa_node.model.trunk import create
from training.fit.pretrained import freeze, load_pretrained, pretrained

E16 = SIZES["e16"]


def photograph() -> torch.Tensor:
    return torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_the_packaged_weights_are_those_of_the_network_in_timm() -> None:
    weights, found = pretrained(E16)
    network = MedIQA(E16).eval()
    load_pretrained(network, weights)

    assert (found.licence, found.trained_on, found.sha256[:12]) == ("Apache-2.0", "ImageNet", "579344248a93")
    with torch.inference_mode():
        values = network.trunk(photograph())
    assert float(values.std()) == pytest.approx(4.55, abs=0.5), "random weights give another spread"


def test_a_local_file_by_the_names_of_timm_gives_the_same(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = create(E16.trunk)
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "own.pth")

    (first, found), (second, _) = (pretrained(E16, tmp_path / name) for name in ("own.safetensors", "own.pth"))

    assert found.weights == "own.safetensors"
    assert found.licence == ""
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_vit_begins_from_a_file_with_its_input_range_folded_in(tmp_path: Path) -> None:
    size = SIZES["t16"]
    torch.manual_seed(0)
    whole = VisionTransformer(embed_dim=192, depth=12, num_heads=3).eval()
    save_file(whole.state_dict(), tmp_path / "vit.safetensors")
    network = MedIQA(size).eval()

    load_pretrained(network, pretrained(size, tmp_path / "vit.safetensors")[0])

    with torch.inference_mode():
        taps = whole.forward_intermediates(
            (photograph() - 0.5) / 0.5, indices=list(size.taps), norm=False, output_fmt="NLC", intermediates_only=True
        )
        assert torch.allclose(network.encode(photograph()), torch.cat(taps, dim=2), atol=1e-4)


def test_a_vit_without_a_file_is_not_pretrained() -> None:
    assert pretrained(SIZES["t16"]) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps({"weights": Path}, protocol=2)])
def test_a_file_that_is_no_plain_state_dict_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)

    with pytest.raises(ConfigurationError, match="neither safetensors nor a plain state dict"):
        pretrained(E16, tmp_path / "x.pth")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")

    with pytest.raises(ConfigurationError, match="do not fit tf_efficientnet_lite0"):
        pretrained(E16, tmp_path / "other.safetensors")
    with pytest.raises(ConfigurationError, match="do not fit the ViT of t16"):
        pretrained(SIZES["t16"], tmp_path / "other.safetensors")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        pretrained(E16, tmp_path / "none.safetensors")


def test_the_first_blocks_never_learn_and_the_later_ones_when_tuned() -> None:
    network = MedIQA(E16)

    freeze(network, tuned=False)
    assert not any(one.requires_grad for one in network.trunk.parameters())

    freeze(network, tuned=True)
    learning = {name.split(".")[1] for name, one in network.trunk.model.named_parameters() if one.requires_grad}
    assert learning == {"2", "3", "4"}
