"""The network gives the scores of the public code, weight for weight (spec: parity vectors of MedIQA and MANIQA)."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mediqa_node.model.network import REBUILT, UNUSED, MedIQA
from mediqa_node.model.seeded import mix, uniform
from mediqa_node.model.sizes import SIZES

PARITY = Path(__file__).parents[1] / "parity"
VECTORS = json.loads((PARITY / "parity_public.json").read_text())
CASES = VECTORS["public"]


def gain(name: str) -> float:
    if name == "vit.patch_embed.proj.weight":
        return 4.0
    if name.startswith("tablock"):
        return 0.75 if ".c_v." in name else 0.375
    return 0.25 if name in ("conv1.weight", "conv2.weight") else 1.0


def recipe_value(name: str, shape: list[int], index: int, salt: int) -> np.ndarray:
    """One parameter of the parity recipe, float32."""
    count = int(np.prod(shape))
    if name == "fc_score.3.bias":
        return np.full(shape, 2.0, dtype=np.float32)
    unit = uniform(index * 65537 + salt * 7919 + 1, count).astype(np.float64).reshape(shape)
    if name.endswith("relative_position_bias_table"):
        unit *= 0.5
    elif name in ("vit.cls_token", "vit.pos_embed"):
        unit *= 0.25
    elif name in ("MLP1.weight", "MLP2.weight"):
        pass
    elif len(shape) == 1:
        unit = 1 + 0.25 * unit if name.endswith(".weight") else 0.125 * unit
    else:
        unit *= gain(name) * np.sqrt(3 / np.prod(shape[1:]))
    return unit.astype(np.float32)


def recipe_image(k: int) -> np.ndarray:
    c, y, x = np.meshgrid(np.arange(3), np.arange(224), np.arange(224), indexing="ij")

    def tri(t: np.ndarray) -> np.ndarray:
        return np.abs((t % 64) - 32) / 32

    smooth = 0.5 * tri((k + 2) * x + 5 * y + 11 * c) + 0.5 * tri(3 * x + (2 * k + 3) * y + 7 * c * k)
    counter = ((c * 224 + y) * 224 + x).astype(np.uint32)
    noise = (mix(counter * np.uint32(0x9E3779B9) + np.uint32(1000003 * (k + 1))) >> np.uint32(20)) / 4096
    a = (k % 4) / 8
    return ((1 - a) * smooth + a * noise).astype(np.float32)


def recipe_state(layout_name: str) -> dict[str, torch.Tensor]:
    """Parameters that a score depends on; dead ones and buffers left out by name, never by mismatch."""
    entries = json.loads((PARITY / layout_name).read_text())["entries"]
    return {
        name: torch.from_numpy(recipe_value(name, entry["shape"], entry["param_index"], CASES["salt"]))
        for name, entry in entries.items()
        if entry["kind"] == "parameter" and not name.startswith(UNUSED)
    }


def build(layout_name: str, dtype: torch.dtype = torch.float32, scale: float = 0.8) -> MedIQA:
    network = MedIQA(replace(SIZES["b8"], scale=scale))
    missing, unexpected = network.load_state_dict(recipe_state(layout_name), strict=False)
    ours_only = {"slice_weight.weight", "slice_weight.bias"}
    prompts = {f"MLP{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    assert not unexpected
    assert set(missing) == (ours_only | prompts if "maniqa" in layout_name else ours_only)
    return network.to(dtype).eval()


@torch.inference_mode()
def score(network: MedIQA, image: int, prompt_index: int | None) -> float:
    dtype = network.conv1.weight.dtype
    images = torch.from_numpy(recipe_image(image))[None].to(dtype)
    prompts = None if prompt_index is None else torch.eye(64, dtype=dtype)[prompt_index][None]
    return float(network(images, prompts).score)


@pytest.fixture(scope="module")
def mediqa() -> MedIQA:
    return build("mediqa_state_dict_layout.json")


def test_recipe_fills_the_published_values():
    entries = json.loads((PARITY / "mediqa_state_dict_layout.json").read_text())["entries"]
    for name, check in VECTORS["param_checks_salt0_mediqa"].items():
        value = recipe_value(name, entries[name]["shape"], entries[name]["param_index"], 0)

        assert entries[name]["param_index"] == check["index"]
        assert value.ravel()[:3].tolist() == check["first3"]
        assert float(value.sum(dtype=np.float64)) == pytest.approx(check["sum"], abs=1e-6)
    for k, check in VECTORS["image_checks"].items():
        assert recipe_image(int(k)).ravel()[:4].tolist() == check["first4"]
        assert float(recipe_image(int(k)).sum(dtype=np.float64)) == check["sum"]


def test_every_released_name_is_loaded_or_known_to_be_dead():
    entries = json.loads((PARITY / "mediqa_state_dict_layout.json").read_text())["entries"]
    with torch.device("meta"):
        ours = {name: list(value.shape) for name, value in MedIQA(SIZES["b8"]).state_dict().items()}
    alive = {
        name: entry["shape"]
        for name, entry in entries.items()
        if not name.startswith(UNUSED) and name.rpartition(".")[2] not in REBUILT
    }

    assert alive == {name: shape for name, shape in ours.items() if not name.startswith("slice_weight.")}
    assert {name for name, entry in entries.items() if not entry["used_in_forward"]} == {
        name for name in entries if name.startswith(UNUSED)
    }


def test_float32_score_is_that_of_the_public_code(mediqa):
    case = CASES["mediqa"][1]

    assert score(mediqa, case["image"], case["prompt_index"]) == pytest.approx(case["score_fp64"], abs=5e-6)


@pytest.mark.acceptance
def test_float32_scores_of_all_mediqa_cases(mediqa):
    for case in CASES["mediqa"]:
        assert score(mediqa, case["image"], case["prompt_index"]) == pytest.approx(case["score_fp32"], abs=5e-6)


@pytest.mark.acceptance
def test_float64_scores_of_all_mediqa_cases():
    network = build("mediqa_state_dict_layout.json", torch.float64)
    for case in CASES["mediqa"]:
        assert score(network, case["image"], case["prompt_index"]) == pytest.approx(case["score_fp64"], abs=1e-9)


@pytest.mark.acceptance
@pytest.mark.parametrize("case", CASES["maniqa"], ids=lambda case: f"scale-{case['swin_scale']}")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-9)])
def test_without_prompts_it_is_maniqa(case, dtype, tolerance):
    network = build("maniqa_state_dict_layout.json", dtype, case["swin_scale"])

    assert score(network, case["image"], None) == pytest.approx(case["score_fp64"], abs=tolerance)


@pytest.mark.acceptance
def test_float64_features_agree_stage_by_stage():
    network = build("mediqa_state_dict_layout.json", torch.float64)
    seen: dict[str, torch.Tensor] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    score(network, 0, 5)

    for name in ("vit.blocks.6", "vit.blocks.9", "tablock1.0", "tablock1.1", "tablock2.1", "swintransformer2"):
        expected = CASES["stages_image0_prompt5_fp64"][name]
        assert float(seen[name].mean()) == pytest.approx(expected["mean"], abs=1e-9)
        assert float(seen[name].square().mean().sqrt()) == pytest.approx(expected["rms"], abs=1e-9)
        assert list(seen[name].shape) == expected["shape"]
