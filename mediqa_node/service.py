"""Processes of a node, and the only signal handling.

`serve` supervises its processes, spawned, never forked: the receiver (no torch), the worker (torch, one per GPU), the
courier (sweeps, deliveries) and, if it is wanted and installed, the web process (pages, no torch). A process that dies
is started again and resumes its work from the database.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from mediqa_node.composition.checkpoints import open_at, open_stored, place_of
from mediqa_node.composition.resources import (
    make_data_folder,
    nightly_export,
    node_context,
    open_database,
    open_spool,
    prepare,
    query_services,
    slow_actions,
)
from mediqa_node.config import Settings
from mediqa_node.domain.errors import CheckpointRefused, ConfigurationError, MediqaError, StorageFailed
from mediqa_node.domain.returns import obstacle
from mediqa_node.logs import log_uncaught
from mediqa_node.pipeline.heartbeat import Beat, Pulse
from mediqa_node.storage.database import Database
from mediqa_node.system.lock import Locked, is_locked, locked

if TYPE_CHECKING:
    from mediqa_node.domain.promotion import Weights

log = structlog.get_logger("serve")

ROLES = ("receiver", "worker", "courier")
"""The processes that every node has."""
WEB = "web"
REFUSED = 78
"""Exit status of a process that cannot start as configured (sysexits EX_CONFIG): not tried again."""
RESTART = 75
"""Exit status of a worker that restarts with another checkpoint (sysexits EX_TEMPFAIL)."""
DRAIN_S = 30.0
_SERIES_ON_A_GPU = 4
_SWITCH_S = 0.001
"""How long a thread of the receiver computes while others wait. Python's 5 ms make C-ECHO wait for many senders."""
_LOOK_EVERY_S = 0.5
_BACKOFF_S = (0.2, 1.0, 5.0, 15.0)
_LISTEN_AGAIN_S = 30.0
_TRIM_EVERY_S = 30.0
WEB_FIX = "pip install 'mediqa-node[web]'"
_WEB_PACKAGES = ("argon2", "fastapi", "jinja2", "multipart", "uvicorn")
_STEADY_AFTER_S = 20.0
"""A process that ran this long is restarted at once, because scanners do not wait."""


# ── one process ──────────────────────────────────────────────────────────────


def run_role(role: str, settings: Settings) -> int:
    """Run one process until SIGTERM, or until its supervisor is gone."""
    log_uncaught()
    stop = threading.Event()
    _stop_at_a_signal(stop)
    threading.Thread(target=_watch_supervisor, args=(stop,), daemon=True).start()
    try:
        # the name of a role is its identity in the durable engine, and must be unique
        with locked(settings.data_dir / f"{role}.lock", wait=lambda: not stop.wait(0.1)):
            return {"receiver": _receiver, "worker": _worker, "courier": _courier, WEB: _web}[role](settings, stop)
    except Locked:
        return 0  # asked to stop while another process of this role still ran
    except (ConfigurationError, CheckpointRefused) as error:
        log.error("cannot start", role=role, reason=str(error))
        return REFUSED
    except MediqaError as error:  # such as a database that does not answer: the supervisor tries again
        log.error("process failed", role=role, reason=str(error))
        return 1


