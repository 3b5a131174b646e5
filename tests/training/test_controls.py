"""What each part of the recipe is worth: arms that differ in one part, and volumes of held-out slices."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from support.samples import WORDS, disc, sample

from mediqa_node.domain.errors import ConfigurationError
from training.data.store import BODY, Store
from training.data.views import prepare
from training.experiments.controls import ARMS, EQUAL, HEADS, WEIGHTED, Volumes, controls, rows
from training.fit.recipe import STAGE2, read_recipe
from training.fit.runs import read_run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A store of two stacks of three slices, four copies each; one is held out."""
    store = Store(tmp_path_factory.mktemp("store"))
    for split in ("train", "test"):
        for slice_ in range(3):
            store.add(
                [
                    (
                        sample(f"{split}-0-{slice_}-{copy}", base=f"{split}-0-{slice_}", source=split, split=split,
                               factor="dose" if copy else "clean", settings={BODY: 0.1 + slice_},
                               labels={"quality": 1.0 - 0.2 * copy - 0.01 * slice_, "mas": 200.0 / (1 + copy)}),
                        disc(64, noise=5.0 + 40.0 * copy, seed=10 * slice_ + copy),
                    )
                    for copy in range(4)
                ]
            )  # fmt: skip
    return prepare(store, read_recipe(STAGE2, "default").spec)


def test_volumes_hold_the_same_copy_of_every_slice_of_a_stack(data):
    held = data.subset(lambda one: one.split == "test")
    volumes = Volumes(held)

    assert [[held.samples[place].key[-1] for place in places] for places in volumes.places] == [
        [str(copy)] * 3 for copy in range(4)
    ]
    body = np.array([0.1, 1.1, 2.1]) + 1e-3
    assert volumes.samples[0].labels["quality"] == pytest.approx(1.0 - (body @ [0.0, 0.01, 0.02]) / body.sum())
    assert set(volumes.slice_of(0)) == {0, 1, 2}
    assert np.array_equal(volumes.views(1, [0]), held.views(volumes.places[1][0], [0]))
    assert len(volumes.views(1)) == len(volumes.slice_of(1))


def test_every_arm_and_both_slice_weights_have_a_row(data, tmp_path):
    found = list(controls(data, tmp_path, seed=0, steps=2, advance=lambda *_: None))

    assert {one.method for one in found} == {*(arm.name for arm in ARMS if arm.mr_from_ct), WEIGHTED, EQUAL}
    assert {one.agreement.n for one in found if one.method not in (WEIGHTED, EQUAL)} == {12}
    assert all(len(row) == len(HEADS) for row in rows(found))
    scores = {one.method: one.agreement.rmse.value for one in found if one.method not in (WEIGHTED, EQUAL)}
    assert len(set(scores.values())) == len(scores), "no arm is another one"


@pytest.mark.acceptance
def test_an_arm_without_mr_from_ct_leaves_these_sources_out(data, tmp_path):
    made = copy.copy(data)
    made.samples = [
        replace(one, source="mr_from_x", prompt=WORDS["MR"], labels={"quality": 0.5, "tesla": 1.0 + place % 3})
        if place < 4
        else one
        for place, one in enumerate(data.samples)
    ]

    list(controls(made, tmp_path, seed=0, steps=1, advance=lambda *_: None))

    assert "mr_from_x" in read_run(tmp_path / "with-all-parts").seen
    assert "mr_from_x" not in read_run(tmp_path / "without-MR-from-CT").seen
    assert read_run(tmp_path / "without-stage-1").began_from is None
    assert not read_run(tmp_path / "without-prompts").recipe.prompts


def test_controls_without_held_out_samples_end_before_they_train(data, tmp_path):
    learnt = data.subset(lambda one: one.split == "train")

    with pytest.raises(ConfigurationError, match="no held-out sample"):
        list(controls(learnt, tmp_path, seed=0, steps=1, advance=lambda *_: None))
    assert not any(tmp_path.iterdir())
