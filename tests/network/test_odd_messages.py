"""What comes after the request, as other vendors send it; and what a PACS may do to a report on its way."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO

import pytest
from pydicom.dataset import FileMetaDataset
from pynetdicom import AE, build_context, evt
from support.factories import source_header
from support.receiving import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Listening,
    Scu,
    ct,
    encode,
    item,
    p_data,
)
from support.receiving import command as command_set

from mediqa_node.domain.errors import PeerUnavailable
from mediqa_node.domain.peer import Peer
from mediqa_node.network.sender import connect, verification_contexts

Listen = Callable[..., Listening]
UID = str(ct().SOPInstanceUID)
APPLICATION = b"1.2.840.10008.3.1.1.1"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    made = Listening(tmp_path_factory.mktemp("node"))
    yield made
    made.stop()


# ── requests ─────────────────────────────────────────────────────────────────


def request(*items: bytes, version: int = 1, called: bytes = b"MEDIQA", reserved: bytes = bytes(32)) -> bytes:
    body = struct.pack(">HH", version, 0) + called.ljust(16) + b"CT_ROOM_1".ljust(16) + reserved + b"".join(items)
    return struct.pack(">BBI", 1, 0xFF, len(body)) + body


def context(number: int, abstract: str, *syntaxes: str) -> bytes:
    inner = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    return item(0x20, bytes((number, 0, 0, 0)) + inner)


NAME = item(0x10, APPLICATION)
USER = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
STORE, VERIFY = context(1, CT, EXPLICIT), context(5, VERIFICATION, IMPLICIT)
SYNTAX_FIRST = item(0x20, b"\1\0\0\0" + item(0x40, EXPLICIT.encode()) + item(0x30, CT.encode()))
ODD_REQUESTS = {
    "user information first": request(USER, STORE, VERIFY, NAME),
    "contexts before the application context": request(STORE, NAME, VERIFY, USER),
    "the transfer syntax before the abstract one": request(NAME, SYNTAX_FIRST, VERIFY, USER),
    "no user information": request(NAME, STORE, VERIFY),
    "user information twice": request(NAME, STORE, VERIFY, USER, USER),
    "an empty user information": request(NAME, STORE, VERIFY, item(0x50, b"")),
    "empty items": request(NAME, item(0x20, b""), item(0x10, b""), STORE, VERIFY, item(0x00, b""), USER),
    "the application context twice": request(NAME, NAME, STORE, VERIFY, USER),
    "further protocol versions": request(NAME, STORE, VERIFY, USER, version=0xFFFF),
    "reserved bytes that are not zero": request(NAME, STORE, VERIFY, USER, reserved=b"\xff" * 32),
    "a called title padded with NUL": request(NAME, STORE, VERIFY, USER, called=b"MEDIQA".ljust(16, b"\0")),
    "a called title after spaces": request(NAME, STORE, VERIFY, USER, called=b"  MEDIQA"),
    "a syntax of ours after 200 others": request(
        NAME, context(1, CT, *(f"1.2.840.113619.5.{i}" for i in range(200)), EXPLICIT), VERIFY, USER
    ),
    "the same syntax twice": request(NAME, context(1, CT, EXPLICIT, EXPLICIT), VERIFY, USER),
}


@pytest.mark.parametrize("name", ODD_REQUESTS)
def test_an_odd_order_or_filling_of_a_request_changes_nothing(node: Listening, name: str) -> None:
    with Scu(node.port, associate=False) as scu:
        scu.send(ODD_REQUESTS[name])
        assert scu.pdu()[0] == 2
        assert scu.echo() == 0x0000
        assert scu.store_dataset(ct()) == 0x0000
        scu.release()


@pytest.mark.parametrize(
    ("name", "sent", "answer"),
    [
        ("another application context", request(item(0x10, b"1.2.3"), STORE, USER), (1, 1, 2)),
        ("no application context", request(STORE, USER), (1, 1, 2)),
        ("a protocol version without bit 0", request(NAME, STORE, USER, version=2), (1, 2, 2)),
        ("protocol version 0", request(NAME, STORE, USER, version=0), (1, 2, 2)),
    ],
)
def test_what_is_not_dicom_is_rejected_with_its_reason(
    node: Listening, name: str, sent: bytes, answer: tuple[int, int, int]
) -> None:
    with Scu(node.port, associate=False) as scu:
        scu.send(sent)
        kind, body = scu.pdu()

    assert (kind, tuple(body[1:])) == (3, answer), name


# ── messages ─────────────────────────────────────────────────────────────────


def value(data: bytes, control: int, number: int = 1) -> bytes:
    return struct.pack(">IBB", len(data) + 2, number, control) + data


def pdu(*values: bytes) -> bytes:
    body = b"".join(values)
    return struct.pack(">BBI", 4, 0, len(body)) + body


def elements(*pairs: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HHI", 0, number, len(content)) + content for number, content in pairs)


COMMAND, DATASET = command_set(CT, UID), encode(ct())
CLASS, INSTANCE = CT.encode() + b"\0", UID.encode() + b"\0" * (len(UID) % 2)
PLAIN = [(0x0002, CLASS), (0x0100, b"\1\0"), (0x0110, b"\7\0"), (0x0800, b"\1\0"), (0x1000, INSTANCE)]
ODD_MESSAGES = {
    "command and dataset in one PDU": pdu(value(COMMAND, 3), value(DATASET, 2)),
    "a command in single bytes": b"".join(
        pdu(value(COMMAND[i : i + 1], 1 + 2 * (i == len(COMMAND) - 1))) for i in range(len(COMMAND))
    )
    + pdu(value(DATASET, 2)),
    "the end of the command beside the begin of the dataset": pdu(value(COMMAND[:20], 1))
    + pdu(value(COMMAND[20:], 3), value(DATASET[:100], 0))
    + pdu(value(DATASET[100:], 2)),
    "many values of a dataset in one PDU": pdu(value(COMMAND, 3))
    + pdu(*(value(DATASET[i : i + 50], 0) for i in range(0, len(DATASET), 50)), value(b"", 2)),
    "an empty last fragment of the command": pdu(value(COMMAND, 1)) + pdu(value(b"", 3)) + pdu(value(DATASET, 2)),
    "an empty PDU in between": pdu(value(COMMAND, 3)) + pdu() + pdu(value(DATASET, 2)),
    "reserved bits of the control header": pdu(value(COMMAND, 0xFF)) + pdu(value(DATASET, 0xFE)),
    "no group length": pdu(value(elements(*PLAIN), 3)) + pdu(value(DATASET, 2)),
    "a wrong group length": pdu(value(elements((0, b"\1\0\0\0"), *PLAIN), 3)) + pdu(value(DATASET, 2)),
    "elements in reverse": pdu(value(elements(*reversed(PLAIN)), 3)) + pdu(value(DATASET, 2)),
    "retired elements": pdu(value(elements((0x0001, b"\0" * 4), *PLAIN, (0x5010, b"ACME")), 3))
    + pdu(value(DATASET, 2)),
    "a move originator": pdu(value(elements(*PLAIN, (0x1030, b"PACS"), (0x1031, b"\1\0")), 3)) + pdu(value(DATASET, 2)),
    "UIDs padded with spaces": pdu(
        value(elements((0x0002, CT.encode() + b" "), *PLAIN[1:4], (0x1000, UID.encode() + b"  ")), 3)
    )
    + pdu(value(DATASET, 2)),
    "no word on a dataset": pdu(value(elements(*PLAIN[:3], PLAIN[4]), 3)) + pdu(value(DATASET, 2)),
    **{
        f"{n} zeros behind a command": pdu(value(COMMAND + bytes(n), 3)) + pdu(value(DATASET + bytes(n), 2))
        for n in (2, 128)
    },
    **{
        f"{n} zeros behind a value": pdu(value(COMMAND, 3), bytes(n)) + pdu(value(DATASET, 2), bytes(n))
        for n in (2, 4, 64)
    },
    "any number but 0101H for a dataset": pdu(value(elements(*PLAIN[:3], (0x0800, b"\xfe\xfe"), PLAIN[4]), 3))
    + pdu(value(DATASET, 2)),
}


@pytest.mark.parametrize("name", ODD_MESSAGES)
def test_a_message_may_be_cut_and_filled_in_any_way(node: Listening, name: str) -> None:
    with Scu(node.port) as scu:
        scu.send(ODD_MESSAGES[name])
        assert scu.answer().status == 0x0000
        assert scu.store_dataset(ct()) == 0x0000, "and so does the next"
        scu.release()


@pytest.mark.parametrize("body", [b"", b"\xff" * 4, bytes(4), bytes(32)])
def test_a_release_is_answered_whatever_it_holds(node: Listening, body: bytes) -> None:
    with Scu(node.port) as scu:
        assert scu.echo() == 0x0000
        scu.send(struct.pack(">BBI", 5, 0xFF, len(body)) + body)
        assert scu.pdu() == (6, bytes(4))


def test_a_release_that_comes_with_the_last_message_is_answered_after_it(node: Listening) -> None:
    echo = p_data(5, command_set(VERIFICATION, "", field=0x30, with_dataset=False), is_command=True)
    with Scu(node.port) as scu:
        scu.send(pdu(value(COMMAND, 3), value(DATASET, 2)) + echo + struct.pack(">BBII", 5, 0, 4, 0))
        assert [scu.answer().status, scu.answer().status, scu.pdu()[0]] == [0x0000, 0x0000, 6]


def test_messages_that_do_not_wait_for_answers_are_answered_in_order(node: Listening) -> None:
    with Scu(node.port) as scu:
        scu.send((pdu(value(COMMAND, 3)) + pdu(value(DATASET, 2))) * 20)
        assert [scu.answer().status for _ in range(20)] == [0x0000] * 20


# ── a PACS that takes reports ────────────────────────────────────────────────

SR = "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.fixture(scope="module")
def pacs() -> Iterator[tuple[str, int]]:
    """A PACS that takes reports; its address."""
    entity = AE(ae_title="ODD")
    for uid in (SR, VERIFICATION):
        entity.add_supported_context(uid)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0x0000)])
    yield server.server_address
    server.shutdown()


@contextmanager
def relayed(pacs: tuple[str, int], change: Callable[[bytes], bytes]) -> Iterator[Peer]:
    """The PACS behind a relay that changes each PDU that it sends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def relay() -> None:
        peer, _ = listener.accept()
        with peer, socket.create_connection(pacs) as behind:
            threading.Thread(target=pump, args=(peer, behind), daemon=True).start()
            with behind.makefile("rb") as stream:
                while len(head := stream.read(6)) == 6:
                    sent = head + stream.read(int.from_bytes(head[2:], "big"))
                    with suppress(OSError):
                        peer.sendall(change(sent))

    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield Peer(name="ODD", ae_title="ODD", host="127.0.0.1", port=int(listener.getsockname()[1]))
    finally:
        thread.join(timeout=600)
        listener.close()


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def rebuilt(answer: bytes, edit: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """Return an A-ASSOCIATE-AC after an edit of its items, any other PDU as it is."""
    if answer[0] != 2:
        return answer
    parts, at = [], 74
    while at < len(answer):
        length = int.from_bytes(answer[at + 2 : at + 4], "big")
        parts.append(answer[at : at + 4 + length])
        at += 4 + length
    body = answer[6:74] + b"".join(edit(parts))
    return struct.pack(">BBI", 2, 0, len(body)) + body


def with_length(length: int) -> Callable[[list[bytes]], list[bytes]]:
    user = item(0x50, item(0x51, struct.pack(">I", length)) + item(0x52, b"1.2.3"))
    return lambda parts: [*parts[:-1], user]


SURPLUS = item(0x21, b"\x63\0\0\0" + item(0x40, EXPLICIT.encode()))
ROLES = item(0x54, struct.pack(">H", len(SR)) + SR.encode() + b"\1\1")
ODD_ACCEPTANCES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "items in reverse": lambda parts: parts[::-1],
    "a result twice": lambda parts: [*parts[:2], *parts[1:]],
    "a result for a context that was not proposed": lambda parts: [*parts[:-1], SURPLUS, parts[-1]],
    "a result cut short": lambda parts: [*parts[:-1], item(0x21, b"\x05"), parts[-1]],
    "a result of an unknown kind": lambda parts: [*parts[:-1], item(0x21, b"\x07\0\x09\0"), parts[-1]],
    "no result for what it refuses": lambda parts: [part for part in parts if part[0] != 0x21 or part[6] == 0],
    "a role that was not proposed": lambda parts: [*parts[:-1], item(0x50, parts[-1][4:] + ROLES)],
    "user information twice": lambda parts: [*parts, parts[-1]],
    "no limit to PDUs": with_length(0),
    "PDUs of 128 bytes": with_length(128),
    "PDUs of 7 bytes": with_length(7),
    "PDUs of 4 GB": with_length(0xFFFFFFFF),
}


