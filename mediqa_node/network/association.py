"""One association from the first byte to the last, on one blocking thread.

Fragments go from the socket's buffer straight to the file, the answer is one `sendall`. What
happens to an instance is decided by the intake.
"""

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from mediqa_node.domain.errors import InvalidInstance, StorageFailed
from mediqa_node.domain.policy import AllowRule, ReceiverPolicy
from mediqa_node.network import dimse, services
from mediqa_node.network.caller import Caller
from mediqa_node.network.contexts import VERIFICATION
from mediqa_node.network.dimse import Command, Fragment
from mediqa_node.network.negotiation import AcceptedContext
from mediqa_node.network.pdu_stream import (
    ABORT,
    MAX_PDU_BYTES,
    P_DATA_TF,
    RELEASE_RP,
    RELEASE_RQ,
    PduStream,
    PeerGone,
)
from mediqa_node.network.services import MAX_DATASET_BYTES, Answer, ServiceRequest, Services
from mediqa_node.system.failpoint import reach

log = structlog.get_logger("receiver")

_MAX_COMMAND_BYTES = 65_536
_ANSWERS_WITHIN_S = 300.0
"""Of all the answers to one request: so long a caller may take to read them, not counting the work for them."""


class Intake(Protocol):
    """Where instances go. `finish` returns only when the instance is durable."""

    def begin(self, caller: Caller, command: Command, transfer_syntax_uid: str) -> Any:
        """Return a writer with `write(memoryview)` for the dataset."""

    def finish(self, incoming: Any, caller: Caller, command: Command, transfer_syntax_uid: str) -> None:
        """Check and keep the instance; raises InvalidInstance or StorageFailed."""

    def discard(self, incoming: Any) -> None:
        """Discard what was received so far."""

    def closed(self, caller: Caller, *, released: bool) -> None:
        """Record the end of the association: `released` by the peer, with nothing refused that it will send again."""


Failure = tuple[int, str, int | None]
"""DIMSE status, Error Comment, Offending Element."""


@dataclass(slots=True)
class _Message:
    """A C-STORE whose dataset is arriving; `failure` is answered once it has arrived.

    Attributes:
        request: of a service: its dataset is kept in memory.
    """

    command: Command
    context: AcceptedContext
    context_id: int
    incoming: Any = None
    size_bytes: int = 0
    failure: Failure | None = None
    request: bytearray | None = None


