"""Recognise text that was decoded with another character set than it was written in.

Specific Character Set (0008,0005) is often missing or wrong. Decoding then seldom fails, but gives another name:
`MÃ¼ller` for UTF-8 that was declared as ISO_IR 100, `Èâàíîâ` for Cyrillic. Bytes of one 8-bit set declared as another
of the same script cannot be recognised.
"""

import re
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes, default_encoding

_DELIMITERS = {0x5C, 0x3D, 0x5E}  # of values, of groups of a name and of its parts: each ends a code extension
_UNDECODED = re.compile("[\x1b\x80-\x9f\ufffd]")
"""An escape sequence of an undeclared set, a C1 control, a byte that no character stands for."""
_GB_2312, _GB_2312_DESIGNATOR = "iso_ir_58", "\x1b$)A"
_SYMBOLS_BEFORE_LETTERS = frozenset({default_encoding, "latin_1", "iso_ir_148"})
"""Sets with no letters in A0-BF, so that no word in them looks like UTF-8."""
_ABOVE_ASCII = re.compile("[\xa1-\xff]")
_FOREIGN_WORD = re.compile("(?<![A-Za-z])[\xa1-\xff]+(?![A-Za-z])")
_SHORTEST_FOREIGN = 4
"""Bytes of two Chinese characters. No word of a Latin script has so many letters and all of them outside of ASCII."""
_UMLAUTS = frozenset("åäöæøüß")
"""But a name that tries out umlauts has."""
_NEVER_IN_A_NAME = frozenset("¢£¤¥¦©¬®±µ¶¼½¾×÷")
"""Symbols that begin most characters in Big5."""
_EIGHT_BITS = _SYMBOLS_BEFORE_LETTERS | {
    "iso8859_2", "iso8859_3", "iso8859_4", "iso_ir_126", "iso_ir_127", "iso_ir_138", "iso_ir_144", "iso_ir_166",
}  # fmt: skip


def encodings_of(ds: Dataset) -> Sequence[str]:
    """Return the Python encodings with which pydicom decodes the text of a dataset or of an item."""
    found = ds.original_character_set or ds._character_set
    return (found,) if isinstance(found, str) else found


def decoded(value: bytes, character_set: str) -> tuple[str, Sequence[str]]:
    """Return the text of an encoded value, and the encodings of its Specific Character Set (0008,0005)."""
    encodings = convert_encodings(character_set.split("\\"))
    return without_designators(decode_bytes(value, encodings, _DELIMITERS), encodings), encodings


def without_designators(text: str, encodings: Sequence[str]) -> str:
    """Return decoded text without the escape sequences of GB 2312 (ISO 2022 IR 58), which Python's decoder leaves."""
    return text.replace(_GB_2312_DESIGNATOR, "") if _GB_2312 in encodings else text


def is_misread(text: str, encodings: Sequence[str]) -> bool:
    """Whether a text was written in another character set than the one it was decoded with.

    Args:
        text: as decoded.
        encodings: Python encodings of the declared character sets, the default one (ISO_IR 6) as pydicom names it.

    >>> is_misread("Müller", ["latin_1"]), is_misread("MÃ¼ller", ["latin_1"]), is_misread("Müller", ["iso8859"])
    (False, True, True)
    """
    if text.isascii() and "\x1b" not in text:
        return False
    if _UNDECODED.search(text) or not all(any(_holds(one, character) for one in encodings) for character in set(text)):
        return True
    return encodings[0] in _EIGHT_BITS and _is_utf_8(text, encodings[0])


def is_of_another_script(text: str, encodings: Sequence[str], *, is_name: bool) -> bool:
    """Whether words or a name, decoded as Latin-1 or Latin-5, were written in a set of another script.

    Identifiers must not be asked: they are compared and never read.

    >>> [is_of_another_script(name, ["latin_1"], is_name=True) for name in ("Íõ^Ð¡¶«", "Ås^Åse")]
    [True, False]
    """
    if text.isascii() or encodings[0] not in _SYMBOLS_BEFORE_LETTERS:
        return False
    if is_name and not _NEVER_IN_A_NAME.isdisjoint(text):
        return True
    whole = [group for group in text.split("=") if not re.search("[A-Za-z]", group)]
    found = ("".join(_ABOVE_ASCII.findall(part)) for part in (*whole, *_FOREIGN_WORD.findall(text)))
    return any(len(part) >= _SHORTEST_FOREIGN and not _UMLAUTS.issuperset(part.lower()) for part in found)


def _holds(encoding: str, character: str) -> bool:
    return _encoded(character, "ascii" if encoding == default_encoding else encoding) is not None


def _encoded(text: str, encoding: str) -> bytes | None:
    try:
        return text.encode(encoding)
    except (UnicodeError, LookupError):
        return None


def _is_utf_8(text: str, encoding: str) -> bool:
    """Whether the bytes of a text in an 8-bit set are UTF-8 throughout.

    In sets with letters between A0 and BF words may look so (`JÓŹWIAK` in ISO_IR 101): there the characters of the
    UTF-8 must be some of the set itself.
    """
    try:
        read = text.encode(encoding).decode("utf-8")
    except UnicodeError:
        return False
    return encoding in _SYMBOLS_BEFORE_LETTERS or _encoded(read, encoding) is not None
