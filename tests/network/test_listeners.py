"""Listening sockets: which there are, how they reach the receiver, and what happens if a port is not free yet."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import structlog
import yaml
from support.tls import Authority

from mediqa_node.composition import listening
from mediqa_node.config import Settings, load
from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.network.listeners import PLAIN, TLS, hand_over, listen, take_over

CHILD = """
from mediqa_node.network.listeners import take_over
taken = take_over()
for name, opened in sorted(taken.items()):
    opened.accept()[0].sendall(name.encode())
    assert not opened.get_inheritable()
"""


def settings_with(folder: Path, **tls: object) -> Settings:
    Authority(folder).issue("node")
    section = {"certificate": "node.pem", "key": "node.key", "port": 0, **tls}
    (folder / "node.yaml").write_text(yaml.safe_dump({"node": {"port": 0}, "receiver": {"tls": section}}))
    return load(folder / "node.yaml", {})


def test_a_process_takes_over_the_sockets_and_callers_have_waited() -> None:
    sockets = {PLAIN: listen("127.0.0.1", 0), TLS: listen("127.0.0.1", 0)}
    waiting = {name: socket.create_connection(opened.getsockname(), timeout=60) for name, opened in sockets.items()}

    child = subprocess.Popen([sys.executable, "-c", CHILD], **hand_over(sockets))

    assert {name: caller.recv(16).decode() for name, caller in waiting.items()} == {PLAIN: PLAIN, TLS: TLS}
    assert child.wait(60) == 0
    again = socket.create_connection(sockets[PLAIN].getsockname(), timeout=60)
    for opened in (*sockets.values(), *waiting.values(), again):
        opened.close()


def test_a_process_without_a_supervisor_takes_over_nothing() -> None:
    assert take_over() is None


@pytest.mark.parametrize(("plain", "names"), [(True, [PLAIN, TLS]), (False, [TLS])])
def test_both_ports_are_listened_on_unless_the_plain_one_is_off(tmp_path: Path, plain: bool, names: list[str]) -> None:
    settings = settings_with(tmp_path, plain=plain)

    sockets = listening.open_sockets(settings)

    assert list(sockets) == names
    found = listening.listeners(settings, sockets)
    assert [str(one).endswith("with TLS") for one in found] == [name == TLS for name in names]
    assert settings.address.count("127.0.0.1") == len(names)
    for opened in sockets.values():
        opened.close()


def test_sockets_that_fit_no_longer_are_named(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as opened, pytest.raises(ConfigurationError, match=r"receiver\.tls"):
        listening.listeners(load(None, {}), {TLS: opened})
    assert settings_with(tmp_path).receiver_tls is not None


def test_a_change_that_needs_another_supervisor_is_named_and_a_port_that_was_closed_is_not_served(
    tmp_path: Path,
) -> None:
    settings = settings_with(tmp_path, plain=False)

    with listen("127.0.0.1", 0) as plain, listen("127.0.0.1", 0) as safe, structlog.testing.capture_logs() as logs:
        found = listening.listeners(settings, {PLAIN: plain, TLS: safe})

    assert [one.socket for one in found] == [safe]
    assert [line["event"] for line in logs] == ["listening where it did before"]
    assert "stop `mediqa-node serve` and start it again" in logs[0]["reason"]


def test_a_port_that_an_old_receiver_is_about_to_give_back_is_waited_for(tmp_path: Path) -> None:
    old = listen("127.0.0.1", 0)
    settings = settings_with(tmp_path, port=old.getsockname()[1])
    closing = threading.Timer(0.3, old.close)
    closing.start()
    started = time.monotonic()

    sockets = listening.open_sockets_after(settings, lambda: True)

    assert time.monotonic() - started > 0.2
    for opened in sockets.values():
        opened.close()


def test_a_port_of_another_program_is_not_waited_for(tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as other, pytest.raises(ConfigurationError, match="cannot listen there"):
        listening.open_sockets_after(settings_with(tmp_path, port=other.getsockname()[1]), lambda: False)
