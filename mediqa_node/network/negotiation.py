"""A-ASSOCIATE-RQ in, A-ASSOCIATE-AC or -RJ out (PS3.8 section 9.3.2-9.3.4, annex D).

Read by hand, like the commands: half a page of fixed layout, where pynetdicom raises half a
dozen kinds of errors on hostile bytes, logs what a peer sent, and costs 45 MB to import. Who may
associate is decided by the receiver.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mediqa_node.network.contexts import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mediqa_node.network.pdu_stream import ASSOCIATE_AC, ASSOCIATE_RJ, MAX_PDU_BYTES

# result, source, reason (PS3.8 table 9-21)
CALLED_AE_NOT_RECOGNISED = (1, 1, 7)
CALLING_AE_NOT_RECOGNISED = (1, 1, 3)
APPLICATION_CONTEXT_NOT_SUPPORTED = (1, 1, 2)
PROTOCOL_VERSION_NOT_SUPPORTED = (1, 2, 2)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)
TEMPORARY_CONGESTION = (2, 3, 1)
NO_REASON_GIVEN = (1, 1, 1)

DICOM_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

_APPLICATION, _PROPOSED, _ANSWERED, _ABSTRACT, _TRANSFER, _USER = 0x10, 0x20, 0x21, 0x30, 0x40, 0x50
_MAXIMUM_LENGTH, _IMPLEMENTATION_UID, _IMPLEMENTATION_VERSION = 0x51, 0x52, 0x55
_FIXED = struct.Struct(">H2x16s16s32s")
_ITEM = struct.Struct(">BxH")
_ACCEPTED, _NO_SUCH_ABSTRACT_SYNTAX, _NO_SUCH_TRANSFER_SYNTAX = 0, 3, 4
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """An agreed presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context as the requestor proposes it."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ: who calls whom, and what is proposed.

    Attributes:
        fixed_part: AE titles and reserved bytes as they came; the answer repeats them.
    """

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    application_context: str
    contexts: tuple[ProposedContext, ...]
    fixed_part: bytes


def parse_request(body: memoryview) -> AssociateRequest:
    """Decode the body of an A-ASSOCIATE-RQ.

    Raises:
        ValueError: it is none.
    """
    if len(body) < _FIXED.size:
        raise ValueError("not an A-ASSOCIATE-RQ: too short")
    version, called, calling, _ = _FIXED.unpack_from(body)
    application, contexts = "", {}
    for kind, value in _items(body[_FIXED.size :]):
        if kind == _APPLICATION:
            application = _text(value)
        elif kind == _PROPOSED:
            context = _proposed(value)
            contexts[context.context_id] = context
    if not contexts:
        raise ValueError("not an A-ASSOCIATE-RQ: no presentation context proposed")
    return AssociateRequest(
        protocol_version=version,
        called_ae_title=_text(called),
        calling_ae_title=_text(calling),
        application_context=application,
        contexts=tuple(contexts.values()),
        fixed_part=bytes(body[4 : _FIXED.size]),
    )


def _items(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    position = 0
    while position < len(body):
        if position + _ITEM.size > len(body):
            raise ValueError("not an A-ASSOCIATE-RQ: ends inside an item header")
        kind, length = _ITEM.unpack_from(body, position)
        position += _ITEM.size
        if position + length > len(body):
            raise ValueError("not an A-ASSOCIATE-RQ: an item exceeds the PDU")
        yield kind, body[position : position + length]
        position += length


def _proposed(value: memoryview) -> ProposedContext:
    if len(value) < 4 or value[0] % 2 == 0:
        raise ValueError("not an A-ASSOCIATE-RQ: a presentation context without an odd ID")
    abstract, transfer = "", []
    for kind, name in _items(value[4:]):
        if kind == _ABSTRACT:
            abstract = _text(name)
        elif kind == _TRANSFER:
            transfer.append(_text(name))
    return ProposedContext(value[0], abstract, tuple(transfer))


def _text(value: memoryview | bytes) -> str:
    return bytes(value).decode("latin-1").strip(" \0")


def accept(
    request: AssociateRequest, supported: Mapping[str, Sequence[str]]
) -> tuple[bytes, dict[int, AcceptedContext]]:
    """Return the A-ASSOCIATE-AC PDU and the accepted contexts by their ID."""
    accepted: dict[int, AcceptedContext] = {}
    items = _item(_APPLICATION, DICOM_APPLICATION_CONTEXT.encode())
    for proposed in request.contexts:
        chosen = next(
            (uid for uid in supported.get(proposed.abstract_syntax, ()) if uid in proposed.transfer_syntaxes), ""
        )
        if chosen:
            accepted[proposed.context_id] = AcceptedContext(proposed.abstract_syntax, chosen)
            result = _ACCEPTED
        else:
            known = proposed.abstract_syntax in supported
            result = _NO_SUCH_TRANSFER_SYNTAX if known else _NO_SUCH_ABSTRACT_SYNTAX
        syntax = _item(_TRANSFER, (chosen or _IMPLICIT_LITTLE).encode())
        items += _item(_ANSWERED, bytes((proposed.context_id, 0, result, 0)) + syntax)
    items += _item(
        _USER,
        _item(_MAXIMUM_LENGTH, struct.pack(">I", MAX_PDU_BYTES))
        + _item(_IMPLEMENTATION_UID, IMPLEMENTATION_CLASS_UID.encode())
        + _item(_IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME.encode()),
    )
    body = struct.pack(">H2x", 1) + request.fixed_part + items
    return struct.pack(">BxI", ASSOCIATE_AC, len(body)) + body, accepted


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def reject(result: int, source: int, reason: int) -> bytes:
    """Return an A-ASSOCIATE-RJ PDU."""
    return struct.pack(">BxIxBBB", ASSOCIATE_RJ, 4, result, source, reason)


def is_ae_title(value: str) -> bool:
    """Whether a title has 1 to 16 printable ASCII characters and no backslash (PS3.5 table 6.2-1)."""
    return 0 < len(value) <= 16 and value.isascii() and value.isprintable() and "\\" not in value
