"""Connections that never become associations keep nobody out: strangers, silent callers, rejected ones that stay."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from support.receiving import IMPLICIT, VERIFICATION, Listening, Rejected, Scu, associate_rq, item
from support.waiting import until

from mediqa_node.domain.policy import AllowRule
from mediqa_node.network import receiver
from mediqa_node.network.connections import Connection, Connections

Listen = Callable[..., Listening]
ECHO = {5: (VERIFICATION, [IMPLICIT])}
ONLY_ONE = (AllowRule(ae_title="MONITOR", address="127.0.0.1/32"),)
ALL_LOCAL = (AllowRule(ae_title="MONITOR"), AllowRule(ae_title="SILENT"))

HALF_A_REQUEST = associate_rq(calling=b"SILENT")[:60]
FLOODS = {
    "silent": b"",
    "half a request": HALF_A_REQUEST,
    "a head without its items": associate_rq(calling=b"SILENT")[:80],
    "a large request that never ends": associate_rq(calling=b"SILENT", more=item(0x60, bytes(60_000)) * 2)[:-1],
    "rejected and kept open": associate_rq(calling=b"STRANGER"),
    "another protocol": b"GET / HTTP/1.1\r\n",
}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"_NEGOTIATING_AT_MOST": 8, "_NEGOTIATING_PER_ADDRESS": 5}
    for name, value in (limits | {"_STRANGERS_AT_MOST": 6, "_STRANGERS_PER_ADDRESS": 4}).items():
        monkeypatch.setattr(receiver, name, value)


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def flood(held: ExitStack, port: int, data: bytes, *sources: str, count: int = 12) -> list[socket.socket]:
    made = []
    for source in sources:
        for _ in range(count):
            one = held.enter_context(socket.create_connection(("127.0.0.1", port), 5.0, (source, 0)))
            with suppress(OSError):
                one.sendall(data)
            made.append(one)
    return made


def echo(port: int, **request: Any) -> int:
    with Scu(port, contexts=ECHO, timeout_s=5.0, calling=b"MONITOR", **request) as scu:
        return scu.echo()


@pytest.mark.parametrize("kind", list(FLOODS))
def test_strangers_by_address_keep_no_admitted_caller_out(listening: Listen, held: ExitStack, kind: str) -> None:
    node = listening(allowed=ONLY_ONE, negotiation_deadline_s=60.0)

    flood(held, node.port, FLOODS[kind], "127.0.0.2", "127.0.0.3")

    assert [echo(node.port) for _ in range(5)] == [0] * 5


@pytest.mark.parametrize("kind", list(FLOODS))
@pytest.mark.parametrize("sources", [("127.0.0.2", "127.0.0.3"), ("127.0.0.1",)], ids=["others", "the same address"])
def test_silent_connections_from_admitted_addresses_make_room(
    listening: Listen, held: ExitStack, kind: str, sources: tuple[str, ...]
) -> None:
    node = listening(allowed=ALL_LOCAL, negotiation_deadline_s=60.0)

    flood(held, node.port, FLOODS[kind], *sources)

    assert [echo(node.port) for _ in range(5)] == [0] * 5


def test_a_stranger_is_still_answered_among_many(listening: Listen, held: ExitStack) -> None:
    node = listening(allowed=ONLY_ONE, negotiation_deadline_s=60.0)
    flood(held, node.port, b"", "127.0.0.2", "127.0.0.3")

    [last] = flood(held, node.port, associate_rq(calling=b"MONITOR"), "127.0.0.4", count=1)

    assert last.recv(10) == struct.pack(">BBIBBBB", 3, 0, 4, 0, 1, 1, 3)


def test_one_address_ends_its_own_oldest_connection(listening: Listen, held: ExitStack) -> None:
    node = listening(allowed=ALL_LOCAL, negotiation_deadline_s=60.0)
    [other] = flood(held, node.port, b"", "127.0.0.2", count=1)
    first, *rest = flood(held, node.port, b"", "127.0.0.1", count=6)

    assert first.recv(100)[:1] in (b"", b"\x07")
    for one in (other, *rest):
        one.settimeout(0.01)
        with pytest.raises(TimeoutError):
            one.recv(1)


def test_an_open_association_is_no_connection_that_makes_room(listening: Listen, held: ExitStack) -> None:
    node = listening(allowed=ALL_LOCAL, negotiation_deadline_s=60.0)
    with Scu(node.port, calling=b"MONITOR", contexts=ECHO) as scu:
        flood(held, node.port, b"", "127.0.0.1", "127.0.0.2")
        assert scu.echo() == 0


def test_every_thread_ends_with_its_connection(listening: Listen) -> None:
    node = listening(allowed=ALL_LOCAL, negotiation_deadline_s=60.0)
    waiting = node.receiver._negotiating
    with ExitStack() as held:
        flood(held, node.port, b"", "127.0.0.1", "127.0.0.2")
        until(lambda: (waiting._n_open, waiting._n_ending) == (8, 0), "those that made room are gone")
    until(lambda: (waiting._n_open, waiting._open) == (0, {}), "all have ended")


# ── the count itself ─────────────────────────────────────────────────────────


def entered(connections: Connections, address: str) -> Connection:
    ours, _ = socket.socketpair()
    connection = connections.enter(ours, address)
    assert connection is not None
    return connection


def test_the_address_with_the_most_connections_makes_room() -> None:
    connections = Connections(at_most=4, per_address=3, ending_at_most=4)
    honest = entered(connections, "honest")
    greedy = [entered(connections, "greedy") for _ in range(3)]

    entered(connections, "another")

    assert [one.made_room for one in (honest, *greedy)] == [False, True, False, False]


def test_what_is_being_decided_does_not_make_room() -> None:
    connections = Connections(at_most=2, per_address=2, ending_at_most=2)
    decided = [entered(connections, "one") for _ in range(2)]
    for one in decided:
        one.may_end = False

    assert connections.enter(socket.socketpair()[0], "two") is None
    decided[1].may_end = True
    entered(connections, "two")
    assert [one.made_room for one in decided] == [False, True]


def test_threads_that_have_not_noticed_are_counted() -> None:
    connections = Connections(at_most=1, per_address=1, ending_at_most=1)
    first, second = entered(connections, "one"), entered(connections, "two")

    assert (first.made_room, second.made_room) == (True, False)
    assert connections.enter(socket.socketpair()[0], "three") is None
    assert not second.made_room
    connections.leave(first)
    entered(connections, "three")


# ── IPv6 ─────────────────────────────────────────────────────────────────────


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 on this machine")
@pytest.mark.parametrize(
    ("host", "caller", "rule"),
    [
        ("::1", "::1", "::1/128"),
        ("::", "::1", "::1/128"),
        ("::", "127.0.0.1", "127.0.0.1/32"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1/32"),
        ("localhost", "127.0.0.1", "127.0.0.1/32"),
    ],
)
def test_callers_of_both_families_are_served_under_their_rules(
    listening: Listen, host: str, caller: str, rule: str
) -> None:
    node = listening(host=host, allowed=(AllowRule(address=rule),))
    strict = listening(host=host, allowed=(AllowRule(address="192.0.2.0/24"), AllowRule(address="2001:db8::/32")))

    assert echo(node.port, host=caller) == 0
    with pytest.raises(Rejected):
        echo(strict.port, host=caller)


def test_a_caller_that_nobody_foresaw_keeps_no_other_out(listening: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    node = listening()
    odd_ones = [ValueError("an address like no other")]

    def covered(_self: receiver.Receiver, _address: str) -> bool:
        if odd_ones:
            raise odd_ones.pop()
        return True

    monkeypatch.setattr(receiver.Receiver, "_is_covered", covered)
    with socket.create_connection(("127.0.0.1", node.port), timeout=60) as odd:
        assert odd.recv(1) == b""
    with Scu(node.port) as scu:
        assert scu.echo() == 0x0000