def _stop_at_a_signal(stop: threading.Event) -> None:
    """Stop at the first signal; another one, which service managers and terminals send, would wait for its lock."""

    def end(*_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _watch_supervisor(stop: threading.Event) -> None:
    """Stop when standard input closes: the supervisor holds its other end, and has died if it does."""
    with contextlib.suppress(OSError):
        while os.read(0, 1):  # not sys.stdin: its lock would be held at exit
            pass
    stop.set()


def running_roles(settings: Settings) -> list[str]:
    """Return the roles of this node that run on this machine: their lock is held."""
    return [role for role in (*ROLES, WEB) if is_locked(settings.data_dir / f"{role}.lock")]


def _receiver(settings: Settings, stop: threading.Event) -> int:
    from mediqa_node.decode.syntaxes import decodable_transfer_syntaxes
    from mediqa_node.pipeline.flow import receive
    from mediqa_node.pipeline.recovery import recover

    sys.setswitchinterval(_SWITCH_S)
    database, spool = open_database(settings), open_spool(settings)
    recover(database, spool, now=time.time())
    try:
        receiver, writer = receive(
            database,
            spool,
            settings.receiver,
            ae_title=settings.node.ae_title,
            host=settings.node.host,
            port=settings.node.port,
            transfer_syntaxes=decodable_transfer_syntaxes(),
            services=query_services(settings, database, stop.is_set),
        )
    except OSError as error:
        raise ConfigurationError(_cannot_listen(settings, error)) from error
    most = settings.receiver.max_associations
    _start_heartbeat(database, "receiver", Pulse(), stop, associations=lambda: (receiver.n_associations, most))
    serving = threading.Thread(target=receiver.serve, name="accept", daemon=True)
    serving.start()
    log.info("receiving", ae_title=settings.node.ae_title, host=settings.node.host, port=receiver.port)
    _tell(f"listening on {settings.node.host}:{receiver.port} as {settings.node.ae_title}")
    stop.wait()
    receiver.stop(within_s=DRAIN_S - 5)
    writer.stop()
    database.close()
    return 0


def _worker(settings: Settings, stop: threading.Event) -> int:
    from mediqa_node.pipeline import durable, flow, sweeps
    from mediqa_node.pipeline.checkpoints import shadow
    from mediqa_node.pipeline.checks import constancy

    database, pulse = open_database(settings), Pulse()
    _start_heartbeat(database, "worker", pulse, stop)  # before the weights are loaded, which takes a while
    loaded = _promoted(database)  # read once: a promotion from here on is noticed below
    assessor = open_at(settings, place_of(settings, loaded), reporting=True)
    node = replace(node_context(settings, database, assessor=assessor), pulse=pulse)
    checkpoint = assessor.scorer.checkpoint
    constancy.check_if_due(node, at_start=True)  # before the first job: no unproven result leaves
    on_gpu = bool(assessor.scorer.hardware)
    gate = durable.launch(
        database,
        executor_id="worker",
        score=partial(flow.assess, node),
        scores_at_once=_SERIES_ON_A_GPU if on_gpu else 1,
    )
    sweeps.worker_loop(node, stop).start()
    log.info("scoring", checkpoint=checkpoint.name, trained=checkpoint.trained, weights=checkpoint.sha256[:16])
    _tell(f"model ready: {checkpoint.name}, {checkpoint.execution}")
    beside = shadow.Shadow(node, partial(open_stored, settings))
    threading.Thread(target=shadow.run, args=(beside, stop), name="shadow", daemon=True).start()
    status = 0
    while not stop.wait(_LOOK_EVERY_S):
        sweeps.keep_pace(node, gate)
        if _is_replaced(database, loaded):
            log.info("another checkpoint is active, the worker restarts")
            status = RESTART
            stop.set()
    durable.shut_down(within_s=int(DRAIN_S - 10))
    database.close()
    return status


def _start_heartbeat(
    database: Database,
    role: str,
    pulse: Pulse,
    stop: threading.Event,
    associations: Callable[[], tuple[int, int]] | None = None,
) -> None:
    beat = Beat(database, role, pulse, associations=associations)
    threading.Thread(target=beat.run, args=(stop,), name="heartbeat", daemon=True).start()


def _promoted(database: Database) -> "Weights | None":
    from mediqa_node.storage import promotions

    with database.read() as connection:
        return promotions.standing(connection).current


def _is_replaced(database: Database, loaded: "Weights | None") -> bool:
    """Whether another checkpoint is active now; False while the database does not answer."""
    try:
        return _promoted(database) != loaded
    except StorageFailed as error:
        log.warning("promotions not read", reason=str(error), hourly_for=None)
        return False


def _courier(settings: Settings, stop: threading.Event) -> int:
    from mediqa_node.pipeline import durable, flow, sweeps
    from mediqa_node.pipeline.clock_watch import ClockWatch

    database = open_database(settings)
    node = node_context(settings, database)
    _start_heartbeat(database, "courier", node.pulse, stop)
    gate = durable.launch(database, executor_id="courier", deliver=partial(flow.deliver, node))
    nightly = nightly_export(settings, database)
    jobs = durable.DurableJobs(database)
    scheduler = sweeps.schedule(node, jobs, stop.is_set, nightly)
    scheduler.start()
    watch = ClockWatch(node, partial(sweeps.rearm, scheduler))
    rounds = threading.Thread(target=sweeps.Rounds(node, gate, stop, watch).run, name="rounds", daemon=True)
    threads = [rounds, *sweeps.courier_loops(node, jobs, stop, slow_actions(settings, database, stop.is_set))]
    for thread in threads:
        thread.start()
    log.info("delivering", peers=[peer.name for peer in node.peers])
    stop.wait()
    scheduler.shutdown(wait=True)
    for thread in threads:
        thread.join()
    durable.shut_down(within_s=int(DRAIN_S - 10))
    database.close()
    return 0


def _web(settings: Settings, stop: threading.Event) -> int:
    from mediqa_node.composition.resources import web_context
    from mediqa_node.system.memory import give_back_freed_memory, share_memory_between_threads
    from mediqa_node.web.app import create_app
    from mediqa_node.web.server import CannotServe, Server

    share_memory_between_threads()
    database = open_database(settings)
    context = web_context(settings, database, partial(running_roles, settings))
    web = settings.web
    server = None
    while server is None and not stop.is_set():
        try:
            server = Server(create_app(context), host=web.host, port=web.port, proxies=web.proxies)
            port = server.start()
        except CannotServe as error:  # another program, or another node; this one receives and scores all the same
            server = None
            log.warning("no workbench", reason=str(error), hourly_for="web")
            stop.wait(_LISTEN_AGAIN_S)
    if server is None:
        return 0
    if web.is_in_plain_text:
        log.warning(
            "passwords cross the network in plain text", host=web.host, fix="put TLS in front, web.secure: true"
        )
    _start_heartbeat(database, WEB, Pulse(), stop)
    log.info("showing", host=web.host, port=port)
    _tell(f"workbench at {'https' if web.secure else 'http'}://{web.host}:{port}/")
    while not stop.wait(_TRIM_EVERY_S):
        database.close()  # each connection that nobody uses keeps megabytes of pages
        give_back_freed_memory()
    server.stop()
    database.close()
    return 0


def missing_web_packages() -> list[str]:
    """Return the packages of the workbench that are not installed; `WEB_FIX` does so."""
    return [name for name in _WEB_PACKAGES if find_spec(name) is None]


def roles_of(settings: Settings) -> tuple[str, ...]:
    """Return the processes of this node: the web process only if it is wanted and its packages are installed."""
    if not settings.web.enabled:
        return ROLES
    if missing := missing_web_packages():
        log.warning("no workbench: packages are missing", packages=missing, fix=WEB_FIX)
        return ROLES
    return (*ROLES, WEB)


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
        log_uncaught()
        _stop_at_a_signal(self._stop)
        prepare(self.settings)
        roles = roles_of(self.settings)
        threads = [threading.Thread(target=self._keep, args=(role,), daemon=True) for role in roles]
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
            if status == REFUSED and role in ROLES:  # the node receives and scores without pages
                self._stop.set()
                return
            if status == RESTART:
                continue
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
    """Run the node; `arguments` name the same configuration to the child processes.

    Raises:
        ConfigurationError: another `serve` uses the data folder, or the port is taken.
    """
    make_data_folder(settings)
    with _only_node(settings.data_dir):
        _tell(f"configuration {settings.file or 'defaults: no file was given or found'}, data in {settings.data_dir}")
        _check_port(settings)
        if why_not := obstacle(settings.return_rules(), settings.peers_of_settings(), settings.receiver):
            log.warning("no report will be sent", reason=why_not)
        return Supervisor(settings, arguments).run()


@contextlib.contextmanager
def _only_node(folder: Path) -> Iterator[None]:
    """Hold the lock of the data folder."""
    try:
        with locked(folder / "serve.lock"):
            yield
    except Locked as error:
        raise ConfigurationError(
            f"{folder} is used by pid {error.pid or 'unknown'}: one `mediqa-node serve` for a data folder"
        ) from None


def _check_port(settings: Settings) -> None:
    """Refuse a port that something else listens on, before the other processes have started."""
    host, port = settings.node.host, settings.node.port
    if port == 0 or "receiver" in running_roles(settings):  # a receiver that outlived its supervisor is about to stop
        return
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ConfigurationError(_cannot_listen(settings, error)) from error


def _cannot_listen(settings: Settings, error: OSError) -> str:
    where = f"node.host {settings.node.host}, node.port {settings.node.port}"
    return f"{where}: cannot listen there: {error.strerror or error}"


def _tell(text: str) -> None:
    """Print a line for the person at the terminal; a service manager has the log."""
    if sys.stdout.isatty():
        print(text, flush=True)  # noqa: T201
