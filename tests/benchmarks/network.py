"""`python -m tests.benchmarks.network`: what forwarding, rules and TLS cost.

Forwarding: a scanner sends 0.5 MB CT at a fixed pace, in interleaved rounds with and without a rule that forwards it to
Orthanc, and while another program sends the same to Orthanc: what the archive's own work costs on the same machine. CPU
time is of processes, so that others on the machine hardly move it; delays are as these machines are.
"""

import argparse
import contextlib
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from mediqa_node.dicom.scan import scan
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.rules import ForwardRule
from mediqa_node.pipeline.forward.plan import ForwardPlan
from tests.benchmarks.servers import Server, free_port, node, orthanc
from tests.support.receiving import CT, EXPLICIT, IMPLICIT, VERIFICATION, Scu, ct, encode, store_rq
from tests.support.tls import Authority, client

PACE_PER_S = 40
HANDSHAKES_PER_S = 50
EDGE_PX = 512
STILL = {"quiet_after_s": 3600, "contiguous_after_s": 3600, "forced_after_s": 7200}


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def paced(
    port: int, number: int, first: int, *, called: bytes = b"MEDIQA", fragment: int = 100_000
) -> tuple[list[float], list[float]]:
    """Send instances at the pace; return when each was sent, and how long its answer took."""
    series = f"1.2.826.0.1.3680043.2.1125.8.{first}"
    sent, took = [], []
    with Scu(port, contexts={1: (CT, [EXPLICIT])}, called=called) as scu:
        begin = time.time()
        for i in range(number):
            ds = ct(first + i, size_px=EDGE_PX, SeriesInstanceUID=series)
            message = store_rq(str(ds.SOPInstanceUID), encode(ds), fragment=fragment)
            time.sleep(max(0.0, begin + i / PACE_PER_S - time.time()))
            sent.append(time.time())
            scu.send(message)
            assert scu.answer().status == 0x0000
            took.append(time.time() - sent[-1])
        scu.release()
    return sent, took


class Arrivals:
    """When an Orthanc had how many instances, looked at every few milliseconds."""

    def __init__(self, pacs: Server) -> None:
        self._pacs = pacs
        self.times: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            count = int(self._pacs.rest("/statistics")["CountInstances"])
            self.times += [time.time()] * (count - len(self.times))

    def __enter__(self) -> "Arrivals":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 120
        while len(self.times) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(self.times)} of {count} instances have arrived")
            time.sleep(0.02)


