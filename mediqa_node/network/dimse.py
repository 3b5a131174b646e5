"""DIMSE commands of the Storage and Verification SCP, packed by hand (PS3.7 section 9.3, annex E).

Building responses through a pydicom Dataset would take a quarter of the receiver's time. Command
sets are always Implicit VR Little Endian.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mediqa_node.network.pdu_stream import P_DATA_TF

C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
NO_DATASET = 0x0101

SUCCESS = 0x0000
CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORIZED = 0x0124
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

_ELEMENT = struct.Struct("<HHI")
_FRAGMENT = struct.Struct(">IBB")


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
    """The part of a command set that a Storage SCP acts on."""

    field: int
    message_id: int
    dataset_type: int
    sop_class_uid: str
    sop_instance_uid: str


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
        sop_class_uid=_text(elements, 0x0002),
        sop_instance_uid=_text(elements, 0x1000),
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


def _number(elements: dict[int, bytes], element: int, default: int = 0) -> int:
    value = elements.get(element, b"")
    return int.from_bytes(value[:2], "little") if len(value) >= 2 else default


def _text(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("latin-1").strip(" \0")


def store_request(sop_class_uid: str, sop_instance_uid: str, message_id: int) -> bytes:
    """Return the command set of a C-STORE-RQ (PS3.7 section 9.3.1.1), of medium priority."""
    body = _pack_text(0x0002, sop_class_uid)
    body += _pack(0x0100, struct.pack("<H", C_STORE_RQ))
    body += _pack(0x0110, struct.pack("<H", message_id))
    body += _pack(0x0700, b"\0\0")
    body += _pack(0x0800, b"\1\0")
    body += _pack_text(0x1000, sop_instance_uid)
    return _pack(0x0000, struct.pack("<I", len(body))) + body


def command_pdu(context_id: int, command: bytes) -> bytes:
    """Return the P-DATA-TF PDU with a whole command set."""
    return struct.pack(">BxIIBB", P_DATA_TF, len(command) + 6, len(command) + 2, context_id, 3) + command


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
    context_id: int, command: Command, status: int, *, comment: str = "", offending: int | None = None
) -> bytes:
    """Return the P-DATA-TF PDU that answers a C-STORE or C-ECHO request.

    Args:
        comment: Error Comment (0000,0902), cut to the 64 characters of an LO.
        offending: tag for Offending Element (0000,0901).
    """
    body = _pack_text(0x0002, command.sop_class_uid[:64])
    body += _pack(0x0100, struct.pack("<H", command.field | 0x8000))
    body += _pack(0x0120, struct.pack("<H", command.message_id))
    body += _pack(0x0800, struct.pack("<H", NO_DATASET))
    body += _pack(0x0900, struct.pack("<H", status))
    if offending is not None:
        body += _pack(0x0901, struct.pack("<HH", offending >> 16, offending & 0xFFFF))
    if comment:
        body += _pack_text(0x0902, "".join(c if c.isprintable() else " " for c in comment[:64]), pad=" ")
    if command.field == C_STORE_RQ:
        body += _pack_text(0x1000, command.sop_instance_uid[:64])
    message = _pack(0x0000, struct.pack("<I", len(body))) + body
    return command_pdu(context_id, message)


def _pack(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _pack_text(element: int, value: str, pad: str = "\0") -> bytes:
    encoded = value.encode("ascii", "replace")
    return _pack(element, encoded + pad.encode() * (len(encoded) % 2))
