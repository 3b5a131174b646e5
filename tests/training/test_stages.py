"""Both stages from the command line: presets, going on, and what is refused before anything is trained."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.samples import ct_store, disc, sample
from support.sizes import TINY, registered
from typer.testing import CliRunner

from mediqa_node.domain.errors import ConfigurationError, MediqaError
from mediqa_node.model.prompts import FOUR_ONE_HOTS
from training.cli import app
from training.data.manifest import Row, write_manifest
from training.data.store import INDEX, Store
from training.data.views import prepare
from training.evaluate.predictions import predict
from training.fit.loop import CURVE, STATE, read_curve
from training.fit.losses import of_samples
from training.fit.recipe import STAGE1, STAGE2, read_recipe
from training.fit.runs import RUN, read_run, trained_network

PRESETS = """
tiny: {size: tiny, batch: 4, steps: 3, warmup: 0, save_every: 2}
crops: {size: tiny, batch: 4, steps: 2, native_crops: 1}
"""


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with registered(TINY):
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return ct_store(tmp_path_factory.mktemp("store"), bases=3, copies=4).folder


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("config") / "stages.yaml"
    file.write_text(PRESETS)
    return file


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return done.exit_code, done.output, done.exception


@pytest.fixture(scope="module")
def pretrained(store, config, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "stage1"
    code, said, error = run("pretrain", store, "--out", out, "--config", config, "--preset", "tiny")
    assert (code, error) == (0, None)
    assert "3 steps on 12 samples of 3 patients, 3 sources" in said
    assert f"→ mediqa-train finetune {store} --begin {out}" in said
    return out


@pytest.fixture
def no_picture(monkeypatch) -> None:
    """No curve.png, which takes as long as the run; stage 1 draws one."""
    monkeypatch.setattr("training.fit.runs.draw_curve", lambda _: None)


def test_stage_1_leaves_what_made_it(pretrained):
    run_ = read_run(pretrained)

    assert (run_.stage, run_.seed, [one.label for one in run_.targets]) == (1, 0, ["mas"])
    assert len(read_curve(pretrained)) == 3
    assert {RUN, STATE, CURVE, "curve.png", "settings.json"} <= {path.name for path in pretrained.iterdir()}


@pytest.mark.usefixtures("no_picture")
def test_stage_2_begins_where_stage_1_ended_and_a_second_call_changes_nothing(store, config, pretrained, tmp_path):
    call = ("finetune", store, "--out", tmp_path, "--config", config, "--preset", "tiny", "--begin", pretrained)
    code, said, _ = run(*call)
    state, curve = (tmp_path / STATE).read_bytes(), (tmp_path / CURVE).read_bytes()

    assert code == 0
    assert f"→ mediqa-train card {tmp_path} --data {store}" in said
    assert read_run(tmp_path).began_from is not None
    assert run(*call)[0] == 0
    assert ((tmp_path / STATE).read_bytes(), (tmp_path / CURVE).read_bytes()) == (state, curve)

    _, _, error = run(*call, "--seed", 1)
    assert isinstance(error, ConfigurationError)
    assert "other settings" in str(error)


@pytest.mark.usefixtures("no_picture")
def test_sources_that_are_left_out_are_not_trained_on(store, config, tmp_path):
    call = ("finetune", store, "--out", tmp_path, "--config", config, "--preset", "tiny", "--leave-out", "b1")
    assert run(*call, "--steps", 1)[0] == 0

    assert read_run(tmp_path).seen == {"b0", "b2"}
    assert read_run(tmp_path).recipe.steps == 1, "the steps that ran, not the preset's"
    assert run(*call, "--steps", 1)[0] == 0, "nothing to do is no other run"


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_source_to_leave_out_that_is_not_there_is_refused(store, config, tmp_path, stage):
    preset = ("--config", config, "--preset", "tiny")
    _, _, error = run(stage, store, "--out", tmp_path / "run", *preset, "--leave-out", "nowhere", "--leave-out", "b1")

    assert isinstance(error, ConfigurationError)
    assert "--leave-out: no source nowhere; the data have b0, b1, b2. Give one of these" in str(error)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_picture")
def test_after_an_export_the_next_command_names_the_samples_that_were_read(config, tmp_path):
    (folder := tmp_path / "export").mkdir()
    rows = []
    for n in range(20):
        np.savez(path := folder / f"{n}.npz", slices=disc(64, noise=5.0 + n, seed=n))
        rows.append(
            Row(
                key=f"s{n}", patient=f"p{n}", source="here", dimension="2D", modality="MR", payload_kind="npz",
                paths=(path,), mos=n / 20,
            )
        )  # fmt: skip
    write_manifest(rows, folder / "manifest.csv")
    preset = ("--config", config, "--preset", "tiny")

    code, said, _ = run("finetune", folder, "--out", tmp_path / "run", *preset, "--steps", 1, "--resplit", 1)

    samples = tmp_path / "export-stage2-resplit1-samples"
    assert code == 0
    assert f"→ mediqa-train card {tmp_path / 'run'} --data {samples} --fold FOLD" in said
    assert (samples / INDEX).exists()


def test_stage_2_of_other_views_than_stage_1_is_refused(store, config, pretrained, tmp_path):
    _, _, error = run(
        "finetune", store, "--out", tmp_path / "r", "--config", config, "--preset", "crops", "--begin", pretrained
    )

    assert isinstance(error, ConfigurationError)
    assert "trained tiny on other views; give the same preset" in str(error)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_help_says_what_a_stage_is_for(stage):
    code, said, _ = run(stage, "--help")

    assert code == 0
    assert {"pretrain": "tube charge (mAs)", "finetune": "learn quality"}[stage] in said
    assert "--preset" in said


@pytest.mark.parametrize(
    ("labels", "stage", "said"),
    [
        ({"quality": 0.5}, "pretrain", "no sample has a tube charge, a field strength or a blur that differs"),
        ({"mas": 50.0}, "pretrain", "no sample has a tube charge, a field strength or a blur that differs"),
        ({"mas": 50.0}, "finetune", "no training sample has a quality"),
    ],
)
def test_a_store_that_cannot_teach_a_stage_is_refused(config, tmp_path, labels, stage, said):
    made = Store(tmp_path / "store")
    made.add([(sample(f"{i}", labels=labels), disc(64, noise=5, seed=i)) for i in range(2)])

    _, _, error = run(stage, made.folder, "--out", tmp_path / "run", "--config", config, "--preset", "tiny")

    assert isinstance(error, MediqaError)
    assert said in str(error)


def test_what_is_neither_store_nor_manifest_is_refused(config, tmp_path):
    _, _, error = run("pretrain", tmp_path, "--out", tmp_path / "r", "--config", config, "--preset", "tiny")

    assert isinstance(error, ConfigurationError)
    assert "neither a store (samples.jsonl) nor a manifest" in str(error)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="holds no finished run"):
        trained_network(tmp_path)
    (tmp_path / RUN).write_text(json.dumps({"recipe": {"size": "n16"}, "targets": []}))
    with pytest.raises(ConfigurationError, match="holds no finished run"):
        read_run(tmp_path)


@pytest.mark.acceptance
def test_two_processes_of_torchrun_pretrain_one_run(store, config, tmp_path):
    """Both heads and every branch take part: nothing waits for a gradient that never comes."""
    presets = tmp_path / "two.yaml"
    presets.write_text("two: {size: n16, batch: 8, steps: 3, warmup: 0, augment: false, unknown: 0}\n")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for stage in ("pretrain", "finetune"):
        call = [stage, store, "--out", tmp_path / stage, "--config", presets, "--preset", "two"]
        done = subprocess.run(
            [*torchrun, "-m", "training", *map(str, call)],
            capture_output=True, text=True, timeout=600, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

        assert done.returncode == 0, done.stderr[-2000:]
        assert [row["step"] for row in read_curve(tmp_path / stage)] == [0, 1, 2]
        assert done.stdout.count("3 steps on 12 samples") == 1


# ── presets ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [STAGE1, STAGE2])
def test_the_presets_that_are_shipped_are_those_of_the_paper_and_the_default(name):
    paper, default = read_recipe(name, "paper"), read_recipe(name, "default")

    settings = paper.settings(samples=100, seed=0)
    assert (paper.batch, settings.optimizer, settings.learning_rate, settings.steps) == (1, "adam", 1e-5, 5000)
    assert (paper.spec.slices, paper.spec.native_crops, settings.schedule) == (7, 0, "constant")
    assert default.size == "e16"
    assert default.on_tokens
    assert not paper.on_tokens


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine: {sise: n16}", "preset mine: sise: Extra inputs are not permitted"),
        ("mine: {batch: 0}", "preset mine: batch: Input should be greater than or equal to 1"),
        ("mine: {optimizer: sgd}", "preset mine: optimizer: String should match"),
        ("mine: {schedule: step}", "preset mine: schedule: String should match"),
        ("mine: {slices_at_once: 0}", "preset mine: slices_at_once"),
        ("mine: {size: n17}", "size 'n17'; known: n16, e16, t16"),
        ("other: {}", "no preset 'mine'; it has: other"),
        ("", "not readable as YAML: no section for each preset"),
        ("[mine]", "not readable as YAML: no section for each preset"),
        ("mine: {", "not readable as YAML"),
    ],
)
def test_what_is_wrong_with_a_preset_is_named(tmp_path, text, said):
    (tmp_path / "mine.yaml").write_text(text)

    with pytest.raises(ConfigurationError) as refused:
        read_recipe(STAGE2, "mine", tmp_path / "mine.yaml")

    assert said in str(refused.value)
    assert "mine" in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none\.yaml"):
        read_recipe(STAGE1, "mine", tmp_path / "none.yaml")


# ── what is minimised and said ───────────────────────────────────────────────


def test_slices_of_a_sample_count_by_the_softmax_of_their_logits():
    scores, logits = torch.tensor([0.2, 0.8, 0.5]), torch.tensor([0.0, float(np.log(3.0)), 7.0])

    said = of_samples(scores, logits, torch.tensor([0, 0, 1]), 2)

    assert said.tolist() == pytest.approx([0.25 * 0.2 + 0.75 * 0.8, 0.5])


def test_what_a_network_says_of_a_sample_does_not_depend_on_its_company(store, pretrained):
    network, run_ = trained_network(pretrained)
    data = prepare(Store(store), run_.recipe.spec)

    together = predict(network, data, FOUR_ONE_HOTS)
    alone = predict(network, data.subset(lambda one: one.key == "1-2"), FOUR_ONE_HOTS)

    assert together.parameters.shape == (12, 1)
    assert alone.score[0] == pytest.approx(together.score[6], abs=1e-6)
    assert [float(one.sum()) for one in together.weights] == pytest.approx([1.0] * 12)
