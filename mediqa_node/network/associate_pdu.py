"""A-ASSOCIATE PDUs as other vendors write them (PS3.8 sections 9.3.2 to 9.3.4, annex D).

What has no meaning for this node is skipped, as PS3.8 section 9.3.1 asks: unknown items and sub-items, extended
negotiation, and the names that implementations give themselves. Values may be padded, too long or in any character
set: an odd item costs itself, never the association.
"""

import contextlib
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from mediqa_node.domain.uid import is_uid

DICOM_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
APPLICATION_CONTEXT, PROPOSED_CONTEXT, CONTEXT_RESULT, USER_INFORMATION = 0x10, 0x20, 0x21, 0x50
ABSTRACT_SYNTAX, TRANSFER_SYNTAX = 0x30, 0x40
MAXIMUM_LENGTH, IMPLEMENTATION_CLASS, ROLE_SELECTION, IMPLEMENTATION_VERSION = 0x51, 0x52, 0x54, 0x55

ACCEPTED, USER_REJECTION, ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = 0, 1, 3, 4
"""Results of a presentation context, PS3.8 Table 9-18."""

FIXED_BYTES = 68
"""Of the body: protocol version, both AE titles, reserved bytes. Items follow."""

MAX_CONTEXTS = 128
"""Presentation contexts of one association: their IDs are the odd numbers of a byte."""

_MAX_SYNTAXES = 256
_DEFAULT_MAX_LENGTH, _LEAST_MAX_LENGTH = 16_384, 128
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_TITLES = b"ANY".ljust(16) * 2


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context of a request, without syntaxes that are no UIDs; the abstract one is then empty."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


