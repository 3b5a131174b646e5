"""The stations on a bench: real database, spool and network, with a clock and a scorer that the test holds.

No process, no torch, no durable engine: jobs are kept in a list and run when the test says so.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pydicom
import sqlalchemy as sa

from mediqa_node.composition import checkpoints
from mediqa_node.config import Settings
from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import file_head
from mediqa_node.dicom.prompts import PromptRules
from mediqa_node.dicom.report.request import ReportDevice
from mediqa_node.domain.constancy import Constancy
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules, ScorePolicy
from mediqa_node.domain.preprocessing import IntensityRule, NetworkInput, PreprocessSpec
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.range_position import RangePosition
from mediqa_node.domain.recall import Recall
from mediqa_node.domain.rules import ReturnRule
from mediqa_node.domain.scoring import CheckpointId, PatchMaps, ScoredSlices, Scorer
from mediqa_node.domain.series import ReceivedInstance
from mediqa_node.domain.worklist import Entry
from mediqa_node.pipeline.assess import assess_series
from mediqa_node.pipeline.backscore.station import backscore_series
from mediqa_node.pipeline.companions import send_due_companions
from mediqa_node.pipeline.completion_sweep import CompletionSweep
from mediqa_node.pipeline.copies import Copies
from mediqa_node.pipeline.deliver import deliver_report
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.retraction import send_due_retractions
from mediqa_node.pipeline.score import Assessor
from mediqa_node.pipeline.sweeps import enqueue_waiting
from mediqa_node.pipeline.worklist import WorklistSweep
from mediqa_node.storage import activity, index, outbox, worklist
from mediqa_node.storage.database import Database
from mediqa_node.storage.index import SeriesRow
from mediqa_node.storage.ingest import Recorded, close_association, record
from mediqa_node.storage.migrate import upgrade
from mediqa_node.storage.outbox import DeliveryRow
from mediqa_node.storage.spool import Spool
from mediqa_node.storage.tables import instances

_STATIONS: dict[str, Callable[..., str]] = {
    "score": assess_series,
    "backscore": backscore_series,
    "deliver": deliver_report,
}
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
DEVICE = ReportDevice(ae_title="MEDIQA", device_uid="2.25.7", serial_number="SN1", software_version="0.1.0")


class StandInScorer:
    """Scores by the mean of the pixels: the model is the one part that is not real here."""

    checkpoint = CheckpointId(name="stand-in", sha256="ab" * 32, trained=True, size="t16")
    constancy: Constancy | None = None
    hardware = ""
    position: RangePosition | None = None
    """Where every stack lies in the training range."""
    spec = PreprocessSpec(
        size_px=32,
        slices=7,
        intensity={
            "CT": IntensityRule(kind="window", low=-160.0, high=240.0),
            "MR": IntensityRule(kind="percentile", low=1.0, high=99.0),
            "OP": IntensityRule(kind="window", low=0.0, high=255.0),
        },
    )

    def __init__(self) -> None:
        self.scored = 0

    def range_position(self, inputs: NetworkInput, modality: str) -> RangePosition | None:
        """Return what the test says; None, without limits, if it says nothing."""
        return self.position

    def recalling(self, recall: Recall) -> Self:
        """Compute everything."""
        return self

    def score(self, inputs: NetworkInput, prompt: Prompt) -> ScoredSlices:
        """Return the mean of each image as its quality, all weights equal; patches are an eighth of the edge."""
        self.scored += 1
        n, edge = len(inputs.images), self.spec.size_px // 8
        patches = inputs.images.mean(axis=1).reshape(n, 8, edge, 8, edge).mean(axis=(2, 4))
        quality = inputs.images.mean(axis=(1, 2, 3)).astype(float)
        return ScoredSlices(
            raw=4 * quality - 2,
            quality=quality,
            weights=np.full(n, 1 / n),
            maps=PatchMaps(scores=4 * patches - 2, weights=np.ones_like(patches), views=inputs.views, quality=patches),
        )


@dataclass
class KeptJobs:
    """Records what was enqueued, in order, once for each name."""

    waiting: dict[str, tuple[str, tuple[Any, ...]]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def score(
        self, connection: Any, job: str, series_instance_uid: str, generation: int, *, can_wait: bool = False
    ) -> None:
        """Keep a score job."""
        self._keep("score", job, (series_instance_uid, generation))

    def backscore(self, connection: Any, job: str, number: int, series_instance_uid: str) -> None:
        """Keep a back-score."""
        self._keep("backscore", job, (number, series_instance_uid))

    def deliver(self, connection: Any, job: str, delivery_id: int, destination: str) -> None:
        """Keep a delivery."""
        self._keep("deliver", job, (delivery_id,))

    def _keep(self, kind: str, job: str, arguments: tuple[Any, ...]) -> None:
        if job not in self.names:
            self.names.append(job)
            self.waiting[job] = (kind, arguments)


@cache
def _migrated() -> bytes:
    """A new SQLite database, migrated once for all tests of this process."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/node.db")
        upgrade(database)
        database.close()
        return Path(folder, "node.db").read_bytes()


def migrate(database: Database) -> None:
    """Give a database its tables."""
    if database.is_sqlite and not (path := Path(database.engine.url.database)).exists():
        path.write_bytes(_migrated())
    else:
        upgrade(database)


@cache
def _prompt_rules() -> PromptRules:
    return checkpoints.prompt_rules(Settings())


