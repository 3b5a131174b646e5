"""From runs to a checkpoint: what is chosen, what is told, what may be claimed, and what a node then loads."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.samples import WORDS, disc, sample
from support.sizes import TINY, registered
from typer.testing import CliRunner

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.prompt import prompt_of
from mediqa_node.model.checkpoint import load_whole
from mediqa_node.model.lock import CARD_FILE, LOCK_FILE
from mediqa_node.model.prompts import FOUR_ONE_HOTS
from training.cli import app
from training.data.batches import Batches, Target
from training.data.store import Store
from training.data.views import prepare
from training.experiments.ablation import few
from training.fit.checkpoint import regressors_and_fusion
from training.fit.initial import initialise
from training.fit.recipe import STAGE2, read_recipe
from training.fit.runs import RUN, predictions_of, read_run, trained_network

PRESET = """
tiny: {size: tiny, batch: 4, steps: 2, warmup: 0, severities: true, precision: bf16}
"""
GATES = {
    "sweeps": [
        {"modality": "CT", "region": "", "factor": "dose", "method": "shipped", "images": 9, "mean": 0.99},
        {"modality": "CT", "region": "", "factor": "views", "method": "shipped", "images": 9, "mean": 0.42},
    ],
    "tasks": [
        {
            "task": ["CT", "quality"],
            "method": "shipped",
            "agreement": {"srcc": {"value": 0.91}, "n": 40, "groups": 8},
        }
    ],
}


def gates_of(weights_sha256: str) -> dict[str, list[dict[str, object]]]:
    return {part: [{**one, "weights_sha256": weights_sha256} for one in ones] for part, ones in GATES.items()}


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.output, done.exception


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """A small network, and no pictures of curves, which take as long as a run."""
    with registered(TINY), pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.fit.runs.draw_curve", lambda _: None)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sources, four copies each, whose noise is told by quality, mAs and the severity of `dose` alike."""
    made = Store(tmp_path_factory.mktemp("store"))
    for base in range(4):
        made.add(
            [
                (
                    sample(
                        f"{base}-{copy}",
                        base=f"b{base}",
                        labels={"quality": 1.0 - 0.2 * copy, "mas": 200.0 / (1 + copy)},
                        severities={"dose": 0.25 * copy, "views": 0.1 * (copy % 2)},
                        factor="dose" if copy else "clean",
                    ),
                    disc(64, noise=5.0 + 40.0 * copy, seed=10 * base + copy),
                )
                for copy in range(4)
            ]
        )
    return made.folder


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages, and both without one source."""
    out = tmp_path_factory.mktemp("runs")
    (out / "tiny.yaml").write_text(PRESET)
    preset = ("--config", out / "tiny.yaml", "--preset", "tiny")
    for name, leave_out in (("all", ()), ("fold", ("--leave-out", "b3"))):
        for call in (
            ("pretrain", store, "--out", out / f"{name}-stage1", *preset, *leave_out),
            ("finetune", store, "--begin", out / f"{name}-stage1", "--out", out / name, *preset, *leave_out),
        ):
            code, _, error = run(*call)
            assert (code, error) == (0, None)
    return out


@pytest.fixture(scope="module")
def checkpoint(store: Path, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoint")
    code, said, error = run("card", runs / "all", "--data", store, "--fold", runs / "fold", "--out", out)
    assert (code, error) == (0, None)
    assert "CT quality: C " in said
    assert f"mediqa-train claim {out}" in said
    return out


def test_a_fold_has_not_seen_its_sources_in_either_stage(runs):
    assert read_run(runs / "fold-stage1").sources == {"CT": ("b0", "b1", "b2")}
    assert read_run(runs / "fold").seen == {"b0", "b1", "b2"}


def test_severities_are_learnt_and_not_told(runs, checkpoint):
    learnt = [target.label for target in read_run(runs / "all").targets]
    network, card, regressors = load_whole("default", checkpoint / LOCK_FILE)
    of_run, _ = trained_network(runs / "all")
    images, prompts = torch.rand(2, 3, TINY.image_px, TINY.image_px), torch.zeros(2, 64)
    with torch.inference_mode():
        shipped, whole = network(images, prompts), of_run(images, prompts)

    assert learnt == ["mas", "dose", "views"]
    assert [one.name for one in card.parameters] == ["mas"]
    assert shipped.parameters[:, 0] == pytest.approx(whole.parameters[:, 0], abs=1e-2)  # kept as float16
    assert set(regressors["CT"]) == {"quality", "mas"}
    assert card.trained
    assert card.claims == {}


def test_a_share_without_a_network_that_has_not_seen_a_source_is_refused(store, runs, tmp_path):
    _, _, error = run("card", runs / "all", "--data", store, "--out", tmp_path)

    assert isinstance(error, ConfigurationError)
    assert "give `--fold` runs" in str(error)


def test_another_seed_takes_regressors_and_shares_over(store, runs, checkpoint, tmp_path):
    preset = ("--config", runs / "tiny.yaml", "--preset", "tiny", "--seed", 1)
    assert run("finetune", store, "--begin", runs / "all-stage1", "--out", tmp_path / "seed1", *preset)[0] == 0
    code, said, error = run("card", tmp_path / "seed1", "--beside", checkpoint, "--out", tmp_path / "other")

    _, card, regressors = load_whole("default", tmp_path / "other" / LOCK_FILE)
    _, first, of_first = load_whole("default", checkpoint / LOCK_FILE)
    assert (code, error) == (0, None)
    assert "regressors and shares of default" in said
    assert card.fusion == first.fusion
    assert card.weights_sha256 != first.weights_sha256
    assert np.array_equal(regressors["CT"]["quality"].support, of_first["CT"]["quality"].support)


def test_regressors_of_other_units_are_not_taken_over(runs, checkpoint, tmp_path):
    other = shutil.copytree(runs / "fold", tmp_path / "fold")
    told = json.loads((other / RUN).read_text())
    told["targets"][0]["mean"] += 1.0
    (other / RUN).write_text(json.dumps(told))

    _, _, error = run("card", other, "--beside", checkpoint, "--out", tmp_path / "other")

    assert isinstance(error, ConfigurationError)
    assert "fitted in other units" in str(error)


def test_what_was_measured_decides_what_the_card_claims(checkpoint, tmp_path):
    before = (checkpoint / "weights.safetensors").read_bytes()
    gates = gates_of(hashlib.sha256(before).hexdigest())
    (tmp_path / "gates.json").write_text(json.dumps(gates))

    code, said, error = run("claim", checkpoint, "--gates", tmp_path / "gates.json")

    _, card, _ = load_whole("default", checkpoint / LOCK_FILE)
    assert (code, error) == (0, None)
    assert "severity of dose, trained on simulated degradations of images of 4 sources" in card.claims["CT"]
    assert "NOT DETECTED: views" in card.claims["CT"]
    assert card.claims["CT"] in said
    assert card.metrics["gates"] == gates
    assert card.metrics["made_by"]["seed"] == 0
    assert (checkpoint / "weights.safetensors").read_bytes() == before


def test_nan_in_older_gates_becomes_null_in_the_card(checkpoint, tmp_path):
    gates = gates_of(hashlib.sha256((checkpoint / "weights.safetensors").read_bytes()).hexdigest())
    gates["tasks"][0]["worst"] = [float("nan"), ""]
    (tmp_path / "gates.json").write_text(json.dumps(gates))

    assert run("claim", checkpoint, "--gates", tmp_path / "gates.json")[0] == 0

    assert "NaN" not in (checkpoint / CARD_FILE).read_text()
    assert load_whole("default", checkpoint / LOCK_FILE)[1].metrics["gates"]["tasks"][0]["worst"] == [None, ""]


@pytest.mark.parametrize("known", [0, 2, 4], ids=["no", "some", "every"])
def test_mr_with_a_quality_needs_no_field_strength_of_every_sample(tmp_path, monkeypatch, known):
    made = Store(tmp_path / "store")
    for base in range(4):
        labels = [{"quality": 1 - 0.3 * n, **({"tesla": 3.0 / (1 + n)} if base < known else {})} for n in range(3)]
        made.add(
            [
                (sample(f"{base}-{n}", base=f"b{base}", modality="MR", labels=each), disc(64, noise=9 + 40 * n, seed=n))
                for n, each in enumerate(labels)
            ]
        )
    target = Target(label="tesla", modality="MR", log=True, mean=0.0, sd=1.0)
    spec = read_recipe(STAGE2, "default").spec
    monkeypatch.setattr(
        "training.fit.checkpoint._of_folds", lambda data, *_: np.linspace(0, 1, len(data)) if len(data) else None
    )

    regressors, _, _ = regressors_and_fusion(prepare(made, spec), [target], [], advance=lambda *_: None)

    assert set(regressors["MR"]) == ({"quality", "tesla"} if known == 4 else {"quality"})


def test_nothing_is_claimed_by_the_gates_of_other_weights(checkpoint, tmp_path):
    (tmp_path / "gates.json").write_text(json.dumps(gates_of("b" * 64)))

    _, _, error = run("claim", checkpoint, "--gates", tmp_path / "gates.json")

    assert isinstance(error, ConfigurationError)
    assert "these gates are of other weights than default" in str(error)


@pytest.mark.parametrize(
    ("labels", "told"), [({"quality": 0.5}, []), ({"quality": 0.5, "mas": 50.0}, ["mas"])], ids=["opinions", "both"]
)
def test_a_run_becomes_a_checkpoint_whatever_its_head_has_learnt(runs, tmp_path, labels, told):
    made = Store(tmp_path / "store")
    for n in range(6):
        mine = {name: value * (1 + n / 10) for name, value in labels.items()}
        made.add([(sample(f"{n}", labels=mine), disc(64, noise=5.0 + n, seed=n))])
    preset = ("--config", runs / "tiny.yaml", "--preset", "tiny")
    assert run("finetune", made.folder, "--out", tmp_path / "run", *preset)[0] == 0

    code, _, error = run("card", tmp_path / "run", "--plain", "--out", tmp_path / "checkpoint")

    _, card, _ = load_whole("default", tmp_path / "checkpoint" / LOCK_FILE)
    assert (code, error) == (0, None)
    assert [one.name for one in card.parameters] == told


def test_a_network_that_was_never_told_prompts_is_told_none_in_the_node(store, runs, tmp_path):
    (tmp_path / "mine.yaml").write_text("mine: {size: tiny, batch: 4, steps: 1, warmup: 0, prompts: false}\n")
    preset = ("--config", tmp_path / "mine.yaml", "--preset", "mine")
    assert run("finetune", store, "--out", tmp_path / "run", *preset)[0] == 0
    assert run("card", tmp_path / "run", "--plain", "--out", tmp_path / "checkpoint")[0] == 0

    _, card, _ = load_whole("default", tmp_path / "checkpoint" / LOCK_FILE)

    assert card.prompt.encode(prompt_of(WORDS["CT"])).tolist() == [0.0] * 64


def test_what_begins_from_stage_2_keeps_what_it_has_learnt_of_quality(store, runs, tmp_path):
    preset = ("--config", runs / "tiny.yaml", "--preset", "tiny")
    assert run("finetune", store, "--begin", runs / "all", "--out", tmp_path / "run", "--steps", 1, *preset)[0] == 0

    before, after = (trained_network(at)[0].fc_score[3].weight for at in (runs / "all", tmp_path / "run"))

    assert torch.equal(before, after) is False
    assert after.detach().numpy() == pytest.approx(before.detach().numpy(), abs=2e-3)  # a step, not a new draw


def test_a_run_is_not_gone_on_with_on_other_labels(runs, tmp_path):
    preset = ("--config", runs / "tiny.yaml", "--preset", "tiny")
    for quality, wanted in ((0.5, 0), (0.6, 1)):
        made = Store(tmp_path / f"store{quality}")
        made.add([(sample(f"{n}", labels={"quality": quality + n / 10}), disc(64, noise=9, seed=n)) for n in range(3)])
        code, _, error = run("finetune", made.folder, "--out", tmp_path / "run", *preset)
        assert code == wanted
    assert isinstance(error, ConfigurationError)
    assert "other settings" in str(error)


def test_gates_that_are_none_are_refused(checkpoint, tmp_path):
    (tmp_path / "gates.json").write_text("none")

    _, _, error = run("claim", checkpoint, "--gates", tmp_path / "gates.json")

    assert isinstance(error, ConfigurationError)
    assert "is not a gates.json of `mediqa-train evaluate`" in str(error)


# ── on few labels ────────────────────────────────────────────────────────────


def test_an_ablation_does_not_begin_from_a_stage_that_knows_severities(store, runs, tmp_path):
    _, _, error = run("ablation", store, "--stage1", runs / "all-stage1", "--out", tmp_path)

    assert isinstance(error, ConfigurationError)
    assert "pretrain with `--preset physical`" in str(error)


def test_few_labels_are_as_many_of_each_modality():
    samples = [
        sample(f"{modality} {base} {copy}", base=f"{modality} {base}", modality=modality, split=split)
        for modality, bases in (("CT", 9), ("MR", 9), ("OP", 1))
        for split, first in (("train", 0), ("test", 100))
        for base in range(first, first + bases)
        for copy in range(4)
    ]
    data = SimpleNamespace(
        samples=samples, subset=lambda keep: SimpleNamespace(samples=[one for one in samples if keep(one)])
    )

    drawn = {n: [one for one in few(data, n, seed=0).samples if one.split == "train"] for n in (6, 10)}

    assert Counter(one.modality for one in drawn[6]) == {"CT": 6, "MR": 6, "OP": 4}, "all that there are of OP"
    assert len({one.base for one in drawn[6]}) == 2 + 2 + 1, "whole images first"
    assert {one.key for one in drawn[6]} < {one.key for one in drawn[10]}


def test_what_a_run_told_is_asked_once_for_the_same_weights_and_samples(store, runs, tmp_path):
    folder = shutil.copytree(runs / "all", tmp_path / "run")
    network, run_ = trained_network(folder)
    data = prepare(Store(store), run_.recipe.spec)
    first = predictions_of(folder, network, data)

    def refuses(*_: object, **__: object) -> None:
        raise AssertionError("asked again")

    network.forward = refuses
    assert np.array_equal(predictions_of(folder, network, data)["score"], first["score"])
    with pytest.raises(AssertionError, match="asked again"):
        predictions_of(folder, network, data.subset(lambda sample: sample.key != "0-0"))


# ── where training starts ────────────────────────────────────────────────────


def test_every_layer_starts_with_outputs_of_mean_0_and_deviation_1_over_real_images(store, runs):
    network, run_ = trained_network(runs / "all")
    torch.manual_seed(0)
    for layer in network.vit.patch_embed.layers[::2]:
        layer.reset_parameters()
    data = prepare(Store(store), read_recipe(STAGE2, "tiny", runs / "tiny.yaml").spec)
    batch = Batches(data, FOUR_ONE_HOTS, run_.targets, batch=8, seed=0).at(0)
    seen: dict[str, torch.Tensor] = {}
    layers = {"stem": network.vit.patch_embed.layers[0], "conv1": network.conv1, "score": network.fc_score[0]}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))

    initialise(network, [batch])
    with torch.inference_mode():
        network(batch.images, batch.prompts)

    for name, axis in (("stem", 1), ("conv1", 1), ("score", -1)):
        by_channel = seen[name].movedim(axis, 0).flatten(1)
        assert by_channel.mean(dim=1).numpy() == pytest.approx(0.0, abs=1e-3)
        assert np.median(by_channel.std(dim=1).numpy()) == pytest.approx(1.0, abs=1e-3)


def test_what_stage_1_has_trained_is_left_as_it_is(store, runs):
    network, run_ = trained_network(runs / "all")
    data = prepare(Store(store), run_.recipe.spec)
    before = {name: value.clone() for name, value in network.vit.state_dict().items()}

    initialise(network, [Batches(data, FOUR_ONE_HOTS, run_.targets, batch=4, seed=0).at(0)], encoder=False)

    assert all(torch.equal(value, before[name]) for name, value in network.vit.state_dict().items())
