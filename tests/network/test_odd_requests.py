"""Requests and answers as other vendors write them: an odd item costs itself, never the association."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pynetdicom.transport import AssociationSocket
from support import receiving
from support.receiving import CT, EXPLICIT, IMPLICIT, VERIFICATION, Listening, Rejected, Scu, ct, item

from mediqa_node.domain.errors import PeerRefused, PeerUnavailable
from mediqa_node.domain.peer import Peer
from mediqa_node.network import associate_pdu
from mediqa_node.network.sender import connect, verification_contexts

Listen = Callable[..., Listening]

ODD_VERSIONS = {
    "20 characters": b"ACME_SCANNER_SW_2026",
    "300 characters": b"A" * 300,
    "padded with NUL": b"SIEMENS_SW\0\0",
    "only NUL": b"\0\0\0\0",
    "spaces": b"  ACME ",
    "empty": b"",
    "Latin-1": "Gerät 3é".encode("latin-1"),
    "UTF-8": "東芝".encode(),
    "a control character": b"ACME\x1b[2J",
}
ODD_USER_ITEMS = {
    "unknown 5AH": item(0x5A, b"abcd"),
    "unknown FFH": item(0xFF, b""),
    "of an item": item(0x20, b"\1\0\0\0"),
    "a second maximum length": item(0x51, b"\0\0\0\1"),
    "a maximum length of two bytes": item(0x51, b"\0\1"),
    "asynchronous operations cut short": item(0x53, b"\0"),
    "a role for nothing": item(0x54, b""),
    "a role whose UID is longer than itself": item(0x54, b"\0\xff1.2"),
    "extended negotiation of one byte": item(0x56, b"\0"),
    "common extended negotiation": item(0x57, b"\0\0"),
    "an identity of an unknown kind": item(0x58, b"\x63\0\0\1x\0\0"),
    "an identity without a name": item(0x58, b"\1\1\0\0\0\0"),
    "a class UID with NUL": item(0x52, b"1.2.3.4\0"),
    "a class UID of 80 characters": item(0x52, b"1." * 40),
    "a class that is no UID": item(0x52, b"ACME"),
}


def context(number: int, abstract: bytes = CT.encode(), syntaxes: tuple[bytes, ...] = (EXPLICIT.encode(),)) -> bytes:
    inner = item(0x30, abstract) + b"".join(item(0x40, syntax) for syntax in syntaxes)
    return item(0x20, bytes((number, 0, 0, 0)) + inner)


ODD_CONTEXTS = {
    "an even ID": context(2),
    "ID 0": context(0),
    "the same ID again": context(1, b"1.2.3"),
    "an abstract syntax of 70 characters": context(7, b"1." * 35),
    "an abstract syntax that is no UID": context(7, b"CT IMAGE"),
    "no abstract syntax": item(0x20, b"\7\0\0\0" + item(0x40, EXPLICIT.encode())),
    "no transfer syntax": context(7, syntaxes=()),
    "a transfer syntax of 70 characters": context(7, syntaxes=(b"1." * 35,)),
    "an unknown sub-item": item(
        0x20, b"\7\0\0\0" + item(0x30, CT.encode()) + item(0x41, b"xyz") + item(0x40, EXPLICIT.encode())
    ),
    "three bytes": item(0x20, b"\7\0\0"),
    "an abstract syntax longer than its context": item(0x20, b"\7\0\0\0\x30\0\0\x60" + CT.encode()),
    "a transfer syntax longer than its context": item(
        0x20, b"\7\0\0\0" + item(0x30, CT.encode()) + b"\x40\0\0\x60" + EXPLICIT.encode()
    ),
    "half a sub-item": item(0x20, b"\7\0\0\0" + item(0x30, CT.encode()) + b"\x40\0"),
    "a context longer than the request": b"\x20\0\xff\xff\7\0\0\0" + item(0x30, CT.encode()),
    "an unknown item longer than the request": b"\x60\0\0\xff",
    "an unknown item": item(0x60, b"abc"),
    "a context result": item(0x21, b"\7\0\0\0"),
    "two bytes left over": b"\0\0",
}


def serves(port: int, **request: object) -> bool:
    """Whether a C-ECHO and a C-STORE succeed over such an association."""
    with Scu(port, **request) as scu:
        echoed, stored = scu.echo(), scu.store_dataset(ct())
        scu.release()
    return (echoed, stored) == (0, 0)


@pytest.mark.parametrize("name", list(ODD_VERSIONS))
def test_any_version_name_of_a_caller_will_do(listening: Listen, name: str) -> None:
    assert serves(listening().port, user=item(0x55, ODD_VERSIONS[name]))


@pytest.mark.parametrize("name", list(ODD_USER_ITEMS))
def test_what_is_not_understood_of_user_information_is_skipped(listening: Listen, name: str) -> None:
    assert serves(listening().port, user=ODD_USER_ITEMS[name])


@pytest.mark.parametrize("name", list(ODD_CONTEXTS))
def test_an_odd_context_beside_good_ones_costs_itself(listening: Listen, name: str) -> None:
    assert serves(listening().port, more=ODD_CONTEXTS[name])


@pytest.mark.parametrize("padding", [b"\0", b" "])
def test_uids_are_read_without_their_padding(listening: Listen, padding: bytes) -> None:
    contexts = {1: (CT + padding.decode(), [EXPLICIT + padding.decode()]), 5: (VERIFICATION, [IMPLICIT])}

    assert serves(listening().port, contexts=contexts, application=b"1.2.840.10008.3.1.1.1" + padding)


def results(answer: bytes) -> dict[int, int]:
    parts = associate_pdu.items(memoryview(answer)[68:])
    return {value[0]: value[2] for kind, value in parts if kind == 0x21}


def test_refused_contexts_are_answered_one_by_one(listening: Listen) -> None:
    more = context(7, b"1.2.3") + context(9, syntaxes=(b"1.2",)) + context(11, syntaxes=()) + context(2)
    with Scu(listening().port, associate=False) as scu:
        answer = scu.associate(contexts={1: (CT, [EXPLICIT])}, more=more)

    assert results(answer) == {1: 0, 7: 3, 9: 4, 11: 4}


def test_a_request_full_of_contexts_is_answered(listening: Listen) -> None:
    more = b"".join(context(number) for _ in range(60) for number in range(1, 256))
    with Scu(listening().port, associate=False) as scu:
        answer = scu.associate(contexts={1: (CT, [EXPLICIT])}, more=more)
        scu.release()

    assert len(more) > 900_000
    assert results(answer) == dict.fromkeys(range(1, 256, 2), 0)


def test_user_information_longer_than_what_holds_it_is_skipped(listening: Listen) -> None:
    node = listening()
    for more in (item(0x50, b"\x51\0\0\xff"), b"\x50\0\xff\xff\x51\0\0\4", item(0x50, b"\x55\0\0\x20ACME")):
        assert serves(node.port, more=more)


def test_a_context_keeps_the_syntaxes_before_one_that_is_too_long(listening: Listen) -> None:
    broken = item(0x40, EXPLICIT.encode()) + b"\x40\0\0\x60" + IMPLICIT.encode()
    more = item(0x20, b"\7\0\0\0" + item(0x30, CT.encode()) + broken)
    with Scu(listening().port, associate=False) as scu:
        assert results(scu.associate(more=more))[7] == 0


@pytest.mark.parametrize(
    "contexts",
    [{}, {2: (CT, [EXPLICIT])}, {0: (CT, [EXPLICIT]), 4: (VERIFICATION, [IMPLICIT])}],
    ids=["none", "an even ID", "only even IDs"],
)
def test_a_request_without_a_context_that_can_be_answered_is_rejected(
    listening: Listen, contexts: dict[int, tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "CONTEXTS", {})
    with pytest.raises(Rejected) as caught:
        Scu(listening().port, contexts=contexts)

    assert caught.value.args == (1, 1, 1)


# ── strangers ────────────────────────────────────────────────────────────────


def test_a_stranger_is_answered_before_the_rest_of_its_request_has_arrived(listening: Listen) -> None:
    node = listening(allowed=())
    body = struct.pack(">HH", 1, 0) + b"MEDIQA".ljust(16) + b"STRANGER".ljust(16) + bytes(32)
    with Scu(node.port, associate=False) as scu:
        scu.send(struct.pack(">BBI", 1, 0, 1_000_000) + body)
        kind, answer = scu.pdu()

    assert (kind, tuple(answer[1:])) == (3, (1, 1, 3))


def test_a_stranger_reads_its_rejection_although_it_sent_more(listening: Listen) -> None:
    node = listening(allowed=())
    for _ in range(20):
        with pytest.raises(Rejected):
            Scu(node.port, more=item(0x60, bytes(40_000)))


# ── peers that answer oddly ──────────────────────────────────────────────────

BASE = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4")


@contextmanager
def odd_pacs(answer: Callable[[bytes], bytes]) -> Iterator[Peer]:
    """A peer that answers one request with the bytes that `answer` makes of its body, then every C-ECHO."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer, peer.makefile("rb") as stream:
            while len(head := stream.read(6)) == 6:
                body = stream.read(int.from_bytes(head[2:], "big"))
                if head[0] == 1:
                    peer.sendall(answer(body))
                elif head[0] == 4:
                    peer.sendall(_echoed(body))
                elif head[0] == 5:
                    peer.sendall(struct.pack(">BBII", 6, 0, 4, 0))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Peer(name="ODD", ae_title="ODD", host="127.0.0.1", port=int(listener.getsockname()[1]))
    finally:
        listener.close()
        thread.join(timeout=600)


