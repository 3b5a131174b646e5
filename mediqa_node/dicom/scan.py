"""Validate an encoded dataset in one bounded pass, before anything else uses it.

Walks every element without recursion and without building a Dataset: finds the few values that the receiver needs, and
verifies all lengths, also inside nested sequences and encapsulated pixel data, so that a truncated instance is refused
while its sender still has it. Memory stays at a few pages whatever the size: pixels are stepped over, a deflated
dataset is inflated in passing.
PS3.5 section 7 (data set encoding), A.4 (encapsulated pixel data), A.5 (deflated).
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pydicom.uid import UID

from mediqa_node.dicom.identity import CHARACTER_SET, ELEMENTS, identity_of_elements
from mediqa_node.dicom.part10 import Encoded, Inflated
from mediqa_node.dicom.scan_budget import CpuBudget
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.uid import is_uid

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
MODALITY = 0x00080060
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
SERIES_NUMBER = 0x00200011
PIXEL_DATA = 0x7FE00010

_SAMPLES, _PHOTOMETRIC, _FRAMES = 0x00280002, 0x00280004, 0x00280008
_ROWS, _COLUMNS, _BITS = 0x00280010, 0x00280011, 0x00280100
_PIXELS_ELSEWHERE = frozenset({0x00287FE0, 0x56000020})  # Pixel Data Provider URL, Spectroscopy Data
_WANTED = _PIXELS_ELSEWHERE | {
    *(SOP_CLASS_UID, SOP_INSTANCE_UID, MODALITY, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SERIES_NUMBER),
    *(_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _BITS),
    *(CHARACTER_SET, *ELEMENTS.values()),
}
_PIXEL_TAGS = frozenset({PIXEL_DATA, 0x7FE00008, 0x7FE00009})
_LONG_FORM = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITERS = frozenset({_ITEM_END, _SEQUENCE_END})
_ITEM_BYTES = b"\xfe\xff\x00\xe0"
_UNDEFINED = 0xFFFFFFFF
_NEVER_IN_A_DATASET = frozenset({0x0000, 0x0002, 0x0004, 0x0006})
"""Groups, PS3.5 7.1. Readers of files take a Transfer Syntax UID (0002,0010) there for that of the file."""
_DEPTH_LIMIT = 32
_SHORT_FORM = frozenset(re.findall(rb"..", b"AEASATCSDADSDTFDFLISLOLTPNSHSLSSSTTMUIULUS"))
_VALUE_LIMIT = 512
_WINDOW_BYTES, _PADDING_BYTES = 8192, 65_536
_MODALITY = re.compile(r"[A-Z0-9_ ]{1,16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedHeader:
    """The attributes of a dataset that the receiver needs."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    has_pixels: bool
    series_number: int | None = None
    identity: Identity = Identity()


def scan(dataset: Encoded, transfer_syntax_uid: str, *, inflate_limit_bytes: int = 256 * 1024**2) -> ScannedHeader:
    """Check an encoded dataset (without file meta) and return its header.

    Args:
        dataset: the bytes as received: a memoryview, or anything that can be sliced like one.
        transfer_syntax_uid: negotiated for its presentation context.
        inflate_limit_bytes: a deflated dataset larger than this is refused.

    Raises:
        InvalidInstance: empty, truncated, nested too deeply, without the UIDs that identify it, or too costly to check.
    """
    if not len(dataset):
        raise InvalidInstance("empty dataset", offending=SOP_INSTANCE_UID)
    with CpuBudget(len(dataset)) as budget:
        if transfer_syntax_uid == DEFLATED:
            dataset = Inflated(dataset, inflate_limit_bytes, budget.check)
        walk = _Walk(dataset, transfer_syntax_uid, budget.check)
        found = walk.run()
    header = ScannedHeader(
        sop_class_uid=_uid(found, SOP_CLASS_UID, "SOP Class UID"),
        sop_instance_uid=_uid(found, SOP_INSTANCE_UID, "SOP Instance UID"),
        study_instance_uid=_uid(found, STUDY_INSTANCE_UID, "Study Instance UID"),
        series_instance_uid=_uid(found, SERIES_INSTANCE_UID, "Series Instance UID"),
        modality=_modality(found),
        series_number=_integer(found.get(SERIES_NUMBER, b"")),
        has_pixels=walk.pixel_bytes is not None,
        identity=identity_of_elements(found),
    )
    walk.check_pixels(is_image=_is_image_class(header.sop_class_uid))
    return header


