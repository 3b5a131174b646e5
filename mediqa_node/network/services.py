"""Services of the receiver in addition to C-ECHO and C-STORE: a request with a small dataset, any number of answers.

A service is registered by the abstract syntax of its presentation context and the Command Field of the request. It runs
on the thread of its association, off the path of C-STORE, and is given the dataset as it came: nobody pays for parsing
what is refused. Between two answers the association looks whether the caller has cancelled (C-CANCEL) or left; a
service that works long for one asks `ServiceRequest.is_over`.
"""

import struct
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Protocol

import structlog
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag

from mediqa_node.domain.errors import MediqaError, StorageFailed
from mediqa_node.network import dimse
from mediqa_node.network.caller import Caller
from mediqa_node.network.dimse import Command
from mediqa_node.network.pdu_stream import PeerGone

log = structlog.get_logger("receiver")

MAX_DATASET_BYTES = 4 * 1024**2
_MAX_ITEMS = 20_000
_MAX_ELEMENTS = 2_000
"""Of a dataset, not counting those in its items."""
_ITEM = b"\xfe\xff\x00\xe0"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_OPEN_TO_ALL = frozenset({dimse.N_EVENT_REPORT_RQ})
_COMPOSITE = frozenset({dimse.C_FIND_RQ, dimse.C_MOVE_RQ})
_LARGE_BYTES = 256 * 1024
_LARGE_AT_ONCE = threading.BoundedSemaphore(2)
"""A parsed dataset takes many times its bytes: the callers with large ones take turns while they are read."""
_TURN_WITHIN_S = 10.0


