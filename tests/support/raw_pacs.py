"""A PACS made of bytes: it can answer what no library lets one answer, or nothing."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

from mediqa_node.domain.peer import Peer
from mediqa_node.network.associate_pdu import proposed_contexts
from mediqa_node.network.dimse import fragments
from support.receiving import item, p_data

RELEASE_RQ, RELEASE_RP, ABORT = (struct.pack(">BBII", kind, 0, 4, 0) for kind in (5, 6, 7))

Command = dict[int, bytes]
Send = Callable[[socket.socket], None]


def accepting(request: bytes) -> bytes:
    """Accept each context of the body of a request with its first transfer syntax."""
    contexts = proposed_contexts(memoryview(request)[68:])
    return acceptance({context.context_id: context.transfer_syntaxes[0] for context in contexts})


def acceptance(syntaxes: dict[int, str]) -> bytes:
    """Return an A-ASSOCIATE-AC with these contexts."""
    body = (
        struct.pack(">HH", 1, 0) + b"RAW".ljust(16) + b"ME".ljust(16) + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1")
    )
    body += b"".join(item(0x21, bytes((i, 0, 0, 0)) + item(0x40, s.encode())) for i, s in syntaxes.items())
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4"))
    return struct.pack(">BBI", 2, 0, len(body)) + body


def response(
    context: int,
    request: Command,
    status: int = 0x0000,
    *,
    without: tuple[int, ...] = (),
    dataset: bytes | None = None,
    **changes: bytes,
) -> bytes:
    """Return the PDUs of a response.

    Args:
        without: elements to leave out.
        changes: values by element, such as `e0800`.
    """
    values = {
        0x0002: request.get(0x0002, b""),
        0x0100: struct.pack("<H", int.from_bytes(request[0x0100], "little") | 0x8000),
        0x0120: request[0x0110],
        0x0800: struct.pack("<H", 0x0101 if dataset is None else 1),
        0x0900: struct.pack("<H", status),
    }
    values |= {int(name[1:], 16): value for name, value in changes.items()}
    sent = p_data(context, elements({e: v for e, v in sorted(values.items()) if e not in without}), is_command=True)
    return sent + (b"" if dataset is None else p_data(context, dataset, is_command=False))


def elements(values: Command) -> bytes:
    """Return a command set."""
    body = b"".join(struct.pack("<HHI", 0, element, len(value)) + value for element, value in values.items())
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


@contextlib.contextmanager
def raw_pacs(
    *,
    accept: Callable[[bytes], bytes | Send] = accepting,
    answer: Callable[[int, Command], bytes | Send] = response,
    release: bytes | Send = RELEASE_RP,
) -> Iterator[Peer]:
    """Give a peer that takes one association after the other.

    Args:
        accept: makes the answer of the body of a request; a function sends it on its own.
        answer: makes the answer of context ID and command set.
        release: the answer to a release.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

    connections = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
                    _serve(connection, stream, accept, answer, release)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Peer(name="RAW", ae_title="RAW", host="127.0.0.1", port=int(listener.getsockname()[1]))
    finally:
        for waiting in (listener, *connections):
            with contextlib.suppress(OSError):
                waiting.shutdown(socket.SHUT_RDWR)  # wakes the thread
        listener.close()
        thread.join(timeout=600)


def _serve(
    connection: socket.socket,
    stream: BinaryIO,
    accept: Callable[[bytes], bytes | Send],
    answer: Callable[[int, Command], bytes | Send],
    release: bytes | Send,
) -> None:
    command, request = b"", (0, Command())
    while len(head := stream.read(6)) == 6:
        body = stream.read(length := int.from_bytes(head[2:], "big"))
        if len(body) < length:
            return
        if head[0] == 1:
            _send(connection, accept(body))
        elif head[0] == 5:
            _send(connection, release)
        for part in fragments(memoryview(body)) if head[0] == 4 else ():
            command += bytes(part.data) if part.is_command else b""
            if part.is_command and part.is_last:
                request, command = (part.context_id, _parsed(command)), b""
            waits = part.is_command and int.from_bytes(request[1][0x0800], "little") != 0x0101
            if part.is_last and not waits:
                _send(connection, answer(*request))


def _send(connection: socket.socket, what: bytes | Send) -> None:
    if callable(what):
        what(connection)
    else:
        connection.sendall(what)


def _parsed(command: bytes) -> Command:
    found, position = {}, 0
    while position < len(command):
        _, element, length = struct.unpack_from("<HHI", command, position)
        found[element] = command[position + 8 : position + 8 + length]
        position += 8 + length
    return found
