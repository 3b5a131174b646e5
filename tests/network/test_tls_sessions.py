"""Sessions of TLS 1.2 that a caller resumes: a certificate that does not hold any more gets nobody in."""

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.receiving import Listening
from support.tls import Authority, Pair, client, server

from mediqa_node.network.tls import ServerTls

Listen = Callable[..., Listening]


def resumed(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), 10)
    return context.wrap_socket(raw, server_hostname="localhost", session=session)


def of_tls_1_2(authority: Authority, pair: Pair) -> ssl.SSLContext:
    context = client(authority, pair)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def test_a_session_ends_with_the_context_it_was_made_with(listening: Listen, authority: Authority) -> None:
    now = [0.0]
    node = listening(listener_tls=ServerTls(server(authority.issue("node"), authority), clock=lambda: now[0]))
    context = of_tls_1_2(authority, authority.issue("scanner"))
    with resumed(node.tls_port, context) as first:
        session = first.session
    now[0] += 5.0
    with resumed(node.tls_port, context, session) as later:
        assert not later.session_reused


def test_a_session_is_not_resumed_with_a_certificate_that_has_expired(
    listening: Listen, authority: Authority, tmp_path: Path
) -> None:
    node = listening(listener_tls=ServerTls(server(authority.issue("node"), authority), clock=lambda: 0.0))
    context = of_tls_1_2(authority, authority.issue("scanner", days=2.5 / 86_400, to=tmp_path))
    with resumed(node.tls_port, context) as first:
        session = first.session
        first.settimeout(0.2)
        with pytest.raises(TimeoutError):
            first.recv(1)  # it is admitted: the node waits for the first PDU
    time.sleep(3.0)
    with resumed(node.tls_port, context, session) as later:
        assert later.session_reused, "else this shows nothing"
        later.settimeout(2.0)
        assert later.recv(1) == b"", "closed at once"
