"""A balancer in front of the receiver: who the caller is, and that nobody else can claim it."""

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from support.receiving import Aborted, Listening, Rejected, Scu, associate_rq, ct
from support.tls import Authority, client, server
from support.waiting import PATIENCE_S, until

from mediqa_node.domain.policy import AllowRule, ReceiverPolicy
from mediqa_node.network.pdu_stream import PeerGone
from mediqa_node.network.proxy_header import read_caller
from mediqa_node.network.tls import ServerTls

Listen = Callable[..., Listening]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ROOM_3 = (AllowRule(ae_title="CT3", address="192.0.2.31/32"), AllowRule(ae_title="MR1", address="2001:db8::/64"))
PROXY_COMMAND, LOCAL_COMMAND = SIGNATURE + b"\x21", SIGNATURE + b"\x20"
TLVS = b"\x04\x00\x03abc" + b"\x01\x00\x05dicom"


def header(source: str, *, command: int = 0x21, more: bytes = b"", length: int | None = None) -> bytes:
    """Return a header for a caller, as section 2.2 of the protocol writes it."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    to = "2001:db8::1" if ":" in source else "192.0.2.1"
    body = socket.inet_pton(family, source) + socket.inet_pton(family, to) + struct.pack(">HH", 40_000, 11112) + more
    kind = 0x21 if family == socket.AF_INET6 else 0x11
    return SIGNATURE + struct.pack(">BBH", command, kind, len(body) if length is None else length) + body


def balanced(listening: Listen, **policy: object) -> Listening:
    return listening(**{"proxies": ("127.0.0.1",), "allowed": ROOM_3, **policy})


@pytest.mark.parametrize(
    ("source", "calling"), [("192.0.2.31", b"CT3"), ("2001:db8::7", b"MR1"), ("::ffff:192.0.2.31", b"CT3")]
)
def test_the_caller_is_whom_the_balancer_names(listening: Listen, source: str, calling: bytes) -> None:
    node = balanced(listening)

    with Scu(node.port, first=header(source, more=TLVS), calling=calling) as scu:
        assert scu.store_dataset(ct()) == 0
    assert node.rows()[0].peer_address == source.removeprefix("::ffff:")


def test_a_caller_from_elsewhere_is_rejected_behind_the_balancer_too(listening: Listen) -> None:
    node = balanced(listening)

    with pytest.raises(Rejected) as caught:
        Scu(node.port, first=header("192.0.2.32"), calling=b"CT3")
    assert caught.value.args == (1, 1, 3)


def test_the_header_comes_before_tls(listening: Listen, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    node = balanced(listening, listener_tls=ServerTls(server(authority.issue(), authority)))

    with Scu(node.tls_port, first=header("192.0.2.31"), tls=client(authority), calling=b"CT3") as scu:
        assert scu.echo() == 0


def test_a_header_in_pieces_is_read_whole_and_not_beyond(listening: Listen) -> None:
    node = balanced(listening)

    with Scu(node.port, associate=False) as scu:
        for byte in header("192.0.2.31"):
            scu.send(bytes([byte]))
        scu.associate(calling=b"CT3")
        assert scu.echo() == 0


BAD = {
    "version 1": b"PROXY TCP4 192.0.2.31 192.0.2.1 40000 11112\r\n",
    "no header": b"",
    "an unknown command": header("192.0.2.31", command=0x22),
    "version 3": header("192.0.2.31", command=0x31),
    "too long": header("192.0.2.31", length=521) + bytes(600),
    "shorter than its addresses": SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 4) + bytes(4),
    "of a local socket": SIGNATURE + struct.pack(">BBH", 0x21, 0x31, 216) + bytes(216),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_header_of_version_2_is_closed_and_logged(listening: Listen, kind: str) -> None:
    node = balanced(listening)

    with structlog.testing.capture_logs() as logs, Scu(node.port, associate=False) as scu:
        scu.send(BAD[kind] + associate_rq(calling=b"CT3"))
        assert scu.closed_within(PATIENCE_S)
        until(lambda: logs, "it is logged", within_s=20)
    assert "PROXY header" in logs[0]["reason"]
    assert logs[0]["log_level"] == "warning"
    assert logs[0]["hourly_for"]


def test_the_longest_header_is_read(listening: Listen) -> None:
    node = balanced(listening)
    longest = header("192.0.2.31", more=bytes(536 - 28))
    assert len(longest) == 536

    with Scu(node.port, first=longest, calling=b"CT3") as scu:
        assert scu.echo() == 0


def test_a_check_of_the_balancer_itself_is_closed_silently(listening: Listen) -> None:
    node = balanced(listening)

    with structlog.testing.capture_logs() as logs, Scu(node.port, associate=False) as scu:
        scu.send(SIGNATURE + struct.pack(">BBH", 0x20, 0, 0))
        assert scu.closed_within(PATIENCE_S)
    assert logs == []


def test_half_a_header_ends_at_the_deadline(listening: Listen) -> None:
    node = balanced(listening, negotiation_deadline_s=0.2)

    with Scu(node.port, associate=False) as scu:
        scu.send(header("192.0.2.31")[:20])
        assert scu.closed_within(PATIENCE_S)


@pytest.mark.parametrize("spelt", ["127.0.0.1", "::ffff:127.0.0.1", "0:0:0:0:0:FFFF:7f00:1"])
def test_a_balancer_is_known_however_its_address_is_written(spelt: str, listening: Listen) -> None:
    node = balanced(listening, proxies=(spelt,))

    with Scu(node.port, first=header("192.0.2.31"), calling=b"CT3") as scu:
        assert scu.echo() == 0


def test_a_header_from_anybody_else_is_no_request(listening: Listen) -> None:
    node = listening(proxies=("192.0.2.9",))

    with structlog.testing.capture_logs() as logs:
        with Scu(node.port, associate=False) as scu, pytest.raises(Aborted):
            scu.send(header("192.0.2.31"))
            scu.associate()
        until(lambda: logs, "it is logged", within_s=20)
    assert (logs[0]["log_level"], logs[0]["reason"]) == (
        "warning",
        "127.0.0.1 sends PROXY headers and is not in `proxies`",
    )
    with Scu(node.port) as scu:
        assert scu.echo() == 0


@given(st.one_of(st.binary(max_size=64), st.binary(max_size=600).map(lambda rest: SIGNATURE + rest)))
def test_whatever_comes_nothing_is_read_beyond_a_header(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with suppress(PeerGone):
            read_caller(ours, time.monotonic() + PATIENCE_S)
        taken = len(data) - len(ours.recv(1024))
    assert taken <= 16 + (int.from_bytes(data[14:16], "big") if data[:13] in (PROXY_COMMAND, LOCAL_COMMAND) else 0)
    assert taken <= 536


def test_a_proxy_is_an_address() -> None:
    with pytest.raises(ValueError, match="balancer"):
        ReceiverPolicy(proxies=("balancer",))


def test_every_ae_title_of_the_node_is_answered_to_and_no_other(listening: Listen) -> None:
    node = listening(also_called=("MEDIQA_MR", "OLD_PACS"))

    for number, called in enumerate((b"MEDIQA", b"MEDIQA_MR", b"OLD_PACS")):
        with Scu(node.port, called=called) as scu:
            assert scu.store_dataset(ct(number)) == 0
    with pytest.raises(Rejected) as caught:
        Scu(node.port, called=b"MEDIQA_CT")

    assert caught.value.args == (1, 1, 7)
    assert len(node.rows()) == 3