def forwarding(folder: Path, rounds: int, number: int) -> Iterator[str]:
    """The delay from scanner to archive, what forwarding does to the answer, and its CPU time."""
    delays: list[float] = []
    answers: dict[str, list[float]] = {"on": [], "off": [], "beside": []}
    cpu_ms: list[float] = []
    with orthanc(folder / "orthanc") as pacs:
        peers = {"PACS": {"ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.port}}
        rule = {"from": "CT_ROOM_1", "to": ["PACS"]}
        quiet: dict[str, Any] = {"completion": STILL, "web": {"enabled": False}, "peers": peers}
        with (
            node(folder / "on", forward=[rule], **quiet) as on,
            node(folder / "off", **quiet) as off,
            Arrivals(pacs) as arrivals,
        ):
            time.sleep(5)  # the first looks of both nodes
            for i in range(rounds):
                _, took = paced(off.port, number, 100_000 * (3 * i + 1))
                answers["off"] += took
                with beside(pacs, number, 100_000 * (3 * i + 3)):
                    had = len(arrivals.times)
                    arrivals.wait_for(had + 1)
                    answers["beside"] += paced(off.port, number, 100_000 * (3 * i + 3))[1]
                arrivals.wait_for(had + number)
                forwarder = on.role("forwarder")
                before = _cpu_s(forwarder)
                had = len(arrivals.times)
                sent, took = paced(on.port, number, 100_000 * (3 * i + 2))
                arrivals.wait_for(had + number)
                time.sleep(0.5)  # the last commit
                answers["on"] += took
                delays += [at - since for at, since in zip(arrivals.times[had:], sent, strict=False)]
                cpu_ms.append((_cpu_s(forwarder) - before) * 1000 / number)
    p95 = {arm: percentile(took, 0.95) for arm, took in answers.items()}
    yield f"forwarding at {PACE_PER_S} instances/s of {2 * EDGE_PX**2 / 1e6:.1f} MB, {rounds} rounds of {number}"
    yield f"  scanner → archive      median {statistics.median(delays):.2f} s, p95 {percentile(delays, 0.95):.2f} s"
    yield (
        f"  answer to the scanner  p95 {1000 * p95['on']:.1f} ms with forwarding, {1000 * p95['off']:.1f} ms without: "
        f"{p95['on'] / p95['off']:.2f} ×; the archive's own work {p95['beside'] / p95['off']:.2f} ×"
    )
    yield f"  forwarder              {statistics.median(cpu_ms):.2f} CPU-ms an instance"
    yield "  bounds: p95 1 s; 1.3 ×; 2 CPU-ms"


@contextlib.contextmanager
def beside(pacs: Server, number: int, first: int) -> Iterator[None]:
    """Have another process send as much to the archive, at the same pace."""
    code = (
        "import sys; from tests.benchmarks.network import paced; "
        "paced(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), called=sys.argv[4].encode(), fragment=16_000)"
    )
    command = [sys.executable, "-c", code, str(pacs.port), str(number), str(first), pacs.ae_title]
    with subprocess.Popen(command) as sending:
        yield
    if sending.returncode:
        raise RuntimeError(f"the other sender ended with {sending.returncode}")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def rules(_: Path, rounds: int, number: int) -> Iterator[str]:
    """What 200 rules cost an instance, in the receiver's scan and plan."""
    peers = [Peer(name="PACS", ae_title="PACS", host="127.0.0.1", port=104)]
    many = [
        ForwardRule(
            sender=f"CT_ROOM_{i % 20}" if i % 2 else "*",
            station=f"^CT_ROOM_{i}$",
            protocol=f"thorax.*{i}",
            attributes={"InstanceNumber": f"^{i}$"} if i % 5 == 0 else {},
            to=("PACS",),
        )
        for i in range(200)
    ]
    images = [
        memoryview(encode(ct(i, size_px=64, StationName="CT_ROOM_1", ProtocolName="Thorax routine 1")))
        for i in range(1, number + 1)
    ]
    took: dict[int, list[float]] = {0: [], 200: []}
    for _round in range(rounds):
        for some in ([], many):
            plan = ForwardPlan(some, peers)
            began = time.process_time()
            for image in images:
                header = scan(image, EXPLICIT, further=plan.further)
                plan.destinations(header, EXPLICIT, calling_ae_title="CT_ROOM_1", called_ae_title="MEDIQA")
            took[len(some)].append((time.process_time() - began) * 1000 / number)
    cost = statistics.median(b - a for a, b in zip(took[0], took[200], strict=True))
    yield f"200 rules: {cost:.3f} ms an instance more than none ({rounds} rounds of {number}); bound 0.2 ms"


def tls(folder: Path, rounds: int, number: int) -> Iterator[str]:
    """What TLS costs an instance, and how long handshakes take while another caller keeps silent in its own."""
    authority = Authority(folder / "ca")
    pair = authority.issue()
    context = client(authority)
    port = free_port()
    section = {"certificate": str(pair.certificate), "key": str(pair.key), "port": port}
    cpu_ms: dict[str, list[float]] = {"plain": [], "TLS": []}
    with node(folder / "node", completion=STILL, web={"enabled": False}, receiver={"tls": section}) as server:
        receiver = server.role("receiver")
        for i in range(rounds):
            for k, (name, at, how) in enumerate((("plain", server.port, None), ("TLS", port, context))):
                before = _cpu_s(receiver)
                _store(at, number, 1_000_000 + 100_000 * (2 * i + k), how)
                cpu_ms[name].append((_cpu_s(receiver) - before) * 1000 / number)
        with socket.create_connection(("127.0.0.1", port)):  # says nothing
            took = _handshakes(port, context, 5 * HANDSHAKES_PER_S)
    more = statistics.median(b - a for a, b in zip(cpu_ms["plain"], cpu_ms["TLS"], strict=True))
    yield (
        f"TLS: receiver {statistics.median(cpu_ms['TLS']):.2f} CPU-ms an instance of 0.5 MB, plain "
        f"{statistics.median(cpu_ms['plain']):.2f}: {more:.2f} more ({rounds} rounds of {number})"
    )
    yield (
        f"  {HANDSHAKES_PER_S} handshakes a second beside a silent caller: {len(took)} of {5 * HANDSHAKES_PER_S} "
        f"answered, p95 {1000 * percentile(took, 0.95):.0f} ms, longest {1000 * max(took):.0f} ms"
    )


def _store(port: int, number: int, first: int, context: ssl.SSLContext | None) -> None:
    with Scu(port, tls=context, contexts={1: (CT, [EXPLICIT])}) as scu:
        for i in range(number):
            ds = ct(first + i, size_px=EDGE_PX, SeriesInstanceUID=f"1.2.826.0.1.3680043.2.1125.8.{first}")
            scu.send(store_rq(str(ds.SOPInstanceUID), encode(ds), fragment=100_000))
            assert scu.answer().status == 0x0000
        scu.release()


def _handshakes(port: int, context: ssl.SSLContext, number: int) -> list[float]:
    """Verify over TLS at the pace, each on a connection of its own; return how long each took."""

    def verify(i: int) -> float:
        time.sleep(max(0.0, begin + i / HANDSHAKES_PER_S - time.monotonic()))
        started = time.monotonic()
        with Scu(port, tls=context, calling=b"ECHO", contexts={5: (VERIFICATION, [IMPLICIT])}) as scu:
            assert scu.echo() == 0x0000
            scu.release()
        return time.monotonic() - started

    begin = time.monotonic() + 0.2
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(verify, range(number)))


def main() -> None:
    parts = {"forwarding": forwarding, "rules": rules, "tls": tls}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(parts))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--instances", type=int, default=200)
    chosen = parser.parse_args()
    for name in chosen.parts:
        with tempfile.TemporaryDirectory(prefix="mediqa-bench-") as folder, contextlib.suppress(KeyboardInterrupt):
            for line in parts[name](Path(folder) / name, chosen.rounds, chosen.instances):
                print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
