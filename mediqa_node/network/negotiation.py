"""A-ASSOCIATE-RQ in, A-ASSOCIATE-AC or -RJ out (PS3.8 section 9.3.2-9.3.4, annex D).

The caller is known from the first bytes of a request, and is judged before anything else of it is read.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mediqa_node.domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mediqa_node.network import associate_pdu as coding
from mediqa_node.network.associate_pdu import ProposedContext, Role, item
from mediqa_node.network.pdu_stream import ASSOCIATE_AC, ASSOCIATE_RJ, MAX_PDU_BYTES


class Refusal(NamedTuple):
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21), and what the table calls them."""

    result: int
    source: int
    reason: int
    words: str


CALLED_AE_NOT_RECOGNISED = Refusal(1, 1, 7, "called AE title not recognized")
CALLING_AE_NOT_RECOGNISED = Refusal(1, 1, 3, "calling AE title not recognized")
APPLICATION_CONTEXT_NOT_SUPPORTED = Refusal(1, 1, 2, "application context name not supported")
NO_CONTEXT = Refusal(1, 1, 1, "no presentation context with an odd ID is proposed")
PROTOCOL_VERSION_NOT_SUPPORTED = Refusal(1, 2, 2, "protocol version not supported")
LOCAL_LIMIT_EXCEEDED = Refusal(2, 3, 2, "local limit exceeded")
TEMPORARY_CONGESTION = Refusal(2, 3, 1, "temporary congestion: the node is stopping")
NO_ROOM = Refusal(2, 3, 1, "temporary congestion: no spool, or free space is below `retention.low_water_bytes`")

_IMPLICIT_LITTLE = "1.2.840.10008.1.2"


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """An agreed presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """What stands before the items of an A-ASSOCIATE-RQ.

    Attributes:
        fixed: the 68 bytes; the answer repeats the titles and the reserved bytes.
    """

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    fixed: bytes


@dataclass(frozen=True, slots=True)
class Proposal:
    """The items of an A-ASSOCIATE-RQ that matter to an SCP.

    Attributes:
        roles: that the caller proposes for itself; of every other class it is the SCU.
        max_pdu_bytes: the largest that the caller takes, bounded by our own.
    """

    application_context: str
    contexts: Sequence[ProposedContext]
    roles: Sequence[Role] = ()
    max_pdu_bytes: int = MAX_PDU_BYTES


def parse_head(body: memoryview) -> RequestHead:
    """Decode the first 68 bytes of the body of an A-ASSOCIATE-RQ.

    Raises:
        ValueError: they are fewer.
    """
    if len(body) < coding.FIXED_BYTES:
        raise ValueError("not an A-ASSOCIATE-RQ: it ends before its items")
    return RequestHead(
        protocol_version=int.from_bytes(body[:2], "big"),
        called_ae_title=coding.text(body[4:20]),
        calling_ae_title=coding.text(body[20:36]),
        fixed=bytes(body[: coding.FIXED_BYTES]),
    )


def parse_proposal(body: memoryview) -> Proposal:
    """Decode the items of an A-ASSOCIATE-RQ from its body, as far as they can be read."""
    parts = body[coding.FIXED_BYTES :]
    length, roles = coding.proposed_user_information(parts)
    most = min(length or MAX_PDU_BYTES, MAX_PDU_BYTES)
    return Proposal(coding.application_context(parts), coding.proposed_contexts(parts), roles, most)


def accept(
    head: RequestHead,
    proposal: Proposal,
    supported: Mapping[str, Sequence[str]],
    scp_callers: Collection[str] = (),
) -> tuple[bytes, dict[int, AcceptedContext]]:
    """Return the A-ASSOCIATE-AC PDU and the accepted contexts by their ID.

    Args:
        supported: transfer syntaxes by abstract syntax, the preferred first.
        scp_callers: abstract syntaxes of which a caller may be the SCP; a proposed role of any other is not answered,
            which leaves the default (PS3.7 D.3.3.4).
    """
    accepted, results = {}, []
    for context in proposal.contexts:
        ours = supported.get(context.abstract_syntax, ())
        syntax = next((one for one in ours if one in context.transfer_syntaxes), None)
        result = coding.TRANSFER_SYNTAXES_NOT_SUPPORTED if ours else coding.ABSTRACT_SYNTAX_NOT_SUPPORTED
        if syntax is not None:
            result = coding.ACCEPTED
            accepted[context.context_id] = AcceptedContext(context.abstract_syntax, syntax)
        named = syntax or next(iter(context.transfer_syntaxes), _IMPLICIT_LITTLE)
        results.append(coding.context_result(context.context_id, result, named))
    # PS3.8 table 9-17: bytes 11-74 repeat what the request had there
    fixed = b"\0\1\0\0" + head.fixed[4:]
    name = item(coding.APPLICATION_CONTEXT, coding.DICOM_APPLICATION_CONTEXT.encode())
    ours_too = {context.abstract_syntax for context in accepted.values()}.intersection(scp_callers)
    roles = [coding.role_answer(role) for role in proposal.roles if role.abstract_syntax in ours_too]
    return coding.pdu(ASSOCIATE_AC, fixed, name, *results, _user_information(roles)), accepted


def _user_information(roles: Sequence[bytes]) -> bytes:
    return item(
        coding.USER_INFORMATION,
        item(coding.MAXIMUM_LENGTH, struct.pack(">I", MAX_PDU_BYTES))
        + item(coding.IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID.encode())
        + b"".join(roles)
        + item(coding.IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME.encode()),
    )


def reject(refusal: Refusal) -> bytes:
    """Return an A-ASSOCIATE-RJ PDU."""
    return struct.pack(">BBIBBBB", ASSOCIATE_RJ, 0, 4, 0, refusal.result, refusal.source, refusal.reason)
