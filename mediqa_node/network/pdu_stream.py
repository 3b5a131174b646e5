"""Upper Layer PDUs from a socket, with a deadline and a size limit on each (PS3.8 section 9.3).

One reusable buffer per association grows only with received bytes, so that a declared length alone
reserves nothing; callers get views into it, valid until the next call. pynetdicom's own reader
polls every millisecond, reads 4,096 bytes at a time, copies each PDU five times and has no deadline
inside a PDU; this one blocks with a deadline.
"""

import contextlib
import select
import socket
import struct
import time

from mediqa_node.network.tls import TlsSocket

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

MAX_PDU_BYTES = 131_072
MAX_NEGOTIATION_BYTES = 1024**2
_HEADER = struct.Struct(">BxI")
_FIRST_BUFFER_BYTES = 4096
_BUFFER_BYTES = 2 * MAX_PDU_BYTES


class PeerGone(Exception):
    """The connection ended or exceeded a deadline; the message has the details."""


class PduStream:
    """Reads PDUs from a connected socket and writes answers to it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray(_FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    @property
    def has_begun(self) -> bool:
        """Return whether a part of the next PDU has arrived."""
        return self._end > self._start

    def has_data(self) -> bool:
        """Return at once whether something has arrived that was not read: a part of a PDU, or the end."""
        if self.has_begun or (isinstance(self.connection, TlsSocket) and self.connection.pending()):
            return True  # what TLS has decrypted already, no poll shows
        waiting = select.poll()  # not `select.select`, which fails above descriptor 1,023
        waiting.register(self.connection, select.POLLIN)
        return bool(waiting.poll(0))

    def read(
        self, *, first_byte_within_s: float, deadline_s: float, limit_bytes: int, all_within_s: float | None = None
    ) -> tuple[int, memoryview]:
        """Return the type and body of the next PDU.

        Args:
            first_byte_within_s: how long the peer may stay silent before the PDU begins.
            deadline_s: how long the whole PDU may take once it has begun.
            limit_bytes: largest body that is accepted.
            all_within_s: limit of silence and PDU together; None: separate limits only.

        Raises:
            PeerGone: closed, reset, too slow, or a PDU over the limit.
        """
        last = time.monotonic() + (first_byte_within_s + deadline_s if all_within_s is None else all_within_s)
        if self._start == self._end:
            self._start = self._end = 0
            self._fill(1, min(last, time.monotonic() + first_byte_within_s))
        deadline = min(last, time.monotonic() + deadline_s)
        self._fill(_HEADER.size, deadline)
        pdu_type, length = _HEADER.unpack_from(self._buffer, self._start)
        if length > limit_bytes:
            raise PeerGone(f"PDU of {length} bytes exceeds {limit_bytes}")
        self._fill(_HEADER.size + length, deadline)
        body = self._view[self._start + _HEADER.size : self._start + _HEADER.size + length]
        self._start += _HEADER.size + length
        return pdu_type, body

    def peek(self, n_bytes: int, *, within_s: float) -> tuple[int, memoryview, int]:
        """Return type, first bytes and length of the body of the next PDU, all of which stays unread.

        Args:
            n_bytes: of the body, as far as it has them.

        Raises:
            PeerGone: closed, reset or too slow.
        """
        deadline = time.monotonic() + within_s
        self._fill(_HEADER.size, deadline)
        pdu_type, length = _HEADER.unpack_from(self._buffer, self._start)
        self._fill(_HEADER.size + min(n_bytes, length), deadline)
        first = self._start + _HEADER.size
        return pdu_type, self._view[first : first + min(n_bytes, length)], length

    def drain(self, n_bytes: int, *, within_s: float) -> None:
        """Take in what the peer still sends, hold nothing of it, and stop at the end, the size or the time."""
        deadline = time.monotonic() + within_s
        self._start = self._end = 0
        while n_bytes > 0 and (remaining := deadline - time.monotonic()) > 0:
            self.connection.settimeout(remaining)
            below = self.connection.recv_below if isinstance(self.connection, TlsSocket) else self.connection.recv_into
            count = below(self._view)
            if not count:
                return
            n_bytes -= count

    def _fill(self, wanted: int, deadline: float) -> None:
        """Read until the buffer holds at least `wanted` bytes."""
        if self._start + wanted > len(self._buffer):
            self._to_front(self._buffer)
        while self._end - self._start < wanted:
            if self._end == len(self._buffer):
                self._to_front(bytearray(min(4 * self._end, max(wanted, _BUFFER_BYTES))))
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise PeerGone("deadline passed while waiting for the peer")
            self.connection.settimeout(remaining)
            try:
                count = self.connection.recv_into(self._view[self._end :])
            except TimeoutError:
                raise PeerGone("deadline passed while waiting for the peer") from None
            except OSError as error:
                raise PeerGone(f"connection lost: {error.strerror or error}") from error
            if not count:
                raise PeerGone("peer closed the connection")
            self._end += count

    def _to_front(self, buffer: bytearray) -> None:
        """Move unread bytes to the front of this buffer or of a larger one."""
        unread = bytes(self._view[self._start : self._end])
        if buffer is not self._buffer:
            self._buffer, self._view = buffer, memoryview(buffer)
        self._view[: len(unread)] = unread
        self._start, self._end = 0, len(unread)

    def send(self, data: bytes, *, within_s: float = 30.0) -> None:
        """Write all of `data`.

        Raises:
            PeerGone: the peer does not read, or is gone.
        """
        self.connection.settimeout(within_s)
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise PeerGone(f"peer does not take the answer: {error.strerror or error}") from error

    def abort(self, source: int = 2, reason: int = 0) -> None:
        """Send A-ABORT (PS3.8 9.3.8) if the peer still listens."""
        with contextlib.suppress(PeerGone):
            self.send(bytes((ABORT, 0, 0, 0, 0, 4, 0, 0, source, reason)), within_s=1.0)

    def end_sending(self) -> None:
        """Let the peer know that nothing follows."""
        if isinstance(self.connection, TlsSocket):
            self.connection.announce_end()
        self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection; data in flight is still delivered."""
        with contextlib.suppress(OSError):
            if isinstance(self.connection, TlsSocket):
                self.connection.announce_end()
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
