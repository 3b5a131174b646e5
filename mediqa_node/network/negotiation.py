"""A-ASSOCIATE-RQ in, A-ASSOCIATE-AC or -RJ out (PS3.8 section 9.3.2-9.3.4, annex D).

pynetdicom decodes the PDUs and negotiates the contexts; the receiver decides who may associate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor

from mediqa_node.domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mediqa_node.network.pdu_stream import ASSOCIATE_RQ, MAX_PDU_BYTES

# result, source, reason (PS3.8 table 9-21)
CALLED_AE_NOT_RECOGNISED = (1, 1, 7)
CALLING_AE_NOT_RECOGNISED = (1, 1, 3)
APPLICATION_CONTEXT_NOT_SUPPORTED = (1, 1, 2)
PROTOCOL_VERSION_NOT_SUPPORTED = (1, 2, 2)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)
TEMPORARY_CONGESTION = (2, 3, 1)
REJECTIONS = {
    CALLED_AE_NOT_RECOGNISED: "called AE title not recognized",
    CALLING_AE_NOT_RECOGNISED: "calling AE title not recognized",
    APPLICATION_CONTEXT_NOT_SUPPORTED: "application context name not supported",
    PROTOCOL_VERSION_NOT_SUPPORTED: "protocol version not supported",
    LOCAL_LIMIT_EXCEEDED: "local limit exceeded",
    TEMPORARY_CONGESTION: "temporary congestion",
}
"""What A-ASSOCIATE-RJ calls result, source and reason, PS3.8 Table 9-21."""

DICOM_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

_ANY_TITLE = b"ANY".ljust(16)


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """An agreed presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ: calling and called AE, and the proposed contexts.

    Attributes:
        titles: both AE titles as received, 32 bytes.
        primitive: pynetdicom's view of the request, without AE titles.
    """

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    application_context: str
    titles: bytes
    primitive: A_ASSOCIATE


def parse_request(body: memoryview) -> AssociateRequest:
    """Decode the body of an A-ASSOCIATE-RQ.

    Raises:
        ValueError: it is malformed; pynetdicom raises half a dozen kinds of errors on hostile bytes.
    """
    pdu = A_ASSOCIATE_RQ()
    # pynetdicom refuses to decode an invalid title; here the caller is rejected instead
    readable = bytes(body[:4]) + _ANY_TITLE + _ANY_TITLE + bytes(body[36:])
    try:
        pdu.decode(bytes((ASSOCIATE_RQ, 0)) + len(readable).to_bytes(4, "big") + readable)
        primitive = pdu.to_primitive()
        request = AssociateRequest(
            protocol_version=pdu.protocol_version,
            called_ae_title=_title(body[4:20]),
            calling_ae_title=_title(body[20:36]),
            application_context=str(primitive.application_context_name or ""),
            titles=bytes(body[4:36]),
            primitive=primitive,
        )
    except Exception as error:
        raise ValueError(f"not an A-ASSOCIATE-RQ: {type(error).__name__}") from error
    proposed = primitive.presentation_context_definition_list
    if not proposed or any(not context.transfer_syntax for context in proposed):
        raise ValueError("not an A-ASSOCIATE-RQ: no presentation context proposed, or one without transfer syntax")
    return request


def _title(raw: memoryview) -> str:
    return bytes(raw).decode("latin-1").strip(" \0")


def accept(
    request: AssociateRequest, supported: Mapping[str, Sequence[str]]
) -> tuple[bytes, dict[int, AcceptedContext]]:
    """Return the A-ASSOCIATE-AC PDU and the accepted contexts by their ID.

    Args:
        supported: transfer syntaxes by abstract syntax.

    Raises:
        ValueError: the proposal cannot be answered.
    """
    proposed = request.primitive.presentation_context_definition_list
    wanted = {str(context.abstract_syntax) for context in proposed}
    ours = [build_context(uid, list(supported[uid])) for uid in sorted(wanted & supported.keys())]
    try:
        results, _ = negotiate_as_acceptor(proposed, ours)
        pdu = A_ASSOCIATE_AC(_answer(results))
    except Exception as error:
        raise ValueError(f"proposal cannot be answered: {type(error).__name__}") from error
    accepted = {
        context.context_id: AcceptedContext(str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for context in results
        if context.result == 0x00 and context.context_id is not None
    }
    encoded = pdu.encode()
    # PS3.8 table 9-17: bytes 11-42 repeat what the request had there
    return encoded[:10] + request.titles + encoded[42:], accepted


def _answer(results: list[PresentationContext]) -> A_ASSOCIATE:
    answer = A_ASSOCIATE()
    answer.application_context_name = DICOM_APPLICATION_CONTEXT
    answer.calling_ae_title = answer.called_ae_title = _ANY_TITLE.decode()
    answer.result, answer.result_source = 0x00, 0x01
    answer.presentation_context_definition_results_list = results
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = MAX_PDU_BYTES
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    answer.user_information = [length, implementation, version]
    return answer


def reject(result: int, source: int, reason: int) -> bytes:
    """Return an A-ASSOCIATE-RJ PDU."""
    pdu = A_ASSOCIATE_RJ()
    pdu.result, pdu.source, pdu.reason_diagnostic = result, source, reason
    return pdu.encode()


def is_ae_title(value: str) -> bool:
    """Return whether a title has 1 to 16 printable ASCII characters and no backslash (PS3.5 table 6.2-1)."""
    return 0 < len(value) <= 16 and value.isascii() and value.isprintable() and "\\" not in value
