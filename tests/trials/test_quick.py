"""The trials that are quick: a few rounds of each in the default suite, all rounds by `python -m tests.trials`."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test
from support import trial

from mediqa_node.storage import spool as spool_room
from mediqa_node.storage.ingest import Recorded
from mediqa_node.storage.spool import Spool
from mediqa_node.storage.writer import IndexWriter
from trials.power_loss import Survey, lose_power_everywhere, recorded, scratch
from trials.received_load import load_of, prepare, received
from trials.series_machine import QuietMachine

# ── F5 ───────────────────────────────────────────────────────────────────────


def power_lost(*, only_first: bool = False) -> Survey:
    """Receive a small load on a recorded disk, and lose power at each of its steps."""
    chance = trial.dice("power")
    load = load_of(chance, n_scanners=trial.rounds(2, 4), at_most=trial.rounds(3, 6))
    with scratch() as where:
        folder = where / "node"
        prepare(folder)
        with recorded(folder) as recording:
            statuses = received(folder, load, chance, recording)
        assert set(statuses.values()) == {0x0000}
        assert len(statuses) == len(load.data)
        return lose_power_everywhere(
            recording, load.sent, chance, some=trial.rounds(1, 6), again=trial.rounds(0.02, 0.1), only_first=only_first
        )


def test_power_that_is_lost_at_any_step_takes_nothing_that_was_acknowledged() -> None:
    survey = power_lost()

    assert survey.broken == []
    assert survey.crashes > 50


def no_data_sync(patched: pytest.MonkeyPatch) -> None:
    class Without:
        def __getattr__(self, name: str) -> Any:
            return (lambda _: None) if name == "fdatasync" else getattr(os, name)

    patched.setattr(spool_room, "os", Without())


def no_folder_sync(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Spool, "sync_folders", lambda *_: None)


def no_sync_of_a_new_folder(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Spool, "_make_folder", lambda spool, folder: (spool.root / folder).mkdir(exist_ok=True))


def an_early_answer(patched: pytest.MonkeyPatch) -> None:
    def at_once(writer: IndexWriter, instance: Any, modality: str) -> Recorded:
        return Recorded.NEW

    patched.setattr(IndexWriter, "enter", at_once)


@pytest.mark.parametrize("plant", [no_data_sync, no_folder_sync, no_sync_of_a_new_folder, an_early_answer])
def test_a_spool_that_leaves_out_a_step_is_found_out(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)

    assert power_lost(only_first=True).broken


# ── any course of events ─────────────────────────────────────────────────────


def test_any_course_of_events_keeps_the_promise() -> None:
    how = settings(
        max_examples=trial.rounds(6, 60),
        stateful_step_count=trial.rounds(10, 25),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(seeded(trial.seed())(QuietMachine), settings=how)
