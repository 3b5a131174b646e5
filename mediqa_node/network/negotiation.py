"""A-ASSOCIATE-RQ in, A-ASSOCIATE-AC or -RJ out (PS3.8 section 9.3.2-9.3.4, annex D).

pynetdicom knows the PDUs and negotiates the contexts; who may associate is decided here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationVersionNameNotification, MaximumLengthNotification
from pynetdicom.pdu_primitives import ImplementationClassUIDNotification as ClassUidItem
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from mediqa_node.network.contexts import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mediqa_node.network.pdu_stream import ASSOCIATE_RQ, MAX_PDU_BYTES

# result, source, reason (PS3.8 table 9-21)
CALLED_AE_NOT_RECOGNISED = (1, 1, 7)
CALLING_AE_NOT_RECOGNISED = (1, 1, 3)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)
TEMPORARY_CONGESTION = (2, 3, 1)
NO_REASON_GIVEN = (1, 1, 1)


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """An agreed presentation context."""

    abstract_syntax: str
    transfer_syntax: str


def parse_request(body: memoryview) -> A_ASSOCIATE:
    """Decode the body of an A-ASSOCIATE-RQ.

    Raises:
        ValueError: it is none; pynetdicom raises half a dozen kinds of errors on hostile bytes.
    """
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(bytes((ASSOCIATE_RQ, 0)) + len(body).to_bytes(4, "big") + bytes(body))
        request = pdu.to_primitive()
        if not request.presentation_context_definition_list:
            raise ValueError("no presentation context proposed")
    except Exception as error:
        raise ValueError(f"not an A-ASSOCIATE-RQ: {type(error).__name__}") from error
    return request


def accept(request: A_ASSOCIATE, supported: Sequence[PresentationContext]) -> tuple[bytes, dict[int, AcceptedContext]]:
    """Return the A-ASSOCIATE-AC PDU and the accepted contexts by their ID."""
    results, _ = negotiate_as_acceptor(request.presentation_context_definition_list, list(supported))
    answer = A_ASSOCIATE()
    answer.application_context_name = request.application_context_name
    answer.calling_ae_title = request.calling_ae_title
    answer.called_ae_title = request.called_ae_title
    answer.result, answer.result_source = 0x00, 0x01
    answer.presentation_context_definition_results_list = results
    length, implementation = MaximumLengthNotification(), ClassUidItem()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = MAX_PDU_BYTES
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    answer.user_information = [length, implementation, version]
    accepted = {
        context.context_id: AcceptedContext(str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for context in results
        if context.result == 0x00 and context.context_id is not None
    }
    return A_ASSOCIATE_AC(answer).encode(), accepted


def reject(result: int, source: int, reason: int) -> bytes:
    """Return an A-ASSOCIATE-RJ PDU."""
    pdu = A_ASSOCIATE_RJ()
    pdu.result, pdu.source, pdu.reason_diagnostic = result, source, reason
    return pdu.encode()
