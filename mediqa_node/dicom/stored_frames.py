"""Count the frames that Pixel Data really holds, which the header may understate, and find what else it contradicts.

A header is read without its pixels, so that `part10.read_header` counts them and keeps the number with the dataset.
Native pixels are counted by their length, encapsulated ones by the fragments that begin a frame (PS3.5 A.4): JPEG,
JPEG-LS and JPEG 2000 codestreams and RLE segments (PS3.5 G.5) each begin in their own way, and a frame never begins
inside a fragment. Offset tables are not asked: they may be absent, or wrong. Pixels of twice the rows in the header
count as two frames, also where only the codestream tells its size.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np
from pydicom import Dataset

from mediqa_node.dicom.values import element_name, has_value, integer

UNDEFINED_LENGTH = 0xFFFFFFFF
PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}

_REQUIRED = ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation")
"""No decoder reads pixels without these, besides their size."""
_PIXEL_VRS = frozenset((b"OB", b"OW", b"OF", b"OD", b"UN"))
"""Whatever the transfer syntax promises; an even length does not begin with these bytes."""
_HELD, _CONTRADICTION, _UNSTORED = "n_frames_held", "pixel_contradiction", "uses_unstored_bits"
_ITEM, _HEAD_BYTES = 0xFFFEE000, 8
_FRAME_START = re.compile(rb"\xff\xd8\xff|\xff\x4f\xff\x51|\0\0\0\x0cjP  |[\x01-\x0f]\0\0\0\x40\0\0\0")
"""SOI and SOC with what follows them, the JP2 signature box, an RLE header: 1 to 15 segments, the first at byte 64."""
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_MOST_FRAGMENTS, _START_BYTES = 100_000, 4096
_TOLERANCE = 8
"""So many parts of a frame may lack at the end of pixels that are too long."""
_TAIL_BYTES = 65536
_COARSE_BITS = 8
_SAMPLE_BYTES = 16384
_WORDS = (8, 16, 32)
_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)


@dataclass(frozen=True, slots=True)
class Codestream:
    """What a codestream says of itself: in SIZ (JPEG 2000) or its frame header (JPEG, JPEG-LS)."""

    rows: int
    columns: int
    samples: int
    bits: int


class Fragment(NamedTuple):
    """An item of encapsulated pixels: its offset in the file, its length in bytes, whether a frame begins with it."""

    offset: int
    length: int
    begins_frame: bool
    start: bytes


def stored_frames(ds: Dataset) -> int | None:
    """Return how many frames the pixel data of an instance holds; None if unknown.

    Known of headers from `part10.read_header` with Rows, Columns and Bits Allocated.
    """
    held = getattr(ds, _HELD, None)
    return held if isinstance(held, int) else None


def keep_stored_frames(ds: Dataset, count: int | None) -> None:
    """Note the number of frames with a dataset, which has no element for it."""
    setattr(ds, _HELD, count)


def contradiction(ds: Dataset) -> str:
    """Return how the pixels of a header from `part10.read_header` contradict it; "" if they do not, as far as known."""
    return str(getattr(ds, _CONTRADICTION, ""))


def uses_unstored_bits(ds: Dataset) -> bool:
    """Whether native pixels of a header from `part10.read_header` use bits above Bits Stored, for more than padding.

    What is there is no sign and no overlay of the header (60xx,0102). Only the middle of Pixel Data is read for it.
    """
    return bool(getattr(ds, _UNSTORED, False))


def count_frames(stream: BinaryIO, header: Dataset) -> int | None:
    """Count the frames of an open file, or return None; note with the header what its pixels contradict.

    Args:
        header: as pydicom read it from the stream, which is at the first element that the header lacks.
    """
    _, little = header.original_encoding
    tag, _, length = pixel_element(stream, little=bool(little))
    if tag not in PIXEL_TAGS:
        return None
    missing = next((key for key in _REQUIRED if not has_value(header, key)), None)
    if missing and PIXEL_TAGS[tag] == "PixelData":  # the others need less
        setattr(header, _CONTRADICTION, f"{element_name(missing)} is missing")
    rows, columns, bits = (integer(header, key) or 0 for key in ("Rows", "Columns", "BitsAllocated"))
    samples = integer(header, "SamplesPerPixel") or 1
    if length != UNDEFINED_LENGTH:
        setattr(header, _UNSTORED, bits in _WORDS and _unstored(stream, header, length, bits, little=bool(little)))
        frame_bits = rows * columns * bits * samples
        claimed = (integer(header, "NumberOfFrames") or 1) * frame_bits // 8
        if claimed and _holds_more(stream, length - claimed, skipped=claimed, row_bytes=columns * bits * samples // 8):
            more = f"{length - claimed:,} bytes more than {rows} x {columns} pixels have"
            setattr(header, _CONTRADICTION, f"Pixel Data (7FE0,0010) holds {more}")
        return _whole(8 * length, frame_bits)
    begun, found = _frames_begun(stream)
    if found and found.rows and rows and columns and not missing:  # a JPEG may state its lines at its end
        setattr(header, _CONTRADICTION, _differences(found, rows, columns, samples, integer(header, "BitsStored") or 0))
    return max(begun, _whole(begun * found.rows * found.columns if found else 0, rows * columns) or 0)


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


def _holds_more(stream: BinaryIO, surplus: int, *, skipped: int, row_bytes: int) -> bool:
    """Whether the pixels go on behind what the header claims: a row or more that is not of one value, as padding is."""
    if surplus < max(row_bytes, 1):
        return False
    stream.seek(skipped, 1)
    tail = stream.read(min(surplus, _TAIL_BYTES))
    return len(tail) >= row_bytes and tail.count(tail[:1]) < len(tail)


def _unstored(stream: BinaryIO, header: Dataset, length: int, allocated: int, *, little: bool) -> bool:
    """Sample the pixels for words whose bits above Bits Stored (0028,0101) hold something; the stream stays."""
    stored, high = integer(header, "BitsStored") or 0, integer(header, "HighBit")
    if not 0 < stored < allocated or high not in (None, stored - 1) or overlays_reach(header, stored):
        return False
    start, size = stream.tell(), allocated // 8
    middle = max(0, length - _SAMPLE_BYTES) // 2
    stream.seek(start + middle - middle % size)
    sample = stream.read(min(length, _SAMPLE_BYTES))
    stream.seek(start)
    words = np.frombuffer(sample[: len(sample) - len(sample) % size], f"{'<' if little else '>'}u{size}")
    above = words[above_stored(words, stored, signed=integer(header, "PixelRepresentation") == 1)].astype(np.int64)
    ends = [integer(header, key) for key in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    padding = sorted(end for end in ends if end is not None)
    if not padding:
        return bool(above.size)
    return bool(((above - padding[0]) % (1 << allocated) > padding[-1] - padding[0]).any())


def above_stored(words: np.ndarray, stored: int, *, signed: bool) -> np.ndarray:
    """Return the mask of unsigned words that use bits above Bits Stored (0028,0101), for more than a sign."""
    above = words >> stored > 0
    if signed:
        above &= words >> (stored - 1) != (1 << (words.dtype.itemsize * 8 - stored + 1)) - 1
    return np.asarray(above)


def overlays_reach(header: Dataset, stored: int) -> bool:
    """Whether Overlay Bit Position (60xx,0102) of an overlay is above Bits Stored, as was done before 2004."""
    return any((integer(header, group << 16 | 0x0102) or 0) >= stored for group in _OVERLAY_GROUPS)


def _differences(found: Codestream, rows: int, columns: int, samples: int, bits_stored: int) -> str:
    """Return what a codestream says otherwise than its header: its size, its samples, or too few bits."""
    if found.samples != samples:
        return f"its codestream has {found.samples} samples per pixel, the header {samples}"
    multiple = found.columns == columns and found.rows % rows == 0  # twice the rows count as two frames
    if not multiple and (found.rows, found.columns) != (rows, columns):
        return f"its codestream is of {found.rows} x {found.columns} pixels, the header of {rows} x {columns}"
    if 0 < found.bits <= _COARSE_BITS < bits_stored:
        return f"its codestream has {found.bits} bits, Bits Stored (0028,0101) is {bits_stored}"
    return ""


def fragments(stream: BinaryIO) -> Iterator[Fragment]:
    """Yield the fragments of encapsulated pixels, at most 100,000, from a stream that is at their Basic Offset Table.

    The rest of the fragment that was yielded last may be read from the stream.
    """
    begun = False
    for number in range(_MOST_FRAGMENTS):
        head = stream.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            break
        group, element, length = struct.unpack("<HHI", head)
        if group << 16 | element != _ITEM or length == UNDEFINED_LENGTH:
            break
        offset = stream.tell()
        if number:  # the first item is the Basic Offset Table
            start = stream.read(min(length, 12 if begun else _START_BYTES))
            begins = _FRAME_START.match(start) is not None
            begun = begun or begins
            yield Fragment(offset, length, begins, start)
        stream.seek(offset + length)


def _frames_begun(stream: BinaryIO) -> tuple[int, Codestream | None]:
    """Return how many fragments begin a frame, and what the first one says; None if unknown."""
    begun, found = 0, None
    for fragment in fragments(stream):
        if fragment.begins_frame:
            found = found if begun else _codestream(fragment.start)
            begun += 1
    return begun, found


def _codestream(start: bytes) -> Codestream | None:
    """Read SIZ (JPEG 2000, ITU-T T.800 A.5.1) or the frame header (JPEG, T.81 B.2.2; JPEG-LS); None if unknown."""
    position = start.find(b"\xff\x4f\xff\x51")
    if position >= 0 and len(start) >= position + 43:
        right, bottom, left, top = struct.unpack_from(">4I", start, position + 8)
        samples, depth = struct.unpack_from(">HB", start, position + 40)
        return Codestream(bottom - top, right - left, samples, (depth & 0x7F) + 1)
    position = 2
    while start.startswith(b"\xff\xd8") and position + 10 <= len(start) and start[position] == 0xFF:
        marker, length, bits, rows, columns, samples = struct.unpack_from(">BHBHHB", start, position + 1)
        if marker in _FRAME_HEADERS:
            return Codestream(rows, columns, samples, bits)
        position += 2 + length
    return None