@lru_cache(maxsize=512)
def _is_image_class(sop_class_uid: str) -> bool:
    """Whether a class is named "… Image Storage": an instance of it without pixel data is not complete."""
    return "Image Storage" in UID(sop_class_uid).name


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip(" \0")


def _integer(value: bytes) -> int | None:
    """Return the value of an Integer String, or None if it is not one of 32 bits (PS3.5 table 6.2-1)."""
    text = value.strip(b" \0")
    if not re.fullmatch(rb"[+-]?[0-9]{1,11}", text):
        return None
    number = int(text)
    return number if -(2**31) <= number < 2**31 else None


def _modality(found: dict[int, bytes]) -> str:
    value = _text(found.get(MODALITY, b""))
    return value if _MODALITY.fullmatch(value) else ""


def _uid(found: dict[int, bytes], tag: int, name: str) -> str:
    value = _text(found.get(tag, b""))
    if not value:
        raise InvalidInstance(f"no {name}", offending=tag)
    if not is_uid(value):
        raise InvalidInstance(f"malformed {name}", offending=tag)
    return value


@dataclass(slots=True)
class _Level:
    """An open sequence, item or run of pixel fragments.

    `end` is None while undefined; its content must end at `limit`, which the nearest enclosing level of defined length
    sets.
    """

    kind: str
    end: int | None
    explicit: bool
    limit: int = 0
    has_offset_table: bool = False


