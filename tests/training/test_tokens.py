"""Tokens of a frozen trunk: computed once, kept through a kill, and put together to volumes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.samples import ct_store, sample

from mediqa_node.model.card import DEFAULT_PREPROCESSING
from mediqa_node.model.prompts import FOUR_ONE_HOTS
from mediqa_node.model.sizes import SIZES
from mediqa_node.model.trunk import TrunkTokens
from training.data.batches import Batches
from training.data.store import Store
from training.data.tokens import INDEX, TOKENS, tokens_of
from training.data.views import Prepared, prepare
from training.evaluate.predictions import predict
from training.fit.pretrained import load_pretrained, pretrained
from training.fit.recipe import STAGE1, STAGE2, read_recipe
from training.fit.runs import finetune, pretrain, trained_network


@pytest.fixture(scope="module")
def trunk() -> TrunkTokens:
    torch.manual_seed(0)
    return TrunkTokens(SIZES["e16"].trunk, image_px=224, grid=14).eval()


def prepared(folder: Path, **more: int) -> Prepared:
    return prepare(ct_store(folder, **more), DEFAULT_PREPROCESSING)


def counted(trunk: TrunkTokens, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that every forward pass adds its number of images to."""
    seen: list[int] = []
    forward = trunk.forward
    monkeypatch.setattr(trunk, "forward", lambda images: (seen.append(len(images)), forward(images))[1])
    return seen


def test_a_view_goes_through_the_trunk_once(tmp_path, trunk, monkeypatch):
    data = prepared(tmp_path, bases=2, copies=2, slices=3)
    first = tokens_of(data, trunk)
    seen = counted(trunk, monkeypatch)

    again = tokens_of(data.subset(lambda one: one.base == "b1"), trunk)

    assert seen == []
    assert again.views(0).shape == (3, 196, trunk.width)
    assert np.array_equal(again.views(0), first.views(2))
    assert np.array_equal(first.views(0, [2]), first.views(0)[2:])
    with torch.inference_mode():
        assert np.allclose(first.views(0), trunk(torch.from_numpy(data.views(0))).numpy(), rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("lost", [1, 1000, None], ids=["a byte", "some bytes", "half a line"])
def test_an_interrupted_cache_is_completed(tmp_path, trunk, monkeypatch, lost):
    data = prepared(tmp_path, bases=1, copies=3)
    whole = [tokens_of(data, trunk).views(place) for place in range(3)]
    [folder] = tmp_path.glob("shown-*/tokens-*")
    file = folder / (INDEX if lost is None else TOKENS)
    file.write_bytes(file.read_bytes()[: -(lost or 9)])
    seen = counted(trunk, monkeypatch)

    again = tokens_of(data, trunk)

    assert seen == [1], "only the last"
    assert all(np.array_equal(again.views(place), one) for place, one in enumerate(whole))


def test_another_trunk_has_a_cache_of_its_own(tmp_path, trunk):
    data = prepared(tmp_path, bases=1, copies=1)
    torch.manual_seed(1)
    other = TrunkTokens(SIZES["e16"].trunk, image_px=224, grid=14).eval()

    assert not np.allclose(tokens_of(data, trunk).views(0), tokens_of(data, other).views(0), atol=0.1)


def slices_of_a_stack(folder: Path) -> Prepared:
    """Return three slices of one stack, a clean and a degraded copy each; slice n shows n + 1 tenths of a body."""
    store = Store(folder)
    flat = np.zeros((1, 32, 32), dtype=np.float32)
    for place in range(3):
        store.add([
            (
                sample(
                    f"s-0-{place}-{copy}", base=f"s-0-{place}", factor=factor, labels={"quality": quality},
                    settings={"body": (place + 1) / 10},
                ),
                flat,
            )
            for copy, (factor, quality) in enumerate([("clean", 1.0 - 0.1 * place), ("dose", 0.4 - 0.1 * place)])
        ])  # fmt: skip
    return prepare(store, DEFAULT_PREPROCESSING)


def test_a_volume_is_as_good_as_its_slices_are_weighted_by_the_body_they_show(tmp_path):
    batches = Batches(slices_of_a_stack(tmp_path), FOUR_ONE_HOTS, (), batch=8, seed=0, volumes=1.0)

    batch = batches.at(0)

    assert batch.sample_of.tolist() == [number for number in range(8) for _ in range(3)]
    assert batch.group.tolist() == [0] * 4 + [1] * 4, "volumes of one stack are ranked against each other"
    clean, dose = (0.1 * 1.0 + 0.2 * 0.9 + 0.3 * 0.8) / 0.6, (0.1 * 0.4 + 0.2 * 0.3 + 0.3 * 0.2) / 0.6
    assert {round(float(one), 2) for one in batch.quality} <= {round(clean, 2), round(dose, 2)}


def test_without_volumes_every_slice_is_a_sample(tmp_path):
    batch = Batches(slices_of_a_stack(tmp_path), FOUR_ONE_HOTS, (), batch=8, seed=0).at(0)

    assert batch.sample_of.tolist() == list(range(8))


def test_both_stages_run_on_tokens_and_the_tuned_one_moves_the_later_blocks_alone(tmp_path):
    more = {"batch": 4, "warmup": 1, "native_crops": 0, "share": None, "save_every": 1}
    first, head, tuned = (
        read_recipe(stage, preset).model_copy(update=more)
        for stage, preset in ((STAGE1, "default"), (STAGE2, "default"), (STAGE2, "tuned"))
    )
    data = prepare(ct_store(tmp_path / "store", bases=2), first.spec)
    done = {"seed": 0, "steps": 2, "advance": lambda *_: None}

    pretrain(data, first, tmp_path / "1", **done)
    finetune(data, head, tmp_path / "2", begin=tmp_path / "1", **done)
    finetune(data, tuned, tmp_path / "3", begin=tmp_path / "2", **done)

    given, found = pretrained(SIZES["e16"])
    (before, run), (after, _) = (trained_network(tmp_path / name) for name in ("2", "3"))
    assert run.pretrained == found
    assert all(torch.equal(before.state_dict()[name], value) for name, value in given.items()), "frozen"
    moved = {name.split(".")[3] for name, value in given.items() if not torch.equal(after.state_dict()[name], value)}
    assert moved == {"2", "3", "4"}
    load_pretrained(before, given)
    on_images, on_tokens = (predict(before, one, FOUR_ONE_HOTS).score for one in (data, tokens_of(data, before.trunk)))
    assert np.allclose(on_images, on_tokens, atol=5e-3)
