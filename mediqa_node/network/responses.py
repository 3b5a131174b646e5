"""DIMSE responses as other vendors write them (PS3.7 sections 6.3 and 9.3), rewritten for a strict reader."""

import struct

from mediqa_node.network.dimse import (
    C_ECHO_RSP,
    C_FIND_RSP,
    C_MOVE_RSP,
    C_STORE_RSP,
    N_ACTION_RQ,
    N_EVENT_REPORT_RQ,
    NO_DATASET,
    PENDING,
    RESPONSE,
    Fragment,
    fragments,
)
from mediqa_node.network.pdu_stream import P_DATA_TF

MAX_ANSWERS = 2000
"""Matches of one C-FIND: it asks for one study, or for the studies of a day."""
MAX_IMAGES = 100_000
"""Responses to one C-MOVE, or to one C-FIND for images: one for each image of a series."""

SUB_OPERATIONS = {
    0x1020: "NumberOfRemainingSuboperations",
    0x1021: "NumberOfCompletedSuboperations",
    0x1022: "NumberOfFailedSuboperations",
    0x1023: "NumberOfWarningSuboperations",
}
"""Counters of a C-MOVE response (PS3.7 section 9.3.4.2)."""

_MAX_MESSAGE_BYTES = 65_536
_MESSAGE_IDS = 0xFFFF

_ELEMENT = struct.Struct("<HHI")
_AWAITED = (C_ECHO_RSP, C_STORE_RSP, C_FIND_RSP, C_MOVE_RSP, N_ACTION_RQ | RESPONSE, N_EVENT_REPORT_RQ | RESPONSE)


class Responses:
    """Rewrites the P-DATA of one peer: its responses to our requests remain, with what decides about them.

    Only Command Field and Status have to be there. A dataset follows a pending C-FIND response alone. Requests of the
    peer, and responses that nobody waits for, are dropped.
    """

    def __init__(self) -> None:
        self._is_awaited = self._has_dataset = False
        self._message_id = 0
        self._command = b""
        self._n_answers = self._n_bytes = 0
        self._at_most = MAX_ANSWERS

    def begin(self, at_most: int = MAX_ANSWERS) -> int:
        """Expect the responses to one request, and no more than so many; return the Message ID for it."""
        self._at_most = at_most
        self._message_id = self._message_id % _MESSAGE_IDS + 1
        self._is_awaited, self._n_answers = True, 0
        return self._message_id

    def readable(self, raw: bytes) -> bytes:
        """Rewrite a P-DATA-TF.

        Raises:
            ValueError: it holds no values, a command set is none, or there is too much of it.
        """
        values = b"".join(self._value(fragment) for fragment in fragments(memoryview(raw)[6:]))
        return struct.pack(">BxI", P_DATA_TF, len(values)) + values

    def _value(self, fragment: Fragment) -> bytes:
        data = bytes(fragment.data)
        if fragment.is_command:
            self._command, data = self._command + data, b""
            self._n_bytes = len(self._command)
        elif self._has_dataset:
            self._n_bytes += len(data)
        else:
            data = b""
        if self._n_bytes > _MAX_MESSAGE_BYTES:
            raise ValueError(f"DIMSE message of more than {_MAX_MESSAGE_BYTES} bytes")
        ends = fragment.is_last and self._has_dataset
        if fragment.is_command and fragment.is_last:
            data, self._command, self._n_bytes = self._response(self._command), b"", 0
            ends = bool(data)
        elif ends:
            self._has_dataset = False
        return struct.pack(">IBB", len(data) + 2, fragment.context_id, fragment.is_command + 2 * ends) + data

    def _response(self, command: bytes) -> bytes:
        """Return the command set of a response that is awaited; empty for anything else."""
        found = _elements(command)
        field, status = _number(found, 0x0100), _number(found, 0x0900)
        self._has_dataset = False
        if field is None or (field & 0x8000 and status is None):
            raise ValueError("command set without Command Field or Status")
        is_pending = status in PENDING
        is_late = 0 < (_number(found, 0x0120) or 0) < self._message_id  # to a request that was answered
        if is_late or not self._is_awaited or field not in _AWAITED:
            return b""
        if is_pending and field not in (C_FIND_RSP, C_MOVE_RSP):  # the last word is to come
            return b""
        self._is_awaited = is_pending
        self._n_answers += 1
        if self._n_answers > self._at_most:
            raise ValueError(f"more than {self._at_most} answers to one request")
        self._has_dataset = is_pending and field == C_FIND_RSP and _number(found, 0x0800) != NO_DATASET
        dataset = 0 if self._has_dataset else NO_DATASET
        values = {0x0100: field, 0x0120: self._message_id, 0x0800: dataset, 0x0900: status}
        if field == C_MOVE_RSP:
            values |= {element: count for element in SUB_OPERATIONS if (count := _number(found, element)) is not None}
        body = b"".join(_ELEMENT.pack(0, element, 2) + struct.pack("<H", value) for element, value in values.items())
        return _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(body)) + body


def _elements(command: bytes) -> dict[int, bytes]:
    """Return the elements of a command set, as far as it is one."""
    found: dict[int, bytes] = {}
    position = 0
    while position + _ELEMENT.size <= len(command):
        group, element, length = _ELEMENT.unpack_from(command, position)
        if group != 0:
            break
        position += _ELEMENT.size
        found.setdefault(element, command[position : position + length])
        position += length
    return found


def _number(found: dict[int, bytes], element: int) -> int | None:
    """Return a number of two bytes, of which one may be missing and more are ignored; None without any."""
    value = found.get(element, b"")
    return int.from_bytes(value[:2], "little") if value else None
