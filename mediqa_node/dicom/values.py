"""Read single values of a DICOM dataset, including those that break the standard.

Real headers hold "120 kV", "1,5", zeros for "unknown", padding with NUL, bytes of an unknown value
representation, and two values where the standard allows one. There are two ways to read a number:

- `numbers` and `number` return what is usable and skip the rest: for evidence such as dose or timing, where
  another element may hold the same quantity.
- `exact` returns all values or raises `UnreadableElement`, which names the element: for elements that define the
meaning of pixels or the geometry. It never falls back to a default.

No function raises anything else, for any bytes.
"""

import math
import re
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from unicodedata import normalize

from pydicom import Dataset
from pydicom.datadict import dictionary_keyword, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import VR

from mediqa_node.dicom import character_sets
from mediqa_node.dicom.written_numbers import PADDING, written_numbers
from mediqa_node.domain.errors import UnreadableElement

Key = str | int | BaseTag
"""A DICOM keyword or a tag."""

_LISTS = (MultiValue, list, tuple)  # a PersonName is iterable too, by letters
_KNOWN_VRS = frozenset(str(vr) for vr in VR if len(vr) == 2)
_BINARY_CODES = {
    "FD": "d", "FL": "f", "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "US or SS": "H",
}  # fmt: skip
_BYTES_OF_UNKNOWN_TYPE = ("UN", "OB", "OW", "OF", "OD")
_UNSPLIT = ("ST", "LT", "UT", "UR")
"""Value representations in which a backslash is an ordinary character (PS3.5 table 6.2-1)."""
_IN_CHARACTER_SET = ("SH", "LO", "UC", "ST", "LT", "UT", "PN")
"""Value representations to which Specific Character Set applies (PS3.5 6.1.2.3)."""
_READ_BY_PEOPLE = ("LO", "UC", "ST", "LT", "UT", "PN")
"""Value representations of names and descriptions, apart from those of a few identifiers."""
_DECIMAL_STRING = re.compile(r"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)?")
_SHOWN_CHARACTERS = 24


@lru_cache(maxsize=1024)
def _tag(key: Key) -> BaseTag:
    return Tag(key)


def _vr_of(tag: BaseTag, stated: str | None) -> str:
    """Return the VR in the file, or that of the data dictionary if it is missing or unknown."""
    if stated in _KNOWN_VRS:
        return str(stated)
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def with_known_vrs(ds: Dataset) -> Dataset:
    """Give elements of an unknown VR that of the data dictionary, in place, so that pydicom can convert them."""
    for tag in list(ds.keys()):
        element = ds.get_item(tag, keep_deferred=True)  # an empty one of an unknown VR would be converted
        if isinstance(element, RawDataElement) and (vr := _vr_of(tag, element.VR)) != element.VR:
            ds[tag] = element._replace(VR=vr)
    return ds


def _raw(ds: Dataset, key: Key) -> tuple[Any, str]:
    """Return an element's value and VR without conversions that could raise or warn."""
    tag = _tag(key)
    if tag not in ds.keys():  # noqa: SIM118 - most are absent, and other lookups are slow
        return None, ""
    element = ds.get_item(tag, keep_deferred=True)  # an empty one of an unknown VR would be converted
    vr = _vr_of(tag, element.VR)
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes) and vr in ("DS", "IS", "CS", "UI"):
        return element.value, vr
    try:
        return ds[tag].value, vr
    except Exception:  # pydicom may raise anything on broken values
        return element.value, vr


def _floats(ds: Dataset, key: Key) -> tuple[float, ...]:
    """Return every value of an element as a float, NaN for one that is not a number."""
    tag = _tag(key)
    value, vr = _raw(ds, key)
    return tuple(_floats_of(value, vr, tag))


def _floats_of(value: Any, vr: str, tag: BaseTag) -> Iterator[float]:
    if value is None:
        return
    if isinstance(value, list | MultiValue) and all(isinstance(one, str) for one in value):
        value = "\\".join(value)
    if isinstance(value, bytes):
        yield from _floats_of_bytes(value, vr, tag)
    elif isinstance(value, str):
        yield from written_numbers(value, tag, whole="IS" in (vr, _vr_of(tag, None)))
    elif isinstance(value, int | float):
        yield float(value)
    elif hasattr(value, "__iter__") and not isinstance(value, Dataset):
        for item in value:
            yield from _floats_of(item, vr, tag)
    else:
        yield math.nan


def _floats_of_bytes(value: bytes, vr: str, tag: BaseTag) -> Iterator[float]:
    """Decode text, else little-endian binary: of the VR's type, or floats by size if the VR is unknown."""
    text = value.rstrip(b"\0 ")
    printable = all(32 <= byte < 127 for byte in text)
    if vr not in _BINARY_CODES and (printable or vr not in _BYTES_OF_UNKNOWN_TYPE):
        yield from _floats_of(value.decode("latin-1"), vr, tag)
        return
    code = _BINARY_CODES.get(vr) or ("f" if len(value) == 4 else "d")
    count, rest = divmod(len(value), struct.calcsize(code))
    yield from (float(number) for number in struct.unpack(f"<{count}{code}", value)) if rest == 0 else (math.nan,)