def _echoed(body: bytes) -> bytes:
    at = body.index(b"\0\0\x10\x01") + 8

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHI", 0, number, len(value)) + value

    command = element(0x0002, VERIFICATION.encode() + b"\0") + element(0x0100, b"\x30\x80")
    command += element(0x0120, body[at : at + 2]) + element(0x0800, b"\1\1") + element(0x0900, b"\0\0")
    command = element(0, struct.pack("<I", len(command))) + command
    return struct.pack(">BBIIBB", 4, 0, len(command) + 6, len(command) + 2, body[4], 3) + command


def acceptance(
    *,
    user: bytes = BASE,
    result: bytes = b"\1\0\0\0",
    syntax: bytes = EXPLICIT.encode(),
    more: bytes = b"",
    titles: bytes = b"ODD".ljust(16) + b"ME".ljust(16),
    name: bytes = b"1.2.840.10008.3.1.1.1",
) -> bytes:
    body = struct.pack(">HH", 1, 0) + titles + bytes(32) + item(0x10, name)
    body += item(0x21, result + item(0x40, syntax)) + more + (item(0x50, user) if user else b"")
    return struct.pack(">BBI", 2, 0, len(body)) + body


def echoes(answer: bytes) -> bool:
    with (
        odd_pacs(lambda _: answer) as peer,
        connect(peer, verification_contexts(), ae_title="MEDIQA", timeout_s=10) as link,
    ):
        link.verify()
        return True


