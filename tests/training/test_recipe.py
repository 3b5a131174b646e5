"""A checkpoint from nothing: what a recipe reads, what it costs, and the whole of it once."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.checkpoint import load_whole
from mediqa_node.model.lock import LOCK_FILE
from training.cli import app
from training.experiments import recipe
from training.experiments.methods import Advance
from training.experiments.recipe import COSTS, RECIPE, Order, Sections, measured
from training.fit.recipe import SIMULATE, STAGE1, STAGE2, read_preset, read_recipe
from training.simulate.build import Plan

DATA = Path(__file__).parents[1] / "data"
COMMAND = ("recipe", "small", "--collection", str(DATA))


@pytest.mark.parametrize("name", ["default", "own", "small"])
def test_every_recipe_names_sections_that_there_are(name):
    sections = read_preset(Sections, RECIPE, name)

    plan, sweep = (read_preset(Plan, SIMULATE, one) for one in (sections.simulate, sections.sweep))
    assert (plan.sweep, sweep.sweep) == (False, True)
    assert (plan.held_out, plan.final) == (sweep.held_out, sweep.final)
    stages = [read_recipe(STAGE1, sections.stage1), *(read_recipe(STAGE2, one) for one in sections.stage2)]
    assert len({one.spec.fingerprint() for one in stages}) == 1, "all stages read the same views"


def test_a_section_without_seeds_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "mine: {simulate: small, sweep: small-sweep, stage1: a, stage2: [b], seeds: []}"
    )

    with pytest.raises(ConfigurationError, match="seeds"):
        read_preset(Sections, RECIPE, "mine", tmp_path / "mine.yaml")


def small(out: Path, **changes: object) -> Order:
    sections = read_preset(Sections, RECIPE, "small").model_copy(update=changes)
    return Order(recipe="small", collection=DATA, manifest=None, out=out, sections=sections)


def test_costs_add_up_over_starts(tmp_path):
    order = small(tmp_path)
    for _ in range(2):
        with measured(order, "a step"):
            time.sleep(0.1)

    assert json.loads((tmp_path / COSTS).read_text())["a step"]["wall_s"] == pytest.approx(0.2, abs=0.1)


def two_steps(_order: Order, _seed: int, advance: Advance, *, refit: bool) -> None:
    for _ in range(2):
        advance(0, 0, "")


def test_a_seed_ends_with_the_process_that_wanted_it(tmp_path):
    order = small(tmp_path)
    child = os.fork()
    if child == 0:
        for parent in (os.getppid(), os.getppid() + 1):  # the second is not its parent
            recipe._train_while_wanted(two_steps, order, 0, parent, refit=False)
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_a_seed_stops_when_another_has_failed(tmp_path, monkeypatch):
    order = small(tmp_path)
    stop, steps = threading.Event(), []

    def train_seed(_order, _seed, advance, refit):
        for step in range(3):
            advance(step, 3, "")
            steps.append(step)
            stop.set()

    monkeypatch.setattr(recipe, "_stops", [stop])
    recipe._train_while_wanted(train_seed, order, 0, os.getppid(), refit=False)

    assert steps == [0]


def second_fails(_order: Order, seed: int, advance: Advance, *, refit: bool) -> None:
    """Train seed 1, which fails, or another, which would take far longer than a test."""
    if seed == 1:
        raise ConfigurationError("seed 1 has failed")
    for step in range(10_000):
        advance(step, 10_000, "")
        time.sleep(0.1)


@pytest.mark.acceptance
def test_a_seed_that_fails_stops_the_others(tmp_path):
    order = small(tmp_path, seeds=(0, 1), refit=False)

    with pytest.raises(ConfigurationError, match="seed 1 has failed"):
        recipe.train_seeds(order, lambda *_: None, train=second_fails)


@pytest.mark.acceptance
def test_a_killed_recipe_is_resumed_and_ends_in_checkpoints_with_gates(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-m", "training", *COMMAND, "--out", str(out), "--processes", "1"])
    runs = out / "runs" / "s0-stage1" / "curve.csv"
    for _ in range(6000):
        if runs.exists():
            break
        time.sleep(0.1)
    process.kill()  # the recipe alone: what it started has to end by itself
    process.wait()

    found = CliRunner().invoke(app, [*COMMAND, "--out", str(out), "--processes", "1"])

    assert found.exit_code == 0, found.output
    _, card, regressors = load_whole("small-s0-before", out / "checkpoints" / "s0" / LOCK_FILE)
    assert set(regressors) == set(card.fusion) == {"CT"}
    assert card.fusion["CT"]["quality"].network == 0.75
    assert card.pretrained is not None
    assert card.pretrained.trained_on == "ImageNet"
    assert card.metrics["choices"] is not None
    assert set(card.metrics["costs"]) >= {"simulate", "sweep", "choices", "train", "range"}
    assert (out / "gates" / "gates.json").exists()
    _, refit, _ = load_whole("small", out / "refit" / "checkpoints" / "s0" / LOCK_FILE)
    assert refit.metrics["fit_before"]["weights_sha256"] == card.weights_sha256 != refit.weights_sha256
    assert {one for each in card.metrics["made_by"]["sources"].values() for one in each} < {
        one for each in refit.metrics["made_by"]["sources"].values() for one in each
    }
    assert refit.claims.keys() == card.claims.keys() != set()
    assert all("These figures are of the fit before" in claim for claim in refit.claims.values())
