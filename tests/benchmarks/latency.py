"""From the last slice to the report in the archive, in its parts, by the reasons for which a series is complete.

`contiguous`: DCMTK sends a series as fast as it can, and releases. `announced`: a modality creates a procedure step,
sends slices while it reconstructs them, and completes the step with the list of what it has made (PS3.4 section F.7).
Time begins with the answer to the last C-STORE, and ends when Orthanc finds the report.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from tests.benchmarks import images
from tests.benchmarks.servers import Server, events, node, orthanc

SLICES = 100
PER_SECOND = 25
"""Slices that the modality reconstructs."""
_STEP = "1.2.840.10008.3.1.2.3.3"

Send = Callable[[Server, Path], float]
"""Sends a folder and returns when its last instance was acknowledged, seconds since 1970."""


@dataclass(frozen=True)
class Way:
    """A way to send, and how long the report may take, in seconds without inference."""

    title: str
    send: Send
    bound_s: float


def as_modality(per_second: float | None) -> Send:
    """Return what sends a series like a modality; None: as fast as it can."""

    def send(server: Server, folder: Path) -> float:
        slices = [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
        entity = AE(ae_title="CT_ROOM_1")
        entity.add_requested_context(images.CT, ExplicitVRLittleEndian)
        entity.add_requested_context(_STEP, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", server.port, ae_title=server.ae_title)
        step = generate_uid()
        begun = Dataset()
        begun.PerformedProcedureStepStatus = "IN PROGRESS"
        _require_success(association.send_n_create(begun, _STEP, step)[0])
        started = time.perf_counter()
        for number, ds in enumerate(slices):
            if per_second is not None:
                time.sleep(max(0.0, started + number / per_second - time.perf_counter()))
            _require_success(association.send_c_store(ds))
        acknowledged = time.time()
        _require_success(association.send_n_set(_completed(slices), _STEP, step)[0])
        association.release()
        return acknowledged

    return send


def _completed(slices: list[Dataset]) -> Dataset:
    ds, one = Dataset(), Dataset()
    ds.PerformedProcedureStepStatus, ds.PerformedSeriesSequence = "COMPLETED", [one]
    one.SeriesInstanceUID, one.ReferencedImageSequence = slices[0].SeriesInstanceUID, []
    for ds_of in slices:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = ds_of.SOPClassUID, ds_of.SOPInstanceUID
        one.ReferencedImageSequence.append(reference)
    return ds


def _require_success(status: Dataset) -> None:
    if status.get("Status") != 0x0000:
        raise RuntimeError(f"the node answered {status}")


def latency(folder: Path, rounds: int, at_once: Send) -> Iterator[str]:
    """Yield the parts of each way to send, medians over rounds that take turns."""
    ways = (
        Way("contiguous, sent at once", at_once, 1.5),
        Way(f"announced, {PER_SECOND} slices/s", as_modality(PER_SECOND), 0.6),
        Way("announced, sent at once", as_modality(None), 0.6),
    )
    taken: dict[str, list[dict[str, float]]] = {way.title: [] for way in ways}
    with ExitStack() as stack:
        pacs = stack.enter_context(orthanc(folder / "orthanc"))
        nodes = [  # a sender without procedure steps has a node of its own: what is learned of one is not of the other
            stack.enter_context(node(folder / f"node{n}", pacs, log_level="DEBUG", receiver={"mpps": n > 0}))
            for n in range(len(ways))
        ]
        for way_of, server, n in zip(ways, nodes, range(len(ways)), strict=True):
            images.write_ct_series(folder / f"warm{n}", 8, size=128, seed=99 + n)
            way_of.send(server, folder / f"warm{n}")
            _wait_for_reports(pacs, n + 1)
        for i in range(rounds):
            for n, (way_of, server) in enumerate(zip(ways, nodes, strict=True)):
                uid = images.write_ct_series(source := folder / f"ct{i}_{n}", SLICES, seed=10 * i + n)
                acknowledged = way_of.send(server, source)
                seen = _wait_for_reports(pacs, len(ways) * (i + 1) + n + 1)
                taken[way_of.title].append(_parts(folder / f"node{n}", uid, acknowledged, seen))
        memory = [server.role("worker").memory_info().rss / 1e6 for server in nodes]
    for way_of in ways:
        yield from _table(way_of, taken[way_of.title])
    yield f"worker: RSS {max(memory):.0f} MB"


def _table(way: Way, taken: list[dict[str, float]]) -> Iterator[str]:
    yield f"{way.title}: last slice → report in Orthanc, {SLICES} slices 512 × 512, {len(taken)} rounds, median [s]"
    for name in taken[0]:
        values = [one[name] for one in taken]
        yield f"  {name:<34}{statistics.median(values):7.3f}   {min(values):.3f} to {max(values):.3f}"
    inference_s = statistics.median(one["    inference"] for one in taken)
    yield f"  bound {way.bound_s} s + inference = {way.bound_s + inference_s:.2f}"


def _parts(folder: Path, uid: str, acknowledged: float, seen: float) -> dict[str, float]:
    """Return the parts of one series in seconds; those that are indented are inside the one above."""
    deadline = time.monotonic() + 10
    while True:
        mine = [one for one in events(folder) if one.get("series") == uid or uid in one.get("arguments", ())]
        found = {str(one.get("station") or one["event"]): one for one in mine}
        if "delivery" in found or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    ready, assessed, delivered = (_seconds(found[name]) for name in ("series ready", "series assessed", "deliver"))
    assess, deliver = found["assess"], found["deliver"]
    began = assessed - assess["all"] / 1000
    sending = delivered - deliver["all"] / 1000
    parts = {"in all": seen - acknowledged, "until complete": ready - acknowledged, "wait for worker": began - ready}
    parts |= {"assess": assess["all"] / 1000} | _inside(assess)
    parts |= {"wait for courier": sending - assessed, "deliver": seen - sending} | _inside(deliver)
    return parts


def _inside(event: dict[str, object]) -> dict[str, float]:
    known = {"event", "station", "series", "all", "level", "timestamp", "logger", "process", "pid"}
    return {f"    {name}": float(ms) / 1000 for name, ms in event.items() if name not in known and isinstance(ms, int)}


def _wait_for_reports(pacs: Server, count: int) -> float:
    deadline = time.monotonic() + 60
    query = {"Level": "Instance", "Query": {"Modality": "SR"}}
    while len(pacs.rest("/tools/find", query)) < count:
        if time.monotonic() > deadline:
            raise RuntimeError("no report within a minute")
        time.sleep(0.01)
    return time.time()


def _seconds(event: dict[str, str]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()
