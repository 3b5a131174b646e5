"""`mediqa-node demo`: the whole chain on one machine, with a bundled chest CT, in well under a minute.

Starts a real node (three processes, SQLite, a folder), sends it a series by C-STORE, and receives the report with a
small Storage SCP in place of the PACS.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pydicom
import typer

from mediqa_node import __version__, config, logs, service
from mediqa_node.cli.measure_table import in_line
from mediqa_node.cli.present import fact
from mediqa_node.composition import resources
from mediqa_node.dicom.part10 import file_head
from mediqa_node.domain.assessment import Assessment, rounded
from mediqa_node.domain.errors import MediqaError, PeerRefused, PeerUnavailable
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import ReceiverPolicy
from mediqa_node.network.caller import Caller
from mediqa_node.network.contexts import acceptor_contexts
from mediqa_node.network.dimse import Command
from mediqa_node.network.receiver import Receiver
from mediqa_node.network.sender import connect, send_files, verification_contexts
from mediqa_node.storage import assessments, index, measures
from mediqa_node.storage.spool import Incoming, Spool

PATIENCE_S = 120.0

_CONFIGURATION = """\
# written by `mediqa-node demo`
node: {{ae_title: MEDIQA, port: {node_port}, data_dir: ../var}}
peers:
  DEMOPACS: {{ae_title: DEMOPACS, host: 127.0.0.1, port: {pacs_port}}}
returns:
  - {{from: "*", to: [DEMOPACS]}}