class ServiceRefused(MediqaError):
    """The caller has to act: its request is answered with a failure.

    Args:
        comment: Error Comment (0000,0902), cut to 64 characters.
        more: further elements of the response, as `Answer.more`.
    """

    def __init__(
        self, status: int, comment: str, *, offending: int | None = None, more: Mapping[int, bytes] | None = None
    ) -> None:
        super().__init__(comment)
        self.answer = Answer(status=status, comment=comment, offending=offending, more=more or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response to a request. The last one of a service is not pending.

    Attributes:
        offending: tag of the element at fault.
        more: further elements of the command set by their number within group 0000, encoded: the numbers of
            sub-operations, an Error ID, an Action Type ID; see `dimse.number_value`.
    """

    status: int = dimse.SUCCESS
    comment: str = ""
    dataset: Dataset | None = None
    offending: int | None = None
    more: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def is_pending(self) -> bool:
        """Whether another answer follows."""
        return self.status in dimse.PENDING


@dataclass(slots=True, kw_only=True)
class ServiceRequest:
    """A request as it arrived.

    Attributes:
        encoded: its dataset until it was read; empty without one.
        is_cancelled: the caller has sent C-CANCEL.
        is_over: looks whether the caller has cancelled, has left (raises PeerGone), or the node stops.
    """

    caller: Caller
    command: Command
    abstract_syntax: str
    transfer_syntax: str
    encoded: bytes = b""
    is_cancelled: bool = False
    is_over: Callable[[], bool] = lambda: False

    @contextmanager
    def dataset(self) -> Iterator[Dataset]:
        """Give the dataset, once; values are converted when they are looked at, as `dicom.values` does for any bytes.

        The caller takes out of it what it needs, and does nothing else meanwhile: others may wait for their turn.

        Raises:
            ServiceRefused: it cannot be read, has more in it than any honest request, or others take too long.
        """
        is_large = len(self.encoded) > _LARGE_BYTES
        if is_large and not _LARGE_AT_ONCE.acquire(timeout=_TURN_WITHIN_S):
            raise ServiceRefused(_no_room(self.command), "too many large requests at once")
        try:
            yield self._parsed()
        finally:
            self.encoded = b""
            if is_large:
                _LARGE_AT_ONCE.release()

    def _parsed(self) -> Dataset:
        if self.encoded.count(_ITEM) > _MAX_ITEMS:
            raise ServiceRefused(dimse.RESOURCE_LIMITATION, f"more than {_MAX_ITEMS} items in one request")
        found = 0

        def count(tag: BaseTag, vr: str | None, length: int) -> bool:
            nonlocal found
            found += 1
            if found > _MAX_ELEMENTS:
                raise ServiceRefused(_no_room(self.command), f"more than {_MAX_ELEMENTS} elements in one request")
            return False

        try:
            return read_dataset(
                BytesIO(self.encoded),
                is_implicit_VR=self.transfer_syntax == _IMPLICIT_LITTLE,
                is_little_endian=True,
                bytelength=len(self.encoded),
                stop_when=count,
            )
        except ServiceRefused:
            raise
        except Exception as error:  # pydicom raises anything, up to RecursionError
            raise ServiceRefused(_failure(self.command), f"dataset not readable: {type(error).__name__}") from error


class Service(Protocol):
    """Answers requests of one kind."""

    def __call__(self, request: ServiceRequest) -> Iterable[Answer]:
        """Return or yield the answers: any number that are pending, then one that is not.

        Raises:
            ServiceRefused: the answer to give.
            StorageFailed: nothing was kept; the caller may try again.
        """


Services = Mapping[tuple[str, int], Service]
"""Services by abstract syntax and Command Field of the request."""


def may_ask(command: Command, *, may_store: bool) -> bool:
    """Return whether a caller may make a request: one with `store: false` may answer requests of this node only."""
    return may_store or command.field in _OPEN_TO_ALL


def refusing(status: int, comment: str) -> Service:
    """Return a service that refuses every request."""

    def refuse(request: ServiceRequest) -> Iterable[Answer]:
        raise ServiceRefused(status, comment)

    return refuse


def answers(service: Service | None, request: ServiceRequest) -> Generator[Answer, None, None]:
    """Yield the answers to a request, whatever the service does; the last is not pending, and none follows it.

    Args:
        service: None: none is registered, which is answered as an unrecognised operation.
    """
    try:
        if service is None:
            raise ServiceRefused(dimse.UNRECOGNISED_OPERATION, f"command {request.command.field:#06x} is not served")
        for answer in service(request):
            yield answer
            if not answer.is_pending:
                return
        raise RuntimeError(f"service for command {request.command.field:#06x} ended without a last answer")
    except ServiceRefused as error:
        yield error.answer
    except StorageFailed as error:
        yield Answer(status=_no_room(request.command), comment=str(error))
    except PeerGone:
        raise
    except Exception:
        sender = (request.caller.calling_ae_title, request.caller.address)
        log.exception("request failed: unforeseen", association=request.caller.association_id, hourly_for=sender)
        yield Answer(status=_failure(request.command), comment="internal error")


def _failure(command: Command) -> int:
    """Return the status of a request that cannot be processed (PS3.7 annex C; PS3.4 C.4.1.1.4)."""
    return dimse.CANNOT_UNDERSTAND if command.field in _COMPOSITE else dimse.PROCESSING_FAILURE


def _no_room(command: Command) -> int:
    """Return the status of a request that may be answered later."""
    return dimse.OUT_OF_RESOURCES if command.field in _COMPOSITE else dimse.RESOURCE_LIMITATION


def or_the_last(answer: Answer, request: ServiceRequest, *, stopping: bool) -> Answer:
    """Return an answer, or in place of a pending one the last: the caller has cancelled, or the node stops."""
    if answer.is_pending and (request.is_cancelled or stopping):
        return Answer(status=dimse.CANCELLED if request.is_cancelled else dimse.OUT_OF_RESOURCES, more=answer.more)
    return answer


def encoded_answer(
    context_id: int, request: ServiceRequest, answer: Answer, *, max_pdu_bytes: int
) -> tuple[Answer, bytes]:
    """Return an answer and its PDUs; in place of one that cannot be encoded, a failure, which is the last.

    Args:
        max_pdu_bytes: the largest that the caller takes.
    """
    try:
        return answer, _encoded(context_id, request, answer, max_pdu_bytes)
    except Exception:  # pydicom raises anything: a value from the header of an image does not fit its VR
        sender = (request.caller.calling_ae_title, request.caller.address)
        log.exception("answer not encoded", association=request.caller.association_id, hourly_for=sender)
        failed = Answer(status=_failure(request.command), comment="internal error")
        return failed, _encoded(context_id, request, failed, max_pdu_bytes)


def _encoded(context_id: int, request: ServiceRequest, answer: Answer, max_pdu_bytes: int) -> bytes:
    head = dimse.response(
        context_id,
        request.command,
        answer.status,
        comment=answer.comment,
        offending=answer.offending,
        more=answer.more,
        has_dataset=answer.dataset is not None,
    )
    if answer.dataset is None:
        return head
    encoded = encode(answer.dataset, request.transfer_syntax)
    return head + dimse.dataset(context_id, encoded, max_pdu_bytes=max_pdu_bytes)


def encode(dataset: Dataset, transfer_syntax: str) -> bytes:
    """Encode a dataset in Implicit or Explicit VR Little Endian."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, transfer_syntax == _IMPLICIT_LITTLE
    write_dataset(stream, dataset)
    return bytes(stream.getvalue())


def sub_operations(*, remaining: int | None = None, completed: int, failed: int, warning: int) -> dict[int, bytes]:
    """Encode the numbers of sub-operations of a C-MOVE response (PS3.7 table 9.3-11)."""
    numbers = {0x1020: remaining, 0x1021: completed, 0x1022: failed, 0x1023: warning}
    return {element: struct.pack("<H", number) for element, number in numbers.items() if number is not None}