@pytest.mark.parametrize("name", list(ODD_VERSIONS))
def test_any_version_name_of_a_pacs_will_do(name: str) -> None:
    assert echoes(acceptance(user=BASE + item(0x55, ODD_VERSIONS[name])))


@pytest.mark.parametrize("name", list(ODD_USER_ITEMS))
def test_what_a_pacs_adds_to_its_user_information_is_skipped(name: str) -> None:
    assert echoes(acceptance(user=BASE + ODD_USER_ITEMS[name]))


ODD_ANSWERS = {
    "no user information": acceptance(user=b""),
    "only a maximum length": acceptance(user=item(0x51, bytes(4))),
    "a maximum length of 1": acceptance(user=item(0x51, b"\0\0\0\1")),
    "an unknown item": acceptance(more=item(0x60, b"abc")),
    "a result for a context that was not proposed": acceptance(more=item(0x21, b"\x09\0\0\0" + item(0x40, b"1.2"))),
    "a result with an even ID": acceptance(more=item(0x21, b"\2\0\0\0" + item(0x40, b"1.2"))),
    "a refusal without a syntax": acceptance(more=item(0x21, b"\3\0\3\0")),
    "a padded syntax": acceptance(syntax=EXPLICIT.encode() + b"\0"),
    "empty titles": acceptance(titles=bytes(32)),
    "titles in Latin-1": acceptance(titles=b"\xe9" * 32),
    "another application context": acceptance(name=b"1.2.3"),
    "a padded application context": acceptance(name=b"1.2.840.10008.3.1.1.1\0"),
    "two bytes left over": acceptance()[:2]
    + (int.from_bytes(acceptance()[2:6], "big") + 2).to_bytes(4, "big")
    + acceptance()[6:]
    + b"\0\0",
}


@pytest.mark.parametrize("name", list(ODD_ANSWERS))
def test_a_pacs_may_accept_in_an_odd_way(name: str) -> None:
    assert echoes(ODD_ANSWERS[name])


@pytest.mark.parametrize(("result", "syntax"), [(b"\1\0\3\0", b"1.2"), (b"\1\0\x09\0", b"1.2"), (b"\1\0\0\0", b"")])
def test_a_pacs_that_refuses_every_context_is_said_to_refuse(result: bytes, syntax: bytes) -> None:
    with pytest.raises(PeerRefused, match="accepts none"):
        echoes(acceptance(result=result, syntax=syntax))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (b"\1\1\7", PeerRefused),
        (b"\1\1\x63", PeerRefused),
        (b"\2\x63\1", PeerUnavailable),
        (b"\x63\1\1", PeerRefused),
        (b"\2\3\2", PeerUnavailable),
    ],
)
def test_a_rejection_with_an_unknown_reason_is_a_rejection(reason: bytes, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="reject"):
        echoes(struct.pack(">BBIB", 3, 0, 4, 0) + reason)


def test_a_rejection_that_is_read_before_the_caller_looks_is_a_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            done = super().wait(timeout)
            time.sleep(0.5)  # the other thread has read the answer and closed the connection
            return done

    def slow(self: AssociationSocket, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self._ready = Late()

    begin = AssociationSocket.__init__
    monkeypatch.setattr(AssociationSocket, "__init__", slow)

    with pytest.raises(PeerRefused, match="rejected the association: Called AE title not recognised"):
        echoes(struct.pack(">BBIB", 3, 0, 4, 0) + b"\1\1\7")


def test_a_pacs_whose_answer_makes_no_sense_is_not_reachable() -> None:
    with pytest.raises(PeerUnavailable):
        echoes(struct.pack(">BBI", 2, 0, 80) + struct.pack(">HH", 1, 0) + bytes(64) + b"\x21\0\xff\xff" + bytes(8))
