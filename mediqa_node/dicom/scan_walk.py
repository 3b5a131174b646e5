"""The pass over an encoded dataset: every element once, without recursion and without building a Dataset."""

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mediqa_node.dicom import scan_pixels
from mediqa_node.dicom.identity import CHARACTER_SET, ELEMENTS
from mediqa_node.dicom.part10 import Encoded
from mediqa_node.dicom.scan_pixels import PIXEL_DATA, Pixels
from mediqa_node.dicom.stored_frames import PIXEL_TAGS, UNDEFINED_LENGTH
from mediqa_node.domain.errors import InvalidInstance

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
IDENTIFYING = frozenset({CHARACTER_SET, *ELEMENTS.values()})
UIDS = {SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID}
_LONG_FORM = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITERS = frozenset({_ITEM_END, _SEQUENCE_END})
_ITEM_BYTES = b"\xfe\xff\x00\xe0"
_NEVER_IN_A_DATASET = frozenset({0x0000, 0x0002, 0x0004, 0x0006})
"""Groups, PS3.5 7.1. Readers of files take a Transfer Syntax UID (0002,0010) there for that of the file."""
_DEPTH_LIMIT = 32
_SHORT_FORM = frozenset(re.findall(rb"..", b"AEASATCSDADSDTFDFLISLOLTPNSHSLSSSTTMUIULUS"))
_NUMBERS = frozenset(re.findall(rb"..", b"ATFDFLSLSSSVULUSUV"))
_VALUE_LIMIT, _IDENTIFIER_LIMIT = 512, 65_535
_WINDOW_BYTES, _PADDING_BYTES = 8192, 65_536


def _may_be_vr(read: bytes, *, otherwise: bool) -> bool:
    """Whether the first element of a dataset or an item has a VR, by its two bytes; without them, `otherwise`."""
    return read.isalpha() and read.isupper() if len(read) == 2 else otherwise


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


class _Unreadable(InvalidInstance):
    """The structure of the dataset is broken here."""