def items(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Split a body into the type and value of its items; up to three bytes behind the last are ignored.

    Raises:
        ValueError: an item is longer than what contains it.
    """
    position = 0
    while position + 4 <= len(body):
        kind, length = struct.unpack_from(">BxH", body, position)
        end = position + 4 + length
        if end > len(body):
            raise ValueError(f"item {kind:#04x} of an A-ASSOCIATE PDU exceeds what contains it")
        yield kind, body[position + 4 : end]
        position = end


def readable_items(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Return the items of a body as `items` does, up to one that is longer than the body."""
    with contextlib.suppress(ValueError):
        yield from items(body)


def item(kind: int, value: bytes) -> bytes:
    """Encode an item or sub-item."""
    return struct.pack(">BBH", kind, 0, len(value)) + value


def text(value: memoryview) -> str:
    """Return a value without its padding."""
    return bytes(value).decode("latin-1").strip(" \0")


def uid(value: memoryview) -> str:
    """Return a UID without its padding; empty if it is none."""
    found = text(value)
    return found if is_uid(found) else ""


def proposed_contexts(body: memoryview) -> list[ProposedContext]:
    """Return the contexts that the items of a request propose, the first of each ID.

    An ID that is no odd number (PS3.8 section 9.3.2.2) is skipped: no answer could name it.
    """
    found: dict[int, ProposedContext] = {}
    for kind, value in readable_items(body):
        if kind != PROPOSED_CONTEXT or len(value) < 4:
            continue
        number = value[0]
        if number % 2 == 0 or number in found:
            continue
        found[number] = _proposed(number, value[4:])
    return list(found.values())


def _proposed(number: int, value: memoryview) -> ProposedContext:
    abstract = ""
    transfer: list[str] = []
    for kind, syntax in readable_items(value):
        if kind == ABSTRACT_SYNTAX:
            abstract = abstract or uid(syntax)
        elif kind == TRANSFER_SYNTAX and len(transfer) < _MAX_SYNTAXES:
            transfer.append(uid(syntax))
    return ProposedContext(number, abstract, tuple(filter(None, transfer)))


def application_context(body: memoryview) -> str:
    """Return the application context name among the items of a request; empty without one."""
    return next((text(value) for kind, value in readable_items(body) if kind == APPLICATION_CONTEXT), "")


@dataclass(frozen=True, slots=True)
class Role:
    """An SCP/SCU Role Selection sub-item (PS3.7 D.3.3.4): which roles of a class the caller proposes for itself."""

    abstract_syntax: str
    is_scu: bool
    is_scp: bool


def proposed_user_information(body: memoryview) -> tuple[int, tuple[Role, ...]]:
    """Return the largest PDU that a caller takes, 0: any, and the roles it proposes, the first of each class."""
    length, roles = _DEFAULT_MAX_LENGTH, dict[str, Role]()
    user = next((value for kind, value in readable_items(body) if kind == USER_INFORMATION), memoryview(b""))
    for kind, part in readable_items(user):
        if kind == MAXIMUM_LENGTH and len(part) == 4:
            length = int.from_bytes(part, "big")
        elif kind == ROLE_SELECTION and len(roles) < MAX_CONTEXTS and (role := _role(part)) is not None:
            roles.setdefault(role.abstract_syntax, role)
    return length and max(length, _LEAST_MAX_LENGTH), tuple(roles.values())


def _role(part: memoryview) -> Role | None:
    end = 2 + int.from_bytes(part[:2], "big")
    name = uid(part[2:end])
    return Role(name, part[end] == 1, part[end + 1] == 1) if name and end + 2 <= len(part) else None


def role_answer(role: Role) -> bytes:
    """Encode the roles that are accepted of those that a caller proposed for a class."""
    name = role.abstract_syntax.encode()
    return item(ROLE_SELECTION, struct.pack(">H", len(name)) + name + bytes((role.is_scu, role.is_scp)))


def context_result(number: int, result: int, transfer_syntax: str) -> bytes:
    """Encode the answer to one proposed context; the syntax has no meaning where the context is refused."""
    return item(CONTEXT_RESULT, bytes((number, 0, result, 0)) + item(TRANSFER_SYNTAX, transfer_syntax.encode()))


def pdu(kind: int, fixed: bytes, *parts: bytes) -> bytes:
    """Encode a PDU from the first 68 bytes of its body and its items."""
    body = fixed + b"".join(parts)
    return struct.pack(">BBI", kind, 0, len(body)) + body


def readable_acceptance(raw: bytes, proposed: Mapping[int | None, Collection[str]]) -> bytes:
    """Rewrite an A-ASSOCIATE-AC so that a strict reader takes it: the same results, nothing that is odd.

    Args:
        proposed: transfer syntaxes by the ID of their context; a context accepted with another one is refused.

    Raises:
        ValueError: its items do not fit, and no result comes before the one that does not.
    """
    body = memoryview(raw)[6:]
    contexts, user = {}, b""
    for kind, value in readable_items(body[FIXED_BYTES:]):
        if kind == CONTEXT_RESULT and len(value) >= 4 and value[0] % 2 and value[0] not in contexts:
            contexts[value[0]] = _readable_result(value, proposed.get(value[0], ()))
        elif kind == USER_INFORMATION and not user:
            user = _readable_user_information(value)
    if not contexts:
        list(items(body[FIXED_BYTES:]))
    fixed = b"\0\1\0\0" + _TITLES + bytes(32)
    name = item(APPLICATION_CONTEXT, DICOM_APPLICATION_CONTEXT.encode())
    user = user or item(MAXIMUM_LENGTH, struct.pack(">I", _DEFAULT_MAX_LENGTH))
    return pdu(raw[0], fixed, name, *contexts.values(), item(USER_INFORMATION, user))


def _readable_result(value: memoryview, proposed: Collection[str]) -> bytes:
    result = value[2] if value[2] <= TRANSFER_SYNTAXES_NOT_SUPPORTED else USER_REJECTION
    syntax = next((uid(part) for kind, part in readable_items(value[4:]) if kind == TRANSFER_SYNTAX), "")
    if result == ACCEPTED and syntax not in proposed:
        result = TRANSFER_SYNTAXES_NOT_SUPPORTED
    return context_result(value[0], result, syntax if result == ACCEPTED else _IMPLICIT_LITTLE)


def _readable_user_information(value: memoryview) -> bytes:
    length, implementation, version = _DEFAULT_MAX_LENGTH, "", ""
    for kind, part in readable_items(value):
        if kind == MAXIMUM_LENGTH and len(part) == 4:
            length = int.from_bytes(part, "big")
        elif kind == IMPLEMENTATION_CLASS:
            implementation = uid(part)
        elif kind == IMPLEMENTATION_VERSION:
            version = "".join(c for c in text(part) if c.isascii() and c.isprintable())[:16].strip()
    if length:  # 0: no limit
        length = max(length, _LEAST_MAX_LENGTH)
    found = item(MAXIMUM_LENGTH, struct.pack(">I", length))
    if implementation:
        found += item(IMPLEMENTATION_CLASS, implementation.encode())
    if version:
        found += item(IMPLEMENTATION_VERSION, version.encode())
    return found


def readable_rejection(raw: bytes) -> bytes:
    """Rewrite an A-ASSOCIATE-RJ whose result, source or reason Table 9-21 of PS3.8 does not know."""
    result, source, reason = raw[7:10].ljust(3, b"\0")
    if result not in (1, 2):
        result = 1
    if reason not in {1: (1, 2, 3, 7), 2: (1, 2), 3: (1, 2)}.get(source, ()):
        source, reason = 1, 1  # service user, no reason given
    return raw[:2] + struct.pack(">IBBBB", 4, 0, result, source, reason)


def readable_abort(raw: bytes) -> bytes:
    """Rewrite an A-ABORT whose source or reason PS3.8 section 9.3.8 does not know."""
    source, reason = raw[8:10].ljust(2, b"\0")
    if source not in (0, 2):
        source = 2
    if source == 0 or reason not in (0, 1, 2, 4, 5, 6):
        reason = 0
    return raw[:2] + struct.pack(">IBBBB", 4, 0, 0, source, reason)
