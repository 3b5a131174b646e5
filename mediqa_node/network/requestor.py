"""What pynetdicom lacks as a requestor: limits to what a peer may hold up, and a lenient reading of its answers.

pynetdicom waits without a limit inside a PDU and for its own threads, and takes a PDU of 4 GB. What is set on its
objects here is not part of its documented interface: its minor version is pinned, and
`tests/network/test_odd_answers.py` sees each of these go.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from pynetdicom import Association, evt
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ, A_RELEASE_RQ

from mediqa_node.network.associate_pdu import readable_abort, readable_acceptance, readable_rejection
from mediqa_node.network.pdu_stream import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, MAX_NEGOTIATION_BYTES, P_DATA_TF
from mediqa_node.network.responses import Responses

RELEASE_WITHIN_S = 5.0
"""How long a peer may take to answer a release: what was sent has been answered by then."""

_GRACE = 1.25
"""pynetdicom's own timeouts come first, and let it send an A-ABORT."""

_LAST_WORDS_S = 0.2
_WIND_DOWN_S = 2.0


class Watch:
    """Watches over one association from its connection to its end.

    Attributes:
        rejections: as they were read: one that comes at once, pynetdicom may take for a connection that failed.
        was_aborted: the peer has sent an A-ABORT.
    """

    def __init__(self, timeout_s: float) -> None:
        self.rejections: list[A_ASSOCIATE_RJ] = []
        self.was_aborted = False
        self._asks_for_release = False
        self._timeout_s = timeout_s
        self._responses = Responses()
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
    def operation(self) -> Iterator[None]:
        """Allow one request and its answers, all of them within the timeout."""
        self._responses.begin()
        with self.within(self._timeout_s):
            yield

    def _timer(self, limit_s: float) -> threading.Timer:
        timer = threading.Timer(_GRACE * limit_s, self._cut)
        timer.daemon = True
        timer.start()
        return timer

    def negotiated(self) -> None:
        """End the watch over the negotiation, which begins with the connection."""
        if self._negotiation is not None:
            self._negotiation.cancel()

    def _open(self, event: evt.Event) -> None:
        self._provider = event.assoc.dul
        channel = self._provider.socket
        self._connection = channel.socket
        proposed = {c.context_id: set(map(str, c.transfer_syntax)) for c in event.assoc.requestor.requested_contexts}
        receive, decode = channel.recv, self._provider._decode_pdu

        def limited(n_bytes: int) -> bytearray:
            if n_bytes > MAX_NEGOTIATION_BYTES:
                raise OSError(f"PDU of {n_bytes} bytes exceeds {MAX_NEGOTIATION_BYTES}")
            read: bytearray = receive(n_bytes)
            return read

        def readable(raw: bytearray) -> Any:
            return decode(bytearray(self._readable(bytes(raw), proposed)))

        channel.recv, self._provider._decode_pdu = limited, readable
        self._negotiation = self._timer(self._timeout_s)

    def _readable(self, raw: bytes, proposed: dict[int | None, set[str]]) -> bytes:
        """Rewrite an answer before pynetdicom decodes it, which refuses one for an odd version name."""
        if raw[0] == ASSOCIATE_AC:
            return readable_acceptance(raw, proposed)
        if raw[0] == ASSOCIATE_RJ:
            return readable_rejection(raw)
        if raw[0] == ABORT:
            return readable_abort(raw)
        return self._responses.readable(raw) if raw[0] == P_DATA_TF else raw

    def _note(self, event: evt.Event) -> None:
        if isinstance(event.pdu, A_ASSOCIATE_RJ):
            self.rejections.append(event.pdu)
        elif isinstance(event.pdu, A_ABORT_RQ):
            self.was_aborted = True
        elif isinstance(event.pdu, A_RELEASE_RQ):
            self._asks_for_release = True

    def _cut(self) -> None:
        """End the connection, then the thread that reads it: pynetdicom waits for that thread without a limit."""
        _shut(self._connection)
        self._provider.join(_LAST_WORDS_S)  # it tells the thread that waits for an answer
        self._provider.kill_dul()

    def release(self, association: Association) -> None:
        """Release an association, unless the peer is about to."""
        if self._asks_for_release:
            association.join(_LAST_WORDS_S)  # pynetdicom answers
        elif association.is_established and self._provider.is_alive():
            association.acse_timeout = limit_s = min(self._timeout_s, RELEASE_WITHIN_S)
            with self.within(limit_s):
                association.release()

    def close(self) -> None:
        """Leave no connection and no thread behind, whatever the association came to."""
        self.negotiated()
        if self._connection is not None:
            _shut(self._connection)
            self._provider.kill_dul()
            self._provider.join(_WIND_DOWN_S)
            self._connection.close()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
