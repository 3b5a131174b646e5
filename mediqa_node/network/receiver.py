"""The Storage SCP: listens, admits or rejects callers, runs one thread per association.

Everything before an association is accepted has short deadlines and bounds of its own, so that
silent, slow or half-open connections occupy a thread for seconds and never keep a scanner out.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import structlog

from mediqa_node.domain.policy import AllowRule, ReceiverPolicy
from mediqa_node.network import negotiation
from mediqa_node.network.associate_pdu import DICOM_APPLICATION_CONTEXT, FIXED_BYTES
from mediqa_node.network.association import Association, Caller, Intake, new_association_id
from mediqa_node.network.negotiation import Refusal, RequestHead
from mediqa_node.network.pdu_stream import ASSOCIATE_RQ, MAX_NEGOTIATION_BYTES, PduStream, PeerGone

log = structlog.get_logger("receiver")

BACKLOG = 256
_NEGOTIATING_AT_MOST = 256
_NEGOTIATING_PER_ADDRESS = 128
_REST_BYTES = 65_536
"""Of a rejected request, so many bytes are taken in unread: more than an honest one has."""


class Receiver:
    """A listening Storage and Verification SCP.

    Args:
        contexts: transfer syntaxes by abstract syntax, the preferred first.
        has_room: False rejects new associations as transient until there is space again.
    """

    def __init__(
        self,
        *,
        ae_title: str,
        host: str,
        port: int,
        policy: ReceiverPolicy,
        contexts: Mapping[str, Sequence[str]],
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
        self._negotiating: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._listener = socket.create_server((host, port), backlog=BACKLOG, reuse_port=False)
        self._wake_reader, self._wake_writer = socket.socketpair()

    @property
    def port(self) -> int:
        """The port that the receiver listens on; useful if 0 was requested."""
        return int(self._listener.getsockname()[1])

    @property
    def n_associations(self) -> int:
        """Number of open associations."""
        return len(self._active)

    # ── connections ──────────────────────────────────────────────────────────

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
        for end in (self._listener, self._wake_reader, self._wake_writer):
            end.close()

    def _accept(self) -> None:
        try:
            connection, (address, *_) = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            log.error("connection not accepted", reason=error.strerror)
            time.sleep(0.05)  # out of descriptors: the connection waits in the backlog
            return
        if not self._may_negotiate(address):
            connection.close()
            return
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve_connection, args=(connection, address), daemon=True).start()
        except (OSError, RuntimeError) as error:  # reset already, or no thread available
            log.error("connection not served", address=address, reason=str(error))
            self._negotiated(address)
            connection.close()

    def _may_negotiate(self, address: str) -> bool:
        with self._lock:
            if self._negotiating.total() >= _NEGOTIATING_AT_MOST:
                return False
            if self._negotiating[address] >= _NEGOTIATING_PER_ADDRESS:
                return False
            self._negotiating[address] += 1
            return True

    def _negotiated(self, address: str) -> None:
        with self._lock:
            self._negotiating[address] -= 1
            if not self._negotiating[address]:
                del self._negotiating[address]

    def _serve_connection(self, connection: socket.socket, address: str) -> None:
        stream = PduStream(connection)
        association = None
        try:
            try:
                association = self._negotiate(stream, address)
            finally:
                self._negotiated(address)
            if association is not None:
                association.run()
        except (PeerGone, ValueError) as error:
            stream.abort()
            log.info("connection ended before an association", address=address, reason=str(error))
        except Exception:
            stream.abort()
            log.exception("connection failed", address=address)
        finally:
            if association is not None:
                self._forget(association)
            stream.close()

    # ── admission ────────────────────────────────────────────────────────────

    def _negotiate(self, stream: PduStream, address: str) -> Association | None:
        """Judge the caller by address and titles, then read what it proposes, and answer."""
        deadline = time.monotonic() + self.policy.negotiation_deadline_s
        pdu_type, first, _ = stream.peek(FIXED_BYTES, within_s=self.policy.negotiation_deadline_s)
        if pdu_type != ASSOCIATE_RQ:
            raise PeerGone(f"PDU of type {pdu_type} before an association")
        head = negotiation.parse_head(first)
        caller = Caller(
            association_id=new_association_id(),
            calling_ae_title=head.calling_ae_title,
            called_ae_title=head.called_ae_title,
            address=address,
        )
        admitted = self._admit(stream, caller, head)
        if not isinstance(admitted, Association):
            self._reject(stream, caller, admitted)
            return None
        try:
            within = max(deadline - time.monotonic(), 0.0)
            _, body = stream.read(
                first_byte_within_s=within, deadline_s=within, all_within_s=within, limit_bytes=MAX_NEGOTIATION_BYTES
            )
            proposal = negotiation.parse_proposal(body)
            if proposal.application_context != DICOM_APPLICATION_CONTEXT:
                self._forget(admitted)
                self._reject(stream, caller, negotiation.APPLICATION_CONTEXT_NOT_SUPPORTED)
                return None
            answer, admitted.contexts = negotiation.accept(head, proposal, self._contexts)
            stream.send(answer)
        except BaseException:
            self._forget(admitted)  # else a peer that leaves early would occupy its place for ever
            raise
        return admitted

    def _reject(self, stream: PduStream, caller: Caller, refusal: Refusal) -> None:
        log.warning(
            "association rejected",
            calling_ae=caller.calling_ae_title,
            called_ae=caller.called_ae_title,
            address=caller.address,
            reject=refusal,
            reason=negotiation.REJECTIONS[refusal],
        )
        stream.send(negotiation.reject(*refusal))
        _linger(stream)

    def _admit(self, stream: PduStream, caller: Caller, head: RequestHead) -> Association | Refusal:
        """Register the association, or return why not; counting and registering are one atomic step."""
        refusal = self._refusal(caller, head)
        rule = self.policy.rule_for(caller.calling_ae_title, caller.address)
        if refusal is not None or rule is None:
            return refusal or negotiation.CALLING_AE_NOT_RECOGNISED
        if not self._has_room():
            log.error("no room: free space is below retention.low_water_bytes")
            return negotiation.TEMPORARY_CONGESTION
        association = Association(stream, caller, rule, {}, self.policy, self._intake)
        with self._lock:
            if len(self._active) >= self.policy.max_associations or self._at_cap(caller, rule):
                return negotiation.LOCAL_LIMIT_EXCEEDED
            if self._stopping.is_set():
                return negotiation.TEMPORARY_CONGESTION
            self._active[caller.association_id] = association
        return association

    def _refusal(self, caller: Caller, head: RequestHead) -> Refusal | None:
        """Return what is wrong with the head of a request, or None."""
        if not head.protocol_version & 1:
            return negotiation.PROTOCOL_VERSION_NOT_SUPPORTED
        if self.policy.require_called_ae and caller.called_ae_title != self.ae_title:
            return negotiation.CALLED_AE_NOT_RECOGNISED
        return None if negotiation.is_ae_title(caller.calling_ae_title) else negotiation.CALLING_AE_NOT_RECOGNISED

    def _at_cap(self, caller: Caller, rule: AllowRule) -> bool:
        callers = [association.caller for association in self._active.values()]
        titles = sum(other.calling_ae_title == caller.calling_ae_title for other in callers)
        addresses = sum(other.address == caller.address for other in callers)
        return (rule.max_associations is not None and titles >= rule.max_associations) or (
            rule.max_per_address is not None and addresses >= rule.max_per_address
        )

    def _forget(self, association: Association) -> None:
        with self._lock:
            self._active.pop(association.caller.association_id, None)

    # ── the end ──────────────────────────────────────────────────────────────

    def stop(self, *, within_s: float = 30.0) -> None:
        """Stop listening, let arriving instances finish, end the associations.

        An instance still arriving at the deadline is not acknowledged, so its sender keeps it.
        """
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"x")
        deadline = time.monotonic() + within_s
        while self._end_associations(late=time.monotonic() >= deadline) and time.monotonic() < deadline + 1.0:
            time.sleep(0.02)

    def _end_associations(self, *, late: bool) -> int:
        """End idle associations, or all if it is `late`; return how many are left."""
        with self._lock:
            active = list(self._active.values())
        for association in active:
            association.stopping = True
            if late or association.between_messages:
                with contextlib.suppress(OSError):
                    association.stream.connection.shutdown(socket.SHUT_RD)
        return len(active)


def _linger(stream: PduStream) -> None:
    """Give the peer a moment to read a rejection; a connection closed with bytes unread would take it back."""
    with contextlib.suppress(PeerGone, OSError):
        stream.connection.shutdown(socket.SHUT_WR)
        stream.drain(_REST_BYTES, within_s=1.0)
