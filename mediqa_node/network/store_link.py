"""A Storage SCU that sends spooled instances as they are: bytes from the file to the socket, nothing parsed.

pynetdicom would decode and encode each dataset, which costs more than receiving it, and could change bytes. This one
proposes a presentation context for each pair of SOP class and transfer syntax that is to be sent (PS3.8 section 7.1.1),
keeps one association open, and reads what a peer answers as leniently as `associate_pdu` and `dimse` do.
"""

import contextlib
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mediqa_node.domain.errors import PeerRefused, PeerUnavailable
from mediqa_node.domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mediqa_node.domain.peer import Peer
from mediqa_node.network import associate_pdu as coding
from mediqa_node.network import dimse
from mediqa_node.network.associate_pdu import item
from mediqa_node.network.pdu_stream import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    MAX_NEGOTIATION_BYTES,
    MAX_PDU_BYTES,
    P_DATA_TF,
    RELEASE_RP,
    RELEASE_RQ,
    PduStream,
    PeerGone,
)
from mediqa_node.network.tls import open_connection

Pair = tuple[str, str]
"""SOP Class UID and Transfer Syntax UID."""

_PIECE_BYTES = 1024**2
_LEAST_PDU_BYTES, _LARGEST_PDU_BYTES = 4096, 4 * 1024**2
_RELEASE_WITHIN_S = 5.0
_CONNECT_WITHIN_S = 10.0
_TRANSIENT, _SERVICE_PROVIDER = 2, 3


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Where the dataset of a Part 10 file begins, and its length."""

    fd: int
    begins_at: int
    size_bytes: int


class StoreLink:
    """An open association that stores instances at a peer.

    Attributes:
        pairs: proposed pairs of SOP class and transfer syntax; `accepts` tells which of them the peer takes.
    """

    def __init__(self, stream: PduStream, peer: Peer, pairs: Sequence[Pair], accepted: Mapping[Pair, int]) -> None:
        self.peer = peer
        self.pairs = frozenset(pairs)
        self._accepted = accepted
        self._stream = stream
        self._largest = _LEAST_PDU_BYTES
        self._message_id = 0

    def accepts(self, pair: Pair) -> bool:
        """Whether the peer takes this class in this syntax."""
        return pair in self._accepted

    @property
    def accepted(self) -> frozenset[Pair]:
        """The pairs that the peer takes."""
        return frozenset(self._accepted)

    def limit_pdus(self, maximum_length: int) -> None:
        """Heed the Maximum Length that the peer has stated (PS3.8 D.1); 0 is none."""
        self._largest = min(max(maximum_length, _LEAST_PDU_BYTES), _LARGEST_PDU_BYTES) if maximum_length else 131_072

    def store(self, file: StoredFile, pair: Pair, sop_instance_uid: str, *, within_s: float) -> tuple[int, str]:
        """Send one instance; return the DIMSE status and the Error Comment of the peer.

        Args:
            within_s: how long the peer may take to answer, and to take in each megabyte.

        Raises:
            PeerUnavailable: the association broke, or no answer came in time.
        """
        context_id = self._accepted[pair]
        self._message_id = self._message_id % 0xFFFF + 1
        command = dimse.store_request(pair[0], sop_instance_uid, self._message_id)
        try:
            self._send(dimse.command_pdu(context_id, command), within_s)
            for piece in self._dataset(file, context_id):
                self._send(piece, within_s)
            return self._answer(within_s)
        except (PeerGone, ValueError) as error:
            raise PeerUnavailable(f"{self.peer.name}: {error}") from error

    def _send(self, data: bytes, within_s: float) -> None:
        self._stream.send(data, within_s=within_s)

    def _dataset(self, file: StoredFile, context_id: int) -> Iterator[bytes]:
        """Yield the dataset as P-DATA-TF PDUs that the peer takes, about a megabyte at a time."""
        fragment = self._largest - 6
        per_piece = max(1, _PIECE_BYTES // fragment) * fragment
        position = 0
        while position < file.size_bytes or not position:
            data = memoryview(os.pread(file.fd, min(per_piece, file.size_bytes - position), file.begins_at + position))
            if not data:
                raise PeerGone("the file ends before its dataset")
            parts: list[bytes | memoryview] = []
            for start in range(0, len(data), fragment):
                part = data[start : start + fragment]
                is_last = position + start + len(part) >= file.size_bytes
                parts += (
                    struct.pack(">BxIIBB", P_DATA_TF, len(part) + 6, len(part) + 2, context_id, 2 * is_last),
                    part,
                )
            position += len(data)
            yield b"".join(parts)

    def _answer(self, within_s: float) -> tuple[int, str]:
        deadline = time.monotonic() + within_s
        command = bytearray()
        while True:
            left = max(deadline - time.monotonic(), 0.01)
            kind, body = self._stream.read(
                first_byte_within_s=left, deadline_s=left, limit_bytes=MAX_PDU_BYTES + 64, all_within_s=left
            )
            if kind != P_DATA_TF:
                raise PeerGone(_ENDINGS.get(kind, f"sent a PDU of type {kind} out of turn"))
            for fragment in dimse.fragments(body):
                if not fragment.is_command or len(command) + len(fragment.data) > MAX_PDU_BYTES:
                    raise PeerGone("answered C-STORE with a dataset")
                command += fragment.data
                if fragment.is_last:
                    answer = dimse.parse_response(bytes(command))
                    if answer.message_id == self._message_id:
                        return answer.status, answer.comment
                    command.clear()  # an answer to an earlier message, which came too late

    def release(self) -> None:
        """End the association; a peer that does not answer is left alone."""
        with contextlib.suppress(PeerGone, ValueError):
            self._stream.send(bytes((RELEASE_RQ, 0, 0, 0, 0, 4, 0, 0, 0, 0)), within_s=_RELEASE_WITHIN_S)
            kind = 0
            while kind not in (RELEASE_RP, ABORT):
                kind, _ = self._stream.read(
                    first_byte_within_s=_RELEASE_WITHIN_S, deadline_s=_RELEASE_WITHIN_S, limit_bytes=MAX_PDU_BYTES + 64
                )
        self._stream.close()

    def abort(self) -> None:
        """End the association at once."""
        self._stream.abort()
        self._stream.close()


_ENDINGS = {ABORT: "aborted the association", RELEASE_RQ: "released the association"}


@contextmanager
def open_store_link(
    peer: Peer, pairs: Sequence[Pair], *, ae_title: str, timeout_s: float = 30.0
) -> Iterator[StoreLink]:
    """Open an association for C-STORE; release it at the end of the block, or abort it after an error.

    Args:
        pairs: at most 128; the caller looks at `accepts`.

    Raises:
        PeerUnavailable: not reachable, no answer in time, aborted, or rejected as transient.
        PeerRefused: rejected for good.
    """
    link = connect_to_store(peer, pairs, ae_title=ae_title, timeout_s=timeout_s)
    try:
        yield link
    except BaseException:
        link.abort()
        raise
    link.release()


def connect_to_store(peer: Peer, pairs: Sequence[Pair], *, ae_title: str, timeout_s: float) -> StoreLink:
    """Open an association as `open_store_link` does; the caller ends it."""
    stream = PduStream(open_connection(peer, min(timeout_s, _CONNECT_WITHIN_S)))
    try:
        stream.send(_request(peer, pairs, ae_title), within_s=timeout_s)
        kind, body = stream.read(
            first_byte_within_s=timeout_s,
            deadline_s=timeout_s,
            limit_bytes=MAX_NEGOTIATION_BYTES,
            all_within_s=timeout_s,
        )
        if kind == ASSOCIATE_RJ:
            raise _rejection(peer, bytes(body))
        if kind != ASSOCIATE_AC:
            raise PeerUnavailable(f"{_where(peer)} {_ENDINGS.get(kind, 'did not accept the association')}")
        results = coding.accepted_results(body)
    except (PeerGone, ValueError) as error:
        stream.close()
        raise PeerUnavailable(f"{_where(peer)}: {error}") from error
    except (PeerUnavailable, PeerRefused):
        stream.close()
        raise
    accepted = {pair: number for number, pair in _numbered(pairs) if results.syntaxes.get(number) == pair[1]}
    link = StoreLink(stream, peer, pairs, accepted)
    link.limit_pdus(results.maximum_length)
    return link


def _numbered(pairs: Sequence[Pair]) -> Iterator[tuple[int, Pair]]:
    return zip(range(1, 256, 2), pairs, strict=False)


def _request(peer: Peer, pairs: Sequence[Pair], ae_title: str) -> bytes:
    titles = b"".join(title.encode("ascii", "replace")[:16].ljust(16) for title in (peer.ae_title, ae_title))
    contexts = [
        item(
            coding.PROPOSED_CONTEXT,
            bytes((number, 0, 0, 0))
            + item(coding.ABSTRACT_SYNTAX, sop_class.encode())
            + item(coding.TRANSFER_SYNTAX, syntax.encode()),
        )
        for number, (sop_class, syntax) in _numbered(pairs)
    ]
    user = item(
        coding.USER_INFORMATION,
        item(coding.MAXIMUM_LENGTH, struct.pack(">I", MAX_PDU_BYTES))
        + item(coding.IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID.encode())
        + item(coding.IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME.encode()),
    )
    name = item(coding.APPLICATION_CONTEXT, coding.DICOM_APPLICATION_CONTEXT.encode())
    return coding.pdu(ASSOCIATE_RQ, b"\0\1\0\0" + titles + bytes(32), name, *contexts, user)


def _rejection(peer: Peer, body: bytes) -> PeerUnavailable | PeerRefused:
    _, result, source, reason = body[:4].ljust(4, b"\0")
    words = f"{_where(peer)} rejected the association (result {result}, source {source}, reason {reason})"
    may_pass = result == _TRANSIENT or source == _SERVICE_PROVIDER
    return PeerUnavailable(words) if may_pass else PeerRefused(words)


def _where(peer: Peer) -> str:
    return f"{peer.name} ({peer.ae_title} at {peer.host}:{peer.port})"
