"""What pynetdicom lacks as a requestor: limits to what a peer may hold up, and a lenient reading of its answers.

pynetdicom waits without a limit inside a PDU and for its own threads, takes a PDU of 4 GB, and ends its thread in an
exception at many a PDU out of turn. `Watch` therefore reads for it, in the place of `AssociationSocket.recv`, and cuts
the connection when time is up. That method is not meant to be replaced: the minor version of pynetdicom is pinned, and
`tests/network/test_odd_answers.py` sees it go.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from pynetdicom import Association, evt
from pynetdicom.pdu import A_ASSOCIATE_RJ

from mediqa_node.network.associate_pdu import readable_abort, readable_acceptance, readable_rejection
from mediqa_node.network.pdu_stream import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    MAX_NEGOTIATION_BYTES,
    P_DATA_TF,
    RELEASE_RP,
    RELEASE_RQ,
)
from mediqa_node.network.responses import MAX_ANSWERS, MAX_IMAGES, Responses

RELEASE_WITHIN_S = 5.0
"""How long a peer may take to answer a release: what was sent has been answered by then."""

_GRACE = 1.25
"""pynetdicom's own timeouts come first, and let it send an A-ABORT."""

_LAST_WORDS_S = 0.2
_WIND_DOWN_S = 2.0
_HEADER_BYTES = 6
_ABORT_PDU = bytes((ABORT, 0, 0, 0, 0, 4, 0, 0, 2, 0))
_RELEASE_RP_PDU = bytes((RELEASE_RP, 0, 0, 0, 0, 4, 0, 0, 0, 0))


