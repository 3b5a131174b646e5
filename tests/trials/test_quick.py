"""The trials that are quick: a few rounds of each in the default suite, all rounds by `python -m tests.trials`."""

import errno
import os
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import trial
from support.bench import Bench
from support.mutations import ANSWERS, send_mutated_datasets, send_mutated_pdus
from support.outside import spooled
from support.receiving import Listening, Scu, ct, encode
from support.series import ct_series, series_uid

from mediqa_node.pipeline.checks.verify import verify
from mediqa_node.storage import spool as spool_room
from mediqa_node.storage.ingest import Recorded
from mediqa_node.storage.spool import Spool
from mediqa_node.storage.writer import IndexWriter
from trials import fuzz
from trials.cases import CASES, Case
from trials.power_loss import Survey, lose_power_everywhere, recorded, scratch
from trials.received_load import load_of, prepare, received
from trials.report import Trials, markdown
from trials.runner import Outcome, Run, run_all
from trials.series_machine import run_machine

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
    run_machine(max_examples=trial.rounds(6, 60), steps=trial.rounds(10, 25))


# ── F4 ───────────────────────────────────────────────────────────────────────


class UnreliableDisk:
    """Lets some calls of the spool fail, by chance: an error, a full disk after a part, or a short write."""

    def __init__(self, chance: random.Random, share: float) -> None:
        self.chance, self.share, self.lock = chance, share, threading.Lock()
        self.failed = Counter[str]()

    def __getattr__(self, name: str) -> Any:
        right = getattr(os, name)
        return self._failing(name, right) if name in ("open", "write", "fdatasync", "fsync") else right

    def _failing(self, name: str, right: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            with self.lock:
                fails, kind = self.chance.random() < self.share, self.chance.choice((errno.EIO, errno.ENOSPC, 0))
            if fails and kind:
                self.failed[name] += 1
                if name == "write":
                    right(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise OSError(kind, os.strerror(kind))
            if fails and name == "write":
                self.failed["short write"] += 1
                return right(arguments[0], arguments[1][: max(1, len(arguments[1]) // 3)])
            return right(*arguments, **named)

        return call


def test_a_disk_that_fails_now_and_then_costs_its_sender_a_repetition(
    listening: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = trial.dice("disk")
    node: Listening = listening()
    told: dict[str, bytes] = {}
    refused = Counter[int]()
    numbers = range(1, trial.rounds(40, 400))

    def scan(scanner: int) -> None:
        with Scu(node.port, calling=f"CT_{scanner}".encode(), timeout_s=120) as scu:
            for number in numbers[scanner::4]:
                data = encode(ct(number, size_px=64))
                while (answer := scu.store(uid := str(ct(number).SOPInstanceUID), data)).status != 0x0000:
                    refused[answer.status] += 1
                told[uid] = data
            scu.release()

    monkeypatch.setattr(spool_room, "os", disk := UnreliableDisk(chance, 0.05))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(scan, range(4)))
    monkeypatch.undo()

    assert disk.failed.total() > len(numbers) / 10
    assert set(refused) == {0xA700}
    assert sorted(row.sop_instance_uid for row in node.rows()) == sorted(told)
    for row in node.rows():
        assert node.spool.path(row.path).read_bytes().endswith(told[row.sop_instance_uid])
    assert len(node.files()) == len(told), "what was refused has left nothing"
    assert node.temporary() == []


# ── F8 ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("damage", ["a bit flipped", "cut", "removed", "a link"])
def test_a_damaged_file_is_named_and_the_others_go_on(damage: str, tmp_path: Path) -> None:
    chance, bench = trial.dice("damage", damage), Bench(tmp_path / "bench")
    bench.receive_all(hurt := ct_series(tmp_path / "one", "one"))
    victim = bench.spool.path(chance.choice(list(bench.spool.files())))
    bench.receive_all(sound := ct_series(tmp_path / "two", "two"), association="a2")
    content = bytearray(victim.read_bytes())
    if damage == "a bit flipped":
        content[chance.randrange(len(content) - 8000, len(content))] ^= 1 << chance.randrange(8)
        victim.write_bytes(content)
    elif damage == "cut":
        victim.write_bytes(content[: chance.randrange(len(content))])
    else:
        victim.unlink()
        if damage == "a link":
            victim.symlink_to(ct_series(tmp_path / "other", "other", slices=[0])[0])

    problems = verify(bench.node, ask_peers=False, advance=lambda *_: None).problems
    bench.pass_time(60)

    assert len(problems) == 1, "what is damaged is named, and nothing else"
    assert bench.series(series_uid(sound)).state == "ASSESSED"
    assert bench.series(series_uid(hurt)).state == "PARKED", "no score of bytes that nobody has sent"
    bench.close()


# ── B1 ───────────────────────────────────────────────────────────────────────


def test_mutated_instances_and_pdus_harm_no_valid_one(listening: Any) -> None:
    node: Listening = listening()
    threads = threading.active_count()
    seeds = [trial.seed() * 1000 + i for i in range(4)]
    n_instances, n_pdus = trial.rounds((240, 300), (5000, 10_000))

    with ThreadPoolExecutor(4) as pool:
        ended = sum(pool.map(lambda seed: send_mutated_pdus(node.port, seed, n_pdus // 8), seeds[:2]), Counter())
        statuses = sum(
            pool.map(lambda seed: send_mutated_datasets(node.port, seed, n_instances // 2), seeds[2:]), Counter()
        )
        ended += sum(pool.map(lambda seed: send_mutated_pdus(node.port, -seed, 3 * n_pdus // 8), seeds[:2]), Counter())

    with Scu(node.port) as scu:
        assert scu.echo() == 0x0000
    assert {"accepted", "aborted"} <= ended.keys()
    assert {int(status, 16) for status in statuses} <= ANSWERS
    assert threading.active_count() <= threads + 6
    assert node.temporary() == []
    files = {(uid, digest) for uid, digests in spooled(node.spool.root).items() for digest in digests}
    assert {(row.sop_instance_uid, row.sha256) for row in node.rows()} == files


# ── B2 ───────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not fuzz.is_there(), reason="needs atheris: pip install -e '.[trials]'")
@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_fuzzed_input_raises_nothing_but_the_declared_errors(target: str, tmp_path: Path) -> None:
    assert fuzz.run(target, tmp_path / target, seconds=trial.rounds(2, 30), seed=trial.seed()) == ""


# ── the table ────────────────────────────────────────────────────────────────


def test_every_case_names_tests_that_exist() -> None:
    root = Path(__file__).parents[2]
    for case in CASES:
        for named in case.tests:
            file, _, function = named.partition("::")
            content = (root / file).read_text()
            assert not function or f"def {function.partition('[')[0]}(" in content, f"{case.id}: {named}"


def test_a_budget_gives_each_case_its_least_runs_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [Case("SLOW", "", ("a",), wanted=3, about_s=9.0), Case("FAST", "", ("b",), wanted=2, least=2, about_s=1.0)]
    told: list[Run] = []

    def run(case: Case, seed: int, *, left_s: float) -> Run:
        return Run(case.id, seed, Outcome.FAILED if seed == 6 else Outcome.PASSED, 1.0, 1, "because")

    monkeypatch.setattr("trials.runner._run", run)
    runs = run_all(cases, seed=5, budget_s=60.0, n_runs=None, on_run=told.append)
    trials = Trials(cases, runs, 5, 60.0, 5.0, None, {})

    assert [(one.case, one.seed) for one in runs] == [("FAST", 5), ("SLOW", 5), ("FAST", 6), ("SLOW", 6), ("SLOW", 7)]
    assert told == runs
    assert "python -m tests.trials SLOW --seed 6 --runs 1" in markdown(trials)
    assert "## Not done" not in markdown(trials)
    assert "- SLOW: 0 of 3 runs" in markdown(replace(trials, runs=runs[:1]))
