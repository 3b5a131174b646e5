"""DICOM files (PS3.10 section 7): write and read the file meta, find the dataset, inflate a deflated one.

The preamble is written as zeros: a polyglot that a peer sent never reaches the disk as such. A deflated dataset
(PS3.5 A.5) is inflated within a budget, since 200 KB may expand to 400 MB of zeros.
"""

import errno
import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Protocol

from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian

from mediqa_node.dicom.stored_frames import count_frames, keep_stored_frames
from mediqa_node.domain.errors import InvalidInstance, UndecodablePixels
from mediqa_node.domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
DEFLATED = "1.2.840.10008.1.2.1.99"
MAX_INFLATED_BYTES = 512 << 20

_PREAMBLE = b"\0" * 128 + b"DICM"
_SHORT = struct.Struct("<HH2sH")
_FIRST_ELEMENT = len(_PREAMBLE) + 12
"""Where the elements after (0002,0000) File Meta Information Group Length begin."""
_TRANSFER_SYNTAX, _SOURCE_AE_TITLE, _RECEIVING_AE_TITLE = 0x0010, 0x0016, 0x0018
_LONG_LENGTHS = (b"OB", b"OW", b"UN", b"SQ", b"UT")
"""Value representations with a length of four bytes after two reserved ones (PS3.5 7.1.2)."""
_LONGEST_META = 2**20
_PIECE_BYTES = 65_536
_HEAD_BYTES = 4096


class Encoded(Protocol):
    """The bytes of a dataset: a memoryview, or a file that is read slice by slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes | memoryview: ...


@dataclass(frozen=True, slots=True)
class FileHead:
    """The receiver's entries in the file meta information, and the offset of the dataset."""

    transfer_syntax_uid: str
    source_ae_title: str
    size_bytes: int
    receiving_ae_title: str = ""


def file_head(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    source_ae_title: str,
    receiving_ae_title: str = "",
) -> bytes:
    """Return preamble and File Meta Information, to be followed by the encoded dataset.

    Args:
        source_ae_title: that called.
        receiving_ae_title: that was called; "": it is not stated.
    """
    tail = _constant_part(transfer_syntax_uid, source_ae_title[:16], receiving_ae_title[:16])
    body = (
        b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\x00\x01"
        + _element(0x0002, b"UI", sop_class_uid)
        + _element(0x0003, b"UI", sop_instance_uid)
        + tail
    )
    return _PREAMBLE + b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<I", len(body)) + body


@lru_cache(maxsize=256)
def _constant_part(transfer_syntax_uid: str, source: str, receiving: str) -> bytes:
    return (
        _element(_TRANSFER_SYNTAX, b"UI", transfer_syntax_uid)
        + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID)
        + _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME)
        + _element(_SOURCE_AE_TITLE, b"AE", source)
        + (_element(_RECEIVING_AE_TITLE, b"AE", receiving) if receiving else b"")
    )


def _element(element: int, vr: bytes, value: str) -> bytes:
    encoded = value.encode("ascii", "replace")
    if len(encoded) % 2:
        encoded += b"\0" if vr == b"UI" else b" "
    return _SHORT.pack(0x0002, element, vr, len(encoded)) + encoded


def dataset_offset(content: bytes | memoryview) -> int:
    """Return where the dataset begins, by File Meta Information Group Length (0002,0000).

    Raises:
        InvalidInstance: not a Part 10 file, or its file meta does not begin with the group length.
    """
    if len(content) < _FIRST_ELEMENT or bytes(content[128:132]) != b"DICM":
        raise InvalidInstance("not a DICOM file (PS3.10)")
    if bytes(content[132:136]) != b"\x02\x00\x00\x00":
        raise InvalidInstance("file meta information does not begin with its group length (0002,0000)")
    return _FIRST_ELEMENT + int.from_bytes(content[_FIRST_ELEMENT - 4 : _FIRST_ELEMENT], "little")


def _meta_elements(meta: bytes | memoryview) -> Iterator[tuple[int, str]]:
    """Yield element number and text of the elements after the group length.

    Raises:
        InvalidInstance: an element of another group, or a truncated one.
    """
    position = 0
    while position < len(meta):
        if position + 8 > len(meta):
            raise InvalidInstance("file meta information is cut short")
        group, element, vr, length = _SHORT.unpack_from(meta, position)
        position += 8
        if vr in _LONG_LENGTHS:
            length = int.from_bytes(meta[position : position + 4], "little")
            position += 4
        if group != 0x0002 or position + length > len(meta):
            raise InvalidInstance("file meta information is broken")
        yield element, bytes(meta[position : position + length]).decode("latin-1").strip(" \0")
        position += length


def read_head(content: memoryview) -> FileHead:
    """Return the head of a file that begins with `content`.

    Raises:
        InvalidInstance: not a Part 10 file, or its file meta is broken.
    """
    end = dataset_offset(content)
    if end > len(content):
        raise InvalidInstance("file meta information is cut short")
    texts = dict(_meta_elements(content[_FIRST_ELEMENT:end]))
    called = texts.get(_RECEIVING_AE_TITLE, "")
    return FileHead(texts.get(_TRANSFER_SYNTAX, ""), texts.get(_SOURCE_AE_TITLE, ""), end, called)


