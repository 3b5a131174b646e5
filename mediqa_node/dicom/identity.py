"""Read whom an image names, from a parsed header or from the bytes of the elements alone.

Text that does not fit its declared character set counts as empty: it cannot tell two patients apart. A Patient ID that
does not is kept as it was read, because an empty one would be another patient's.
"""

import re
from collections.abc import Mapping

from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import BaseTag

from mediqa_node.dicom import character_sets
from mediqa_node.dicom.values import is_misread, text
from mediqa_node.domain.identity import Identity

CHARACTER_SET = 0x00080005
_STUDY_INSTANCE_UID = 0x0020000D
ELEMENTS = {
    "patient_id": 0x00100020,
    "issuer": 0x00100021,
    "name": 0x00100010,
    "birth_date": 0x00100030,
    "sex": 0x00100040,
    "accession_number": 0x00080050,
    "study_instance_uid": _STUDY_INSTANCE_UID,
}
"""The element of each field of an `Identity`."""
_IN_NO_CHARACTER_SET = (ELEMENTS["sex"], ELEMENTS["birth_date"], ELEMENTS["study_instance_uid"])
NO_ODD_VRS: Mapping[int, bytes] = {}
_NO_DIGIT = re.compile(r"\D")


def identity_of(header: Dataset) -> Identity:
    """Return the patient and visit that a header names."""
    return _identity({field: (text(header, tag), is_misread(header, tag)) for field, tag in ELEMENTS.items()})


def identity_of_elements(
    found: Mapping[int, bytes], odd_vrs: Mapping[int, bytes] = NO_ODD_VRS, *, is_little_endian: bool = True
) -> Identity:
    """Return the patient and visit from the encoded values of `ELEMENTS` and `CHARACTER_SET`, by tag.

    Args:
        odd_vrs: value representations that are not those of the data dictionary. With any, or with other characters
            than ASCII where no character set applies, the values are decoded as those of a header.
    """
    if odd_vrs or not all(found.get(tag, b"").isascii() for tag in _IN_NO_CHARACTER_SET):
        return identity_of(_header(found, odd_vrs, is_little_endian=is_little_endian))
    character_set = found.get(CHARACTER_SET, b"").strip(b" \0").decode("latin-1")
    return _identity(
        {
            field: _decoded(found.get(tag, b""), character_set, is_name=field == "name")
            for field, tag in ELEMENTS.items()
        }
    )


def _header(found: Mapping[int, bytes], vrs: Mapping[int, bytes], *, is_little_endian: bool) -> Dataset:
    elements: dict[BaseTag, DataElement | RawDataElement] = {}
    for tag in found.keys() & {CHARACTER_SET, *ELEMENTS.values()}:
        vr = vrs[tag].decode("latin-1") if tag in vrs else None
        value = found[tag]
        elements[BaseTag(tag)] = RawDataElement(BaseTag(tag), vr, len(value), value, 0, vr is None, is_little_endian)
    return Dataset(elements)


def _decoded(value: bytes, character_set: str, *, is_name: bool) -> tuple[str, bool]:
    """Return the text of an encoded value, and whether it is misread."""
    value = value.strip(b" \0")
    if value.isascii() and b"\x1b" not in value:
        return _values(value.decode("ascii")), False
    try:
        decoded, encodings = character_sets.decoded(value, character_set)
    except Exception:  # pydicom may raise anything for an unknown character set
        return _values(value.decode("latin-1")), True
    misread = character_sets.is_misread(decoded, encodings)
    if is_name and not misread:
        misread = character_sets.is_of_another_script(decoded, encodings, is_name=True)
    return _values(decoded), misread


def _values(decoded: str) -> str:
    parts = (part.replace("\0", " ").strip() for part in decoded.split("\\"))
    return "\\".join(part for part in parts if part)


def _identity(values: Mapping[str, tuple[str, bool]]) -> Identity:
    kept = {field: "" if misread and field != "patient_id" else value for field, (value, misread) in values.items()}
    kept["birth_date"] = _NO_DIGIT.sub("", kept["birth_date"])
    return Identity(**kept)
