"""The Storage SCP: listens, admits or rejects callers, runs one thread per association.

Everything before the first accepted byte has its own short deadline and its own bounds, so that
silent, slow or half-open connections cost a thread for seconds and never refuse a scanner.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from pynetdicom.presentation import PresentationContext

from mediqa_node.domain.policy import AllowRule, ReceiverPolicy
from mediqa_node.network import negotiation
from mediqa_node.network.association import Association, Caller, Intake, new_association_id
from mediqa_node.network.negotiation import AcceptedContext
from mediqa_node.network.pdu_stream import ASSOCIATE_RQ, MAX_NEGOTIATION_BYTES, PduStream, PeerGone

log = structlog.get_logger("receiver")

BACKLOG = 256
_NEGOTIATING_AT_MOST = 256


class Receiver:
    """A listening Storage and Verification SCP.

    Args:
        has_room: False rejects new associations as transient until there is space again.
    """

    def __init__(
        self,
        *,
        ae_title: str,
        host: str,
        port: int,
        policy: ReceiverPolicy,
        contexts: Sequence[PresentationContext],
        intake: Intake,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self.ae_title = ae_title
        self.policy = policy
        self._contexts = contexts
        self._intake = intake
        self._has_room = has_room
        self._lock = threading.Lock()
        self._active: dict[str, Association] = {}
        self._negotiating = 0
        self._stopping = threading.Event()
        self._listener = socket.create_server((host, port), backlog=BACKLOG, reuse_port=False)
        self._wake_reader, self._wake_writer = socket.socketpair()

    @property
    def port(self) -> int:
        """The port that is listened on; useful when 0 was asked for."""
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Accept connections until `stop` is called."""
        self._listener.setblocking(False)
        with selectors.DefaultSelector() as selector:  # epoll or poll: no limit at descriptor 1,024
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select():
                    if key.fileobj is self._listener:
                        self._accept()
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, address = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            log.error("connection not accepted", reason=error.strerror)
            time.sleep(0.05)
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            crowded = self._negotiating >= _NEGOTIATING_AT_MOST
            self._negotiating += not crowded
        if crowded:
            connection.close()
            return
        threading.Thread(target=self._serve_connection, args=(connection, address[0]), daemon=True).start()

    def _serve_connection(self, connection: socket.socket, address: str) -> None:
        stream = PduStream(connection)
        association = None
        try:
            try:
                association = self._negotiate(stream, address)
            finally:
                with self._lock:
                    self._negotiating -= 1
            if association is not None:
                association.run()
        except (PeerGone, ValueError) as error:
            log.info("connection ended before an association", address=address, reason=str(error))
        finally:
            if association is not None:
                with self._lock:
                    self._active.pop(association.caller.association_id, None)
            stream.close()

    def _negotiate(self, stream: PduStream, address: str) -> Association | None:
        within = self.policy.negotiation_deadline_s
        pdu_type, body = stream.read(first_byte_within_s=within, deadline_s=within, limit_bytes=MAX_NEGOTIATION_BYTES)
        if pdu_type != ASSOCIATE_RQ:
            stream.abort()
            raise PeerGone(f"PDU of type {pdu_type} before an association")
        request = negotiation.parse_request(body)
        caller = Caller(
            association_id=new_association_id(),
            calling_ae_title=str(request.calling_ae_title).strip(),
            called_ae_title=str(request.called_ae_title).strip(),
            address=address,
        )
        answer, contexts = negotiation.accept(request, self._contexts)
        association, refusal = self._admit(stream, caller, contexts)
        if association is None:
            log.warning(
                "association rejected",
                calling_ae=caller.calling_ae_title,
                called_ae=caller.called_ae_title,
                address=address,
                reject=refusal,
            )
            stream.send(negotiation.reject(*refusal))
            _linger(stream)
            return None
        stream.send(answer)
        return association

    def _admit(
        self, stream: PduStream, caller: Caller, contexts: dict[int, AcceptedContext]
    ) -> tuple[Association | None, tuple[int, int, int]]:
        """Register the association, or say why not; checks and registration are one step."""
        if self.policy.require_called_ae and caller.called_ae_title != self.ae_title:
            return None, negotiation.CALLED_AE_NOT_RECOGNISED
        rule = self.policy.rule_for(caller.calling_ae_title, caller.address)
        if rule is None:
            return None, negotiation.CALLING_AE_NOT_RECOGNISED
        if not self._has_room():
            return None, negotiation.TEMPORARY_CONGESTION
        association = Association(stream, caller, rule, contexts, self.policy, self._intake)
        with self._lock:
            if len(self._active) >= self.policy.max_associations or self._at_cap(caller, rule):
                return None, negotiation.LOCAL_LIMIT_EXCEEDED
            if self._stopping.is_set():
                return None, negotiation.TEMPORARY_CONGESTION
            self._active[caller.association_id] = association
        return association, (0, 0, 0)

    def _at_cap(self, caller: Caller, rule: AllowRule) -> bool:
        if rule.max_associations is None:
            return False
        same = sum(a.caller.calling_ae_title == caller.calling_ae_title for a in self._active.values())
        return same >= rule.max_associations

    def stop(self, *, within_s: float = 30.0) -> None:
        """Stop listening, let instances on their way arrive, end the associations.

        Instances that are half received when time is up were never acknowledged: their senders keep them.
        """
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"x")
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            with self._lock:
                active = list(self._active.values())
            if not active:
                return
            for association in active:
                association.stopping = True
                if association.between_messages:
                    with contextlib.suppress(OSError):
                        association.stream.connection.shutdown(socket.SHUT_RD)
            time.sleep(0.02)


def _linger(stream: PduStream) -> None:
    """Give the peer a moment to read a rejection before the connection goes."""
    with contextlib.suppress(PeerGone, OSError):
        stream.connection.shutdown(socket.SHUT_WR)
        stream.read(first_byte_within_s=1.0, deadline_s=1.0, limit_bytes=1024)
