"""Prepare series while they arrive: at completion only what is still missing remains to be done.

A thread of the worker, beside its jobs. Files are verified and their headers read as they come; slices of CT are
measured; the slices that will probably be scored are, by the number of slices that is expected. Once a series has
paused, whatever its size, the assessment is made on trial and its outcome thrown away: what it was made of is kept.

Nothing rests on it. A prediction that fails costs work; a series that is not prepared, or by another worker, is
assessed as it would be without. The results are those that the assessment would compute, bit for bit (`prepared`).

It gives way: to jobs, to series that wait for one, and to images that come faster than a scanner makes them. Memory
has a limit; the series that was heard of least recently goes first. What goes wrong here is left to the assessment to
report.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydicom import Dataset

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.header import integer, text
from mediqa_node.domain.errors import NotScorable, StorageFailed, fault_of
from mediqa_node.domain.images import FrameRef, Stack
from mediqa_node.domain.series import SeriesState
from mediqa_node.domain.technique import Technique
from mediqa_node.pipeline import dose_reports, policy
from mediqa_node.pipeline.arrived import NOT_ARRIVED, Arrived, expected_stack, measure_arrived, score_arrived
from mediqa_node.pipeline.measures import measure_series
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.origin import protocol_of, scanner_of
from mediqa_node.pipeline.prepared import Interrupted, Prepared, TooLarge
from mediqa_node.pipeline.score import SeriesFiles, assess, harvest_series
from mediqa_node.storage import assessments, index, procedure_steps
from mediqa_node.storage.index import SeriesRow

log = structlog.get_logger("worker")

ROUND_S, SLOW_ROUND_S = 0.1, 0.5
"""Pause between two looks while images arrive, or half of what a long one took; and while series only wait for more."""
PAUSED_AFTER_S = 1.0
"""A series without a new image for so long may be whole, though its association is open."""
MOST_BYTES = 256 << 20
"""Memory of all series being prepared."""
_LOW_PRIORITY = 10
_TRANSFER_PER_S = 100.0
"""Images that come faster are a transfer, not a scan: to prepare them would slow it down, and it is over soon."""
_FIRST = 16
"""Images whose headers stand for those of the series until it is whole."""
_GROWN = 1.5
"""How much larger a series has to be for a second trial, unless its only association has ended."""
_LEARNED = 256
_NEVER = datetime.fromtimestamp(0, UTC)

Kind = tuple[str, str, str]
"""Scanner, protocol and description of series that usually have the same number of images."""


@dataclass
class _Series:
    """A series that arrives.

    Attributes:
        seen: generation, number of images and whether it had paused, when it was last prepared.
        tried: number of images of the last trial.
        first: its first images, their stack and technique.
        scored: the slices that were scored last.
    """

    prepared: Prepared
    seen: tuple[int, int, bool] = (-1, 0, False)
    tried: int = 0
    kind: Kind | None = None
    first: tuple[tuple[Path, ...], Stack, Technique] | None = None
    scored: tuple[FrameRef, ...] = ()


class Preparation:
    """Prepares series for one worker.

    Args:
        most_bytes: memory of all series; one may take half of it.
    """

    def __init__(self, node: NodeContext, *, most_bytes: int = MOST_BYTES) -> None:
        self._node, self._most_bytes = node, most_bytes
        self._arriving: OrderedDict[str, _Series] = OrderedDict()
        self._given_up: set[str] = set()
        self._dropped: dict[str, int] = {}
        self._counts: OrderedDict[Kind, int] = OrderedDict()
        self._jobs = 0
        self._counted: dict[str, int] = {}
        self._counted_at = 0.0
        self._reader, self._read = FrameReader(), ""
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()

    # ── the jobs ─────────────────────────────────────────────────────────────

    @contextmanager
    def taken(self, series_instance_uid: str) -> Iterator[Prepared]:
        """Give what is prepared of a series to its job, and give way while the block runs."""
        with self._lock:
            self._jobs += 1
            found = self._arriving.pop(series_instance_uid, None)
        prepared = found.prepared if found is not None else Prepared()
        prepared.seal()
        try:
            yield prepared
        finally:
            with self._lock:
                self._jobs -= 1
                if found is not None and found.kind is not None:
                    self._learn(found.kind, prepared.n_files)

    def _learn(self, kind: Kind, count: int) -> None:
        self._counts[kind] = count
        self._counts.move_to_end(kind)
        while len(self._counts) > _LEARNED:
            self._counts.popitem(last=False)

    # ── the thread ───────────────────────────────────────────────────────────

    def wake(self) -> None:
        """Look for series that arrive."""
        self._wake.set()

    def stop(self) -> None:
        """End the thread within one slice."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Prepare series until `stop`; sleep until `wake` while none arrives.

        The thread is of low priority (Linux): what arrives goes before what is prepared.
        """
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOW_PRIORITY)
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                pause_s = self.round()
            except StorageFailed:
                pause_s = SLOW_ROUND_S  # the jobs report it
            except Exception:
                log.exception("preparation failed", hourly_for="preparation")
                pause_s = SLOW_ROUND_S
            if pause_s is not None:
                self._stop.wait(max(pause_s, (time.monotonic() - started) / 2))
            else:
                self._reader_of("")
                self._wake.wait()
                self._wake.clear()
        self._reader.close()

    def round(self) -> float | None:
        """Prepare what has arrived since the last round; return when to look again, None if no series arrives."""
        with self._node.database.read() as connection:
            rows = index.series_in(connection, SeriesState.RECEIVING, SeriesState.READY)
        arriving = [row for row in rows if row.state is SeriesState.RECEIVING]
        self._forget_all_but({row.series_instance_uid for row in rows})
        if self._per_s(arriving) > _TRANSFER_PER_S:
            return ROUND_S
        if len(arriving) == len(rows):  # else a job is waiting
            for row in arriving:
                if not row.pulled and row.series_instance_uid not in self._given_up:
                    with suppress(Interrupted):
                        self._prepare(row)
        if not arriving:
            return None
        silent_s = self._node.clock() - max(row.last_instance_at for row in arriving)
        return ROUND_S if silent_s < 2 * PAUSED_AFTER_S else SLOW_ROUND_S

    def _per_s(self, arriving: Sequence[SeriesRow]) -> float:
        """Return how many images a second have come since this was last asked."""
        now, before, counted_at = time.monotonic(), self._counted, self._counted_at
        self._counted = {row.series_instance_uid: row.n_instances for row in arriving}
        self._counted_at = now
        n_new = sum(max(0, count - before.get(uid, 0)) for uid, count in self._counted.items())
        return n_new / max(now - counted_at, ROUND_S)

    def _forget_all_but(self, uids: set[str]) -> None:
        self._given_up &= uids
        self._dropped = {uid: generation for uid, generation in self._dropped.items() if uid in uids}
        with self._lock:
            for uid in set(self._arriving) - uids:
                del self._arriving[uid]

    def _must_stop(self) -> bool:
        return self._jobs > 0 or self._stop.is_set()

    def _prepare(self, row: SeriesRow) -> None:
        uid = row.series_instance_uid
        if self._dropped.get(uid) == row.generation:  # there was no room for it, and nothing of it has come since
            return
        series = self._series(uid)
        if series.seen == (row.generation, row.n_instances, True):
            return
        with self._node.database.read() as connection:
            association = index.association(connection, row.association_id)
        closed = association is None or association.closed_at is not None
        moved_on = association is not None and association.last_series_uid != row.series_instance_uid
        silent = self._node.clock() - row.last_instance_at >= PAUSED_AFTER_S
        paused = closed or moved_on or silent
        state = row.generation, row.n_instances, paused
        if series.seen == state:
            return
        with self._lock:
            if uid in self._arriving:
                self._arriving.move_to_end(uid)
        whole = closed and row.n_associations == 1
        try:
            self._advance(series, row, trial=whole or (paused and row.n_instances >= _GROWN * series.tried))
        except StorageFailed:
            raise
        except (TooLarge, Exception) as error:  # the assessment reports it, or finds that all is well
            self._given_up.add(row.series_instance_uid)
            log.debug("series prepared no further", series=row.series_instance_uid, reason=fault_of(error))
        series.seen = state
        self._make_room()

    def _series(self, uid: str) -> _Series:
        assessor = self._node.assessor
        assert assessor is not None
        with self._lock:
            if uid not in self._arriving:
                singly = not assessor.scorer.hardware  # on a GPU images share batches
                half = self._most_bytes // 2
                self._arriving[uid] = _Series(Prepared(self._must_stop, at_most_bytes=half, one_by_one=singly))
            return self._arriving[uid]

    def _reader_of(self, uid: str) -> FrameReader:
        """Return a reader of one series, whose child lives until another arrives, or none."""
        if uid != self._read:
            self._reader.close()
            self._reader, self._read = FrameReader(), uid
        return self._reader

    def _make_room(self) -> None:
        with self._lock:
            while sum(one.prepared.n_bytes for one in self._arriving.values()) > self._most_bytes:
                uid, series = self._arriving.popitem(last=False)
                self._dropped[uid] = series.seen[0]

    # ── one series ───────────────────────────────────────────────────────────

    def _advance(self, series: _Series, row: SeriesRow, *, trial: bool) -> None:
        with self._node.database.read() as connection:
            instances = index.current_instances(connection, row.series_instance_uid)
        paths = [self._node.spool.path(instance.path) for instance in instances]
        for instance, path in zip(instances, paths, strict=True):
            if series.prepared.add(path) != instance.sha256:
                return
        files = series.prepared.files(paths)
        if not files.headers or "Rows" not in files.headers[0]:
            return
        header = files.headers[0]
        series.kind = scanner_of(header), protocol_of(header), text(header, "SeriesDescription")
        expected = self._expected(series.kind, row, files.headers)
        if trial or expected == len(paths):
            series.tried = len(paths)
            with suppress(NotScorable):  # yet
                self._try(files, row)
        else:
            self._look_ahead(series, files, row, expected)

    def _is_scored(self, row: SeriesRow, headers: Sequence[Dataset]) -> bool:
        """Whether the site has such a series scored, and no other reconstruction of its acquisition is."""
        if policy.phantom_rule(self._node, row, headers[0]) is not None:
            return False
        key = policy.check_scored(self._node, row, headers)
        if key is None:
            return True
        with self._node.database.read() as connection:
            return assessments.scored_of_acquisition(connection, key) in (None, row.series_instance_uid)

    def _try(self, files: SeriesFiles, row: SeriesRow) -> None:
        """Assess a series that may be whole; of all that is made the recall keeps what is of use."""
        node, assessor = self._node, self._node.assessor
        assert assessor is not None
        technique = harvest_series(files, dose_reports.events_for(node, row, files))
        measure_series(files, technique, assessor.prompts, node.score.measured)
        if self._is_scored(row, files.headers):
            assess(files, technique, assessor, revision=0, assessed_at=_NEVER)

    def _look_ahead(self, series: _Series, files: SeriesFiles, row: SeriesRow, expected: int | None) -> None:
        """Measure single slices of a series that is not whole yet, and score some if it is known where they will be."""
        node, assessor = self._node, self._node.assessor
        assert assessor is not None
        files.look_at_each()
        if series.first is None or series.first[0] != files.paths[: len(series.first[0])]:
            series.first = _first(files)
        if series.first is None:
            return
        _, stack, technique = series.first
        whole = expected_stack(stack, files.headers, expected or len(files.headers))
        if whole is None:
            return
        headers = (*files.headers, files.headers[0])  # the last is of no slice
        arrived = Arrived(SeriesFiles((*files.paths, NOT_ARRIVED), headers, files.recall), first=stack, expected=whole)
        reader = self._reader_of(row.series_instance_uid)
        if stack.modality == "CT" and node.score.measured:
            wanted = node.score.measured if expected is not None else ()  # if not, only what is asked of every slice
            measure_arrived(arrived, reader, technique, assessor.prompts, wanted)
        if expected is not None and technique.refusal is None and self._is_scored(row, files.headers[:_FIRST]):
            series.scored = score_arrived(arrived, reader, assessor, series.scored)

    def _expected(self, kind: Kind, row: SeriesRow, headers: Sequence[Dataset]) -> int | None:
        """Return how many images a series will probably have, or None.

        Procedure steps list them; Images in Acquisition (0020,1002) counts those of all series of an acquisition, which
        is often one; series of the same scanner, protocol and description have as many in many cases.
        """
        with self._node.database.read() as connection:
            listed = procedure_steps.n_listed(connection, row.series_instance_uid)
        stated = integer(headers[0], "ImagesInAcquisition") or 0
        learned = self._counts.get(kind, 0)
        return next((count for count in (listed, stated, learned) if count >= len(headers)), None)


def _first(files: SeriesFiles) -> tuple[tuple[Path, ...], Stack, Technique] | None:
    """Return the first images of a series, their stack and technique; None if they are not one of single slices."""
    first = SeriesFiles(files.paths[:_FIRST], files.headers[:_FIRST])
    if any("NumberOfFrames" in header for header in first.headers) or len(first.stacks) != 1:
        return None
    [stack] = first.stacks
    return (first.paths, stack, harvest_series(first)) if len(stack.frames) > 1 else None
