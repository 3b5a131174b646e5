"""Count the frames that Pixel Data really holds, which the header may understate.

A header is read without its pixels, so that `part10.read_header` counts them and keeps the number with the dataset.
Native pixels are counted by their length, encapsulated ones by the fragments that begin a frame (PS3.5 A.4): JPEG,
JPEG-LS and JPEG 2000 codestreams and RLE segments (PS3.5 G.5) each begin in their own way, and a frame never begins
inside a fragment. Offset tables are not asked: they may be absent, or wrong.
"""

import re
import struct
from typing import BinaryIO

from pydicom import Dataset

from mediqa_node.dicom.values import integer

UNDEFINED_LENGTH = 0xFFFFFFFF
PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}

_HELD = "n_frames_held"
_ITEM, _HEAD_BYTES = 0xFFFEE000, 8
_FRAME_START = re.compile(rb"\xff\xd8\xff|\xff\x4f\xff\x51|\0\0\0\x0cjP  |[\x01-\x0f]\0\0\0\x40\0\0\0")
"""SOI and SOC with what follows them, the JP2 signature box, an RLE header: 1 to 15 segments, the first at byte 64."""
_MOST_FRAGMENTS = 100_000
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
    implicit, little = header.original_encoding
    tag, _, length = pixel_element(stream, implicit=bool(implicit), little=bool(little))
    if tag not in PIXEL_TAGS:
        return None
    return _frames_begun(stream) if length == UNDEFINED_LENGTH else _frames_within(8 * length, header)


def pixel_element(stream: BinaryIO, *, implicit: bool, little: bool) -> tuple[int, str, int]:
    """Return tag, value representation and length of an element, read up to its value.

    The value representation is "" without one, also where a file breaks the promise of its transfer syntax. At the end
    of the file the tag is 0.
    """
    order = "<" if little else ">"
    group, element, rest = struct.unpack(f"{order}HH4s", stream.read(8).ljust(8, b"\0"))
    vr = "" if implicit or not re.match(b"[A-Z]{2}", rest) else rest[:2].decode("ascii")
    (length,) = struct.unpack(f"{order}I", stream.read(4).ljust(4, b"\0") if vr else rest)
    return group << 16 | element, vr, length


def _frames_within(bits: int, header: Dataset) -> int | None:
    """Return how many frames of the size in the header (PS3.3 C.7.6.3.1) fit; padding is none."""
    sizes = [integer(header, key) or 0 for key in ("Rows", "Columns", "BitsAllocated")]
    frame_bits = sizes[0] * sizes[1] * sizes[2] * (integer(header, "SamplesPerPixel") or 1)
    return (bits + frame_bits // _TOLERANCE) // frame_bits if frame_bits > 0 else None


def _frames_begun(stream: BinaryIO) -> int:
    """Return how many fragments begin a frame; the first item, the Basic Offset Table, is none."""
    begun = 0
    for number in range(_MOST_FRAGMENTS):
        head = stream.read(2 * _HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            break
        group, element, length = struct.unpack_from("<HHI", head)
        if group << 16 | element != _ITEM or length == UNDEFINED_LENGTH:
            break
        begun += number > 0 and _FRAME_START.match(head, _HEAD_BYTES) is not None
        stream.seek(length + _HEAD_BYTES - len(head), 1)
    return begun
