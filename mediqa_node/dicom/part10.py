"""The head of a Part 10 file (PS3.10 section 7.1): preamble, prefix, file meta.

The preamble is written as zeros: a polyglot that a peer sent never reaches the disk as such.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache

from mediqa_node.domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_PREAMBLE = b"\0" * 128 + b"DICM"
_SHORT = struct.Struct("<HH2sH")
_FIRST_ELEMENT = len(_PREAMBLE) + 12  # after the group length


@dataclass(frozen=True, slots=True)
class FileHead:
    """What the receiver knew when it wrote a file, and where the dataset begins."""

    transfer_syntax_uid: str
    source_ae_title: str
    size_bytes: int


def file_head(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    source_ae_title: str,
) -> bytes:
    """Return preamble and File Meta Information, ready to be followed by the encoded dataset."""
    tail = _constant_part(transfer_syntax_uid, source_ae_title[:16])
    body = (
        b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\x00\x01"
        + _element(0x0002, b"UI", sop_class_uid)
        + _element(0x0003, b"UI", sop_instance_uid)
        + tail
    )
    return _PREAMBLE + b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(body)) + body


@lru_cache(maxsize=256)
def _constant_part(transfer_syntax_uid: str, source: str) -> bytes:
    return (
        _element(0x0010, b"UI", transfer_syntax_uid)
        + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID)
        + _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME)
        + _element(0x0016, b"AE", source)
    )


def _element(element: int, vr: bytes, value: str) -> bytes:
    encoded = value.encode("ascii", "replace")
    if len(encoded) % 2:
        encoded += b"\0" if vr == b"UI" else b" "
    return _SHORT.pack(0x0002, element, vr, len(encoded)) + encoded


def read_head(content: memoryview) -> FileHead:
    """Read back what `file_head` wrote.

    Raises:
        ValueError: it is no such head.
    """
    if len(content) < _FIRST_ELEMENT + 12 or bytes(content[128:132]) != b"DICM":
        raise ValueError("no Part 10 file")
    end = len(_PREAMBLE) + 12 + int.from_bytes(content[_FIRST_ELEMENT - 4 : _FIRST_ELEMENT], "little")
    if end > len(content):
        raise ValueError("file meta is truncated")
    position, texts = _FIRST_ELEMENT, {}
    while position < end:
        group, element, vr, length = _SHORT.unpack_from(content, position)
        position += 8
        if vr == b"OB":
            (length,) = struct.unpack_from("<I", content, position)
            position += 4
        elif vr not in (b"UI", b"SH", b"AE"):
            raise ValueError("file meta with an unknown element")
        if group != 2 or position + length > end:
            raise ValueError("file meta is broken")
        texts[element] = bytes(content[position : position + length]).decode("latin-1").strip(" \0")
        position += length
    return FileHead(texts.get(0x0010, ""), texts.get(0x0016, ""), end)