web: {{enabled: {web}, port: {web_port}}}
completion: {{quiet_after_s: 2, deliver_after_s: 2}}   # a clinic waits longer before a report leaves
retention: {{low_water_bytes: 100000000}}
"""


class DemoFailed(MediqaError):
    """The demonstration did not finish; the message names the log."""


@dataclass(slots=True)
class _Reports:
    """The intake of the small PACS: keeps what arrives and sets an event."""

    spool: Spool
    arrived: threading.Event = field(default_factory=threading.Event)
    paths: list[Path] = field(default_factory=list)

    def begin(self, caller: Caller, command: Command, transfer_syntax_uid: str) -> Incoming:
        """Open a file for a report."""
        return self.spool.begin(
            file_head(
                sop_class_uid=command.sop_class_uid,
                sop_instance_uid=command.sop_instance_uid,
                transfer_syntax_uid=transfer_syntax_uid,
                source_ae_title=caller.calling_ae_title,
            )
        )

    def finish(self, incoming: Incoming, caller: Caller, command: Command, transfer_syntax_uid: str) -> None:
        """Store a report that has arrived."""
        self.paths.append(self.spool.path(self.spool.place(incoming)))
        self.arrived.set()

    def discard(self, incoming: Incoming) -> None:
        """Delete an incomplete report."""
        self.spool.discard(incoming)

    def closed(self, caller: Caller, *, released: bool) -> None:
        """Do nothing: the demonstration keeps no associations."""


def run(*, port: int, folder: Path | None, web: bool = False) -> int:
    """Run the demonstration and return the exit status.

    Args:
        port: of the node, 0 for a free one.
        folder: for all data; None makes a temporary folder.
        web: send an MR and a fundus photograph as well, open the workbench, and go on until Ctrl-C.
    """
    logs.configure(level="ERROR")
    where = (folder or Path(tempfile.mkdtemp(prefix="mediqa-demo-"))).resolve()
    if web and service.missing_web_packages():
        raise DemoFailed(f"demo: the workbench is not installed: {service.WEB_FIX}")
    if where.is_dir() and any(where.iterdir()):
        raise DemoFailed(f"demo: {where} is not empty; name an empty or a new folder")
    typer.echo(f"mediqa-node {__version__} – research use only, not for diagnosis")
    with as_file(files("mediqa_node") / "demo_series") as source, _pacs(where / "pacs") as (pacs_port, inbox):
        images = sorted(source.glob("*.dcm"))
        configuration = _write_configuration(where, port or _free_port(), pacs_port, _free_port() if web else None)
        settings = config.load(configuration, {})
        node = Peer(name="this node", ae_title="MEDIQA", host="127.0.0.1", port=settings.node.port)
        fact("node", f"MEDIQA at 127.0.0.1:{settings.node.port}, everything in {where}")
        with _running(configuration, where / "node.log") as process:
            _wait("starting", lambda: _answers(node), process, where)
            _send(node, images)
            sent_at = time.monotonic()
            _wait("scoring", inbox.arrived.is_set, process, where)
            took_s = time.monotonic() - sent_at
            _show(settings, images, inbox.paths[0], took_s)
            if web:
                _workbench(settings, node, process)
                return 0
    fact("next", f"mediqa-node -c {configuration} series")
    fact("", "mediqa-node config show > node.yaml     # then edit it: peers, returns, receiver.allowed")
    fact("", "mediqa-node -c node.yaml serve          # a node of your own")
    return 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _write_configuration(where: Path, node_port: int, pacs_port: int, web_port: int | None) -> Path:
    path = where / "config" / "node.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    web = {"web": str(web_port is not None).lower(), "web_port": web_port or 0}
    path.write_text(_CONFIGURATION.format(node_port=node_port, pacs_port=pacs_port, **web), encoding="utf-8")
    return path


@contextlib.contextmanager
def _pacs(folder: Path) -> Iterator[tuple[int, _Reports]]:
    """Run a Storage SCP that keeps reports in a folder."""
    inbox = _Reports(Spool(folder, durable=False))
    receiver = Receiver(
        ae_title="DEMOPACS",
        host="127.0.0.1",
        port=0,
        policy=ReceiverPolicy(),
        contexts=acceptor_contexts(["1.2.840.10008.1.2.1"]),
        intake=inbox,
    )
    thread = threading.Thread(target=receiver.serve, daemon=True)
    thread.start()
    try:
        yield receiver.port, inbox
    finally:
        receiver.stop(within_s=2)
        thread.join(timeout=2)


@contextlib.contextmanager
def _running(configuration: Path, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `mediqa-node serve` and stop it at the end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDIQA")}
    command = [sys.executable, "-m", "mediqa_node", "--config", str(configuration), "serve"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=service.DRAIN_S + 5)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(what: str, done: Callable[[], bool], process: "subprocess.Popen[bytes]", where: Path) -> None:
    """Wait with a spinner; raise DemoFailed with the path of the log after a timeout or if the node has ended."""
    from rich.console import Console

    deadline = time.monotonic() + PATIENCE_S
    with Console(stderr=True).status(what):
        while not done():
            if process.poll() is not None or time.monotonic() > deadline:
                ended = "the node ended" if process.poll() is not None else f"nothing after {PATIENCE_S:.0f} s"
                raise DemoFailed(f"demo: {ended} while {what}; its log is {where / 'node.log'}")
            time.sleep(0.1)


def _answers(node: Peer) -> bool:
    try:
        with connect(node, verification_contexts(), ae_title="DEMO", timeout_s=2) as link:
            link.verify()
    except (PeerUnavailable, PeerRefused):
        return False
    return True


def _send(node: Peer, images: list[Path]) -> None:
    _store(node, images)
    header: Any = pydicom.dcmread(images[0], stop_before_pixels=True)
    scanner = f"{header.Manufacturer} {header.ManufacturerModelName}"
    fact("sent", f"{len(images)} images of a chest {header.Modality} ({scanner}) by C-STORE")


def _store(node: Peer, images: list[Path]) -> None:
    failures = [f"{path.name}: {failure}" for path, failure in send_files(node, images, ae_title="DEMO_CT") if failure]
    if failures:
        raise DemoFailed(f"demo: the node refused its own series: {'; '.join(failures)}")


def _workbench(settings: config.Settings, node: Peer, process: "subprocess.Popen[bytes]") -> None:
    """Send two more series, and show the workbench until somebody stops it."""
    from mediqa_node.domain.access import Role
    from mediqa_node.storage import users
    from mediqa_node.web.passwords import Passwords

    password = secrets.token_urlsafe(9)
    database = resources.open_database(settings)
    with database.write() as connection:
        for name, role in (("physicist", Role.PHYSICIST), ("admin", Role.ADMINISTRATOR)):
            users.add(connection, name, role, Passwords().hash(password), by="demo", at=time.time())
    database.close()
    with as_file(files("mediqa_node") / "reference") as reference:
        for folder in ("mr_breast", "op_fundus"):
            _store(node, sorted((reference / folder).glob("*.dcm")))
    address = f"http://127.0.0.1:{settings.web.port}/"
    fact("workbench", address)
    fact("sign in", f"as physicist or admin, password {password}")
    fact("", "Ctrl-C ends the demonstration")
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):  # else a browser in this terminal might start
        webbrowser.open(address)
    with contextlib.suppress(KeyboardInterrupt):
        process.wait()


def _show(settings: config.Settings, images: list[Path], report: Path, took_s: float) -> None:
    uid = str(pydicom.dcmread(images[0], stop_before_pixels=True).SeriesInstanceUID)
    database = resources.open_database(settings)
    with database.read() as connection:
        row = index.find_series(connection, uid)
        assessment = assessments.load_assessment(connection, uid, row.revision) if row else None
        measured = measures.load(connection, uid)
    database.close()
    if row is None or assessment is None:
        raise DemoFailed("demo: a report arrived, but the node has no assessment of it")
    for name, text in _findings(assessment, row.completion or "?"):
        fact(name, text)
    if measured is not None:
        fact("measured", in_line({one.name: one.as_dict() for one in measured.measures if one.value is not None}))
    fact("report", f"{report}")
    fact("", f"received {took_s:.1f} s after the last image")
    if not assessment.checkpoint.trained:
        fact("warning", "UNTRAINED WEIGHTS: this score has no meaning; it shows the chain, not the image")


def _findings(assessment: Assessment, completion: str) -> Iterator[tuple[str, str]]:
    prompt = assessment.primary.prompt
    words = ", ".join(
        f"{term.value} ({term.source})" for term in (prompt.dimension, prompt.modality, prompt.region, prompt.type)
    )
    yield "complete", completion
    yield "prompts", words
    if assessment.technique.tube_charge_mas is not None:
        yield "recorded", f"{assessment.technique.tube_charge_mas:g} mAs ({assessment.technique.source})"
    yield "slices", "  ".join(f"{part.quality:.2f}" for part in assessment.primary.slices)
    if assessment.primary.has_learned_weights:
        yield "weights", "  ".join(f"{part.weight:.2f}" for part in assessment.primary.slices)
    yield "score", f"{rounded(assessment.quality, assessment.calibration)} of 1, {assessment.verdict}"
