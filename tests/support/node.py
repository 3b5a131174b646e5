"""The node as its users run it: `mediqa-node serve` with a configuration file, real processes, real signals."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
import yaml
from pynetdicom import AE

from mediqa_node.storage import index, outbox
from mediqa_node.storage.database import Database
from mediqa_node.storage.index import SeriesRow
from mediqa_node.storage.outbox import DeliveryRow
from support.waiting import PATIENCE_S, free_port, until

QUICK = {
    "completion": {"contiguous_after_s": 0.3, "quiet_after_s": 1, "deliver_after_s": 0.5},
    "delivery": {"retry_first_s": 0.5, "retry_at_most_s": 2, "timeout_s": 10, "revisions_apart_s": 1},
    "model": {"checkpoint": "untrained", "allow_untrained": True, "device": "cpu"},
    "retention": {"low_water_bytes": 1_000_000},
    "web": {"enabled": False},
}
"""Settings of a node whose clock is a test's patience."""


class Node:
    """A configured node in a folder of its own."""

    def __init__(self, folder: Path, *, peers: Mapping[str, Any] | None = None, **settings: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.log_file = folder / "serve.log"
        self.configuration = folder / "node.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        names = list(peers or {})
        tree = {
            **QUICK,
            "node": {"port": self.port, "data_dir": "var", "time_zone": "UTC"},
            "peers": dict(peers or {}),
            "returns": [{"to": names}] if names else [],
            **settings,
        }
        self.configuration.write_text(yaml.safe_dump(tree, sort_keys=False))
        self.process: subprocess.Popen[bytes] | None = None
        self._database: Database | None = None
        self._url = settings.get("database", {}).get("url") or f"sqlite:///{folder / 'var' / 'node.db'}"
        self._started_at_byte = 0

    # ── running ──────────────────────────────────────────────────────────────

    def start(self, *, environment: Mapping[str, str] | None = None, ready: bool = True) -> Self:
        """Start `serve`; with `ready` wait until all three processes say that they work."""
        self._started_at_byte = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mediqa_node", "-c", str(self.configuration), "serve"],
                stderr=log,
                stdout=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "2", **(environment or {})},
                start_new_session=True,
            )
        if ready:
            try:
                self.wait_ready()
            except BaseException:  # a fixture that fails here has no teardown
                self.kill_group()
                raise
        return self

    def wait_ready(self, *, within_s: float = PATIENCE_S) -> None:
        """Wait until receiver, worker and courier work, by what they log, and C-ECHO is answered."""
        until(self._is_ready, f"the node is ready; log: {self.log_file}")

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"serve ended with {self.process.returncode}: {self.log_file.read_text()}"
        said = {line.get("event") for line in self.log()}
        return {"receiving", "scoring", "delivering"} <= said and self.answers_echo()

    def answers_echo(self) -> bool:
        """Whether a C-ECHO is answered."""
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            entity = AE(ae_title="TRIAL")
            entity.add_requested_context("1.2.840.10008.1.1")
            association = entity.associate("127.0.0.1", self.port, ae_title="MEDIQA")
            if association.is_established:
                status = association.send_c_echo()
                association.release()
                return "Status" in status and status.Status == 0x0000
        return False

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the JSON lines logged since the last start, or those of one event."""
        if not self.log_file.exists():
            return []
        lines = []
        for line in self.log_file.read_bytes()[self._started_at_byte :].splitlines():
            with suppress(ValueError):
                if isinstance(found := json.loads(line), dict):
                    lines.append(found)
        return [line for line in lines if event is None or line.get("event") == event]

    def pid(self, role: str) -> int:
        """Return the process id of a role: the child of serve whose last argument names it."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):
                if child.cmdline()[-1:] == [role]:
                    return int(child.pid)
        raise LookupError(f"no {role} runs")

    def kill(self, role: str) -> int:
        """Kill one process as the kernel would; its supervisor starts another."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill_group(self) -> None:
        """Kill the supervisor and all its processes at once."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self, *, within_s: float = PATIENCE_S) -> int:
        """Stop as systemd would, SIGTERM to the supervisor; return its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            self.kill_group()
            raise
        finally:
            self.process = None

    def close(self) -> None:
        """End whatever runs."""
        if self._database is not None:
            self._database.close()
        if self.process is not None:
            self.stop()

    def command_line(self, *arguments: str) -> list[str]:
        """Return the line of a command of `mediqa-node` with this node's configuration."""
        return [sys.executable, "-m", "mediqa_node", "-c", str(self.configuration), *arguments]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `mediqa-node` with this node's configuration."""
        line = self.command_line(*arguments)
        return subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)

    # ── looking inside ───────────────────────────────────────────────────────

    @property
    def spool(self) -> Path:
        """The folder of received instances."""
        return self.folder / "var" / "spool"

    @property
    def database(self) -> Database:
        """The node's database; tests read it and never write."""
        if self._database is None:
            self._database = Database(self._url)
        return self._database

    def series(self, series_instance_uid: str) -> SeriesRow | None:
        """Return a series as the index knows it, or None."""
        with self.database.read() as connection:
            return index.find_series(connection, series_instance_uid)

    def state(self, series_instance_uid: str) -> str:
        """Return the state of a series, "" if it is unknown."""
        row = self.series(series_instance_uid)
        return str(row.state) if row else ""

    def deliveries(self, series_instance_uid: str) -> list[DeliveryRow]:
        """Return the deliveries of a series, oldest first."""
        with self.database.read() as connection:
            return outbox.deliveries_of(connection, series_instance_uid)

    def reaches(self, series_instance_uid: str, *states: str, within_s: float = PATIENCE_S) -> SeriesRow:
        """Wait until a series is in one of these states, and return it."""

        def look() -> SeriesRow | None:
            row = self.series(series_instance_uid)
            return row if row is not None and row.state in states else None

        found = until(look, f"series …{series_instance_uid[-8:]} is {' or '.join(states)}")
        assert found is not None
        return found
