"""`mediqa-train evaluate`: which sources it looks at, and what it prints of them."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.samples import disc, sample
from support.sizes import TINY, registered
from typer.testing import CliRunner

from mediqa_node.domain.errors import ConfigurationError
from training.cli import app
from training.cli.evaluate import for_comparisons, held_out_sets
from training.cli.stages import prepared_of
from training.data.store import Store
from training.evaluate.series import scored_series
from training.fit.recipe import STAGE2, read_recipe
from training.simulate.build import PLAN_FILE, Plan

DATA = Path(__file__).parents[1] / "data"
HELD_OUT = ("ct_sts003_lowdose", "ct_sts036_lowdose")
SEEN = ("a", "b")
PRESET = "tiny: {size: tiny, batch: 4, steps: 2, warmup: 0}"
PLAN = Plan(bases={"CT": 3}, groups={"CT": 1}, held_out=HELD_OUT)
KEEPS_ONE = PLAN.model_copy(update={"held_out": HELD_OUT[:1], "final": HELD_OUT[1:]})


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    with registered(TINY), pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.fit.runs.draw_curve", lambda _: None)
        yield


def store_of(folder: Path, plan: Plan | None) -> Store:
    """Return a store of three slices of each of four sources, four copies each."""
    store = Store(folder)
    for source in (*SEEN, *HELD_OUT):
        for place in range(3):
            base = f"{source}-0-{place}"
            store.add(
                [
                    (
                        sample(f"{base}-{copy}", base=base, source=source, factor="dose" if copy else "clean",
                               split="train" if source in SEEN else "test",
                               labels={"quality": 0.9 - 0.2 * copy, "mas": 200.0 / (1 + copy)},
                               severities={"dose": 0.25 * copy, "views": 0.0}),
                        disc(64, noise=5.0 + 40.0 * copy, seed=10 * place + copy),
                    )
                    for copy in range(4)
                ]
            )  # fmt: skip
    if plan is not None:
        (folder / PLAN_FILE).write_text(json.dumps(plan.model_dump()))
    return store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store with its plan, and a checkpoint that was trained on it."""
    folder = tmp_path_factory.mktemp("made")
    store_of(folder / "store", PLAN)
    (folder / "tiny.yaml").write_text(PRESET)
    preset = ("--config", folder / "tiny.yaml", "--preset", "tiny")
    for call in (
        ("finetune", folder / "store", "--out", folder / "run", *preset),
        ("card", folder / "run", "--plain", "--out", folder / "checkpoint"),
    ):
        done = CliRunner().invoke(app, list(map(str, call)))
        assert done.exit_code == 0, done.output
    return folder / "store", folder / "checkpoint"


def evaluated(store: Path, checkpoint: Path, *more: object):
    call = ("evaluate", store, "--checkpoint", checkpoint, "--sweep", store, *more)
    return CliRunner().invoke(app, list(map(str, call)))


@pytest.mark.parametrize(
    ("plan", "final", "wanted"),
    [
        (None, False, {"": HELD_OUT}),
        (PLAN, True, {"": HELD_OUT}),
        (PLAN.model_copy(update={"final": ("late",)}), False, {"": HELD_OUT}),
        (
            PLAN.model_copy(update={"final": ("late",)}),
            True,
            {"": (*HELD_OUT, "late"), "one": HELD_OUT, "two": ("late",)},
        ),
    ],
)
def test_sources_kept_for_the_end_are_looked_at_on_request(tmp_path, plan, final, wanted):
    found = held_out_sets(store_of(tmp_path, plan), final=final)

    assert {name: set(sources) for name, sources in found.items()} == {
        name: set(sources) for name, sources in wanted.items()
    }


@pytest.mark.parametrize(("plan", "wanted"), [(None, HELD_OUT), (PLAN, HELD_OUT), (KEEPS_ONE, HELD_OUT[:1])])
def test_what_is_kept_for_the_end_is_no_part_of_comparisons(tmp_path, plan, wanted):
    store_of(tmp_path, plan)

    compared = for_comparisons(prepared_of(tmp_path, read_recipe(STAGE2, "default"), stage=2), tmp_path)

    assert {one.source for one in compared.samples} == {*SEEN, *wanted}


def test_all_gates_are_printed_and_written(made, tmp_path):
    done = evaluated(*made, "--collection", DATA, "--out", tmp_path)

    assert done.exit_code == 0, done.output
    for title in ("CT quality", "CT dose", "order of copies", "share of the network", "clean series", "repeatability"):
        assert title in done.output
    gates = json.loads((tmp_path / "gates.json").read_text())
    assert {one["agreement"]["n"] for one in gates["tasks"] if one["task"] == ["CT", "quality"]} == {24}
    methods = {one["method"] for one in gates["tasks"] if one["task"] == ["CT", "quality"]}
    assert methods == {"network", "statistics", "shipped"}, "statistics alone, of which the score has no share"
    assert [one["worst"] for one in gates["retention"] if one["factor"] == "dose"] == [None], "too few pairs"
    [clean] = [one["figure"] for one in gates["checks"] if one["gate"].startswith("clean series")]
    assert re.match(r"\d+%: CT \d of 2\b", clean), "the two held-out series alone"


def test_every_held_out_series_is_scored_once_and_belongs_to_its_set(made, tmp_path, monkeypatch):
    store_of(tmp_path / "store", KEEPS_ONE)
    scored = []

    def counted(sets, scorer):
        scored.extend(one.source for one in sets)
        return scored_series(sets, scorer)

    monkeypatch.setattr("training.evaluate.series.scored_series", counted)
    done = evaluated(tmp_path / "store", made[1], "--final", "--collection", DATA, "--out", tmp_path)

    assert done.exit_code == 0, done.output
    assert sorted(scored) == sorted(HELD_OUT)
    checks = json.loads((tmp_path / "gates.json").read_text())["checks"]
    seen = {one["gate"].rpartition("fit")[2]: one["figure"] for one in checks if one["gate"].startswith("clean series")}
    assert {of: re.search(r"CT \d of (\d)", figure)[1] for of, figure in seen.items()} == {
        "": "2", ", set one": "1", ", set two": "1"
    }  # fmt: skip


def test_a_sweep_names_its_held_out_sources_itself(made, tmp_path):
    """As after training on an export, whose sources are devices and whose sweep is of folders."""
    devices = Store(tmp_path / "export")
    for one in Store(made[0]).samples:
        devices.add([(replace(one, source=f"device of {one.source}"), disc(64, noise=5.0, seed=1))])

    done = CliRunner().invoke(
        app, ["evaluate", str(tmp_path / "export"), "--checkpoint", str(made[1]), "--sweep", str(made[0])]
    )

    assert done.exit_code == 0, done.output
    assert re.search(r"^CT dose +6 ", done.output, re.MULTILINE), "six held-out images"


def test_what_a_checkpoint_was_trained_on_is_not_held_out(made, tmp_path):
    store_of(tmp_path, PLAN.model_copy(update={"held_out": (*HELD_OUT, "a")}))

    done = evaluated(tmp_path, made[1])

    assert isinstance(done.exception, ConfigurationError)
    assert "was trained on a: sources that it has seen" in str(done.exception)
