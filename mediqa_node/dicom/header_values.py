"""Read values that vendors, converters and anonymisers have bent.

Real headers hold "120 kV", "1,5 T", zeros for "not known", bytes where a double should be and two
values where one belongs. Every reader here answers what can be understood and stays silent about
the rest: nothing raises on a broken value, and nothing is invented.
"""

import math
import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

Key = str | int | BaseTag

_LISTS = (MultiValue, list, tuple)  # a PersonName is iterable too, by letters
_NUMBER = re.compile(r"\s*([-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?)")
_BINARY_CODES = {"FD": "d", "FL": "f", "US": "H", "SS": "h", "UL": "I", "SL": "i"}


@lru_cache(maxsize=1024)
def _tag(key: Key) -> BaseTag:
    return Tag(key)


def _raw(ds: Dataset, key: Key) -> tuple[Any, str]:
    """Return an element's value and VR without conversions that could raise or warn."""
    tag = _tag(key)
    element = ds.get_item(tag)
    if element is None:
        return None, ""
    vr = element.VR
    if vr is None:
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            vr = "UN"
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes) and vr in ("DS", "IS", "CS", "UI"):
        return element.value, vr
    try:
        return ds[tag].value, vr
    except Exception:  # pydicom raises many kinds on broken values; the bytes still speak
        return element.value, vr


def _floats(value: Any, vr: str) -> Iterator[float]:
    if value is None:
        return
    if isinstance(value, bytes):
        yield from _floats_of_bytes(value, vr)
    elif isinstance(value, str):
        for part in value.split("\\"):
            if match := _NUMBER.match(part):
                yield float(match.group(1).replace(",", "."))
    elif isinstance(value, int | float):
        yield float(value)
    elif hasattr(value, "__iter__"):
        for item in value:
            yield from _floats(item, vr)


def _floats_of_bytes(value: bytes, vr: str) -> Iterator[float]:
    """Decode text, else little-endian binary: of the VR's type, or doubles where the VR is unknown."""
    text = value.rstrip(b"\0 ")
    if vr not in _BINARY_CODES and all(32 <= byte < 127 for byte in text):
        yield from _floats(text.decode("ascii"), vr)
        return
    code = _BINARY_CODES.get(vr, "d")
    count, rest = divmod(len(value), struct.calcsize(code))
    if rest == 0:
        yield from (float(number) for number in struct.unpack(f"<{count}{code}", value))


def numbers(ds: Dataset, key: Key, *, signed: bool = False) -> tuple[float, ...]:
    """Return every usable value of a numeric element, in order; () where there is none.

    Args:
        key: DICOM keyword or tag.
        signed: accept zero and negative values. By default the element is a physical quantity that
            cannot be zero, and 0 is how scanners write "not known".

    Returns:
        finite floats in the element's own unit; text after a number ("120 kV") is dropped and a
        decimal comma understood.
    """
    value, vr = _raw(ds, key)
    return tuple(x for x in _floats(value, vr) if math.isfinite(x) and (signed or x > 0))


def number(ds: Dataset, key: Key, *, signed: bool = False, flags: list[str] | None = None) -> float | None:
    """Return the first usable value of a numeric element, or None.

    Args:
        flags: receives `multi_value:<keyword>` where further values differ by more than 1 %.
    """
    values = numbers(ds, key, signed=signed)
    if not values:
        return None
    if flags is not None and any(abs(x - values[0]) > 0.01 * abs(values[0]) for x in values):
        flags.append(f"multi_value:{key}")
    return values[0]


def texts(ds: Dataset, key: Key) -> tuple[str, ...]:
    """Return the values of a text element, stripped, without empty ones."""
    value, _ = _raw(ds, key)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if value is None or isinstance(value, Dataset):
        return ()
    parts = value.split("\\") if isinstance(value, str) else value if isinstance(value, _LISTS) else (value,)
    cleaned = (str(part).replace("\0", " ").strip() for part in parts if part is not None)
    return tuple(part for part in cleaned if part)


def text(ds: Dataset, key: Key) -> str:
    r"""Return a text element as one string, values joined by a backslash; "" where there is none."""
    return "\\".join(texts(ds, key))


def codes(ds: Dataset, key: Key) -> tuple[str, ...]:
    """Return the values of a code string (CS) in upper case, empty ones kept out."""
    return tuple(part.upper() for part in texts(ds, key))


def items(ds: Dataset | None, key: Key) -> tuple[Dataset, ...]:
    """Return the items of a sequence; () where it is absent, empty or no sequence at all."""
    if ds is None:
        return ()
    value, _ = _raw(ds, key)
    if value is None or isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return ()
    return tuple(item for item in value if isinstance(item, Dataset))


def private_tag(ds: Dataset, group: int, creator: str, element: int) -> BaseTag | None:
    """Return the tag of a private element by its creator (PS3.5 section 7.8.1), or None if it is absent.

    Args:
        group: odd group number.
        creator: Private Creator, compared without case and surrounding blanks.
        element: the last two hexadecimal digits, 0x00-0xFF; the block is found, never assumed.
    """
    wanted, present = creator.strip().upper(), ds.keys()
    for block in range(0x10, 0x100):
        owner = BaseTag(group << 16 | block)
        if owner in present and text(ds, owner).upper() == wanted:
            tag = BaseTag(group << 16 | block << 8 | element)
            if tag in present:
                return tag
    return None


def private_creators(ds: Dataset) -> frozenset[str]:
    """Return the names of all private creators of the dataset, upper case."""
    owners = (tag for tag in tuple(ds.keys()) if tag.group % 2 and 0x10 <= tag.element <= 0xFF)
    return frozenset(text(ds, tag).upper() for tag in owners)


def has_value(ds: Dataset, key: Key) -> bool:
    """Whether an element is there and not empty."""
    tag = _tag(key)
    element = ds.get_item(tag)
    return element is not None and element.value not in (None, b"", "", [])
