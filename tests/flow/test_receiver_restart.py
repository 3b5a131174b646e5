"""The receiver dies and comes back: callers wait for it, and are not refused."""

import os
import signal
import socket
from collections.abc import Iterator

import psutil
import pytest
import yaml
from support.node import Node
from support.receiver_process import WAITS_S, echoes, waiting_callers
from support.receiving import Scu
from support.tls import Authority, client
from support.waiting import free_port, until

pytestmark = pytest.mark.acceptance


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
    before = len(node.log("receiving"))
    calls = [(node.port, None), (tls_port(node), client(authority))] * 4

    killed = node.kill("receiver")
    until(lambda: not psutil.pid_exists(killed), "it accepts nobody any more", every_s=0.005)
    waited_s = waiting_callers(calls)

    assert len(waited_s) == 8
    assert max(waited_s) < WAITS_S * max(1.0, 2 * os.getloadavg()[0])
    assert len(node.log("receiving")) == before + 1


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
