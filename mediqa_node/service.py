"""The composition root: settings become processes. The only place that knows every room, and signals.

`serve` supervises three processes, spawned, never forked: the receiver (no torch), the worker
(torch, one for each GPU) and the courier (sweeps, deliveries). A process that dies is started
again; what it was doing is taken up from the database.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import tzinfo
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import structlog

from mediqa_node import __version__
from mediqa_node.config import Settings
from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError
from mediqa_node.storage.database import Database
from mediqa_node.storage.spool import Spool

if TYPE_CHECKING:
    from mediqa_node.dicom.prompts_from_header import PromptRules
    from mediqa_node.dicom.report_request import ReportDevice
    from mediqa_node.model.card import Card
    from mediqa_node.model.parity import Outcome
    from mediqa_node.pipeline.assessing import Judge
    from mediqa_node.pipeline.node import NodeContext

log = structlog.get_logger("serve")

ROLES = ("receiver", "worker", "courier")
REFUSED = 78
"""Exit status of a process that cannot start as configured (sysexits EX_CONFIG): not tried again."""
DRAIN_S = 30.0
_BACKOFF_S = (0.2, 1.0, 5.0, 15.0)
_STEADY_AFTER_S = 20.0
"""A process that ran this long starts again at once: scanners do not wait for a node that is careful with itself."""


# ── what processes are made of ───────────────────────────────────────────────


def open_database(settings: Settings) -> Database:
    """Open the database of this node."""
    return Database(settings.database_url)


def open_spool(settings: Settings) -> Spool:
    """Open the spool of this node."""
    return Spool(
        settings.data_dir / "spool",
        durable=settings.receiver.durability == "power-loss",
        low_water_bytes=settings.retention.low_water_bytes,
    )


def prepare(settings: Settings) -> None:
    """Create the data folder and bring both sets of tables up to date; once, before any process starts."""
    from mediqa_node.pipeline.durable import migrate
    from mediqa_node.storage.migrate import upgrade

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = open_database(settings)
    upgrade(database)
    migrate(database)
    database.close()
    identity(settings)


def identity(settings: Settings) -> dict[str, str]:
    """Return device UID and serial number of this installation, made once and kept in the data folder."""
    path = settings.data_dir / "identity.json"
    if not path.exists():
        from uuid import uuid4

        made = {"device_uid": f"2.25.{uuid4().int}", "serial_number": uuid4().hex[:12].upper()}
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with (half := path.with_suffix(".new")).open("w", encoding="utf-8") as file:
            file.write(json.dumps(made))
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)  # a name that is half written would stop every later start
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {**kept, **({"device_uid": settings.node.device_uid} if settings.node.device_uid else {})}


def report_device(settings: Settings) -> "ReportDevice":
    """Return how this node names itself in reports."""
    from mediqa_node.dicom.report_request import ReportDevice

    return ReportDevice(ae_title=settings.node.ae_title, software_version=__version__, **identity(settings))


def time_zone(settings: Settings) -> tzinfo:
    """Return the site's time zone: configured, else the machine's."""
    if settings.node.time_zone:
        try:
            return ZoneInfo(settings.node.time_zone)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigurationError(f"node.time_zone: {settings.node.time_zone!r} is no IANA time zone") from error
    from tzlocal import get_localzone

    return get_localzone()


def prompt_rules(settings: Settings) -> "PromptRules":
    """Read the prompt and kernel rules: the site's files, else those of the package."""
    import yaml

    from mediqa_node.dicom.prompts_from_header import PromptRules

    defaults = files("mediqa_node") / "defaults"
    texts = []
    for name, own in (("prompts.yaml", settings.prompts), ("kernels.yaml", settings.kernels)):
        source: Any = settings.folder / own if own else defaults / name
        try:
            texts.append(yaml.safe_load(source.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigurationError(f"{source}: not readable as YAML: {error}") from error
    return PromptRules.from_mappings(*texts)


def open_judge(settings: Settings, *, reporting: bool = False) -> "Judge":
    """Load the checkpoint; this imports torch.

    Args:
        reporting: the scores go into reports, so that raw scores alone will not do.

    Raises:
        CheckpointRefused: missing, wrong digest, or not to be honoured.
    """
    from mediqa_node.model.predict import load_scorer
    from mediqa_node.pipeline.assessing import Judge

    scorer = load_scorer(settings.model.checkpoint, lock=settings.model_lock, execution=settings.model)
    if reporting and scorer.card.quality is None:
        raise CheckpointRefused(
            f"checkpoint {scorer.checkpoint.name!r} maps no raw score to 0..1, so that nothing could be reported; "
            f"import it again with `--quality`"
        )
    if not scorer.checkpoint.trained:
        log.warning("UNTRAINED WEIGHTS: scores have no meaning", checkpoint=scorer.checkpoint.name)
    return Judge(scorer=scorer, prompts=prompt_rules(settings), calibrations=settings.calibrations)


def open_folder(settings: Settings, folder: Path) -> "Judge":
    """Load the only checkpoint of a folder that `mediqa-node model import` made, whatever is configured.

    Raises:
        CheckpointRefused: no lock file there, more than one checkpoint, or see `open_judge`.
    """
    from mediqa_node.model.checkpoint import LOCK_FILE, read_lock

    names = list(read_lock(folder / LOCK_FILE))
    if len(names) != 1:
        raise CheckpointRefused(
            f"{folder / LOCK_FILE} names {len(names)} checkpoints; configure `model.lock` to choose"
        )
    choice = replace(settings.model, lock=(folder / LOCK_FILE).resolve(), checkpoint=names[0])
    return open_judge(settings.model_copy(update={"model": choice}))


def check_parity(file: Path, advance: Callable[[int, int], None]) -> "Iterator[Outcome]":
    """Yield the outcome of every case of a parity file in both arithmetics; see `model.parity`."""
    from mediqa_node.model.parity import read_cases, run_cases

    cases = read_cases(file)
    for done, outcome in enumerate(run_cases(cases), start=1):
        advance(done, 2 * len(cases))
        yield outcome


def import_checkpoint(
    weights: Path, out: Path, *, name: str, quality: tuple[str, float, float] | None, **known: Any
) -> "Card":
    """Convert a state dict; see `model.importing`. A map of raw scores is given as kind, a, b."""
    from mediqa_node.model.card import QualityMap
    from mediqa_node.model.importing import Provenance, import_weights

    mapped = QualityMap(kind=quality[0], a=quality[1], b=quality[2]) if quality else None
    return import_weights(weights, out, name, Provenance(quality=mapped, **known))


def check_checkpoint(settings: Settings) -> None:
    """Raise ConfigurationError unless `model.checkpoint` is pinned in models.lock."""
    from mediqa_node.model.checkpoint import DEFAULT_LOCK, read_lock

    known = read_lock(settings.model_lock or DEFAULT_LOCK)
    if settings.model.checkpoint not in known:
        raise ConfigurationError(
            f"model.checkpoint: {settings.model.checkpoint!r} is not pinned; known: {', '.join(known)}"
        )


def node_context(settings: Settings, database: Database, *, with_model: bool = False) -> "NodeContext":
    """Return what the stations share."""
    from mediqa_node.pipeline.durable import DurableJobs
    from mediqa_node.pipeline.node import NodeContext

    return NodeContext(
        database=database,
        spool=open_spool(settings),
        jobs=DurableJobs(database),
        device=report_device(settings),
        time_zone=time_zone(settings),
        peers=settings.domain_peers(),
        returns=settings.return_rules(),
        completion=settings.completion,
        score=settings.score,
        delivery=settings.delivery,
        retention=settings.retention,
        allow_untrained=settings.model.allow_untrained,
        judge=cache(lambda: open_judge(settings, reporting=True)) if with_model else None,
    )


# ── one process ──────────────────────────────────────────────────────────────


def run_role(role: str, settings: Settings) -> int:
    """Run one process until it is told to stop, or its supervisor is gone."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_watch_supervisor, args=(stop,), daemon=True).start()
    try:
        with _alone(settings.data_dir / f"{role}.lock", stop):
            if not stop.is_set():
                {"receiver": _receiver, "worker": _worker, "courier": _courier}[role](settings, stop)
    except (ConfigurationError, CheckpointRefused) as error:
        log.error("cannot start", role=role, reason=str(error))
        return REFUSED
    return 0


def _watch_supervisor(stop: threading.Event) -> None:
    """Stop when standard input closes: the supervisor holds its other end, and has died if it does."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):  # not sys.stdin: its lock would be held at exit
            pass
    stop.set()


def running_roles(settings: Settings) -> list[str]:
    """Return the roles of this node whose lock is held: those that run on this machine now."""
    held = []
    for role in ROLES:
        with contextlib.suppress(FileNotFoundError), (settings.data_dir / f"{role}.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(role)
    return held


@contextlib.contextmanager
def _alone(path: Path, stop: threading.Event) -> Iterator[None]:
    """Hold the lock of a role: its name is its identity in the durable engine, and must be unique."""
    with path.open("w") as lock:
        while not stop.is_set():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stop.wait(0.1)
        yield


def _receiver(settings: Settings, stop: threading.Event) -> None:
    from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
    from mediqa_node.pipeline.flow import receive
    from mediqa_node.pipeline.recovery import recover

    database, spool = open_database(settings), open_spool(settings)
    recover(database, spool, now=time.time())
    where = f"node.host {settings.node.host}, node.port {settings.node.port}"
    try:
        receiver, writer = receive(
            database,
            spool,
            settings.receiver,
            ae_title=settings.node.ae_title,
            host=settings.node.host,
            port=settings.node.port,
            transfer_syntaxes=decodable_transfer_syntaxes(),
        )
    except OSError as error:
        raise ConfigurationError(f"{where}: cannot listen there: {error.strerror or error}") from error
    serving = threading.Thread(target=receiver.serve, name="accept", daemon=True)
    serving.start()
    log.info("receiving", ae_title=settings.node.ae_title, host=settings.node.host, port=receiver.port)
    stop.wait()
    receiver.stop(within_s=DRAIN_S - 5)
    writer.stop()
    database.close()


def _worker(settings: Settings, stop: threading.Event) -> None:
    from mediqa_node.pipeline import durable, flow

    database = open_database(settings)
    node = node_context(settings, database, with_model=True)
    assert node.judge is not None
    checkpoint = node.judge().scorer.checkpoint
    durable.launch(database, executor_id="worker", score=flow.judge(node))
    log.info("scoring", checkpoint=checkpoint.name, trained=checkpoint.trained, weights=checkpoint.sha256[:16])
    stop.wait()
    durable.shut_down(within_s=int(DRAIN_S - 10))
    database.close()


def _courier(settings: Settings, stop: threading.Event) -> None:
    from mediqa_node.pipeline import durable, flow, sweeps

    database = open_database(settings)
    node = node_context(settings, database)
    durable.launch(database, executor_id="courier", deliver=flow.deliver(node))
    scheduler = sweeps.schedule(node, durable.DurableJobs(database))
    scheduler.start()
    log.info("delivering", peers=[peer.name for peer in node.peers])
    stop.wait()
    scheduler.shutdown(wait=True)
    durable.shut_down(within_s=int(DRAIN_S - 10))
    database.close()


# ── all of them ──────────────────────────────────────────────────────────────


class Supervisor:
    """Keeps the processes of one node running."""

    def __init__(self, settings: Settings, arguments: list[str]) -> None:
        self.settings = settings
        self._arguments = arguments
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()

    def run(self) -> int:
        """Start all processes, restart what dies, stop on SIGTERM or SIGINT; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        prepare(self.settings)
        threads = [threading.Thread(target=self._keep, args=(role,), daemon=True) for role in ROLES]
        for thread in threads:
            thread.start()
        self._stop.wait()
        failed = [role for role, process in self._processes.items() if process.poll() == REFUSED]
        self._end()
        for thread in threads:
            thread.join(timeout=1)
        return 2 if failed else 0

    def _keep(self, role: str) -> None:
        attempt = 0
        while not self._stop.is_set():
            started = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "mediqa_node", *self._arguments, "process", role], stdin=subprocess.PIPE
            )
            self._processes[role] = process
            status = process.wait()
            if self._stop.is_set():
                return
            if status == REFUSED:
                self._stop.set()
                return
            attempt = 0 if time.monotonic() - started > _STEADY_AFTER_S else attempt + 1
            log.error("process ended and is started again", role=role, status=status)
            self._stop.wait(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])

    def _end(self) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + DRAIN_S
        for role, process in self._processes.items():
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("process did not stop in time and is killed", role=role)
                process.kill()


def serve(settings: Settings, arguments: list[str]) -> int:
    """Run the node; `arguments` name the same configuration to the child processes."""
    return Supervisor(settings, arguments).run()
