"""What each part of the recipe is worth: arms that differ in one part, and volumes of held-out slices."""

from dataclasses import replace

import numpy as np
import pytest
from support.samples import disc, sample

from training.data.store import BODY, Store
from training.data.views import prepare
from training.experiments.controls import ARMS, EQUAL, HEADS, WEIGHTED, WHOLE, Volumes, controls, rows
from training.fit.recipe import STAGE2, read_recipe


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

    assert {one.method for one in found} == {*(arm.name for arm in ARMS), WEIGHTED, EQUAL}
    assert {one.agreement.n for one in found if one.method not in (WEIGHTED, EQUAL)} == {12}
    assert all(len(row) == len(HEADS) for row in rows(found))
    assert [(arm.stage1, arm.prompts, arm.mr_from_ct).count(False) for arm in ARMS] == [0, 1, 1, 1]
    assert replace(ARMS[1], name=WHOLE, stage1=True) == ARMS[0]