def numbers(ds: Dataset, key: Key, *, signed: bool = False) -> tuple[float, ...]:
    """Return every usable value of a numeric element, in order; () if there is none.

    Args:
        key: DICOM keyword or tag.
        signed: accept zero and negative values. By default the element is a physical quantity that
            cannot be zero, and 0 is how scanners write "unknown".

    Returns:
        finite floats in the element's own unit, which may follow a number ("120 kV"); a decimal comma is accepted.

    >>> numbers(example := Dataset(), "KVP")
    ()
    >>> example.add_new("KVP", "LO", "120 kV")
    >>> numbers(example, "KVP")
    (120.0,)
    """
    return tuple(x for x in _floats(ds, key) if math.isfinite(x) and (signed or x > 0))


def number(ds: Dataset, key: Key, *, signed: bool = False, flags: list[str] | None = None) -> float | None:
    """Return the first usable value of a numeric element, or None.

    Args:
        flags: receives `multi_value:<keyword>` if further values differ by more than 1 %, and
            `unreadable:<keyword>` if the element has a value but no number.
    """
    values = numbers(ds, key, signed=signed)
    if not values:
        if flags is not None and is_unreadable(ds, key):
            flags.append(f"unreadable:{key}")
        return None
    if flags is not None and any(abs(x - values[0]) > 0.01 * abs(values[0]) for x in values):
        flags.append(f"multi_value:{key}")
    return values[0]


def integer(ds: Dataset, key: Key) -> int | None:
    """Return the whole part of the first usable number, zero and negative ones included, or None."""
    found = number(ds, key, signed=True)
    return None if found is None else int(found)


def exact(ds: Dataset, key: Key, count: int = 1) -> tuple[float, ...] | None:
    """Return exactly `count` finite numbers, or None if the element is absent or empty.

    A number may be repeated: with `count` 1, equal values count as one.

    Raises:
        UnreadableElement: the element has a value that is not `count` numbers.
    """
    if not has_value(ds, key):
        return None
    found = _floats(ds, key)
    if count == 1 and len(set(found)) == 1:
        found = found[:1]
    if len(found) != count or not all(map(math.isfinite, found)):
        raise UnreadableElement(
            f"{element_name(key)} {_shown(_raw(ds, key)[0])} is not {'a number' if count == 1 else f'{count} numbers'}"
        )
    return found


def is_unreadable(ds: Dataset, key: Key) -> bool:
    """Whether an element has a value but no number."""
    return has_value(ds, key) and not any(math.isfinite(x) for x in _floats(ds, key))


def is_loosely_written(ds: Dataset, key: Key) -> bool:
    """Whether a number is text in another form than PS3.5 table 6.2-1 has it: with a decimal comma, a unit, words."""
    value, _ = _raw(ds, key)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return isinstance(value, str) and value.isprintable() and not _DECIMAL_STRING.fullmatch(value.strip(PADDING))


def element_name(key: Key) -> str:
    """Return the keyword and tag of an element for a message.

    >>> element_name("RescaleIntercept")
    'RescaleIntercept (0028,1052)'
    """
    tag = _tag(key)
    try:
        return f"{dictionary_keyword(tag)} {tag}"
    except KeyError:
        return str(tag)


def _shown(value: Any) -> str:
    """Return a value for a message, in printable ASCII, truncated to the length of a number."""
    if isinstance(value, Sequence):  # whose items may be unreadable, too
        return "sequence"
    parts = value if isinstance(value, _LISTS) else (value,)
    raw = value.decode("latin-1") if isinstance(value, bytes) else "\\".join(map(str, parts))
    printable = "".join(character if " " <= character <= "~" else "?" for character in raw.strip(PADDING))
    return f"'{printable[:_SHOWN_CHARACTERS]}{'...' if len(printable) > _SHOWN_CHARACTERS else ''}'"


def texts(ds: Dataset, key: Key) -> tuple[str, ...]:
    """Return the values of a text element, stripped, without empty ones.

    Bytes that pydicom cannot decode are read as Latin-1. With a wrong character set, this is another text
    (`is_misread`).
    """
    value, vr = _raw(ds, key)
    if value is None or isinstance(value, Dataset):
        return ()
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    parts: Iterable[Any] = value if isinstance(value, _LISTS) else (value,)
    if isinstance(value, str) and vr not in _UNSPLIT:
        parts = value.split("\\")
    cleaned = (_stripped(part) for part in parts if part is not None and not isinstance(part, Dataset))
    return tuple(_without_designators(ds, part) for part in cleaned if part)


def _without_designators(ds: Dataset, part: str) -> str:
    return character_sets.without_designators(part, character_sets.encodings_of(ds)) if "\x1b" in part else part