class Association:
    """Serves C-ECHO, C-STORE and further services until the peer releases, aborts, or exceeds a deadline.

    Args:
        max_pdu_bytes: the largest PDU that the peer takes.

    Attributes:
        accepted_at: monotonic time.
        has_sent: whether a message has begun to arrive.
        is_beyond_limit: holds one of the places that are kept for verification.
    """

    def __init__(
        self,
        stream: PduStream,
        caller: Caller,
        rule: AllowRule,
        contexts: dict[int, AcceptedContext],
        policy: ReceiverPolicy,
        intake: Intake,
        services: Services | None = None,
        max_pdu_bytes: int = MAX_PDU_BYTES,
    ) -> None:
        self.stream = stream
        self.caller = caller
        self.rule = rule
        self.contexts = contexts
        self.policy = policy
        self.intake = intake
        self._services = services or {}
        self._stores_nothing = {VERIFICATION, *(syntax for syntax, _ in self._services)}
        self._max_pdu_bytes = max_pdu_bytes
        self.stored = self.refused = 0
        self.stopping = False
        self.accepted_at = 0.0
        self.has_sent = self.is_beyond_limit = False
        self._refused_for_now: set[str] = set()
        self._ended_because = ""
        self._command = bytearray()
        self._message: _Message | None = None

    @property
    def between_messages(self) -> bool:
        """Return whether no instance is half received, so that the association can end without loss."""
        return self._message is None and not self._command

    @property
    def only_verifies(self) -> bool:
        """Return whether Verification is all that this association agreed on."""
        return bool(self.contexts) and all(
            context.abstract_syntax == VERIFICATION for context in self.contexts.values()
        )

    def end(self, why: str) -> None:
        """Have the thread of this association abort it, from any thread."""
        self._ended_because = why
        with contextlib.suppress(OSError):
            self.stream.connection.shutdown(socket.SHUT_RD)

    def run(self) -> None:
        """Serve until the end; never raises."""
        released, ending = False, ""
        try:
            while not released and not (self.stopping and self.between_messages):
                released = self._next_pdu()
            if not released:
                self.stream.abort()
            ending = "released" if released else "stopped"
        except (PeerGone, ValueError) as error:
            ending = self._ended_because or str(error)
            self.stream.abort()
        except Exception:
            ending = "internal error"
            log.exception("association failed", association=self.caller.association_id, hourly_for=self._sender)
            self.stream.abort()
        finally:
            if self._message is not None:
                self._drop(self._message)
            self.intake.closed(self.caller, released=released and not self._refused_for_now)
            self._log_end(ending, released=released)

    @property
    def _sender(self) -> tuple[str, str]:
        return self.caller.calling_ae_title, self.caller.address

    def _log_end(self, ending: str, *, released: bool) -> None:
        """Log one line for each association that stored something, and one an hour for a sender's others."""
        log.info(
            "association ended",
            **({} if self.stored else {"hourly_for": (*self._sender, released)}),
            association=self.caller.association_id,
            calling_ae=self.caller.calling_ae_title,
            address=self.caller.address,
            stored=self.stored,
            refused=self.refused,
            ending=ending,
        )

    def _next_pdu(self) -> bool:
        """Handle one PDU; True when the association was released."""
        may_idle = self.between_messages and not self.is_beyond_limit
        idle = self.policy.idle_deadline_s if may_idle else self.policy.pdu_deadline_s
        pdu_type, body = self.stream.read(
            first_byte_within_s=idle, deadline_s=self.policy.pdu_deadline_s, limit_bytes=MAX_PDU_BYTES + 64
        )
        if pdu_type == P_DATA_TF:
            self.has_sent = True
            for fragment in dimse.fragments(body):
                self._fragment(fragment)
            return False
        if pdu_type == RELEASE_RQ and self.between_messages:
            self.stream.send(bytes((RELEASE_RP, 0, 0, 0, 0, 4, 0, 0, 0, 0)))
            return True
        raise PeerGone("peer aborted" if pdu_type == ABORT else f"unexpected PDU of type {pdu_type}")

    def _fragment(self, fragment: Fragment) -> None:
        if fragment.context_id not in self.contexts:
            raise PeerGone(f"presentation context {fragment.context_id} was not accepted")
        if fragment.is_command:
            if self._message is not None:
                raise PeerGone("a command inside a dataset")
            if len(self._command) + len(fragment.data) > _MAX_COMMAND_BYTES:
                raise PeerGone("command set too long")
            self._command += fragment.data
            if fragment.is_last:
                command = dimse.parse_command(bytes(self._command))
                self._command.clear()
                self._begin(command, fragment.context_id)
        else:
            self._data(fragment)

    def _begin(self, command: Command, context_id: int) -> None:
        context = self.contexts[context_id]
        if command.field == dimse.C_ECHO_RQ:
            self.stream.send(dimse.response(context_id, command, dimse.SUCCESS))
        elif command.field != dimse.C_STORE_RQ:
            self._begin_service(command, context, context_id)
        elif command.dataset_type == dimse.NO_DATASET:
            self._answer(context_id, command, (dimse.CANNOT_UNDERSTAND, "no dataset follows the command", None))
        else:
            message = self._message = _Message(command, context, context_id)
            message.failure = self._refusal(command, context) or self._failure_of(lambda: self._open(message))

    def _open(self, message: _Message) -> None:
        message.incoming = self.intake.begin(self.caller, message.command, message.context.transfer_syntax)

    def _drop(self, message: _Message) -> None:
        incoming, message.incoming = message.incoming, None
        if incoming is not None:
            self.intake.discard(incoming)

    def _refusal(self, command: Command, context: AcceptedContext) -> Failure | None:
        """Return what is wrong with a C-STORE before its dataset arrives, or None."""
        if not self.rule.store:
            return dimse.NOT_AUTHORIZED, "this AE title may verify, not store", None
        if context.abstract_syntax in self._stores_nothing:
            return dimse.CLASS_NOT_SUPPORTED, "nothing is stored in this presentation context", 0x00000002
        if not command.sop_instance_uid:
            return dimse.CANNOT_UNDERSTAND, "empty Affected SOP Instance UID", 0x00001000
        if command.sop_class_uid != context.abstract_syntax:
            return dimse.DOES_NOT_MATCH, "SOP Class differs from the presentation context", 0x00000002
        return None

    def _data(self, fragment: Fragment) -> None:
        message = self._message
        if message is None or fragment.context_id != message.context_id:
            raise PeerGone("a dataset without its command")
        message.size_bytes += len(fragment.data)
        if message.size_bytes > self.policy.max_dataset_bytes:
            raise PeerGone(f"dataset exceeds {self.policy.max_dataset_bytes} bytes")
        if message.request is not None:
            self._service_data(message, message.request, fragment)
            return
        if message.failure is None:
            message.failure = self._failure_of(lambda: message.incoming.write(fragment.data))
            if message.failure is not None:
                self._drop(message)  # at once, not at the end of the dataset: the disk may be full
        if fragment.is_last:
            failure = message.failure or self._failure_of(lambda: self._finish(message))
            self._message = None
            self._answer(message.context_id, message.command, failure)

    def _finish(self, message: _Message) -> None:
        """Hand the instance over. The intake disposes of the file either way."""
        incoming, message.incoming = message.incoming, None
        self.intake.finish(incoming, self.caller, message.command, message.context.transfer_syntax)

    def _failure_of(self, step: Callable[[], None]) -> Failure | None:
        """Take one step with an instance; return the answer if it fails."""
        try:
            step()
        except InvalidInstance as error:
            return error.status, str(error), error.offending
        except StorageFailed as error:
            return dimse.OUT_OF_RESOURCES, str(error), None
        except Exception:
            # the sender keeps its copy; 0x0110 and 0x0111 are statuses of DIMSE-N
            log.exception(
                "instance not stored: unforeseen", association=self.caller.association_id, hourly_for=self._sender
            )
            return dimse.OUT_OF_RESOURCES, "internal error", None
        return None

    def _answer(self, context_id: int, command: Command, failure: Failure | None) -> None:
        if failure is None:
            self.stored += 1
            self._refused_for_now.discard(command.sop_instance_uid)
            reach("before-answer")
            self.stream.send(dimse.response(context_id, command, dimse.SUCCESS))
            return
        status, comment, offending = failure
        self.refused += 1
        if status == dimse.OUT_OF_RESOURCES:
            self._refused_for_now.add(command.sop_instance_uid)
        log.warning(
            "instance refused",
            hourly_for=(*self._sender, status),
            association=self.caller.association_id,
            calling_ae=self.caller.calling_ae_title,
            status=f"{status:#06x}",
            comment=comment,
        )
        self.stream.send(dimse.response(context_id, command, status, comment=comment, offending=offending))

    # ── other services ───────────────────────────────────────────────────────

    def _begin_service(self, command: Command, context: AcceptedContext, context_id: int) -> None:
        """Take a request of another service; its dataset follows, or it is served at once."""
        if command.field == dimse.C_CANCEL_RQ:
            return  # of a request that was answered meanwhile; it has no response (PS3.7 9.3.2.3)
        if command.field & dimse.RESPONSE:
            raise PeerGone(f"a response {command.field:#06x} that nobody waits for")
        message = self._message = _Message(command, context, context_id, request=bytearray())
        if command.dataset_type == dimse.NO_DATASET:
            self._serve(message, b"")
            self._message = None

    def _service_data(self, message: _Message, request: bytearray, fragment: Fragment) -> None:
        if message.size_bytes <= MAX_DATASET_BYTES:
            request += fragment.data
        else:
            request.clear()  # and the rest is taken in unread: the caller is answered
        if fragment.is_last:
            encoded = bytes(request)
            request.clear()
            self._serve(message, encoded)
            self._message = None

    def _serve(self, message: _Message, encoded: bytes) -> None:
        """Send the answers to a request; a caller that cancels gets one last answer at the next."""
        command, context = message.command, message.context
        service = self._services.get((context.abstract_syntax, command.field))
        request = ServiceRequest(
            caller=self.caller,
            command=command,
            abstract_syntax=context.abstract_syntax,
            transfer_syntax=context.transfer_syntax,
            encoded=encoded,
        )
        if message.size_bytes > MAX_DATASET_BYTES:
            service = services.refusing(dimse.RESOURCE_LIMITATION, f"dataset exceeds {MAX_DATASET_BYTES} bytes")
        elif service is not None and not services.may_ask(command, may_store=self.rule.store):
            service = services.refusing(dimse.NOT_AUTHORIZED, "this AE title may verify and answer only")
        request.is_over = lambda: self._is_over(request)
        left_s = _ANSWERS_WITHIN_S
        with contextlib.closing(services.answers(service, request)) as answers:
            for answer in answers:
                if answer.is_pending:
                    self._look_for_cancel(request)
                last, pdus = services.encoded_answer(
                    message.context_id,
                    request,
                    services.or_the_last(answer, request, stopping=self.stopping),
                    max_pdu_bytes=self._max_pdu_bytes,
                )
                left_s -= self._send_within(pdus, left_s)
                if not last.is_pending:
                    self._log_served(request, last)
                    return

    def _send_within(self, pdus: bytes, left_s: float) -> float:
        """Send an answer; return how long the caller took: who reads little by little would hold its place for ever."""
        began = time.monotonic()
        if left_s <= 0:
            raise PeerGone("peer does not take the answers in time")
        self.stream.send(pdus, within_s=min(self.policy.pdu_deadline_s, left_s))
        return time.monotonic() - began

    def _is_over(self, request: ServiceRequest) -> bool:
        try:
            self._look_for_cancel(request)
        except ValueError as error:
            raise PeerGone(str(error)) from error
        return request.is_cancelled or self.stopping

    def _look_for_cancel(self, request: ServiceRequest) -> None:
        """Read what the caller has sent while it is being answered: nothing but a C-CANCEL is in turn."""
        while self.stream.has_data():
            pdu_type, body = self.stream.read(
                first_byte_within_s=self.policy.pdu_deadline_s,
                deadline_s=self.policy.pdu_deadline_s,
                limit_bytes=MAX_PDU_BYTES + 64,
            )
            if pdu_type != P_DATA_TF:
                raise PeerGone("peer aborted" if pdu_type == ABORT else f"PDU of type {pdu_type} inside a request")
            for fragment in dimse.fragments(body):
                command = dimse.parse_command(bytes(fragment.data)) if fragment.is_command else None
                if command is None or not fragment.is_last or command.field != dimse.C_CANCEL_RQ:
                    raise PeerGone("a request inside another")
                request.is_cancelled = True

    def _log_served(self, request: ServiceRequest, answer: Answer) -> None:
        level = log.debug if answer.status == dimse.SUCCESS else log.warning
        level(
            "request answered",
            hourly_for=(*self._sender, request.command.field, answer.status),
            association=self.caller.association_id,
            calling_ae=self.caller.calling_ae_title,
            command=f"{request.command.field:#06x}",
            status=f"{answer.status:#06x}",
            comment=answer.comment,
        )
