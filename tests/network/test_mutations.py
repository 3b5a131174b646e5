"""Mutated PDUs and datasets: no crash, C-ECHO answered meanwhile, memory flat."""

# ruff: noqa: T201 (a seed that repeats; figures, with pytest -s)

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.mutations import ANSWERS, send_mutated_datasets, send_mutated_pdus
from support.receiver_process import echoing, stand_alone
from support.receiving import Aborted, Listening, Scu


def total(attack: Callable[[int, int, int], Counter[str]], port: int, count: int, *, at_once: int) -> Counter[str]:
    with ThreadPoolExecutor(at_once) as pool:
        each = pool.map(lambda seed: attack(port, seed, count // at_once), range(at_once))
        return sum(each, Counter[str]())


@pytest.mark.acceptance
@pytest.mark.parametrize("attack", [send_mutated_pdus, send_mutated_datasets])
def test_12_000_mutations_leave_the_receiver_as_it_was(
    tmp_path: Path, attack: Callable[[int, int, int], Counter[str]]
) -> None:
    with stand_alone(tmp_path) as (port, process, _):
        total(attack, port, 600, at_once=3)  # buffers, caches and threads of its normal life
        before = process.memory_info().rss / 1024**2
        started = time.monotonic()
        with echoing(port, process) as (took, memory):
            seen = total(attack, port, 12_000, at_once=3)
        lasted = time.monotonic() - started
        print(
            f"{attack.__name__}: {dict(seen)} in {lasted:.0f} s; {len(took)} echoes, longest {max(took):.3f} s; "
            f"{before:.0f} MB before, {min(memory):.0f} to {max(memory):.0f} MB during, "
            f"{process.num_fds()} descriptors, {process.num_threads()} threads"
        )
        assert lasted < 900
        assert max(took) < 1.0
        assert 0.9 * before < min(memory)
        assert max(memory) < 1.1 * before
        assert process.num_threads() < 20
    assert errors(tmp_path / "receiver.log") == []
    if attack is send_mutated_datasets:
        assert {int(status, 16) for status in seen} <= ANSWERS


def errors(log: Path) -> list[str]:
    """Return the events of a log that are faults of the node; every line is JSON."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["event"] for line in lines if line["level"] in ("error", "critical") or "error" in line]


def test_a_few_mutations_leave_the_receiver_as_it_was(listening: Callable[..., Listening]) -> None:
    node = listening()
    threads = threading.active_count()

    ended = total(send_mutated_pdus, node.port, 300, at_once=3)
    statuses = total(send_mutated_datasets, node.port, 150, at_once=3)

    with Scu(node.port) as scu:
        assert scu.echo() == 0x0000
    assert {"accepted", "aborted"} <= ended.keys()
    assert {int(status, 16) for status in statuses} <= ANSWERS
    assert len(statuses) > 1
    assert threading.active_count() <= threads + 2


def test_a_receiver_that_is_gone_is_noticed(listening: Callable[..., Listening]) -> None:
    node = listening()
    node.stop()

    assert send_mutated_pdus(node.port, 1, 3) == Counter(reset=3)
    with pytest.raises((OSError, Aborted)):
        send_mutated_datasets(node.port, 1, 3)
