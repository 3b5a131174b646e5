"""The receiver dies and comes back: callers wait for it, and are not refused."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from support.node import Node
from support.receiver_process import echoes
from support.receiving import Rejected, Scu
from support.tls import Authority, client
from support.waiting import PATIENCE_S, free_port, until

WAITS_S = 2.0
"""How long a scanner may have to wait on an idle machine."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Node]:
    """A node that listens with TLS too; what else it does is not waited for."""
    pair, port = authority.issue("node"), free_port()
    tls = {"certificate": str(pair.certificate), "key": str(pair.key), "ca": str(authority.file), "port": port}
    running = Node(tmp_path_factory.mktemp("node"), receiver={"tls": tls})
    running.start(ready=False)
    until(running.answers_echo, "the receiver answers")
    yield running
    running.close()


def tls_port(node: Node) -> int:
    return int(yaml.safe_load(node.configuration.read_text())["receiver"]["tls"]["port"])


def test_callers_wait_while_the_receiver_starts_again_and_none_is_refused(node: Node, authority: Authority) -> None:
    took: list[float] = []
    refused: list[BaseException] = []
    before = len(node.log("receiving"))

    def call(secure: bool) -> None:
        started = time.monotonic()
        try:
            port, tls = (tls_port(node), client(authority)) if secure else (node.port, None)
            with Scu(port, tls=tls, calling=b"CT3", timeout_s=PATIENCE_S) as scu:
                assert scu.echo() == 0
        except (OSError, Rejected, AssertionError) as error:
            refused.append(error)
        took.append(time.monotonic() - started)

    killed = node.kill("receiver")
    until(lambda: not psutil.pid_exists(killed), "it is dead")
    callers = [threading.Thread(target=call, args=(i % 2 == 1,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE_S)

    assert refused == []
    assert len(took) == 8
    print(f"8 callers waited {max(took):.2f} s")  # noqa: T201
    assert max(took) < WAITS_S * max(1.0, 2 * os.getloadavg()[0])
    assert len(node.log("receiving")) == before + 1


@pytest.mark.acceptance
def test_a_node_whose_supervisor_was_killed_starts_again_at_once(node: Node) -> None:
    assert node.process is not None
    with Scu(node.port, calling=b"CT3") as scu:
        assert scu.echo() == 0
        os.kill(node.process.pid, signal.SIGKILL)
        node.process.wait()

        node.start(ready=False)

        until(lambda: echoes(node.port), "the new receiver answers")
    assert node.process.poll() is None


def test_a_node_that_stops_refuses_callers_and_frees_its_ports(node: Node) -> None:
    ports = node.port, tls_port(node)

    assert node.stop() == 0

    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_two_nodes_do_not_share_a_port(node: Node, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", tls_port(node))):
        done = node.command("serve")

    assert done.returncode == 2
    assert "receiver.tls.port" in done.stderr
    assert "cannot listen there" in done.stderr
