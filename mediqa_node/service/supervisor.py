"""The supervisor: keeps the processes of one node running, spawned, never forked."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping

import structlog

from mediqa_node.composition import data_folder, listening
from mediqa_node.composition.certificates import check_files
from mediqa_node.composition.resources import prepare
from mediqa_node.config import Settings
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.returns import obstacle
from mediqa_node.logs import log_uncaught
from mediqa_node.network.listeners import hand_over
from mediqa_node.service.roles import DRAIN_S, REFUSED, RESTART, WEB, roles_of, running_roles, stop_at_a_signal, tell
from mediqa_node.system.lock import Locked, locked

log = structlog.get_logger("serve")

_BACKOFF_S = (0.2, 1.0, 5.0, 15.0)
_STEADY_AFTER_S = 20.0
"""A process that ran this long is restarted at once, because scanners do not wait."""


class Supervisor:
    """Keeps the processes of one node running, and the receiver's sockets open while it starts again: callers wait."""

    def __init__(self, settings: Settings, arguments: list[str], sockets: Mapping[str, socket.socket]) -> None:
        self.settings = settings
        self._sockets = sockets
        self._starting = threading.Lock()
        self._arguments = arguments
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()
        self._is_refused = False

    def run(self) -> int:
        """Start all processes, restart what dies, stop on SIGTERM or SIGINT; return the exit status."""
        log_uncaught()
        stop_at_a_signal(self._stop)
        prepare(self.settings)
        roles = roles_of(self.settings)
        threads = [threading.Thread(target=self._keep, args=(role,), daemon=True) for role in roles]
        for thread in threads:
            thread.start()
        self._stop.wait()
        self._end()
        for thread in threads:
            thread.join(timeout=1)
        return 2 if self._is_refused else 0

    def _keep(self, role: str) -> None:
        """Start a role again whenever its process ends, whatever ended it, until the node stops.

        The first process of a role may refuse to start, and no node runs: that is a configuration which never worked.
        Later, the others go on: images are received though the weights of another worker are gone.
        """
        attempt, is_first = 0, True
        while not self._stop.is_set():
            started, status = time.monotonic(), self._run_once(role)
            if self._stop.is_set():
                return
            if status == REFUSED and is_first and role != WEB:  # the node receives and scores without pages
                self._is_refused = True
                self._stop.set()
                return
            is_first = False
            if status == RESTART:
                continue
            attempt = 0 if time.monotonic() - started > _STEADY_AFTER_S else attempt
            log.error("process ended and is started again", role=role, status=status)
            self._stop.wait(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
            attempt += 1

    def _run_once(self, role: str) -> int | None:
        """Return the exit status of a process, once it ends; None if there is none."""
        try:
            process = self._start(role)
        except OSError as error:  # neither memory, descriptors nor processes are left
            log.error("process not started", role=role, reason=error.strerror, hourly_for=role)
            return None
        return process.wait() if process is not None else None

    def _start(self, role: str) -> "subprocess.Popen[bytes] | None":
        with self._starting:
            if self._stop.is_set():
                return None
            handed_over = hand_over(self._sockets if role == "receiver" else {})
            command = [sys.executable, "-m", "mediqa_node", *self._arguments, "process", role]
            self._processes[role] = process = subprocess.Popen(command, stdin=subprocess.PIPE, **handed_over)
            return process

    def _end(self) -> None:
        with self._starting:
            for listener in self._sockets.values():
                listener.close()
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
    data_folder.make(settings)
    with _only_node(settings):
        rules, peers = settings.returns, settings.peers_of_settings()
        tell(f"configuration {settings.file or 'defaults: no file was given or found'}, data in {settings.data_dir}")
        check_files(settings)
        sockets = listening.open_sockets_after(settings, lambda: "receiver" in running_roles(settings))
        if why_not := obstacle(rules, peers, settings.receiver):
            log.warning("no report will be sent", reason=why_not)
        return Supervisor(settings, arguments, sockets).run()


@contextlib.contextmanager
def _only_node(settings: Settings) -> Iterator[None]:
    """Hold the lock of this host, and on SQLite that of the data folder, which only one host may use."""
    has_hosts = settings.node.host_id is not None and settings.database_url.startswith("postgresql")
    try:
        with locked((settings.lock_dir if has_hosts else settings.data_dir) / "serve.lock"):
            yield
    except Locked as error:
        rule = "one `mediqa-node serve` for each `node.host_id`"
        if not has_hosts:
            rule = "one `mediqa-node serve` for a data folder; several hosts need PostgreSQL and a `node.host_id` each"
        raise ConfigurationError(f"{settings.data_dir} is used by pid {error.pid or 'unknown'}: {rule}") from None
