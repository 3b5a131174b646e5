"""Whether the pixel data of a received image is whole and of the kind that its transfer syntax has (PS3.5 8.2, A.4)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mediqa_node.dicom.part10 import DEFLATED, NATIVE
from mediqa_node.dicom.stored_frames import UNDEFINED_LENGTH
from mediqa_node.domain.errors import InvalidInstance

PIXEL_DATA = 0x7FE00010
_SAMPLES, _PHOTOMETRIC, _FRAMES = 0x00280002, 0x00280004, 0x00280008
_ROWS, _COLUMNS, _BITS = 0x00280010, 0x00280011, 0x00280100
_ELSEWHERE = frozenset({0x00287FE0, 0x56000020})
"""Pixel Data Provider URL, Spectroscopy Data."""
WANTED = _ELSEWHERE | {_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS}
"""The elements of a header that these checks need."""

_JPEG_AND_VIDEO, _RLE = "1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5"
_CODED = (b"\xfe\xff\x00\xe0", b"\xff\xd8", b"\xff\x4f")
"""How coded data begins, even if its length is stated: an item, a JPEG, JPEG-LS or JPEG 2000 codestream."""


@dataclass(slots=True)
class Pixels:
    """The pixel data of a dataset.

    Attributes:
        length: the length field; `UNDEFINED_LENGTH` when encapsulated.
        first: up to four bytes of the value, read where a length is stated under a compressed syntax.
        n_fragments: fragments that are not empty, without the Basic Offset Table.
    """

    tag: int
    length: int
    first: bytes = b""
    n_fragments: int = 0


def is_compressed(transfer_syntax_uid: str) -> bool:
    """Whether all pixel data in this transfer syntax is encapsulated."""
    return transfer_syntax_uid.startswith(_JPEG_AND_VIDEO) or transfer_syntax_uid == _RLE


def check_pixels(
    found: Mapping[int, bytes],
    pixels: Pixels | None,
    transfer_syntax_uid: str,
    *,
    is_image: bool,
    u16: Callable[[bytes], tuple[int]],
) -> None:
    """Refuse an image without pixels, with fewer bytes than its header requires, or that no reader can decode.

    Args:
        found: encoded values by tag.
        u16: decodes a number of two bytes in the byte order of the dataset.

    Raises:
        InvalidInstance: see above.
    """
    if _ELSEWHERE & found.keys():
        return
    if pixels is None:
        if is_image or {_ROWS, _BITS} <= found.keys():
            raise InvalidInstance("truncated: an image without pixel data", offending=PIXEL_DATA)
        return
    if pixels.length == UNDEFINED_LENGTH:
        if transfer_syntax_uid in (*NATIVE, DEFLATED):
            raise InvalidInstance("encapsulated pixel data in an uncompressed transfer syntax", offending=pixels.tag)
        if not pixels.n_fragments:
            raise InvalidInstance("truncated: pixel data without a fragment", offending=PIXEL_DATA)
        return
    if pixels.first and pixels.tag == PIXEL_DATA and not pixels.first.startswith(_CODED):
        raise InvalidInstance("uncompressed pixel data in a compressed transfer syntax", offending=PIXEL_DATA)
    if pixels.length < _least_bytes(found, u16):
        raise InvalidInstance("pixel data is truncated", offending=PIXEL_DATA)


def _least_bytes(found: Mapping[int, bytes], u16: Callable[[bytes], tuple[int]]) -> int:
    """Return the minimum size of native pixel data in bytes, PS3.3 C.7.6.3.1 (chroma may be subsampled)."""
    frames = found.get(_FRAMES, b"1").decode("latin-1").strip(" \0") or "1"
    bits = int(frames) if frames.isascii() and frames.isdigit() else 1
    for tag in (_ROWS, _COLUMNS, _SAMPLES, _BITS):
        value = found.get(tag, b"")
        bits *= u16(value)[0] if len(value) >= 2 else (0 if tag != _SAMPLES else 1)
    photometric = found.get(_PHOTOMETRIC, b"")
    if b"420" in photometric:
        bits //= 2
    elif b"422" in photometric:
        bits = bits * 2 // 3
    return bits // 8