def stored(peer: Peer) -> int:
    report, stream = source_header(sop_class=SR), BytesIO()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = EXPLICIT
    report.save_as(stream, enforce_file_format=True)
    contexts = [build_context(SR, [EXPLICIT]), build_context("1.2.3.4"), *verification_contexts()]
    with connect(peer, contexts, ae_title="MEDIQA", timeout_s=20) as link:
        link.verify()
        return link.store(stream.getvalue())


@pytest.mark.parametrize("name", ODD_ACCEPTANCES)
def test_a_report_reaches_a_pacs_that_accepts_in_an_odd_way(pacs: tuple[str, int], name: str) -> None:
    with relayed(pacs, lambda answer: rebuilt(answer, ODD_ACCEPTANCES[name])) as peer:
        assert stored(peer) == 0x0000


@pytest.mark.parametrize("ending", [b"\2\0", b"\2\3", b"\2\x63", b"\0\0", b"\0\6", b"\1\0", b"\xff\xff"])
@pytest.mark.parametrize("instead_of", [2, 4])
def test_a_pacs_that_aborts_in_any_way_is_asked_again(pacs: tuple[str, int], instead_of: int, ending: bytes) -> None:
    abort = struct.pack(">BBIBB", 7, 0, 4, 0, 0) + ending
    with relayed(pacs, lambda sent: abort if sent[0] == instead_of else sent) as peer, pytest.raises(PeerUnavailable):
        stored(peer)