class _Checkpoint(threading.Event):
    """Where the thread of an association stops while a request of ours waits for its answer."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._passing = threading.Lock()
        self.set()

    def clear(self) -> None:
        with self._passing:
            super().clear()

    def wait(self, timeout: float | None = None) -> bool:
        while True:
            super().wait(timeout)
            with self._passing:
                if self.is_set():
                    self._association._is_paused = False
                    return True


def keep_answers(association: Association) -> None:
    """Let pynetdicom's own thread take no answer from the request that waits for it; before the association begins.

    The thread may wake so late after one request that the next has begun. That one took it for stopped, and waited for
    an answer that the thread had taken for a message out of turn.
    """
    association._reactor_checkpoint = _Checkpoint(association)


class Watch:
    """Watches over one association from its connection to its end.

    Attributes:
        rejections: as they were read: one that comes at once, pynetdicom may take for a connection that failed.
        received: the types of the PDUs that came.
        tls_failure: what ended TLS, such as a certificate of ours that the peer does not accept.
    """

    def __init__(self, timeout_s: float) -> None:
        self.rejections: list[A_ASSOCIATE_RJ] = []
        self.received: set[int] = set()
        self.tls_failure: ssl.SSLError | None = None
        self._timeout_s = timeout_s
        self._proposed: dict[int | None, set[str]] = {}
        self._responses = Responses()
        self._is_releasing = False
        self._connection: Any = None
        self._provider: Any = None
        self._negotiation: threading.Timer | None = None

    @property
    def handlers(self) -> list[Any]:
        """The event handlers of the association."""
        return [(evt.EVT_CONN_OPEN, self._open), (evt.EVT_PDU_RECV, self._note)]

    @contextlib.contextmanager
    def within(self, limit_s: float) -> Iterator[None]:
        """Cut the connection if the block takes longer: whatever waits in it for the peer then ends."""
        timer = self._timer(limit_s)
        try:
            yield
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def operation(self, answers_at_most: int = MAX_ANSWERS) -> Iterator[int]:
        """Allow one request, with the Message ID given, and its answers, all of them within the timeout.

        Raises:
            RuntimeError: as pynetdicom's where the association is no longer established: the peer has released it.
        """
        if RELEASE_RQ in self.received:
            raise RuntimeError("the peer has released the association")
        with self.within(self._timeout_s):
            yield self._responses.begin(answers_at_most)

    @contextlib.contextmanager
    def long_operation(self, between_s: float) -> Iterator[tuple[int, Callable[[], None]]]:
        """Allow one request that has many answers, each within so long of the one before; given as for `operation`.

        The second value is to be called with each answer.

        Raises:
            RuntimeError: as `operation`.
        """
        if RELEASE_RQ in self.received:
            raise RuntimeError("the peer has released the association")
        timer = self._timer(between_s)

        def goes_on() -> None:
            nonlocal timer
            timer.cancel()
            timer = self._timer(between_s)

        try:
            yield self._responses.begin(MAX_IMAGES), goes_on
        finally:
            timer.cancel()

    def negotiated(self) -> None:
        """End the watch over the negotiation, which begins with the connection."""
        if self._negotiation is not None:
            self._negotiation.cancel()

    def release(self, association: Association) -> None:
        """Release an association, unless it has ended already."""
        if association.is_established and self._provider.is_alive():
            self._is_releasing = True
            association.acse_timeout = limit_s = min(self._timeout_s, RELEASE_WITHIN_S)
            with self.within(limit_s):
                association.release()

    def close(self) -> None:
        """Leave no connection and no thread behind, whatever the association came to."""
        self.negotiated()
        if self._connection is not None:
            self._shut()
            self._provider.kill_dul()
            self._provider.join(_WIND_DOWN_S)
            self._connection.close()

    def _open(self, event: evt.Event) -> None:
        keep_answers(event.assoc)
        contexts = event.assoc.requestor.requested_contexts
        self._proposed = {context.context_id: set(map(str, context.transfer_syntax)) for context in contexts}
        self._provider = event.assoc.dul
        channel = self._provider.socket
        self._connection = channel.socket
        with contextlib.suppress(OSError):  # command and dataset are two PDUs: Nagle's second waits for a delayed ACK
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel.recv = self._reader(channel.recv)
        self._negotiation = self._timer(self._timeout_s)

    def _note(self, event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self.rejections.append(event.pdu)

    def _timer(self, limit_s: float) -> threading.Timer:
        timer = threading.Timer(_GRACE * limit_s, self._cut)
        timer.daemon = True
        timer.start()
        return timer

    def _cut(self) -> None:
        """End the connection, then the thread that reads it: pynetdicom waits for that thread without a limit."""
        self._shut()
        self._provider.join(_LAST_WORDS_S)  # it tells the thread that waits for an answer
        self._provider.kill_dul()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _reader(self, receive: Callable[[int], bytearray]) -> Callable[[int], bytearray]:
        """Return what reads for pynetdicom, which asks for the six bytes of a header, then for the body."""
        body: bytearray | None = None

        def read(n_bytes: int) -> bytearray:
            nonlocal body
            if body is not None:
                wanted, body = body, None
                return wanted
            try:
                header = receive(_HEADER_BYTES)
            except ssl.SSLError as error:
                self.tls_failure = error
                raise
            if len(header) < _HEADER_BYTES:  # the end of the connection
                return header
            try:
                pdu = self._readable(header, receive)
            except ValueError as error:
                self._say(_ABORT_PDU)
                raise OSError(str(error)) from error  # to pynetdicom, the connection is lost
            body = bytearray(pdu[_HEADER_BYTES:])
            return bytearray(pdu[:_HEADER_BYTES])

        return read

    def _readable(self, header: bytearray, receive: Callable[[int], bytearray]) -> bytes:
        """Read the rest of a PDU and rewrite it: pynetdicom refuses an answer for an odd version name."""
        kind, length = struct.unpack(">BxI", header)
        if kind not in self._awaited() or length > MAX_NEGOTIATION_BYTES:
            raise ValueError(f"PDU of type {kind} and {length} bytes out of turn")
        raw = bytes(header + receive(length))
        if len(raw) < _HEADER_BYTES + length:
            raise ValueError("the connection ended inside a PDU")
        self.received.add(kind)
        if kind == RELEASE_RQ:  # pynetdicom would answer it in some states, and wait or fail in others
            self._say(_RELEASE_RP_PDU)
            raise OSError("the peer has released the association")
        if kind == ASSOCIATE_AC:
            return readable_acceptance(raw, self._proposed)
        rewrite = {ASSOCIATE_RJ: readable_rejection, ABORT: readable_abort, P_DATA_TF: self._responses.readable}
        return rewrite[kind](raw) if kind in rewrite else raw

    def _say(self, pdu: bytes) -> None:
        """Send last words, from the thread that reads, without waiting: a TLS socket takes no MSG_DONTWAIT."""
        with contextlib.suppress(OSError):
            self._connection.settimeout(0.0)
            try:
                self._connection.send(pdu)
            finally:
                self._connection.settimeout(None)

    def _awaited(self) -> set[int]:
        """Return the PDUs that a peer may send now (PS3.8 section 9.2)."""
        if ASSOCIATE_AC not in self.received:
            return {ASSOCIATE_AC, ASSOCIATE_RJ, ABORT}
        return {P_DATA_TF, RELEASE_RQ, ABORT, *([RELEASE_RP] if self._is_releasing else [])}
