"""Loads that take a while: 32 scanners at once, an object of 500 MB, what the receiver weighs."""

# ruff: noqa: T201 (figures, with pytest -s)

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import JPEG2000Lossless
from support.receiver_process import stand_alone
from support.receiving import CT, EXPLICIT, Rejected, Scu, command, ct, encode, p_data

pytestmark = pytest.mark.acceptance

MEGABYTE = 1024**2


def test_the_receiver_is_small_and_soon_ready(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    with stand_alone(tmp_path) as (_, process, took_s):
        megabytes = process.memory_info().rss / MEGABYTE
        record_property("idle_rss_mb", megabytes)
        print(f"ready after {took_s:.2f} s, {megabytes:.0f} MB, {process.num_threads()} threads")

        assert megabytes <= 120
        assert took_s <= 3.0


@pytest.mark.parametrize(("n_scanners", "n_instances"), [(1, 1000), (10, 200), (32, 100), (64, 20)])
def test_many_scanners_at_once_are_answered_in_time(tmp_path: Path, n_scanners: int, n_instances: int) -> None:
    data = encode(ct(size_px=512))
    uid = str(ct().SOPInstanceUID).encode()
    latencies: list[float] = []
    refused = [0]

    def scan(port: int, scanner: int) -> None:
        while True:
            try:
                scu = Scu(port, calling=f"CT_{scanner}".encode(), timeout_s=60)
                break
            except Rejected as rejection:
                assert rejection.args == (2, 3, 2)
                refused[0] += 1
                threading.Event().wait(0.1)
        with scu:
            for number in range(n_instances):
                mine = f"{uid.decode()[:-9]}.1{scanner:03}{number:04}".encode()
                started = time.monotonic()
                assert len(mine) == len(uid)
                answer = scu.store(mine.decode(), data.replace(uid, mine, 1))
                latencies.append(time.monotonic() - started)
                assert answer.status == 0x0000
            scu.release()

    with stand_alone(tmp_path) as (port, process, _):
        cpu = process.cpu_times()
        started = time.monotonic()
        threads = [threading.Thread(target=scan, args=(port, i)) for i in range(n_scanners)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - started
        used = process.cpu_times()
        cpu_ms = 1000 * (used.user + used.system - cpu.user - cpu.system) / len(latencies)
        megabytes = process.memory_info().rss / MEGABYTE
        descriptors = process.num_fds()

    p99 = statistics.quantiles(latencies, n=100)[98]
    print(
        f"{n_scanners} x {n_instances}: {len(latencies) / took:.0f} instances/s, "
        f"p50 {statistics.median(latencies):.3f} s, p99 {p99:.3f} s, {cpu_ms:.1f} CPU-ms each, "
        f"{megabytes:.0f} MB, {descriptors} descriptors, {refused[0]} refused"
    )
    assert len(latencies) == n_scanners * n_instances
    assert p99 < 2.0
    assert megabytes < 300
    assert descriptors < 512


@pytest.mark.parametrize("kind", ["native", "encapsulated"])
def test_objects_of_500_megabytes_do_not_make_the_receiver_large(tmp_path: Path, kind: str) -> None:
    header, pixels = _large(kind)
    syntax = EXPLICIT if kind == "native" else str(JPEG2000Lossless)
    peak = [0.0]

    def send(port: int, scanner: int) -> None:
        with Scu(port, calling=f"CT_{scanner}".encode(), contexts={1: (CT, [syntax])}, timeout_s=300) as scu:
            uid = str(ct().SOPInstanceUID)
            mine = f"{uid[:-1]}{scanner + 2}"
            scu.send(p_data(1, command(CT, mine), is_command=True))
            scu.send(p_data(1, header.replace(uid.encode(), mine.encode()), is_command=False, is_last=False))
            for i in range(len(pixels)):
                scu.send(p_data(1, pixels[i], is_command=False, is_last=i == len(pixels) - 1))
            assert scu.answer().status == 0x0000

    with stand_alone(tmp_path) as (port, process, _):
        threads = [threading.Thread(target=send, args=(port, i)) for i in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            peak[0] = max(peak[0], process.memory_info().rss / MEGABYTE)
            threads[0].join(0.02)

    print(f"3 x {sum(map(len, pixels)) / MEGABYTE:.0f} MB {kind}: peak {peak[0]:.0f} MB")
    assert peak[0] <= 300


def _large(kind: str) -> tuple[bytes, list[bytes]]:
    """Return the header of a multi-frame image and its pixel data of 500 MB in PDU-sized pieces."""
    n_pieces, piece = 5000, 100_000
    header = encode(ct(size_px=500, NumberOfFrames=n_pieces * piece // 500_000, PixelData=None))
    tag = b"\xe0\x7f\x10\x00OW\0\0"
    if kind == "native":
        return header + tag + (n_pieces * piece).to_bytes(4, "little"), [bytes(piece)] * n_pieces
    fragment = b"\xfe\xff\x00\xe0" + (piece - 8).to_bytes(4, "little") + bytes(piece - 8)
    start, end = b"\xfe\xff\x00\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
    return header + tag + b"\xff\xff\xff\xff" + start, [*[fragment] * n_pieces, end]