class Bench:
    """One node's stations in this process, under a clock that moves only when told to."""

    def __init__(
        self,
        folder: Path,
        *,
        peers: Sequence[Peer] = (),
        returns: Sequence[ReturnRule] | None = None,
        url: str | None = None,
        scorer: Scorer | None = None,
        **policy: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.now = NOON
        self.database = Database(url or f"sqlite:///{folder / 'node.db'}")
        migrate(self.database)
        self.spool = Spool(folder / "spool", durable=False)
        self.jobs = KeptJobs()
        self.scorer = scorer or StandInScorer()
        names = tuple(peer.name for peer in peers)
        refuse = policy.get("score", ScorePolicy()).refuse
        assessor = Assessor(scorer=self.scorer, prompts=_prompt_rules(), refuse=refuse)
        policy.setdefault("delivery", DeliveryRules(timeout_s=61.0))
        self.node = NodeContext(
            database=self.database,
            spool=self.spool,
            jobs=self.jobs,
            device=DEVICE,
            peers=tuple(peers),
            returns=tuple(returns) if returns is not None else ((ReturnRule(to=names),) if names else ()),
            assessor=assessor,
            clock=lambda: self.now,
            **policy,
        )
        self.settler = CompletionSweep(self.node)
        self.lister = WorklistSweep(self.node)

    def close(self) -> None:
        """Give the database back."""
        self.database.close()

    # ── what happens to the node ─────────────────────────────────────────────

    def receive(
        self,
        path: Path,
        *,
        association: str = "a1",
        aet: str = "CT_ROOM_1",
        address: str = "127.0.0.1",
        moved_for: str | None = None,
    ) -> Recorded:
        """Enter one instance at the bench's time, as the receiver does."""
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        syntax = str(ds.file_meta.TransferSyntaxUID)
        content = path.read_bytes()
        dataset = content[144 + int.from_bytes(content[140:144], "little") :]
        head = file_head(
            sop_class_uid=ds.SOPClassUID,
            sop_instance_uid=ds.SOPInstanceUID,
            transfer_syntax_uid=syntax,
            source_ae_title=aet,
        )
        incoming = self.spool.begin(head)
        incoming.write(memoryview(dataset))
        digest = incoming.digest.hexdigest()
        instance = ReceivedInstance(
            sop_instance_uid=ds.SOPInstanceUID,
            sop_class_uid=ds.SOPClassUID,
            series_instance_uid=ds.SeriesInstanceUID,
            study_instance_uid=ds.StudyInstanceUID,
            transfer_syntax_uid=syntax,
            calling_ae_title=aet,
            called_ae_title="MEDIQA",
            peer_address=address,
            association_id=association,
            received_at=datetime.fromtimestamp(self.now, UTC),
            path=self.spool.place(incoming),
            sha256=digest,
            size_bytes=len(dataset),
            series_number=ds.get("SeriesNumber"),
            identity=identity_of(ds),
            move_originator=moved_for,
            pulled=moved_for == DEVICE.ae_title,
        )
        with self.database.write() as connection:
            outcome = record(self.database, connection, instance, str(ds.get("Modality", "")), self.spool.has)
        if outcome is Recorded.DUPLICATE:
            self.spool.remove(instance.path)
        return outcome

    def release(self, association: str = "a1", *, released: bool = True) -> None:
        """End an association."""
        with self.database.write() as connection:
            close_association(connection, association, released=released, at=self.now)

    def receive_all(
        self,
        paths: Sequence[Path],
        *,
        association: str = "a1",
        aet: str = "CT_ROOM_1",
        address: str = "127.0.0.1",
        moved_for: str | None = None,
    ) -> None:
        """Enter a series over one association, a tenth of a second apart, and release it."""
        for path in paths:
            self.receive(path, association=association, aet=aet, address=address, moved_for=moved_for)
            self.now += 0.1
        self.release(association)

    # ── what the node does ───────────────────────────────────────────────────

    def complete_series(self) -> int:
        """Run the sweep once."""
        Copies(self.node).compare_waiting()
        return self.settler.run()

    def work(self) -> list[str]:
        """Run every waiting job, those that follow at once, and what goes with reports; return what the jobs said."""
        said = []
        while self.jobs.waiting:
            name = next(iter(self.jobs.waiting))
            kind, arguments = self.jobs.waiting.pop(name)
            said.append(_STATIONS[kind](self.node, *arguments))
        send_due_companions(self.node)
        send_due_retractions(self.node)
        return said

    def pass_time(self, seconds: float, *, step_s: float = 1.0, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass in steps; at each, if there is anything to do, the sweeps run and the jobs are worked off."""
        end = self.now + seconds
        while self.now < end and not until():
            self.now = min(end, self.now + step_s)
            if self._is_busy():
                self.complete_series()
                enqueue_waiting(self.node)
                self.work()
                self.lister.run()

    def _is_busy(self) -> bool:
        with self.database.read() as connection:
            return bool(self.jobs.waiting) or activity.is_busy(connection, soon=self.now)

    # ── what there is ────────────────────────────────────────────────────────

    def series(self, series_instance_uid: str) -> SeriesRow:
        """Return a series."""
        with self.database.read() as connection:
            row = index.find_series(connection, series_instance_uid)
        assert row is not None
        return row

    def deliveries(self, series_instance_uid: str) -> list[DeliveryRow]:
        """Return the deliveries of a series."""
        with self.database.read() as connection:
            return outbox.deliveries_of(connection, series_instance_uid)

    def entry(self, series_instance_uid: str) -> Entry:
        """Return the entry of a series in the worklist, made anew."""
        self.lister.run()
        self.lister.count_images()
        with self.database.read() as connection:
            entry = worklist.find_by_uid(connection, series_instance_uid)
        assert entry is not None
        return entry

    def copies(self, sop_instance_uid: str) -> list[str]:
        """Return the statuses of all kept copies of an instance, in order of arrival."""
        with self.database.read() as connection:
            query = sa.select(instances.c.status).where(instances.c.sop_instance_uid == sop_instance_uid)
            return list(connection.execute(query.order_by(instances.c.id)).scalars())