def _stripped(part: Any) -> str:
    try:
        return str(part).replace("\0", " ").strip()
    except Exception:  # a PersonName decodes its bytes here
        return ""


def text(ds: Dataset, key: Key) -> str:
    r"""Return a text element as one string, values joined by a backslash; "" if there is none."""
    return "\\".join(texts(ds, key))


def in_one_form(ds: Dataset, key: Key) -> str:
    r"""Return a plain element as text that does not depend on how it is written; "" if there is none.

    Numbers are compared as numbers, and text as composed characters.

    >>> example = Dataset()
    >>> example.PixelSpacing, example.StudyDescription = ["0.50", "-0"], " Kopf "
    >>> in_one_form(example, "PixelSpacing"), in_one_form(example, "StudyDescription")
    ('0.5\\0.0', 'Kopf')
    """
    value, vr = _raw(ds, key)
    if vr in ("DS", "IS", *_BINARY_CODES):
        found = numbers(ds, key, signed=True)
        if found and len(found) == len(texts(ds, key)):
            return "\\".join(str(number + 0.0) for number in found)  # -0.0 + 0.0 is 0.0
    if isinstance(value, bytes) and vr not in ("DS", "IS", "CS", "UI"):
        return value.strip(b"\0 ").decode("latin-1")
    return normalize("NFC", text(ds, key))


def is_misread(ds: Dataset, key: Key) -> bool:
    """Whether the text of an element is not in Specific Character Set (0008,0005), so that it reads as another one."""
    value, vr = _raw(ds, key)
    if vr == "UN":
        vr = _vr_of(_tag(key), None)
    if isinstance(value, bytes):
        return vr in _IN_CHARACTER_SET and (not value.isascii() or b"\x1b" in value)
    encodings, found = character_sets.encodings_of(ds), texts(ds, key)
    if any(character_sets.is_misread(part, encodings) for part in found):
        return True
    if all(map(str.isascii, found)) or vr not in _READ_BY_PEOPLE or "ID" in element_name(key):
        return False
    return any(character_sets.is_of_another_script(part, encodings, is_name=vr == "PN") for part in found)


def holds_misread(ds: Dataset, keys: Iterable[Key]) -> bool:
    """Whether the text of one of some elements, or in the items of one, is misread."""
    return any(is_misread(ds, key) or any(holds_misread(one, one.keys()) for one in items(ds, key)) for key in keys)


def codes(ds: Dataset, key: Key) -> tuple[str, ...]:
    """Return the values of a code string (CS) in upper case, without empty ones."""
    return tuple(part.upper() for part in texts(ds, key))


def items(ds: Dataset | None, key: Key) -> tuple[Dataset, ...]:
    """Return the items of a sequence; () if it is absent, empty or not a sequence."""
    if ds is None:
        return ()
    value, _ = _raw(ds, key)
    if value is None or isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return ()
    return tuple(item for item in value if isinstance(item, Dataset))


def binary(ds: Dataset, key: Key) -> bytes:
    """Return the bytes of an element of binary VR; b"" if it is absent or has another VR."""
    value, _ = _raw(ds, key)
    return value if isinstance(value, bytes) else b""


def private_tag(ds: Dataset, group: int, creator: str, element: int) -> BaseTag | None:
    """Return the tag of a private element by its creator (PS3.5 section 7.8.1), or None if it is absent.

    Args:
        group: odd group number.
        creator: Private Creator, compared without case and surrounding blanks.
        element: the last two hexadecimal digits, 0x00-0xFF; the block is looked up, never assumed.
    """
    wanted = creator.strip().upper()
    for owner in sorted(tag for tag in list(ds.keys()) if tag >> 16 == group and 0x10 <= tag & 0xFFFF <= 0xFF):
        tag = BaseTag(group << 16 | (owner & 0xFF) << 8 | element)
        if tag in ds and text(ds, owner).upper() == wanted:
            return tag
    return None


def private_creators(ds: Dataset) -> frozenset[str]:
    """Return the names of all private creators of the dataset, upper case."""
    owners = (tag for tag in tuple(ds.keys()) if tag.group % 2 and 0x10 <= tag.element <= 0xFF)
    return frozenset(text(ds, tag).upper() for tag in owners)


def has_value(ds: Dataset, key: Key) -> bool:
    """Whether an element is present and not empty or blank."""
    tag = _tag(key)
    if tag not in ds.keys():  # noqa: SIM118 - as in `_raw`
        return False
    element = ds.get_item(tag, keep_deferred=True)  # an empty one of an unknown VR would be converted
    if element.value in (None, b"", "", []):
        return False
    if isinstance(element.value, bytes):
        return bool(element.value.strip(b"\0 ")) or _vr_of(tag, element.VR) in _BINARY_CODES
    return not isinstance(element.value, str) or bool(element.value.strip(PADDING))