class Walk:
    """State of one pass: position, open levels, values found at the top level.

    Attributes:
        pixels: the pixel data, None without any.
        past_header: the pixel data was reached; `read_header` ends there, so no value is taken from what follows.
        odd_vrs: value representations of identifying elements that are not those of the data dictionary.
    """

    def __init__(
        self,
        data: Encoded,
        transfer_syntax_uid: str,
        check_time: Callable[[], None],
        wanted: Mapping[int, bytes],
    ) -> None:
        order = ">" if transfer_syntax_uid == EXPLICIT_BIG else "<"
        self.data = data  # the length of a deflated one is known once its end was read
        self.check_time = check_time
        self.wanted = wanted
        self.tag = struct.Struct(order + "HH").unpack_from
        self.short = struct.Struct(order + "HH2sH").unpack_from
        self.u16 = struct.Struct(order + "H").unpack_from
        self.u32 = struct.Struct(order + "I").unpack_from
        self.levels: list[_Level] = []
        self.found: dict[int, bytes] = {}
        self.odd_vrs: dict[int, bytes] = {}
        self.is_compressed = scan_pixels.is_compressed(transfer_syntax_uid)
        self.pixels: Pixels | None = None
        self.past_header = False
        self._window, self._window_at = b"", 0
        self.explicit = _may_be_vr(self.take(0, 6)[4:6], otherwise=transfer_syntax_uid != IMPLICIT_LITTLE)

    def take(self, position: int, count: int) -> bytes:
        """Return up to `count` bytes from the position; the pass moves forward only, with a small buffer."""
        offset = position - self._window_at
        if offset + count > len(self._window):
            self.check_time()
            self._window = bytes(self.data[position : position + max(count, _WINDOW_BYTES)])
            self._window_at, offset = position, 0
        return self._window[offset : offset + count]

    def run(self) -> dict[int, bytes]:
        """Return the values that are wanted, of the top level, by tag."""
        position = 0
        while True:
            try:
                self._walk_from(position)
                return self.found
            except _Unreadable as broken:
                position = self._behind_sequence(broken)

    def _behind_sequence(self, broken: _Unreadable) -> int:
        """Return the end of the innermost sequence of defined length: later stations read it when they need it."""
        for depth in range(len(self.levels) - 1, -1, -1):
            level = self.levels[depth]
            if level.kind == "sequence" and level.end is not None and level.end >= self._window_at:
                del self.levels[depth:]
                return level.end
        raise broken

    def _walk_from(self, position: int) -> None:
        """Walk to the end of the dataset."""
        while True:
            if self.levels:
                position = self._close(position)
                if (further := self._plain(position)) > position:
                    position = further
                    continue
            head = self.take(position, 14)
            level = self.levels[-1] if self.levels else None
            if level is None and not head[:4].strip(b"\0") and (not head or self._only_padding_follows(position)):
                break
            if len(head) < 8:
                raise _Unreadable("truncated dataset")
            group, element = self.tag(head)
            tag = group << 16 | element
            if tag in _DELIMITERS and (level is None or level.end is not None or level.kind == "item"):
                position = self._needless_delimiter(position, head, tag, level)
            elif level is not None and level.kind != "item":
                position = self._delimiter(position, head, tag, level)
            else:
                position = self._element(position, head, tag)
        if position > len(self.data):
            raise _Unreadable("truncated dataset")

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
        while position < len(self.data):
            piece = self.take(position, _PADDING_BYTES)
            if piece != bytes(len(piece)):
                return False
            position += len(piece)
        return True

    def _needless_delimiter(self, position: int, head: bytes, tag: int, level: _Level | None) -> int:
        """Step over the end of a sequence or an item whose length says already where it ends."""
        (length,) = self.u32(head, 4)
        ends_item = tag == _ITEM_END and level is not None and level.end is None
        if length and not ends_item:
            raise _Unreadable("a delimiter with a length", offending=tag)
        if tag == _ITEM_END and level is None and not self.past_header:
            raise InvalidInstance("the end of an item outside of any: readers stop there", offending=tag)
        if ends_item:
            self.levels.pop()
        return position + 8

    def _close(self, position: int) -> int:
        """Close every level of defined length that ends here."""
        while self.levels and self.levels[-1].end is not None:
            end = self.levels[-1].end
            if position < end:
                break
            if position > end:
                raise _Unreadable("a nested element exceeds its sequence")
            self.levels.pop()
        return position

    def _delimiter(self, position: int, head: bytes, tag: int, level: _Level) -> int:
        """Read an item tag inside a sequence or a run of fragments."""
        (length,) = self.u32(head, 4)
        position += 8
        if tag != _ITEM:
            if tag == _SEQUENCE_END and level.end is None:
                self.levels.pop()
            elif length or tag not in (_ITEM_END, 0):
                raise _Unreadable("an item was expected inside a sequence", offending=tag)
            return position  # also behind the end of an item whose length said so, and zeros that fill the sequence
        if level.kind == "fragments":
            if length == UNDEFINED_LENGTH:
                raise _Unreadable("a pixel data fragment has no length", offending=PIXEL_DATA)
            if len(self.levels) == 1 and length and level.has_offset_table and self.pixels is not None:
                self.pixels.n_fragments += 1
            level.has_offset_table = True
            return self._within(position + length, PIXEL_DATA)
        end = None if length == UNDEFINED_LENGTH else self._within(position + length, tag)
        explicit = level.explicit and (head[12:14] in _SHORT_FORM or _may_be_vr(head[12:14], otherwise=True))
        self._open(_Level("item", end, explicit))
        return position

    def _element(self, position: int, head: bytes, tag: int) -> int:
        explicit = self.levels[-1].explicit if self.levels else self.explicit
        vr, length, header_bytes = self._vr_and_length(head, tag, explicit)
        position += header_bytes
        top = not self.levels
        if top and tag < 0x00080000 and tag >> 16 in _NEVER_IN_A_DATASET:
            raise InvalidInstance("not a dataset: an element of a command, file meta or directory", offending=tag)
        if top and tag in PIXEL_TAGS:
            first = self.take(position, 4) if self.is_compressed and length != UNDEFINED_LENGTH else b""
            self.pixels, self.past_header = Pixels(tag, length, first), True
        if length == UNDEFINED_LENGTH or vr == b"SQ":
            return self._open_element(position, length, tag, vr, explicit)
        end = self._within(position + length, tag)
        if top and tag in self.wanted:
            if length > _VALUE_LIMIT or (vr and vr != self.wanted[tag]) or self.past_header or self.odd_vrs:
                self._keep_odd(position, length, tag, vr)
            else:
                self.found[tag] = self.take(position, length)
        elif not vr and self._looks_nested(position, length, tag):
            self._open(_Level("sequence", end, explicit))
            return position
        return end

    def _open_element(self, position: int, length: int, tag: int, vr: bytes, explicit: bool) -> int:
        """Open a sequence, or a value of undefined length."""
        top = not self.levels
        if top and tag in IDENTIFYING and not self.past_header:
            raise InvalidInstance("a sequence in place of a text", offending=tag)
        # PS3.5 6.2.2: UN of undefined length is a sequence
        bulk = vr != b"SQ" and ((tag == PIXEL_DATA and (top or not vr)) or vr not in (b"", b"UN"))
        end = None if length == UNDEFINED_LENGTH else self._within(position + length, tag)
        self._open(_Level("fragments" if bulk else "sequence", end, explicit))
        return position

    def _keep_odd(self, position: int, length: int, tag: int, vr: bytes) -> None:
        """Keep the value of a wanted element that is long, has an odd VR, or comes after one that has."""
        if self.past_header:
            return
        if tag in UIDS and vr in _NUMBERS:
            raise InvalidInstance(f"a UID with the value representation {vr.decode()}", offending=tag)
        self.odd_vrs.pop(tag, None)
        limit = _VALUE_LIMIT
        if tag in IDENTIFYING:
            limit = _IDENTIFIER_LIMIT
            if length > limit:
                raise InvalidInstance(f"a text of {length:,} bytes identifies nothing", offending=tag)
            if vr and vr != self.wanted[tag]:
                self.odd_vrs[tag] = vr
        self.found[tag] = self.take(position, min(length, limit))

    def _vr_and_length(self, head: bytes, tag: int, explicit: bool) -> tuple[bytes, int, int]:
        """Return the VR (empty if implicit), the value length, and the length of the element's header.

        An unknown VR has a length of two bytes, and what cannot be a VR is the length of an implicit element.
        """
        vr = head[4:6]
        if not explicit or not b"AA" <= vr <= b"ZZ":
            return b"", self.u32(head, 4)[0], 8
        if vr not in _LONG_FORM:
            return vr, self.u16(head, 6)[0], 8
        if len(head) < 12:
            raise _Unreadable("truncated dataset", offending=tag)
        return vr, self.u32(head, 8)[0], 12

    def _looks_nested(self, position: int, length: int, tag: int) -> bool:
        """Whether an implicit value is a sequence: a standard element, not pixels, that begins with an item."""
        if length < 8 or tag >> 16 & 1 or tag in PIXEL_TAGS:
            return False
        return self.take(position, 4) == _ITEM_BYTES

    def _open(self, level: _Level) -> None:
        level.limit = level.end if level.end is not None else self.levels[-1].limit if self.levels else len(self.data)
        self.levels.append(level)
        if len(self.levels) > 2 * _DEPTH_LIMIT:
            raise InvalidInstance(f"nested deeper than {_DEPTH_LIMIT} sequences")

    def _within(self, end: int, tag: int) -> int:
        if end > (self.levels[-1].limit if self.levels else len(self.data)):
            what = "pixel data is truncated" if tag == PIXEL_DATA else "truncated dataset"
            raise _Unreadable(what, offending=tag)
        return end