class _Walk:
    """State of one pass: position, open levels, values found at the top level.

    Attributes:
        pixel_bytes: the length field of the pixel data: 0xFFFFFFFF when encapsulated, None without any.
        past_header: the pixel data was reached; `read_header` ends there, so no value is taken from what follows.
    """

    def __init__(self, data: Encoded, transfer_syntax_uid: str, check_time: Callable[[], None]) -> None:
        order = ">" if transfer_syntax_uid == EXPLICIT_BIG else "<"
        self.data = data
        self.check_time = check_time
        self.tag = struct.Struct(order + "HH").unpack_from
        self.short = struct.Struct(order + "HH2sH").unpack_from
        self.u16 = struct.Struct(order + "H").unpack_from
        self.u32 = struct.Struct(order + "I").unpack_from
        self.levels: list[_Level] = []
        self.explicit = transfer_syntax_uid != IMPLICIT_LITTLE
        self.found: dict[int, bytes] = {}
        self.pixel_bytes: int | None = None
        self.past_header = False
        self.n_fragments = 0
        self._window, self._window_at = b"", 0

    def take(self, position: int, count: int) -> bytes:
        """Return up to `count` bytes from the position; the pass moves forward only, with a small buffer."""
        offset = position - self._window_at
        if offset + count > len(self._window):
            self.check_time()
            self._window = bytes(self.data[position : position + max(count, _WINDOW_BYTES)])
            self._window_at, offset = position, 0
        return self._window[offset : offset + count]

    def check_pixels(self, *, is_image: bool) -> None:
        """Refuse an image without pixels, or with fewer bytes of pixels than its header requires."""
        if _PIXELS_ELSEWHERE & self.found.keys():
            return
        if self.pixel_bytes is None:
            if is_image or {_ROWS, _BITS} <= self.found.keys():
                raise InvalidInstance("truncated: an image without pixel data", offending=PIXEL_DATA)
            return
        if self.pixel_bytes == _UNDEFINED:
            if not self.n_fragments:
                raise InvalidInstance("truncated: pixel data without a fragment", offending=PIXEL_DATA)
        elif self.pixel_bytes < self._least_pixel_bytes():
            raise InvalidInstance("pixel data is truncated", offending=PIXEL_DATA)

    def _least_pixel_bytes(self) -> int:
        """Return the minimum size of native pixel data in bytes, PS3.3 C.7.6.3.1 (chroma may be subsampled)."""
        frames = _text(self.found.get(_FRAMES, b"1")) or "1"
        bits = int(frames) if frames.isascii() and frames.isdigit() else 1
        for tag in (_ROWS, _COLUMNS, _SAMPLES, _BITS):
            value = self.found.get(tag, b"")
            bits *= self.u16(value)[0] if len(value) >= 2 else (0 if tag != _SAMPLES else 1)
        photometric = self.found.get(_PHOTOMETRIC, b"")
        if b"420" in photometric:
            bits //= 2
        elif b"422" in photometric:
            bits = bits * 2 // 3
        return bits // 8

    @property
    def size(self) -> int:
        """Bytes of the dataset; of a deflated one known once its end was read."""
        return len(self.data)

    def run(self) -> dict[int, bytes]:
        position = 0
        while True:
            position = self._close(position)
            if (further := self._plain(position)) > position:
                position = further
                continue
            head = self.take(position, 12)
            if not self.levels and (not head or self._only_padding_follows(position)):
                break
            if len(head) < 8:
                raise InvalidInstance("truncated dataset")
            group, element = self.tag(head)
            tag = group << 16 | element
            level = self.levels[-1] if self.levels else None
            if tag in _DELIMITERS and (level is None or level.end is not None or level.kind == "item"):
                position = self._needless_delimiter(position, head, tag, level)
            elif level is not None and level.kind != "item":
                position = self._delimiter(position, head, tag, level)
            else:
                position = self._element(position, head, tag)
        if position > self.size:
            raise InvalidInstance("truncated dataset")
        return self.found

    def _plain(self, position: int) -> int:
        """Step over elements of an item that are as they should be; they are most of a large header."""
        level = self.levels[-1] if self.levels else None
        if level is None or level.kind != "item" or not level.explicit:
            return position
        window, start, unpack = self._window, self._window_at, self.short
        last = min(level.limit, start + len(window)) - 8
        while start <= position <= last:
            group, _, vr, length = unpack(window, position - start)
            end = position + 8 + length
            if vr not in _SHORT_FORM or group == 0xFFFE or end > level.limit:
                break
            position = end
        return position

    def _only_padding_follows(self, position: int) -> bool:
        """Whether all elements are read and zeros follow: some devices fill their files up to a block."""
        if self.levels or self.take(position, 4).strip(b"\0"):
            return False
        while position < self.size:
            piece = self.take(position, _PADDING_BYTES)
            if piece != bytes(len(piece)):
                return False
            position += len(piece)
        return True

    def _needless_delimiter(self, position: int, head: bytes, tag: int, level: _Level | None) -> int:
        """Step over the end of a sequence or an item whose length says already where it ends."""
        (length,) = self.u32(head, 4)
        if length:
            raise InvalidInstance("a delimiter with a length", offending=tag)
        if tag == _ITEM_END and level is None and not self.past_header:
            raise InvalidInstance("the end of an item outside of any: readers stop there", offending=tag)
        if tag == _ITEM_END and level is not None and level.kind == "item" and level.end is None:
            self.levels.pop()
        return position + 8

    def _close(self, position: int) -> int:
        """Close every level of defined length that ends here."""
        while self.levels and self.levels[-1].end is not None:
            end = self.levels[-1].end
            if position < end:
                break
            if position > end:
                raise InvalidInstance("a nested element exceeds its sequence")
            self.levels.pop()
        return position

    def _delimiter(self, position: int, head: bytes, tag: int, level: _Level) -> int:
        """Read an item tag inside a sequence or a run of fragments."""
        (length,) = self.u32(head, 4)
        position += 8
        if tag == _SEQUENCE_END and level.end is None:
            self.levels.pop()
            return position
        if tag == _ITEM_END and level.kind == "sequence" and not length:
            return position  # of an item whose length said already where it ends
        if tag != _ITEM:
            raise InvalidInstance("an item was expected inside a sequence", offending=tag)
        if level.kind == "fragments":
            if length == _UNDEFINED:
                raise InvalidInstance("a pixel data fragment has no length", offending=PIXEL_DATA)
            if len(self.levels) == 1 and length and level.has_offset_table:
                self.n_fragments += 1
            level.has_offset_table = True
            return self._within(position + length, PIXEL_DATA)
        end = None if length == _UNDEFINED else self._within(position + length, tag)
        self._open(_Level("item", end, level.explicit))
        return position

    def _element(self, position: int, head: bytes, tag: int) -> int:
        explicit = self.levels[-1].explicit if self.levels else self.explicit
        vr, length, header_bytes = self._vr_and_length(head, tag, explicit)
        position += header_bytes
        top = not self.levels
        if top and tag < 0x00080000 and tag >> 16 in _NEVER_IN_A_DATASET:
            raise InvalidInstance("not a dataset: an element of a command, file meta or directory", offending=tag)
        if top and tag in _PIXEL_TAGS:
            self.pixel_bytes, self.past_header = length, True
        if length == _UNDEFINED:
            fragments = vr in (b"OB", b"OW") or (not explicit and tag == PIXEL_DATA)
            # PS3.5 6.2.2: UN of undefined length is an implicit VR little endian sequence
            self._open(_Level("fragments" if fragments else "sequence", None, explicit and vr != b"UN"))
            return position
        end = self._within(position + length, tag)
        if vr == b"SQ" or (not explicit and self._looks_nested(position, length, tag)):
            self._open(_Level("sequence", end, explicit))
            return position
        if top and tag in _WANTED and not self.past_header:
            self.found[tag] = self.take(position, min(length, _VALUE_LIMIT))
        return end

    def _vr_and_length(self, head: bytes, tag: int, explicit: bool) -> tuple[bytes, int, int]:
        """Return the VR (empty if implicit), the value length, and the length of the element's header."""
        if not explicit:
            return b"", self.u32(head, 4)[0], 8
        vr = head[4:6]
        if not vr.isalpha() or not vr.isupper():
            raise InvalidInstance("unparsable: an element without a value representation", offending=tag)
        if vr not in _LONG_FORM:
            return vr, self.u16(head, 6)[0], 8
        if len(head) < 12:
            raise InvalidInstance("truncated dataset", offending=tag)
        return vr, self.u32(head, 8)[0], 12

    def _looks_nested(self, position: int, length: int, tag: int) -> bool:
        """Whether an implicit value is a sequence: a standard element, not pixels, that begins with an item."""
        if length < 8 or tag >> 16 & 1 or tag in _PIXEL_TAGS:
            return False
        return self.take(position, 4) == _ITEM_BYTES

    def _open(self, level: _Level) -> None:
        level.limit = level.end if level.end is not None else self._limit()
        self.levels.append(level)
        if len(self.levels) > 2 * _DEPTH_LIMIT:
            raise InvalidInstance(f"nested deeper than {_DEPTH_LIMIT} sequences")

    def _limit(self) -> int:
        return self.levels[-1].limit if self.levels else self.size

    def _within(self, end: int, tag: int) -> int:
        if end > self._limit():
            what = "pixel data is truncated" if tag == PIXEL_DATA else "truncated dataset"
            raise InvalidInstance(what, offending=tag)
        return end
