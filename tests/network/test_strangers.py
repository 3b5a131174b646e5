"""Who costs the receiver nothing, and what the dearest request costs: figures of the real process."""

# ruff: noqa: T201 (figures, with pytest -s)

import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from support.receiver_process import echoing, stand_alone
from support.receiving import CT, DEFLATED, EXPLICIT, Aborted, Answer, Scu, associate_rq, ct, encode, item

pytestmark = pytest.mark.acceptance

ONLY_MONITOR = [{"ae_title": "MONITOR", "address": "127.0.0.0/8"}]


def large_request() -> bytes:
    """Return a request of a megabyte, full of presentation contexts."""
    syntaxes = b"".join(item(0x40, f"1.2.840.10008.1.2.4.{i}".encode()) for i in range(40))
    context = item(0x20, b"\7\0\0\0" + item(0x30, CT.encode()) + syntaxes)
    return associate_rq(calling=b"STRANGER", more=context * (1_000_000 // len(context)))


def ask(port: int, request: bytes, times: int) -> None:
    for _ in range(times):
        with suppress(OSError, Aborted), Scu(port, associate=False) as scu:
            scu.send(request)
            scu.pdu()


@pytest.mark.parametrize("allowed", [ONLY_MONITOR, None], ids=["strangers", "admitted"])
def test_forty_large_requests_do_not_delay_verification(tmp_path: Path, allowed: list[dict[str, str]] | None) -> None:
    request = large_request()
    with stand_alone(tmp_path, **({"allowed": allowed} if allowed else {})) as (port, process, _):
        before = process.memory_info().rss / 1024**2
        cpu = process.cpu_times()
        with echoing(port, process) as (took, memory), ThreadPoolExecutor(40) as pool:
            list(pool.map(lambda _: ask(port, request, 50), range(40)))
        used = process.cpu_times()
        spent = used.user + used.system - cpu.user - cpu.system
        print(
            f"40 x 50 requests of {len(request):,} bytes: {len(took)} echoes, longest {max(took):.3f} s, "
            f"{before:.0f} to {max(memory):.0f} MB, {spent:.1f} CPU-s"
        )
        assert max(took) < 1.0
        assert max(memory) - before < 30


def store_deflated(port: int, plain: bytes) -> Answer:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = packer.compress(plain) + packer.flush()
    with Scu(port, contexts={1: (CT, [DEFLATED])}, timeout_s=120) as scu:
        return scu.store(str(ct().SOPInstanceUID), data)


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@pytest.mark.parametrize("kind", ["zeros", "empty elements"])
def test_a_deflate_bomb_of_250_megabytes_costs_the_receiver_two_seconds_at_most(tmp_path: Path, kind: str) -> None:
    element = bytes(8) if kind == "zeros" else b"\x77\x77\x11\x11LO\0\0"
    plain = encode(ct(PixelData=None)) + element * (250 * 1024**2 // 8)
    with stand_alone(tmp_path) as (port, process, _):
        before = cpu_s(process)
        answer = store_deflated(port, plain)
        spent = cpu_s(process) - before
        print(f"{kind}: {answer.status:#06x} {answer.comment}, {spent:.2f} CPU-s")
        assert answer.status == 0xC000
        assert spent <= 2.0


def test_many_long_headers_at_once_do_not_delay_verification(tmp_path: Path) -> None:
    header = encode(ct(PixelData=None)) + b"\x77\x77\x11\x11LO\0\0" * 400_000

    def store(port: int, number: int) -> int:
        with Scu(port, calling=f"MR_{number}".encode(), contexts={1: (CT, [EXPLICIT])}, timeout_s=300) as scu:
            return scu.store(str(ct().SOPInstanceUID), header).status

    with stand_alone(tmp_path) as (port, process, _):
        with echoing(port, process) as (took, memory), ThreadPoolExecutor(16) as pool:
            statuses = set(pool.map(lambda number: store(port, number), range(16)))
        print(f"16 headers of 400,000 elements: longest echo {max(took):.3f} s, {max(memory):.0f} MB")
        assert statuses == {0xC000}
        assert max(took) < 1.0
