"""Open a Part 10 file for decoding; a deflated dataset is inflated within a budget (PS3.5 A.5)."""

import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian

from mediqa_node.decode.limits import MAX_INFLATED_BYTES
from mediqa_node.domain.errors import UndecodablePixels

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
DEFLATED = "1.2.840.10008.1.2.1.99"
_CHUNK = 1 << 16
_GROUP_LENGTH_END = 144
"""Preamble, DICM, and (0002,0000), PS3.10 7.1."""


_LONGEST_META = 2**20
_LONG_LENGTHS = (b"OB", b"OW", b"UN", b"SQ", b"UT")
"""Value representations whose length has four bytes after two reserved ones (PS3.5 7.1.2)."""


def is_part10(path: Path) -> bool:
    """Whether a file begins as DICOM files do (PS3.10 7.1); False where it cannot be opened."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def dataset_offset(content: bytes | memoryview) -> int:
    """Return where the dataset begins: after (0002,0000) and as many bytes as it says.

    Raises:
        UndecodablePixels: file meta is cut short, or does not begin with its group length.
    """
    if bytes(content[132:136]) != b"\x02\x00\x00\x00" or len(content) < _GROUP_LENGTH_END:
        raise UndecodablePixels("file meta information does not begin with its group length (0002,0000)")
    return _GROUP_LENGTH_END + int.from_bytes(content[_GROUP_LENGTH_END - 4 : _GROUP_LENGTH_END], "little")


def transfer_syntax(path: Path) -> str:
    """Return Transfer Syntax UID (0002,0010) of a file, reading its file meta only.

    A hundred files are asked before a series is judged: pydicom takes half a millisecond for each.

    Raises:
        UndecodablePixels: no Part 10 file.
        OSError: it cannot be opened.
    """
    with path.open("rb") as stream:
        head = stream.read(_GROUP_LENGTH_END)
        meta = stream.read(min(dataset_offset(head) - _GROUP_LENGTH_END, _LONGEST_META))
    start = 0
    while start + 8 <= len(meta):
        long = meta[start + 4 : start + 6] in _LONG_LENGTHS
        value = start + (12 if long else 8)
        length = int.from_bytes(meta[value - (4 if long else 2) : value], "little")
        if meta[start : start + 4] == b"\x02\x00\x10\x00":
            return meta[value : value + length].rstrip(b"\0 ").decode("ascii", "replace")
        start = value + length
    raise UndecodablePixels("file meta information has no Transfer Syntax UID (0002,0010)")


def read_header(path: Path, *, max_inflated_bytes: int = MAX_INFLATED_BYTES) -> Dataset:
    """Return the dataset of a file up to its pixels; a deflated one costs at most `max_inflated_bytes`.

    Raises:
        UndecodablePixels: unreadable, or over budget.
        OSError: it cannot be opened.
    """
    try:
        if transfer_syntax(path) != DEFLATED:
            return dcmread(path, stop_before_pixels=True)
        return dcmread(inflated(path, max_bytes=max_inflated_bytes), stop_before_pixels=True)
    except (OSError, UndecodablePixels):
        raise
    except Exception as error:  # as above
        raise UndecodablePixels(f"unreadable header: {type(error).__name__}: {error}"[:300]) from error


def inflated(path: Path, *, max_bytes: int) -> BytesIO:
    """Return a deflated file as an explicit little-endian one, in memory.

    Raises:
        UndecodablePixels: no deflate stream, cut short, or longer than `max_bytes` when inflated.
    """
    meta = read_file_meta_info(path)
    with path.open("rb") as stream:
        stream.seek(dataset_offset(stream.read(_GROUP_LENGTH_END)))
        dataset = _inflate(stream, max_bytes)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    head = DicomBytesIO()
    head.write(bytes(128) + b"DICM")
    write_file_meta_info(head, meta, enforce_standard=False)
    return BytesIO(head.getvalue() + dataset)


def _inflate(stream: BinaryIO, max_bytes: int) -> bytearray:
    """Inflate a raw deflate stream (RFC 1951), never producing more than `max_bytes`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    result = bytearray()
    try:
        while not inflater.eof and (chunk := inflater.unconsumed_tail or stream.read(_CHUNK)):
            result += inflater.decompress(chunk, max_bytes + 1 - len(result))
            if len(result) > max_bytes:
                raise UndecodablePixels(f"a deflated dataset inflates to more than {max_bytes:,} bytes")
    except zlib.error as error:
        raise UndecodablePixels(f"broken deflate stream: {error}") from error
    if not inflater.eof:
        raise UndecodablePixels("the deflate stream ends too early")
    return result
