"""Any course of events over a few series: a state machine for Hypothesis, with the promise checked after every step.

Images, duplicates, corrected copies, other pixels and retention come in any order; an archive answers as it likes or
not at all; the clock is set; the node dies at named places and starts again. The stations are real
(`support/bench.py`), the model is a stand-in.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydicom import Dataset
from structlog.testing import capture_logs
from support import trial
from support.bench import Bench
from support.orthanc import dataset_digest, evidence_instances, evidence_series, predecessors
from support.outside import spooled
from support.scripted import ABORT, ScriptedPacs
from support.series import ct_series, series_uid

from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import Retention
from mediqa_node.domain.rules import ReturnRule
from mediqa_node.pipeline.assess import assess_series
from mediqa_node.pipeline.clock_watch import ClockWatch
from mediqa_node.pipeline.companions import send_due_companions
from mediqa_node.pipeline.completion_sweep import CompletionSweep
from mediqa_node.pipeline.deliver import deliver_report
from mediqa_node.pipeline.retraction import send_due_retractions
from mediqa_node.pipeline.sweeps import retain
from mediqa_node.pipeline.worklist import WorklistSweep
from mediqa_node.storage.tables import instances

LOST = -2
"""In `statuses` of the archive: store the object, and end the association before the answer."""
STORED = (0x0000, 0xB000, 0xB006, 0xB007)
DAY_S = 86400.0

PLACES = {
    "score-begin": "assess.reach",
    "after-decode": "score.reach_in_station",
    "after-inference": "score.reach_in_station",
    "before-assessment-commit": "assess.reach",
    "after-assessment-commit": "assess.reach",
    "after-report-commit": "deliver.reach",
    "mid-store": "deliver.reach",
    "after-store": "deliver.reach",
}
"""Failpoints of jobs, and the module of `pipeline` that comes by."""


class Died(BaseException):
    """The process was killed at a failpoint."""


@dataclass
class Kept:
    """An object that the archive holds."""

    uid: str
    content: bytes

    @cached_property
    def ds(self) -> Dataset:
        """The object, read."""
        meta = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
        head = b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little")
        return pydicom.dcmread(BytesIO(head + meta + self.content))


class Archive(ScriptedPacs):
    """An archive that keeps what it has stored, and overwrites nothing.

    Attributes:
        kept: the first object of each UID.
        stored: every object that it answered with success or a warning, or would have.
    """

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.stored: list[Kept] = []
        super().__init__(syntaxes=["1.2.840.10008.1.2.1"])

    def _store(self, event: Any) -> int:
        answer = self.statuses[0] if self.statuses else 0x0000
        if answer == LOST:
            self.statuses[0] = ABORT
        if answer == LOST or answer in STORED:
            one = Kept(str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue())
            self.stored.append(one)
            self.kept.setdefault(one.uid, one)
        return super()._store(event)


class MortalBench(Bench):
    """A bench whose jobs can be killed at named places; the durable engine runs such a job again."""

    armed: str | None = None
    deaths = 0

    @contextlib.contextmanager
    def failpoints(self) -> Iterator[None]:
        """Let jobs die for the block."""

        def reach(name: str) -> None:
            if name == self.armed:
                self.armed = None
                raise Died(name)

        with pytest.MonkeyPatch.context() as patched:
            for place in set(PLACES.values()):
                patched.setattr(f"mediqa_node.pipeline.{place}", reach)
            yield

    def work(self) -> list[str]:
        """Run every waiting job until it has come to an end."""
        said = []
        while self.jobs.waiting:
            name = next(iter(self.jobs.waiting))
            waiting, names = dict(self.jobs.waiting), list(self.jobs.names)
            kind, arguments = self.jobs.waiting.pop(name)
            try:
                run = assess_series if kind == "score" else deliver_report
                said.append(run(self.node, *arguments))
            except Died as died:
                if str(died).startswith("before-"):  # what was enqueued in that transaction is undone with it
                    self.jobs.waiting, self.jobs.names = waiting, names
                self.jobs.waiting[name] = (kind, arguments)
                self.deaths += 1
                self.start_again()
        send_due_companions(self.node)
        send_due_retractions(self.node)
        return said

    def start_again(self) -> None:
        """Forget what a process holds in memory."""
        self.settler, self.lister = CompletionSweep(self.node), WorklistSweep(self.node)


class SeriesMachine(RuleBasedStateMachine):
    """Two series, one archive, one node."""

    @initialize()
    def begin(self) -> None:
        """Start a node and its archive."""
        self.folder = tempfile.TemporaryDirectory(prefix="machine-")
        self.root = Path(self.folder.name)
        self.archive = Archive()
        peers = [
            Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=self.archive.port),
            Peer(name="QC", ae_title="QC", host="127.0.0.1", port=1, authority=True),
        ]
        returns = [ReturnRule(to=("PACS",))]
        self.bench = MortalBench(self.root / "bench", peers=peers, returns=returns, retention=Retention(days=30))
        self.set_by_s = 0.0
        self.watch = ClockWatch(self.bench.node, offset_s=lambda: self.set_by_s, boot=lambda: "first")
        self.watch.look()
        self.sent: dict[tuple[str, str], str] = {}
        """Digest of everything that was acknowledged, by UID and digest, with the patient it named."""
        self.patients: dict[str, set[str]] = {}
        self.count = 0

    # ── what happens ─────────────────────────────────────────────────────────

    def _receive(self, paths: list[Path], patient: str, *, aet: str = "CT_ROOM_1", released: bool = True) -> None:
        self.count += 1
        association = f"a{self.count}"
        for path in paths:
            self.bench.receive(path, association=association, aet=aet)
            self.bench.now += 0.1
            uid = str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)
            self.sent[uid, dataset_digest(path.read_bytes())] = series_uid([path])
            self.patients.setdefault(series_uid([path]), set()).add(patient)
        self.bench.release(association, released=released)

    def _files(self, series: int, slices: Any, patient: str = "WRONG", pixels: str = "") -> list[Path]:
        self.count += 1
        folder = self.root / f"files{self.count}"
        return ct_series(folder, f"x{series}", slices=slices, patient_id=patient, pixels=pixels, size_px=32)

    @rule(series=st.integers(0, 1), first=st.integers(0, 3), n=st.integers(1, 4), released=st.booleans())
    def images_come(self, series: int, first: int, n: int, released: bool) -> None:
        """Images come, for the first time or again."""
        self._receive(self._files(series, range(first, first + n)), "WRONG", released=released)

    @rule(series=st.integers(0, 1), first=st.integers(0, 3), n=st.integers(1, 7))
    def a_correction_comes(self, series: int, first: int, n: int) -> None:
        """Copies under the right patient come from an authority."""
        self._receive(self._files(series, range(first, first + n), "RIGHT"), "RIGHT", aet="QC")

    @rule(series=st.integers(0, 1), number=st.integers(0, 6))
    def other_pixels_come(self, series: int, number: int) -> None:
        """Another image comes under a UID that may be known."""
        self._receive(self._files(series, [number], pixels="other"), "WRONG")

    @rule(seconds=st.sampled_from([1.0, 6.0, 15.0, 70.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        """The node works."""
        with self.bench.failpoints():
            self.bench.pass_time(seconds, step_s=max(1.0, seconds / 40))

    @rule(answer=st.sampled_from([0xA700, 0xA900, 0xC000, 0xB000, ABORT, LOST, LOST]))
    def the_archive_will_answer(self, answer: int) -> None:
        """The next object is answered like this."""
        self.archive.statuses.append(answer)

    @rule(place=st.sampled_from(sorted(PLACES)))
    def the_node_will_die(self, place: str) -> None:
        """The next job that comes by is killed."""
        self.bench.armed = place

    @rule()
    def it_starts_again(self) -> None:
        """All processes start again."""
        self.bench.start_again()
        self.watch = ClockWatch(self.bench.node, offset_s=lambda: self.set_by_s, boot=lambda: "first")

    @rule(by_s=st.sampled_from([-DAY_S, -40.0, 40.0, DAY_S]))
    def the_clock_is_set(self, by_s: float) -> None:
        """The clock is set, and the courier notices."""
        self.set_by_s += by_s
        self.bench.now += by_s
        self.watch.look()

    @precondition(lambda self: self.sent)
    @rule()
    def a_month_passes(self) -> None:
        """Images that are done with are deleted."""
        self.bench.now += 31 * DAY_S
        retain(self.bench.node)

    # ── what holds ───────────────────────────────────────────────────────────

    @invariant()
    def what_was_acknowledged_is_kept(self) -> None:
        """Each image has a row, and its bytes until retention has deleted them."""
        with self.bench.database.read() as connection:
            rows = connection.execute(sa.select(instances)).all()
        entered = {(row.sop_instance_uid, row.sha256) for row in rows}
        assert set(self.sent) <= entered, "acknowledged and not entered"
        assert entered <= set(self.sent), "entered and never sent"
        kept = {(uid, digest) for uid, digests in spooled(self.bench.spool.root).items() for digest in digests}
        wanted = {(row.sop_instance_uid, row.sha256) for row in rows if row.purged_at is None}
        assert wanted <= kept, "acknowledged and not in the spool"

    @invariant()
    def every_report_is_built_once(self) -> None:
        """What was stored under one UID is the same, byte for byte."""
        for one in self.archive.stored:
            assert one.content == self.archive.kept[one.uid].content, f"other bytes under {one.uid}"

    @invariant()
    def reports_are_of_what_was_sent_and_current_ones_are_single(self) -> None:
        """No report of anything else, none under a patient that no image names, no two that both hold."""
        sent = {uid for uid, _ in self.sent}
        reports = [one.ds for one in self.archive.kept.values() if evidence_instances(one.ds)]
        for report in reports:
            assert evidence_instances(report) <= sent, "a report of what nobody sent"
            for series in evidence_series(report):
                assert report.PatientID in self.patients[series], "a report under somebody else"
        for series in set(self.sent.values()):
            assert len(self._current(series)) <= 1, "two reports that both hold"

    def _current(self, series: str) -> list[Dataset]:
        found = [one.ds for one in self.archive.kept.values()]
        replaced = {uid for report in found for uid in predecessors(report)}
        return [ds for ds in found if series in evidence_series(ds) and str(ds.SOPInstanceUID) not in replaced]

    def teardown(self) -> None:
        """Let the node finish, and see that each series is reported once, or says why not."""
        if not hasattr(self, "bench"):
            return
        try:
            self.archive.statuses.clear()
            self.bench.armed = None
            with self.bench.failpoints():
                self.bench.pass_time(2 * DAY_S, step_s=600.0)
            for series in sorted(set(self.sent.values())):
                row = self.bench.series(series)
                assert row.state in ("DELIVERED", "NOT_SCORED", "WITHHELD", "PARKED"), f"left in {row.state}"
                if row.state == "DELIVERED":
                    assert len(self._current(series)) == 1, f"delivered, with {len(self._current(series))} reports"
                else:
                    assert row.reason is not None or self.bench.deliveries(series), f"{row.state} without a reason"
        finally:
            self.bench.close()
            self.archive.stop()
            self.folder.cleanup()


class QuietMachine(SeriesMachine):
    """The same, without its log."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(capture_logs())

    def teardown(self) -> None:
        with self._quiet:
            super().teardown()


def run_machine(*, max_examples: int, steps: int, phases: Sequence[Phase] = tuple(Phase)) -> None:
    """Run the machine with the seed of this run; a failure prints the steps that lead to it."""
    how = settings(
        max_examples=max_examples,
        stateful_step_count=steps,
        phases=phases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(trial.seed())(QuietMachine), settings=how)
