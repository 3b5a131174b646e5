"""Tables: every method on the same held-out samples, in the paper's layout, with what there is no number for."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.sizes import TINY, registered
from typer.testing import CliRunner

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.network import MedIQA
from mediqa_node.model.sizes import SIZES
from mediqa_node.reader_study.statistics import Interval
from training.cli import app
from training.data.store import Sample, Store
from training.data.tokens import tokens_of
from training.data.views import Prepared, prepare
from training.evaluate.metrics import agreement
from training.evaluate.results import Result
from training.experiments import paper_tables
from training.experiments.methods import AsNetworkOutput, Budget, Data, divided, predictions
from training.experiments.paper_tables import Table, Task, lines, table1, table2, tasks_of
from training.fit.recipe import STAGE2, Recipe, read_recipe

NOISE = (2.0, 6.0, 40.0, 120.0)


class Fast(Budget):
    """One step of four samples, without crops at native resolution."""

    def recipe(self, stage: str, *, prompts: bool = True) -> Recipe:
        return super().recipe(stage, prompts=prompts).model_copy(update={"batch": 4, "native_crops": 0})


class Tiny(Fast):
    """Also with a small network, where the rows are of the model alone."""

    def recipe(self, stage: str, *, prompts: bool = True) -> Recipe:
        return super().recipe(stage, prompts=prompts).model_copy(update={"size": TINY.name})


FAST = Fast(steps=1)
SPEC = FAST.recipe("downstream").spec


def filled(folder: Path, *, volumes: bool = False) -> Store:
    """Water discs in CT, four levels of noise each; four patients to learn from and three to be tried on.

    Labels are a logistic of the logarithm of the noise, which `plcc_logistic4` fits at once; a line takes it a second.
    """
    store = Store(folder)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    for patient in range(7):
        random = np.random.default_rng(patient)
        body = (x / random.uniform(0.6, 0.9)) ** 2 + (y / random.uniform(0.5, 0.8)) ** 2 < 1
        for level, noise in enumerate(NOISE):
            quality = 1 / (1 + (noise / 16) ** 2)
            shape = (3 if volumes else 1, 64, 64)
            slices = np.where(body, 40.0 + noise * random.normal(size=shape), -1000.0).astype(np.float32)
            sample = Sample(
                key=f"{patient}-{level}",
                base=f"b{patient}",
                patient=f"p{patient}",
                source=f"s{patient}",
                split="test" if patient >= 4 else "train",
                prompt={"dimension": "2D", "modality": "CT", "region": "abdomen", "type": "soft"},
                labels={"quality": quality, "mas": 100.0 * np.exp(2 * quality)},
            )
            store.add([(sample, slices)])
    return store


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    """A small network, and no pictures of curves, which take as long as a run."""
    with registered(TINY), pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.fit.runs.draw_curve", lambda _: None)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def data(store: Store) -> Data:
    return divided(prepare(store, SPEC))


def test_a_task_is_a_kind_of_test_sample_with_evidence_enough(data):
    upstream, downstream = (tasks_of(data, stage) for stage in ("upstream", "downstream"))

    told = [(task.name, task.n, task.groups, task.patients) for task in upstream]
    assert told == [("Test", 12, 3, 3), ("CT soft", 12, 3, 3)]
    assert [task.volumes for task in downstream] == [False, False]


@pytest.mark.parametrize("method", ["noise", "statistics"])
def test_what_needs_no_network_finds_noise_on_patients_that_it_was_not_fitted_on(data, tmp_path, method):
    said = predictions(method, data, FAST, tmp_path)

    for stage in ("upstream", "downstream"):
        assert said[stage].shape == (12,)
        assert np.corrcoef(said[stage], data.truth(stage, data.test))[0, 1] > 0.9


def test_table_1_has_a_row_for_every_method_and_an_interval_for_every_number(data, tmp_path):
    found = table1(data, FAST, tmp_path, methods=("noise", "cnniqanet"))

    for stage in ("upstream", "downstream"):
        assert found[stage].rows == ("noise estimate", "CNNIQAnet (small)")
        assert all(one.agreement.rmse.value is not None for one in found[stage].results)
        assert found[stage].results[0].agreement.srcc.low > 0.9
    printed = list(lines(found["downstream"], "Backbone"))
    assert printed[0].split() == ["Test", "CT", "soft"]
    assert printed[1].split("n=")[1].strip() == "12, 3 patients"
    assert printed[2].split() == ["Backbone", *["S↑", "P↑", "R↓"] * 2]
    assert printed[3].startswith("noise estimate")
    assert "*" in printed[3]
    assert len(printed) == 3 + 2 * 2


def test_a_table_counts_one_patient_has_no_minus_zero_and_a_dash_for_what_says_always_the_same():
    groups, truth = [f"b{i}" for i in range(12)], np.linspace(0.0, 1.0, 12)
    nothing, none = Interval(value=-0.001, low=-0.004, high=0.004), Interval(value=None, low=None, high=None)
    near = replace(agreement(truth, truth, groups), srcc=nothing, plcc=none, rmse=none)
    task = Task(name="Test", stage="downstream", places=tuple(range(12)), volumes=False, groups=12, patients=1)

    reached = {"near": near, "constant": agreement(np.ones(12), truth, groups)}
    results = tuple(Result(task=task.key, method=row, seed=0, agreement=one) for row, one in reached.items())

    head, evidence, _, cells, spans, constant, *_ = lines(
        Table(tasks=(task,), rows=("near", "constant"), results=results), "Name"
    )

    assert head.split() == ["Test"]
    assert evidence.strip() == "n=12, 12 images, 1 patient"
    assert cells.split() == ["near", "-0.001*", "–", "–"]
    assert spans.split() == [".00–.00"]
    assert constant.split()[1:3] == ["–", "–"]


def test_table_2_prints_a_stroke_where_there_are_no_slices_to_choose(store, tmp_path):
    budget = Tiny(steps=1)
    found = table2(divided(prepare(store, budget.recipe("downstream").spec)), budget, tmp_path)

    assert [name.split() for name in found.rows] == [
        ["1", "×", "×", "×"], ["2", "✓", "×", "×"], ["3", "✓", "✓", "×"], ["4", "✓", "✓", "✓"]
    ]  # fmt: skip
    assert [found.cell(found.rows[3], task) for task in found.tasks] == [None, None]
    assert list(lines(found, "PT PM SS"))[-1].split()[4:] == ["/"] * 6


def test_volumes_are_judged_by_one_slice_or_by_all(tmp_path):
    store = filled(tmp_path / "store", volumes=True)
    data = divided(prepare(store, SPEC))
    whole, middle = data.test, data.test.middle_slices()

    views = whole.slice_of(0)
    assert set(views) == {0, 1, 2}
    assert np.array_equal(middle.views(0), whole.views(0, list(np.flatnonzero(views == 1))))
    assert not middle.slice_of(0).any()
    assert all(task.volumes for task in tasks_of(data, "downstream"))


def test_the_middle_slices_of_volumes_have_tokens_of_their_own(tmp_path):
    data = divided(prepare(filled(tmp_path / "store", volumes=True), read_recipe(STAGE2, "default").spec)).test
    trunk = MedIQA(SIZES["e16"]).eval().trunk

    whole, middle = tokens_of(data, trunk), tokens_of(data.middle_slices(), trunk)

    views = data.slice_of(0)
    assert len(middle.views(0)) == (views == 1).sum() < len(views)
    assert np.allclose(middle.views(0), whole.views(0)[views == 1], atol=0.05)
    assert data.middle_slices().statistics(0).shape[0] == 1
    assert data.middle_slices().middle_slices().folder == data.middle_slices().folder


@pytest.mark.acceptance
def test_table_2_fills_every_cell_of_volumes(tmp_path):
    store = filled(tmp_path / "store", volumes=True)

    found = table2(divided(prepare(store, SPEC)), FAST, tmp_path / "runs")

    assert len(found.results) == len(found.rows) * len(found.tasks)


def test_a_baseline_in_the_place_of_the_model_gives_its_score_for_every_parameter():
    import torch
    from torch import nn

    judged = AsNetworkOutput(nn.Sequential(nn.Flatten(), nn.LazyLinear(1), nn.Flatten(0)), 2)(
        torch.rand(5, 3, 4, 4), torch.zeros(5, 64)
    )

    assert judged.score.shape == (5,)
    assert torch.equal(judged.parameters, judged.score[:, None].expand(5, 2))


def test_a_patient_on_both_sides_is_refused(store):
    prepared: Prepared = prepare(store, SPEC)
    moved = [Sample(**{**vars_of(one), "patient": "p0"}) if one.key == "6-0" else one for one in prepared.samples]
    prepared.samples = moved

    with pytest.raises(ConfigurationError, match="p0 is in train and in test"):
        divided(prepared)


def test_intervals_are_over_patients_but_of_copies_over_what_was_copied():
    sample = Sample(key="k", base="b", patient="p", source="s", split="test", prompt={}, labels={})

    assert paper_tables.group_of(sample) == "p"
    assert paper_tables.group_of(Sample(**{**vars_of(sample), "factor": "dose"})) == "b"


def vars_of(sample: Sample) -> dict[str, object]:
    return {name: getattr(sample, name) for name in Sample.__dataclass_fields__}


def test_an_unknown_method_is_answered_with_the_known_ones(data, tmp_path):
    with pytest.raises(
        ConfigurationError, match="no method 'vgg19'; known: noise, statistics, details, random_trunk, trunk"
    ):
        table1(data, FAST, tmp_path, methods=("vgg19",))


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.output, done.exception


def test_the_command_prints_the_table_and_what_it_is_not(store, tmp_path):
    code, said, _ = run("table1", store.folder, "--out", tmp_path, "--method", "noise")

    assert code == 0, said
    assert said.startswith("Upstream\n")
    assert "noise estimate" in said
    assert "not the paper's figures" in said
    plain = json.loads(run("table1", store.folder, "--out", tmp_path, "--method", "noise", "--json")[1])
    assert plain["downstream"]["rows"][0]["cells"][0]["srcc"]["value"] > 0.9


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    _, _, error = run("table2", tmp_path, "--out", tmp_path / "runs")

    assert isinstance(error, ConfigurationError)
    assert "neither a store" in str(error)
    assert paper_tables.NOT_FOR_THIS == "/"