def dataset_sha256(path: Path) -> str:
    """Return the digest of a file's dataset, without preamble and file meta.

    Raises:
        InvalidInstance: a link, or not a Part 10 file.
        OSError: it cannot be opened or read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidInstance("a link in place of a file") from error
        raise
    with os.fdopen(fd, "rb") as stream:
        try:
            stream.seek(read_head(memoryview(stream.read(_HEAD_BYTES))).size_bytes)
        except (ValueError, struct.error) as error:
            raise InvalidInstance("not a DICOM file (PS3.10)") from error
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_part10(path: Path) -> bool:
    """Whether a file begins as DICOM files do (PS3.10 7.1); False if it cannot be opened."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def transfer_syntax(path: Path) -> str:
    """Return Transfer Syntax UID (0002,0010) of a file, reading its file meta only.

    pydicom would take half a millisecond per file, and a series has hundreds.

    Raises:
        UndecodablePixels: not a Part 10 file, or one without a transfer syntax.
        OSError: it cannot be opened.
    """
    with path.open("rb") as stream:
        head = stream.read(_FIRST_ELEMENT)
        try:
            meta = stream.read(min(dataset_offset(head) - _FIRST_ELEMENT, _LONGEST_META))
            found = next((text for element, text in _meta_elements(meta) if element == _TRANSFER_SYNTAX), None)
        except InvalidInstance as error:
            raise UndecodablePixels(str(error)) from error
    if found is None:
        raise UndecodablePixels("file meta information has no Transfer Syntax UID (0002,0010)")
    return found


def read_header(path: Path, *, max_inflated_bytes: int = MAX_INFLATED_BYTES) -> Dataset:
    """Return the dataset of a file up to its pixels; a deflated one costs at most `max_inflated_bytes`.

    `stored_frames` knows how many frames the pixels hold.

    Raises:
        UndecodablePixels: unreadable, or over budget.
        OSError: it cannot be opened.
    """
    try:
        deflated = transfer_syntax(path) == DEFLATED
        with inflated_file(path, max_bytes=max_inflated_bytes) if deflated else path.open("rb") as stream:
            header = dcmread(stream, stop_before_pixels=True)
            keep_stored_frames(header, count_frames(stream, header))
        return header
    except (OSError, UndecodablePixels):
        raise
    except Exception as error:  # pydicom may raise anything on hostile bytes
        raise UndecodablePixels(f"unreadable header: {type(error).__name__}: {error}"[:300]) from error


def inflated_file(path: Path, *, max_bytes: int) -> BytesIO:
    """Return a deflated file as an explicit little-endian one, in memory.

    Raises:
        UndecodablePixels: not a deflate stream, truncated, or longer than `max_bytes` when inflated.
    """
    meta = read_file_meta_info(path)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result = DicomBytesIO()
    result.write(_PREAMBLE)
    write_file_meta_info(result, meta, enforce_standard=False)
    with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        try:
            for piece in _inflated(content, max_bytes, start=dataset_offset(content[:_FIRST_ELEMENT])):
                result.write(piece)
        except InvalidInstance as error:
            raise UndecodablePixels(str(error)) from error
    return BytesIO(result.getvalue())


class Inflated:
    """Reads a deflated dataset inflated, once and forwards only, holding one chunk at a time.

    Its size is known at its end; until then it counts as large as the limit allows.

    Args:
        on_piece: called before each chunk; what it raises ends the reading.

    Raises:
        InvalidInstance: broken, truncated, or larger than the limit.
    """

    def __init__(self, deflated: Encoded, limit_bytes: int, on_piece: Callable[[], None] = lambda: None) -> None:
        self._limit = limit_bytes
        self._on_piece = on_piece
        self._rest = _inflated(deflated, limit_bytes)
        self._held, self._held_at = b"", 0
        self._at_end = False

    def __len__(self) -> int:
        return self._held_at + len(self._held) if self._at_end else self._limit

    def __getitem__(self, part: slice) -> bytes:
        while not self._at_end and self._held_at + len(self._held) < part.stop:
            self._on_piece()
            piece = next(self._rest, b"")
            self._at_end = not piece
            unneeded = max(0, min(part.start - self._held_at, len(self._held)))
            self._held = self._held[unneeded:] + piece
            self._held_at += unneeded
        return self._held[part.start - self._held_at : part.stop - self._held_at]


def _inflated(deflated: Encoded, limit_bytes: int, *, start: int = 0) -> Iterator[bytes]:
    """Inflate a raw deflate stream (RFC 1951), in chunks of at most 64 KiB."""
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    for position in range(start, len(deflated), _PIECE_BYTES):
        pending, more = bytes(deflated[position : position + _PIECE_BYTES]), True
        while more and not inflater.eof:
            try:
                piece = inflater.decompress(pending, _PIECE_BYTES)
            except zlib.error:
                raise InvalidInstance("deflated dataset is broken") from None
            total += len(piece)
            if total > limit_bytes:
                raise InvalidInstance(f"deflated dataset inflates beyond {limit_bytes} bytes")
            pending = inflater.unconsumed_tail
            more = bool(pending) or len(piece) == _PIECE_BYTES
            if piece:
                yield piece
    if len(deflated) > start and not inflater.eof:
        raise InvalidInstance("deflated dataset is truncated")
