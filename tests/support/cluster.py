"""Two hosts of one node: groups of processes with their own ids on PostgreSQL and one folder."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from support.node import Node
from support.waiting import free_port, until


class Host(Node):
    """One host; its processes are a process group of their own."""

    def __init__(self, folder: Path, host_id: str, *, shared: Path, url: str, **settings: Any) -> None:
        self.host_id = host_id
        port = free_port()
        own = {"host_id": host_id, "port": port, "data_dir": str(shared), "time_zone": "UTC"}
        super().__init__(folder, node=own, database={"url": url}, **settings)
        self.port = port
        self._shared = shared

    @property
    def spool(self) -> Path:
        """The folder of received instances."""
        return self._shared / "spool"

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"serve ended with {self.process.returncode}: {self.log_file.read_text()}"
        said = {line.get("event") for line in self.log()}
        has_courier = bool({"delivering", "standing by"} & said)
        return {"receiving", "scoring"} <= said and has_courier and self.answers_echo()

    def pause(self) -> None:
        """Stop all processes, as a virtual machine that is suspended; callers wait in the backlog."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)
        until(self._is_paused, f"host {self.host_id} is paused")

    def _is_paused(self) -> bool:
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return all(one.status() == psutil.STATUS_STOPPED for one in (root, *root.children(recursive=True)))

    def wake(self) -> None:
        """Have the processes of a paused host go on."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)


@contextmanager
def two_hosts(
    folder: Path, url: str, *, peers: Mapping[str, Any] | None = None, **settings: Any
) -> Iterator[tuple[Host, Host]]:
    """Two hosts, `a` and `b`, neither started; both are ended afterwards."""
    shared = folder / "shared"
    hosts = tuple(Host(folder / name, name, shared=shared, url=url, peers=peers, **settings) for name in ("a", "b"))
    try:
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            if host.process is not None:
                host.kill_group()
            host.close()
