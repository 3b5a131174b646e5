"""DIMSE commands of the node as SCP, packed by hand (PS3.7 sections 9.3 and 10.3, annex E).

Building responses through a pydicom Dataset would take a quarter of the receiver's time. Command
sets are always Implicit VR Little Endian.
"""

import dataclasses
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mediqa_node.network.pdu_stream import P_DATA_TF

C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
C_FIND_RQ, C_FIND_RSP, C_MOVE_RQ, C_MOVE_RSP, C_CANCEL_RQ = 0x0020, 0x8020, 0x0021, 0x8021, 0x0FFF
N_EVENT_REPORT_RQ, N_SET_RQ, N_ACTION_RQ, N_CREATE_RQ = 0x0100, 0x0120, 0x0130, 0x0140
RESPONSE = 0x8000
"""Set in the Command Field of every response."""
NO_DATASET = 0x0101

SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
CANCELLED = 0xFE00
INVALID_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115
MISSING_ATTRIBUTE = 0x0120
CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION = 0x0123
NOT_AUTHORIZED = 0x0124
UNRECOGNISED_OPERATION = 0x0211
DUPLICATE_TRANSACTION = 0x0131
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

_ELEMENT = struct.Struct("<HHI")
_FRAGMENT = struct.Struct(">IBB")
_FRAGMENT_BYTES = 6
_NO_MORE: Mapping[int, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Fragment:
    """A Presentation Data Value (PS3.8 9.3.5.1)."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


def fragments(body: memoryview) -> Iterator[Fragment]:
    """Split the body of a P-DATA-TF PDU into its values; zeros behind the last are ignored.

    Raises:
        ValueError: lengths do not fit.
    """
    position = 0
    while position < len(body):
        if position and not any(body[position : position + 6]) and not any(body[position:]):
            return
        if position + 6 > len(body):
            raise ValueError("P-DATA-TF ends inside an item header")
        length, context_id, control = _FRAGMENT.unpack_from(body, position)
        end = position + 4 + length
        if length < 2 or end > len(body):
            raise ValueError("P-DATA-TF item exceeds its PDU")
        yield Fragment(context_id, bool(control & 1), bool(control & 2), body[position + 6 : end])
        position = end


@dataclass(frozen=True, slots=True)
class Command:
    """A command set: what a Storage SCP acts on, and the elements as they came.

    Attributes:
        sop_class_uid: Affected SOP Class UID; of an N-SET or N-ACTION, the Requested one.
        sop_instance_uid: likewise.
        elements: by the number within group 0000.
    """

    field: int
    message_id: int
    dataset_type: int
    sop_class_uid: str
    sop_instance_uid: str
    elements: Mapping[int, bytes] = dataclasses.field(default_factory=dict)

    def number(self, element: int, default: int = 0) -> int:
        """Return an element of two bytes, such as Action Type ID (0000,1008)."""
        return _number(self.elements, element, default)

    def text(self, element: int) -> str:
        """Return an element without its padding, such as Move Destination (0000,0600)."""
        return _text(self.elements, element)


def parse_command(data: bytes) -> Command:
    """Read a command set; zeros behind the last element are ignored, and a C-STORE always has a dataset.

    Raises:
        ValueError: it is not a command set.
    """
    elements = _elements(data)
    if len(elements.get(0x0100, b"")) < 2 or len(elements.get(0x0110, b"\0\0")) < 2:
        raise ValueError("command set without Command Field or Message ID")
    field = _number(elements, 0x0100)
    return Command(
        field=field,
        message_id=_number(elements, 0x0110),
        dataset_type=_number(elements, 0x0800, 0 if field == C_STORE_RQ else NO_DATASET),
        sop_class_uid=_text(elements, 0x0002) or _text(elements, 0x0003),
        sop_instance_uid=_text(elements, 0x1000) or _text(elements, 0x1001),
        elements=elements,
    )


def _elements(data: bytes) -> dict[int, bytes]:
    elements: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            if not any(data[position:]):
                break
            raise ValueError("command set is truncated")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += 8
        if group != 0 or position + length > len(data):
            raise ValueError("not a command set")
        elements[element] = data[position : position + length]
        position += length
    return elements


def _number(elements: Mapping[int, bytes], element: int, default: int = 0) -> int:
    value = elements.get(element, b"")
    return int.from_bytes(value[:2], "little") if len(value) >= 2 else default


def _text(elements: Mapping[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("latin-1").strip(" \0")


def store_request(sop_class_uid: str, sop_instance_uid: str, message_id: int) -> bytes:
    """Return the command set of a C-STORE-RQ (PS3.7 section 9.3.1.1), of medium priority."""
    body = _pack(0x0002, _text_value(sop_class_uid))
    body += _pack(0x0100, struct.pack("<H", C_STORE_RQ))
    body += _pack(0x0110, struct.pack("<H", message_id))
    body += _pack(0x0700, b"\0\0")
    body += _pack(0x0800, b"\1\0")
    body += _pack(0x1000, _text_value(sop_instance_uid))
    return _pack(0x0000, struct.pack("<I", len(body))) + body


def command_pdu(context_id: int, command: bytes) -> bytes:
    """Return the P-DATA-TF PDU with a whole command set."""
    return _p_data(context_id, command, control=3)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a requestor acts on in a response."""

    message_id: int
    status: int
    comment: str


def parse_response(data: bytes) -> Answer:
    """Read the command set of a response.

    Raises:
        ValueError: it is not one, or has no Status (0000,0900).
    """
    elements = _elements(data)
    if len(elements.get(0x0900, b"")) < 2:
        raise ValueError("answered without a status")
    return Answer(_number(elements, 0x0120), _number(elements, 0x0900), _text(elements, 0x0902)[:64])


def response(
    context_id: int,
    command: Command,
    status: int,
    *,
    comment: str = "",
    offending: int | None = None,
    more: Mapping[int, bytes] = _NO_MORE,
    has_dataset: bool = False,
) -> bytes:
    """Return the P-DATA-TF PDU that answers a request; `dataset` makes those of a dataset that follows.

    Args:
        comment: Error Comment (0000,0902), cut to the 64 characters of an LO.
        offending: tag for Offending Element (0000,0901).
        more: further elements by the number within group 0000, encoded.
    """
    values = {
        0x0002: _text_value(command.sop_class_uid[:64]),
        0x0100: struct.pack("<H", command.field | RESPONSE),
        0x0120: struct.pack("<H", command.message_id),
        0x0800: struct.pack("<H", 0 if has_dataset else NO_DATASET),
        0x0900: struct.pack("<H", status),
    }
    if offending is not None:
        values[0x0901] = struct.pack("<HH", offending >> 16, offending & 0xFFFF)
    if comment:
        values[0x0902] = _text_value("".join(c if c.isprintable() else " " for c in comment[:64]), pad=" ")
    if command.field in _NAMES_INSTANCE:
        values[0x1000] = _text_value(command.sop_instance_uid[:64])
    if more:
        values = dict(sorted({**values, **more}.items()))
    body = b"".join(_pack(element, value) for element, value in values.items())
    message = _pack(0x0000, struct.pack("<I", len(body))) + body
    return command_pdu(context_id, message)


_NAMES_INSTANCE = frozenset({C_STORE_RQ, N_EVENT_REPORT_RQ, N_SET_RQ, N_ACTION_RQ, N_CREATE_RQ})
"""Requests whose response repeats the SOP Instance UID, as Affected SOP Instance UID (0000,1000)."""


def dataset(context_id: int, encoded: bytes, *, max_pdu_bytes: int) -> bytes:
    """Return the P-DATA-TF PDUs of an encoded dataset.

    Args:
        max_pdu_bytes: the largest that the peer takes (PS3.8 annex D.1).
    """
    size = max_pdu_bytes - _FRAGMENT_BYTES
    pieces = [encoded[i : i + size] for i in range(0, len(encoded), size)] or [b""]
    last = len(pieces) - 1
    return b"".join(_p_data(context_id, piece, control=2 * (i == last)) for i, piece in enumerate(pieces))


def _p_data(context_id: int, data: bytes, *, control: int) -> bytes:
    return struct.pack(">BxIIBB", P_DATA_TF, len(data) + 6, len(data) + 2, context_id, control) + data


def _pack(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _text_value(value: str, pad: str = "\0") -> bytes:
    encoded = value.encode("ascii", "replace")
    return encoded + pad.encode() * (len(encoded) % 2)


def number_value(value: int) -> bytes:
    """Encode a US for `response`'s further elements."""
    return struct.pack("<H", value & 0xFFFF)


uid_value = _text_value
"""Encode a UID for `response`'s further elements."""
