"""Mutated PDUs and datasets: no crash, C-ECHO answered meanwhile, memory flat."""

# ruff: noqa: T201 (a seed that repeats; figures, with pytest -s)

import json
import random
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from support.receiver_process import echoing, stand_alone
from support.receiving import (
    BIG,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Aborted,
    Listening,
    Scu,
    associate_rq,
    command,
    ct,
    encode,
    encoded_dataset,
    p_data,
    store_rq,
)

DATA = Path(__file__).parents[1] / "data"
UID = str(ct().SOPInstanceUID)
RELEASE = b"\5\0\0\0\0\4\0\0\0\0"
ECHO = p_data(5, command(VERIFICATION, "", field=0x30, with_dataset=False), is_command=True)
CONTEXTS = {1: (CT, [EXPLICIT]), 5: (VERIFICATION, [IMPLICIT])}
CONTEXTS |= {7: (CT, [IMPLICIT]), 9: (CT, [BIG]), 11: (CT, [DEFLATED])}
ANSWERS = {0x0000, 0xA900, 0xC000}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes after up to four changes: other bytes, fewer, more, twice, or a length at its extremes."""
    for _ in range(chance.randint(1, 4)):
        at, length = chance.randrange(len(data) + 1), chance.randint(1, 8)
        kind = chance.randrange(6)
        if kind == 0:
            data = data[:at] + chance.randbytes(length) + data[at + length :]
        elif kind == 1:
            data = data[:at] + data[at + chance.choice((1, 2, 8, 100)) :]
        elif kind == 2:
            data = data[:at] + chance.randbytes(length) + data[at:]
        elif kind == 3:
            data = data[: at + 64] + data[at:]
        elif kind == 4:
            data = data[:at] + chance.choice((b"\0" * 4, b"\xff" * 4, b"\xff\xff", b"\x7f\xff")) + data[at + 4 :]
        else:
            data = data[: max(at, 1)]
    return data


# ── PDUs ─────────────────────────────────────────────────────────────────────

CONVERSATIONS = [
    store_rq(UID, encode(ct()), fragment=200) + RELEASE,
    ECHO + ECHO + RELEASE,
    store_rq(UID, b"", fragment=10) + b"\7\0\0\0\0\4\0\0\0\0",
]


def send_mutated_pdus(port: int, seed: int, count: int) -> Counter[str]:
    """Open connections on which a request, or what follows it, is mutated; count how each of them ended."""
    chance, ended = random.Random(seed), Counter[str]()
    for _ in range(count):
        request, rest = associate_rq(contexts=CONTEXTS), chance.choice(CONVERSATIONS)
        if chance.random() < 0.5:
            request = mutated(request, chance)
        else:
            rest = mutated(rest, chance)
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(request + rest)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            ended["nothing" if not answer else {2: "accepted", 3: "rejected", 7: "aborted"}[answer[0]]] += 1
            continue
        ended["reset"] += 1
    return ended


# ── datasets ─────────────────────────────────────────────────────────────────


@cache
def samples() -> list[tuple[int, bytes]]:
    """Return datasets with the context that they belong to."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    nested = ct(ReferencedSeriesSequence=[ct(PixelData=None, ReferencedImageSequence=[ct(PixelData=None)])])
    found = [(1, encode(nested)), (7, encode(nested, IMPLICIT)), (9, encode(nested, BIG))]
    found.append((11, packer.compress(encode(nested)) + packer.flush()))
    for name in ("ct_sts003_lowdose", "mr_brain_epi_ge750", "mr_breast_ucsf06"):
        data, syntax = encoded_dataset(min((DATA / name).glob("*.dcm")))
        found += [(1 if syntax == EXPLICIT else 7, data[:8000])]
    return found


def send_mutated_datasets(port: int, seed: int, count: int) -> Counter[str]:
    """Send datasets over one association, every fiftieth as it should be; count the statuses."""
    chance, statuses = random.Random(seed), Counter[str]()
    with Scu(port, contexts=CONTEXTS, timeout_s=60) as scu:
        for i in range(count):
            if i % 50 == 0:
                uid = f"1.2.826.0.1.3680043.2.1125.12.{seed}.{i}"
                assert scu.store(uid, encode(ct(SOPInstanceUID=uid))).status == 0x0000
                continue
            number, data = chance.choice(samples())
            statuses[f"{scu.store(UID, mutated(data, chance), context=number).status:#06x}"] += 1
        scu.release()
    return statuses


# ── the trial ────────────────────────────────────────────────────────────────


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
