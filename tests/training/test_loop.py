"""The one loop: what a kill costs, what it refuses, and several processes."""

import multiprocessing
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.samples import ct_store
from torch import nn

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.model.card import DEFAULT_PREPROCESSING
from mediqa_node.model.prompts import FOUR_ONE_HOTS
from training.data.batches import Batch, Batches, targets_of
from training.data.views import Prepared, prepare
from training.fit.loop import CURVE, STATE, Diverged, Settings, read_curve, train

SETTINGS = Settings(steps=30, warmup=4, save_every=6, learning_rate=0.01, seed=3)
FORK = multiprocessing.get_context("fork")


def network(dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 1))


def drawn(step: int, rank: int, processes: int) -> Batch:
    """Return a share of eight vectors whose first number is to be found."""
    x = torch.from_numpy(np.random.default_rng(step).normal(size=(8, 8)).astype(np.float32))[rank::processes]
    own = torch.arange(len(x))
    nothing = torch.zeros(len(x), 0)
    return Batch(
        images=x, prompts=nothing, sample_of=own, quality=x[:, 0], parameters=nothing, group=own, weight=own.float()
    )


def loss(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    error = (model(batch.images)[:, 0] - batch.quality) ** 2
    return {"squared": error.mean()}


def told(curve: list[dict[str, float]]) -> list[tuple[float, ...]]:
    return [(row["step"], row["loss"], row["learning_rate"]) for row in curve]


def die_at(step: int):
    def advance(done: int, total: int, value: float) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return advance


@pytest.fixture(scope="module", params=["adam", "adamw"])
def whole(request, tmp_path_factory) -> tuple[Settings, Path, nn.Module]:
    """A run that nothing has interrupted."""
    settings, folder = replace(SETTINGS, optimizer=request.param), tmp_path_factory.mktemp("whole")
    return settings, folder, train(network(), drawn, loss, settings, folder)


@pytest.mark.parametrize("step", [3, 17, 29])
def test_a_run_that_was_killed_goes_on_to_the_same_curve(whole, tmp_path, step):
    settings, folder, trained = whole
    child = FORK.Process(
        target=train, args=(network(), drawn, loss, settings, tmp_path / "killed"), kwargs={"advance": die_at(step)}
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    seen: list[int] = []

    resumed = train(network(), drawn, loss, settings, tmp_path / "killed", advance=lambda done, *_: seen.append(done))

    assert seen[0] == step // settings.save_every * settings.save_every + 1
    assert told(read_curve(tmp_path / "killed")) == told(read_curve(folder))
    assert len(read_curve(folder)) == settings.steps
    for one, other in zip(resumed.parameters(), trained.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_curve_that_is_ahead_of_the_state_is_cut_back(tmp_path):
    train(network(), drawn, loss, SETTINGS, tmp_path)
    wanted = (tmp_path / CURVE).read_text()
    (tmp_path / CURVE).write_text(wanted + "30,0.5,0.5,0.1,9")

    train(network(), drawn, loss, SETTINGS, tmp_path)

    assert (tmp_path / CURVE).read_text() == wanted


def test_a_finished_run_is_left_as_it_is(tmp_path):
    train(network(), drawn, loss, SETTINGS, tmp_path)
    state = (tmp_path / STATE).read_bytes()

    train(network(), drawn, loss, SETTINGS, tmp_path, advance=lambda *_: pytest.fail("trained again"))

    assert (tmp_path / STATE).read_bytes() == state


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path):
    train(network(), drawn, loss, SETTINGS, tmp_path, made_by={"data": "a"})

    with pytest.raises(ConfigurationError, match="other settings"):
        train(network(), drawn, loss, replace(SETTINGS, learning_rate=0.1), tmp_path, made_by={"data": "a"})
    with pytest.raises(ConfigurationError, match="other settings"):
        train(network(), drawn, loss, SETTINGS, tmp_path, made_by={"data": "b"})


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_state(tmp_path):
    def broken(step: int, rank: int, processes: int) -> Batch:
        batch = drawn(step, rank, processes)
        return replace(batch, quality=batch.quality * float("nan")) if step == 8 else batch

    with pytest.raises(Diverged, match="step 8 of 30: the loss is nan"):
        train(network(), broken, loss, SETTINGS, tmp_path)

    assert len(read_curve(tmp_path)) == 6


def test_an_unknown_optimizer_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="'sgd': must be adam or adamw"):
        train(network(), drawn, loss, replace(SETTINGS, optimizer="sgd"), tmp_path)


def _one_of_two(rank: int, port: int, folder: Path, settings: Settings) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    model = train(network(0.0), drawn, loss, settings, folder)
    torch.save(model.state_dict(), folder / f"{rank}.pt")


def test_two_processes_share_every_batch_and_end_with_the_weights_of_one(tmp_path):
    settings = replace(SETTINGS, steps=6)
    alone = train(network(0.0), drawn, loss, settings, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "two").mkdir()
    pair = [FORK.Process(target=_one_of_two, args=(rank, port, tmp_path / "two", settings)) for rank in (0, 1)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(60)

    assert [process.exitcode for process in pair] == [0, 0]
    assert [row["step"] for row in read_curve(tmp_path / "two")] == list(range(6))
    first, second = (torch.load(tmp_path / "two" / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in alone.state_dict().items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(first[name], value, atol=1e-5)


# ── batches ──────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Prepared:
    return prepare(ct_store(tmp_path_factory.mktemp("store"), bases=4, slices=3), DEFAULT_PREPROCESSING)


def batches(data: Prepared, batch: int = 8, **more: object) -> Batches:
    targets = targets_of(data, (("mas", "CT", True), ("tesla", "MR", True)))
    return Batches(data, FOUR_ONE_HOTS, targets, batch=batch, seed=5, **more)  # type: ignore[arg-type]


def test_a_batch_follows_from_seed_and_step_alone(data):
    first, again = batches(data).at(7), batches(data)
    again.at(3)

    assert torch.equal(first.images, again.at(7).images)
    assert torch.equal(first.prompts, again.at(7).prompts)
    assert not torch.equal(first.images, again.at(8).images)


def test_the_slices_of_a_volume_stay_together(data):
    batch = batches(data).at(0)

    assert batch.sample_of.tolist() == [number for number in range(8) for _ in range(3)]
    assert batches(data, slices=2).at(0).sample_of.tolist() == [number for number in range(8) for _ in range(2)]


def test_the_shares_of_two_processes_are_the_batch(data):
    alike = batches(data, augment=False, unknown=0.0)
    whole, shares = alike.at(4), [alike.at(4, rank=rank, world=2) for rank in (0, 1)]

    assert torch.equal(torch.cat([one.quality for one in shares]), whole.quality)
    assert torch.equal(torch.cat([one.images for one in shares]), whole.images)


def test_real_series_that_are_drawn_together_are_ranked_among_each_other(tmp_path):
    store = ct_store(tmp_path, bases=8, copies=1)
    alone = prepare(store, DEFAULT_PREPROCESSING)

    batch = batches(alone).at(0)

    assert batch.group.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_more_processes_than_groups_are_refused(data):
    with pytest.raises(ConfigurationError, match=r"too few for 2 processes: raise `batch` to 8"):
        batches(data, batch=4).at(0, rank=1, world=2)


def test_targets_are_in_standard_units_and_those_that_tell_nothing_are_left_out(data):
    [target] = targets_of(data, (("mas", "CT", True), ("tesla", "MR", True)))
    learnt = torch.cat([batches(data).at(step).parameters for step in range(20)])[:, 0]

    assert (target.label, target.log) == ("mas", True)
    known = [one.known["mas"] for one in data.samples if one.modality == "CT"]
    assert (target.lowest, target.highest) == (min(known), max(known))
    assert abs(float(learnt.mean())) < 0.3
    assert float(learnt.std()) == pytest.approx(1.0, abs=0.2)
