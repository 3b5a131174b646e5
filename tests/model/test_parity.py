"""The network gives the scores of the public code, weight for weight; one that differs in a detail does not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model import parity
from mediqa_node.model.network import REBUILT, UNUSED, MedIQA
from mediqa_node.model.parity import TOLERANCES, Case, read_cases, recipe_image, recipe_network, recipe_value, run_cases
from mediqa_node.model.sizes import SIZES

PARITY = Path(__file__).parents[1] / "parity"
VECTORS = json.loads((PARITY / "parity_public.json").read_text())
CASES = read_cases(PARITY / "parity_public.json")
BOTH = [torch.float64, torch.float32]


def layout(name: str) -> dict[str, dict]:
    return json.loads((PARITY / f"{name}_state_dict_layout.json").read_text())["entries"]


def test_recipe_fills_the_published_values():
    entries = layout("mediqa")
    for name, check in VECTORS["param_checks_salt0_mediqa"].items():
        value = recipe_value(name, tuple(entries[name]["shape"]), check["index"], 0)

        assert value.ravel()[:3].tolist() == check["first3"]
        assert float(value.sum(dtype="f8")) == pytest.approx(check["sum"], abs=1e-6)
    for k, check in VECTORS["image_checks"].items():
        assert recipe_image(int(k)).ravel()[:4].tolist() == check["first4"]
        assert float(recipe_image(int(k)).sum(dtype="f8")) == check["sum"]


@pytest.mark.parametrize("kind", ["mediqa", "maniqa"])
def test_every_parameter_has_the_place_that_the_release_gives_it(kind):
    entries = {name: entry for name, entry in layout(kind).items() if entry["kind"] == "parameter"}

    names = parity.released_names(prompted=kind == "mediqa")

    assert {name: place for place, name in enumerate(names)} == {n: e["param_index"] for n, e in entries.items()}


def test_every_released_name_is_loaded_or_known_to_be_dead():
    entries = layout("mediqa")
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


def test_one_score_is_that_of_the_public_code():
    """In float64, the more sensitive arithmetic: it shows an eps that moves a score in float32 by 2e-7."""
    [outcome] = run_cases(CASES[1:2], dtypes=[torch.float64])

    assert outcome.passed, outcome


def test_a_case_is_scored_in_both_arithmetics_and_judged_by_the_tolerance_of_each():
    def small(_: Case) -> MedIQA:
        torch.manual_seed(0)
        return MedIQA(SIZES["n16"]).eval()

    scored = {outcome.dtype: outcome.got for outcome in run_cases(CASES[1:2], build=small)}
    exact, rounded = scored[torch.float64], scored[torch.float32]
    assert 0 < abs(rounded - exact) < TOLERANCES[torch.float32]

    expecting = [replace(CASES[1], expected=dict.fromkeys(BOTH, exact + off)) for off in (0.0, 1e-7, 1e-4)]
    passed = [[outcome.passed for outcome in run_cases([case], build=small)] for case in expecting]
    assert passed == [[True, True], [False, True], [False, False]]


@pytest.mark.acceptance
def test_every_case_of_the_public_file_passes():
    outcomes = list(run_cases(CASES))

    assert len(outcomes) == 2 * len(CASES) == 12
    assert [outcome for outcome in outcomes if not outcome.passed] == []


def tab_in_place(case: Case) -> MedIQA:
    network = recipe_network(case)
    for stage in (*network.tablock1, *network.tablock2):
        stage.form = "transposed"
    return network


def no_shift_mask(case: Case) -> MedIQA:
    network = recipe_network(case)
    for stage in (network.swintransformer1, network.swintransformer2):
        for layer in stage.layers:
            layer.blocks[1].attn_mask = None
    return network


def other_taps(case: Case) -> MedIQA:
    network = recipe_network(case)
    network.size = replace(network.size, taps=(5, 6, 7, 8))
    return network


def other_eps(case: Case) -> MedIQA:
    network = recipe_network(case)
    for name, module in network.vit.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-6, name
            module.eps = 1e-5
    return network


def prompt_once_a_stage(case: Case) -> MedIQA:
    network = recipe_network(case)
    network.MLP1.forward, network.MLP2.forward = (
        lambda prompts, fc=fc: torch.nn.functional.linear(prompts, fc.weight, fc.bias) / 2
        for fc in (network.MLP1, network.MLP2)
    )
    return network


@pytest.mark.acceptance
@pytest.mark.parametrize(
    ("mutant", "dtype"),
    [
        (tab_in_place, torch.float32),
        (no_shift_mask, torch.float32),
        (other_taps, torch.float32),
        (prompt_once_a_stage, torch.float32),
        (other_eps, torch.float64),
    ],
)
def test_a_network_that_differs_in_one_detail_fails(mutant: Callable[[Case], MedIQA], dtype: torch.dtype):
    [outcome] = run_cases(CASES[1:2], dtypes=[dtype], build=mutant)

    assert not outcome.passed, outcome


@pytest.mark.acceptance
def test_float64_features_agree_stage_by_stage():
    network = recipe_network(CASES[1]).to(torch.float64)
    seen: dict[str, torch.Tensor] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    parity.score(network, CASES[1])

    for name in ("vit.blocks.6", "vit.blocks.9", "tablock1.0", "tablock1.1", "tablock2.1", "swintransformer2"):
        expected = VECTORS["public"]["stages_image0_prompt5_fp64"][name]
        assert float(seen[name].mean()) == pytest.approx(expected["mean"], abs=1e-9)
        assert float(seen[name].square().mean().sqrt()) == pytest.approx(expected["rms"], abs=1e-9)
        assert list(seen[name].shape) == expected["shape"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"public": {"salt": 0}}',
        '{"public": {"salt": 0, "mediqa": [{"image": 0}]}}',
        '{"a": {"salt": 0, "mediqa": [{"image": 0, "prompt_index": 64, "score_fp64": 1}]}}',
        '{"a": {"salt": 0, "mediqa": [{"image": 1e999, "prompt_index": 1, "score_fp64": 1}]}}',
        '{"a": {"salt": 1.5, "maniqa": [{"image": 1, "score_fp64": 1}]}}',
    ],
)
def test_a_file_without_cases_is_refused_in_one_line(tmp_path, content):
    (path := tmp_path / "parity.json").write_text(content)

    with pytest.raises(ConfigurationError, match="parity cases"):
        read_cases(path)
