"""Count the frames that Pixel Data really holds, which the header may understate.

A header is read without its pixels, so that `part10.read_header` counts them and keeps the number with the dataset.
Native pixels are counted by their length, encapsulated ones by the fragments that begin a frame (PS3.5 A.4): JPEG,
JPEG-LS and JPEG 2000 codestreams and RLE segments (PS3.5 G.5) each begin in their own way, and a frame never begins
inside a fragment. Offset tables are not asked: they may be absent, or wrong. Pixels of twice the rows in the header
count as two frames, also where only the codestream tells its size.
"""

import re
import struct
from typing import BinaryIO

from pydicom import Dataset

from mediqa_node.dicom.values import integer

UNDEFINED_LENGTH = 0xFFFFFFFF
PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}

_PIXEL_VRS = frozenset((b"OB", b"OW", b"OF", b"OD", b"UN"))
"""Whatever the transfer syntax promises; an even length does not begin with these bytes."""
_HELD = "n_frames_held"
_ITEM, _HEAD_BYTES = 0xFFFEE000, 8
_FRAME_START = re.compile(rb"\xff\xd8\xff|\xff\x4f\xff\x51|\0\0\0\x0cjP  |[\x01-\x0f]\0\0\0\x40\0\0\0")
"""SOI and SOC with what follows them, the JP2 signature box, an RLE header: 1 to 15 segments, the first at byte 64."""
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_MOST_FRAGMENTS, _START_BYTES = 100_000, 4096
_TOLERANCE = 8
"""So many parts of a frame may lack at the end of pixels that are too long."""


def stored_frames(ds: Dataset) -> int | None:
    """Return how many frames the pixel data of an instance holds; None if unknown.

    Known of headers from `part10.read_header` with Rows, Columns and Bits Allocated.
    """
    held = getattr(ds, _HELD, None)
    return held if isinstance(held, int) else None


def keep_stored_frames(ds: Dataset, count: int | None) -> None:
    """Note the number of frames with a dataset, which has no element for it."""
    setattr(ds, _HELD, count)


def count_frames(stream: BinaryIO, header: Dataset) -> int | None:
    """Count the frames of an open file, or return None.

    Args:
        header: as pydicom read it from the stream, which is at the first element that the header lacks.
    """
    _, little = header.original_encoding
    tag, _, length = pixel_element(stream, little=bool(little))
    if tag not in PIXEL_TAGS:
        return None
    rows, columns, bits = (integer(header, key) or 0 for key in ("Rows", "Columns", "BitsAllocated"))
    if length != UNDEFINED_LENGTH:
        return _whole(8 * length, rows * columns * bits * (integer(header, "SamplesPerPixel") or 1))
    begun, size_px = _frames_begun(stream)
    return max(begun, _whole(begun * size_px, rows * columns) or 0)


def pixel_element(stream: BinaryIO, *, little: bool) -> tuple[int, str, int]:
    """Return tag, value representation and length of an element, read up to its value.

    The value representation is "" without one, also where a file breaks the promise of its transfer syntax. At the end
    of the file the tag is 0.
    """
    order = "<" if little else ">"
    group, element, rest = struct.unpack(f"{order}HH4s", stream.read(8).ljust(8, b"\0"))
    vr = rest[:2].decode("ascii") if rest[:2] in _PIXEL_VRS else ""
    (length,) = struct.unpack(f"{order}I", stream.read(4).ljust(4, b"\0") if vr else rest)
    return group << 16 | element, vr, length


def _whole(held: int, frame: int) -> int | None:
    """Return how many frames of this size there are; padding is none. None if the header states no size."""
    return (held + frame // _TOLERANCE) // frame if frame > 0 else None


def _frames_begun(stream: BinaryIO) -> tuple[int, int]:
    """Return how many fragments begin a frame, and the pixels of the first one; 0 if unknown.

    The first item, the Basic Offset Table, begins none.
    """
    begun, size_px = 0, 0
    for number in range(_MOST_FRAGMENTS):
        head = stream.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            break
        group, element, length = struct.unpack("<HHI", head)
        if group << 16 | element != _ITEM or length == UNDEFINED_LENGTH:
            break
        start = stream.read(min(length, 12 if begun else _START_BYTES)) if number else b""
        if _FRAME_START.match(start):
            size_px = size_px if begun else _codestream_px(start)
            begun += 1
        stream.seek(length - len(start), 1)
    return begun, size_px


def _codestream_px(start: bytes) -> int:
    """Return rows x columns of a codestream by SIZ (JPEG 2000) or the frame header (JPEG, JPEG-LS); 0 if unknown."""
    position = start.find(b"\xff\x4f\xff\x51")
    if position >= 0 and len(start) >= position + 24:
        right, bottom, left, top = struct.unpack_from(">4I", start, position + 8)
        return int((right - left) * (bottom - top))
    position = 2
    while start.startswith(b"\xff\xd8") and position + 9 <= len(start) and start[position] == 0xFF:
        marker, length, _, rows, columns = struct.unpack_from(">BHBHH", start, position + 1)
        if marker in _FRAME_HEADERS:
            return int(rows * columns)
        position += 2 + length
    return 0