@pytest.mark.parametrize("body", [b"", b"\xff" * 4, bytes(32)])
def test_a_pacs_may_answer_a_release_in_any_way(pacs: tuple[str, int], body: bytes) -> None:
    answer = struct.pack(">BBI", 6, 0xFF, len(body)) + body
    with relayed(pacs, lambda sent: answer if sent[0] == 6 else sent) as peer:
        assert stored(peer) == 0x0000


def in_values(answer: bytes, size: int, reserved: int) -> bytes:
    """Return a P-DATA-TF with its one value cut into several, with reserved bits of their control headers set."""
    if answer[0] != 4:
        return answer
    number, content = answer[10], answer[12:]
    pieces = [content[i : i + size] for i in range(0, len(content), size)]
    return pdu(*(value(p, reserved | 1 | 2 * (i == len(pieces) - 1), number) for i, p in enumerate(pieces)))


@pytest.mark.parametrize(("size", "reserved"), [(1000, 0), (8, 0), (1, 0), (1000, 0xF0), (50, 0xFC)])
def test_a_pacs_may_cut_its_answers_in_any_way(pacs: tuple[str, int], size: int, reserved: int) -> None:
    with relayed(pacs, lambda sent: in_values(sent, size, reserved)) as peer:
        assert stored(peer) == 0x0000
