"""The SCP of the node: listens, admits or rejects callers, runs one thread per association.

Everything before an association is accepted has short deadlines and bounds of its own, so that
silent, slow or half-open connections occupy a thread for seconds and never keep a scanner out.
Callers whose address no rule covers have a few threads of their own, enough to be told so.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog

from mediqa_node.domain.errors import fault_of
from mediqa_node.domain.peer import is_ae_title
from mediqa_node.domain.policy import AllowRule, ReceiverPolicy, plain_address
from mediqa_node.domain.tls import Proof
from mediqa_node.network import negotiation, proxy_header, tls
from mediqa_node.network.associate_pdu import DICOM_APPLICATION_CONTEXT, FIXED_BYTES
from mediqa_node.network.association import Association, Intake
from mediqa_node.network.caller import Caller, new_association_id
from mediqa_node.network.connections import Connection, Connections
from mediqa_node.network.contexts import SCP_CALLERS
from mediqa_node.network.listeners import Listener
from mediqa_node.network.negotiation import Proposal, Refusal, RequestHead
from mediqa_node.network.pdu_stream import ASSOCIATE_RQ, MAX_NEGOTIATION_BYTES, PduStream, PeerGone
from mediqa_node.network.places import Places
from mediqa_node.network.services import Services

log = structlog.get_logger("receiver")

_NEGOTIATING_AT_MOST = 256
_NEGOTIATING_PER_ADDRESS = 128
_STRANGERS_AT_MOST = 32
_STRANGERS_PER_ADDRESS = 16
_ENDING_AT_MOST = 256
_USUAL_REQUEST_BYTES = 65_536
_LARGE_REQUESTS_AT_ONCE = 8
_REST_BYTES = 65_536
"""Of a rejected request, so many bytes are taken in unread: more than an honest one has."""


class HandshakeFailed(PeerGone):
    """The two sides do not agree on TLS; the message has the reason."""


@dataclass(slots=True)
class _Origin:
    """Where a connection comes from, as far as is known.

    Attributes:
        address: of the caller, also where a balancer is in between.
        proof: what TLS shows of it.
    """

    address: str
    proof: Proof = None


class Receiver:
    """A listening SCP of Storage, Verification and further services.

    Args:
        also_called: further called AE titles that are answered to.
        listeners: at least one; closed at the end.
        contexts: transfer syntaxes by abstract syntax, the preferred first; those of the services too.
        services: by abstract syntax and Command Field.
        has_room: False rejects new associations as transient until there is space again.
        offered: what a caller is offered by calling and called AE title; None: `contexts`, whoever calls.
    """

    def __init__(
        self,
        *,
        ae_title: str,
        also_called: Collection[str] = (),
        listeners: Sequence[Listener],
        policy: ReceiverPolicy,
        contexts: Mapping[str, Sequence[str]],
        intake: Intake,
        services: Services | None = None,
        has_room: Callable[[], bool] = lambda: True,
        offered: Callable[[str, str], Mapping[str, Sequence[str]]] | None = None,
    ) -> None:
        self.policy = policy
        self._ae_titles = frozenset({ae_title, *also_called})
        self._proxies = frozenset(plain_address(address) for address in policy.proxies)
        self._offered = offered or (lambda _calling, _called: contexts)
        self._intake = intake
        self._services = services or {}
        self._has_room = has_room
        self._places = Places(policy)
        self._large_requests = threading.BoundedSemaphore(_LARGE_REQUESTS_AT_ONCE)
        self._negotiating = Connections(
            at_most=_NEGOTIATING_AT_MOST, per_address=_NEGOTIATING_PER_ADDRESS, ending_at_most=_ENDING_AT_MOST
        )
        self._strangers = Connections(
            at_most=_STRANGERS_AT_MOST, per_address=_STRANGERS_PER_ADDRESS, ending_at_most=_ENDING_AT_MOST
        )
        self._stopping = threading.Event()
        self.listeners = tuple(listeners)
        self._wake_reader, self._wake_writer = socket.socketpair()

    @property
    def port(self) -> int:
        """The port of the first listener; useful if 0 was requested."""
        return self.listeners[0].port

    @property
    def n_associations(self) -> int:
        """Number of open associations."""
        return len(self._places)

    def occupancy(self) -> tuple[int, int]:
        """Return the number of open associations, and how many there may be."""
        return len(self._places), self.policy.max_associations

    # ── connections ──────────────────────────────────────────────────────────

    def serve(self) -> None:
        """Accept connections until `stop` is called."""
        with selectors.DefaultSelector() as selector:  # epoll or poll: no limit at descriptor 1,024
            for listener in self.listeners:
                listener.socket.setblocking(False)
                selector.register(listener.socket, selectors.EVENT_READ, listener)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select():
                    if key.data is not None:
                        self._accept(key.data)
        for end in (*(listener.socket for listener in self.listeners), self._wake_reader, self._wake_writer):
            end.close()

    def _accept(self, listener: Listener) -> None:
        try:
            accepted, (address, *_) = listener.socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            log.error("connection not accepted", reason=error.strerror, hourly_for=error.errno)
            time.sleep(0.05)  # out of descriptors: the connection waits in the backlog
            return
        try:
            self._begin(accepted, address, listener)
        except Exception as error:  # no caller, however odd, keeps the next ones out
            log.error("connection not served", address=address, reason=fault_of(error), hourly_for=type(error))
            accepted.close()

    def _begin(self, accepted: socket.socket, address: str, listener: Listener) -> None:
        """Have a thread serve a connection, if there is a place for one more."""
        waiting = self._negotiating if self._is_covered(address) or self._is_proxy(address) else self._strangers
        connection = waiting.enter(accepted, address)
        if connection is None:
            accepted.close()
            return
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve = threading.Thread(target=self._serve_connection, args=(connection, waiting, listener), daemon=True)
            serve.start()
        except BaseException:  # reset already, or no thread available
            waiting.leave(connection)
            raise

    def _serve_connection(self, connection: Connection, waiting: Connections, listener: Listener) -> None:
        origin, stream, association = _Origin(connection.address), None, None
        deadline = time.monotonic() + self.policy.negotiation_deadline_s
        try:
            try:
                if self._arrives(connection, waiting, listener, origin, deadline):
                    stream = PduStream(connection.socket)
                    association = self._negotiate(stream, connection, origin, deadline)
            finally:
                waiting.leave(connection)
            if association is not None:
                association.run()
        except (PeerGone, ValueError) as error:
            if stream is not None:
                stream.abort()
            self._log_end(connection, origin.address, error)
        except Exception:
            if stream is not None:
                stream.abort()
            log.exception("connection failed", address=origin.address, hourly_for=origin.address)
        finally:
            if association is not None:
                self._places.leave(association)
            (stream or PduStream(connection.socket)).close()

    def _log_end(self, connection: Connection, address: str, error: Exception) -> None:
        """Log why a connection did not become an association; as a warning if its sender or a balancer has to act."""
        reason = "made room for another connection" if connection.made_room else str(error)
        warns = isinstance(error, HandshakeFailed | proxy_header.MalformedHeader) and not connection.made_room
        tell = log.warning if warns else log.info
        tell("connection ended before an association", address=address, reason=reason, hourly_for=(address, warns))

    def _arrives(
        self, connection: Connection, waiting: Connections, listener: Listener, origin: _Origin, deadline: float
    ) -> bool:
        """Take in what comes before the first PDU: the header of a balancer, then the TLS handshake.

        Returns:
            False if it is the balancer itself, which looks whether the port is open.
        """
        if self._is_proxy(connection.address):
            caller = proxy_header.read_caller(connection.socket, deadline)
            if caller is None:
                return False
            origin.address = caller
        if listener.tls is None:
            return True
        if (context := listener.tls.context()) is None:
            raise HandshakeFailed("TLS: the certificate of this node cannot be loaded")
        try:
            waiting.wrap(connection, lambda raw: tls.accepted(context, raw))
            connection.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            origin.proof = tls.shake_hands(connection.socket)
        except OSError as error:
            failed = HandshakeFailed if tls.is_refusal(error) else PeerGone
            raise failed(f"TLS: {tls.words_of(error)}") from error
        return True

    def _is_proxy(self, address: str) -> bool:
        return plain_address(address) in self._proxies

    # ── admission ────────────────────────────────────────────────────────────

    def _negotiate(
        self, stream: PduStream, connection: Connection, origin: _Origin, deadline: float
    ) -> Association | None:
        """Judge the caller by address and titles, then read what it proposes, give it a place, and answer."""
        pdu_type, first, length = stream.peek(FIXED_BYTES, within_s=deadline - time.monotonic())
        if pdu_type == proxy_header.FIRST_BYTE:
            raise proxy_header.MalformedHeader(f"{connection.address} sends PROXY headers and is not in `proxies`")
        if pdu_type != ASSOCIATE_RQ:
            raise PeerGone(f"PDU of type {pdu_type} before an association")
        head = negotiation.parse_head(first)
        caller = Caller(
            association_id=new_association_id(),
            calling_ae_title=head.calling_ae_title,
            called_ae_title=head.called_ae_title,
            address=origin.address,
        )
        rule = self._rule_for(caller, head, origin.proof)
        if isinstance(rule, Refusal):
            self._reject(stream, caller, rule, origin.proof)
            return None
        proposal = self._read_proposal(stream, length, deadline)
        offered = self._offered(caller.calling_ae_title, caller.called_ae_title)
        answer, contexts = negotiation.accept(head, proposal, offered, SCP_CALLERS)
        association = Association(
            stream, caller, rule, contexts, self.policy, self._intake, self._services, proposal.max_pdu_bytes
        )
        connection.may_end = False
        refusal: Refusal | None
        if proposal.application_context != DICOM_APPLICATION_CONTEXT:
            refusal = negotiation.APPLICATION_CONTEXT_NOT_SUPPORTED
        elif not proposal.contexts:
            refusal = negotiation.NO_CONTEXT
        else:
            refusal = self._places.take(association, within_s=max(deadline - time.monotonic(), 0.0))
        if refusal is not None:
            connection.may_end = True
            self._reject(stream, caller, refusal, origin.proof)
            return None
        try:
            stream.send(answer)
        except BaseException:
            self._places.leave(association)  # else a peer that leaves early would occupy its place for ever
            raise
        return association

    def _read_proposal(self, stream: PduStream, length: int, deadline: float) -> Proposal:
        """Read the request of an admitted caller. Few may be large at once: each would hold a megabyte."""
        is_large = length > _USUAL_REQUEST_BYTES
        within = max(deadline - time.monotonic(), 0.0)
        if is_large and not self._large_requests.acquire(timeout=within):
            raise PeerGone("too many large requests at once")
        try:
            within = max(deadline - time.monotonic(), 0.0)
            _, body = stream.read(
                first_byte_within_s=within, deadline_s=within, all_within_s=within, limit_bytes=MAX_NEGOTIATION_BYTES
            )
            return negotiation.parse_proposal(body)
        finally:
            if is_large:
                self._large_requests.release()

    def _reject(self, stream: PduStream, caller: Caller, refusal: Refusal, proof: Proof) -> None:
        log.warning(
            "association rejected",
            hourly_for=(caller.calling_ae_title, caller.address, refusal),
            calling_ae=caller.calling_ae_title,
            called_ae=caller.called_ae_title,
            address=caller.address,
            reject=refusal[:3],
            reason=refusal.words,
            certificate="no TLS" if proof is None else sorted(proof),
        )
        stream.send(negotiation.reject(refusal))
        _linger(stream)

    def _rule_for(self, caller: Caller, head: RequestHead, proof: Proof) -> AllowRule | Refusal:
        """Return the rule that admits a caller, or why it is not admitted: by its address first, then by the titles."""
        if not self._is_covered(caller.address):
            return negotiation.CALLING_AE_NOT_RECOGNISED
        if not head.protocol_version & 1:
            return negotiation.PROTOCOL_VERSION_NOT_SUPPORTED
        if self.policy.require_called_ae and caller.called_ae_title not in self._ae_titles:
            return negotiation.CALLED_AE_NOT_RECOGNISED
        rule = self.policy.rule_for(caller.calling_ae_title, caller.address, proof)
        if rule is None or not is_ae_title(caller.calling_ae_title):
            return negotiation.CALLING_AE_NOT_RECOGNISED
        return rule if self._has_room() else negotiation.NO_ROOM

    def _is_covered(self, address: str) -> bool:
        return any(rule.covers(address) for rule in self.policy.allowed)

    # ── the end ──────────────────────────────────────────────────────────────

    def stop(self, *, within_s: float = 30.0) -> None:
        """Stop listening, let arriving instances finish, end the associations.

        An instance still arriving at the deadline is not acknowledged, so its sender keeps it.
        """
        self._stopping.set()
        self._places.close()
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"x")
        deadline = time.monotonic() + within_s
        while self._end_associations(late=time.monotonic() >= deadline) and time.monotonic() < deadline + 1.0:
            time.sleep(0.02)

    def _end_associations(self, *, late: bool) -> int:
        """End idle associations, or all if it is `late`; return how many are left."""
        active = self._places.all()
        for association in active:
            association.stopping = True
            if late or association.between_messages:
                association.end("stopped")
        return len(active)


def _linger(stream: PduStream) -> None:
    """Give the peer a moment to read a rejection; a connection closed with bytes unread would take it back."""
    with contextlib.suppress(PeerGone, OSError):
        stream.end_sending()
        stream.drain(_REST_BYTES, within_s=1.0)
