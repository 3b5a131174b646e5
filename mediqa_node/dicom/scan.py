"""Validate an encoded dataset in one bounded pass, before anything else uses it.

Walks every element without recursion and without building a Dataset: finds the few values that the receiver needs, and
verifies all lengths, also inside nested sequences and encapsulated pixel data, so that a truncated instance is refused
while its sender still has it. Memory stays at a few pages whatever the size: pixels are stepped over, a deflated
dataset is inflated in passing.

Foreign encodings are read as pydicom reads them, so that an image is stored if it can be read later, and under the
identity that its header then has: implicit elements in an explicit dataset, unknown value representations, sequences
that cannot be read but whose length is known.
PS3.5 section 7 (data set encoding), A.4 (encapsulated pixel data), A.5 (deflated).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pydicom.datadict import dictionary_VR
from pydicom.uid import UID

from mediqa_node.dicom import scan_pixels
from mediqa_node.dicom.identity import identity_of_elements
from mediqa_node.dicom.part10 import Encoded, Inflated
from mediqa_node.dicom.scan_budget import CpuBudget
from mediqa_node.dicom.scan_pixels import check_pixels
from mediqa_node.dicom.scan_walk import (
    EXPLICIT_BIG,
    IDENTIFYING,
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    UIDS,
    Walk,
)
from mediqa_node.domain.errors import InvalidInstance
from mediqa_node.domain.identity import Identity
from mediqa_node.domain.uid import is_uid

DEFLATED = "1.2.840.10008.1.2.1.99"

MODALITY = 0x00080060
SERIES_NUMBER = 0x00200011

_WANTED = {
    tag: dictionary_VR(tag).encode() for tag in scan_pixels.WANTED | IDENTIFYING | UIDS | {MODALITY, SERIES_NUMBER}
}
"""The elements whose values are kept, and their value representations."""
_MODALITY = re.compile(r"[A-Z0-9_ ]{1,16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedHeader:
    """The attributes of a dataset that the receiver needs.

    Attributes:
        elements: encoded values by tag: those that it needs, and the further ones that were asked for.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    has_pixels: bool
    series_number: int | None = None
    identity: Identity = Identity()
    elements: Mapping[int, bytes] = field(default_factory=dict, compare=False)


def scan(
    dataset: Encoded,
    transfer_syntax_uid: str,
    *,
    inflate_limit_bytes: int = 256 * 1024**2,
    further: frozenset[int] = frozenset(),
) -> ScannedHeader:
    """Check an encoded dataset (without file meta) and return its header.

    Args:
        dataset: the bytes as received: a memoryview, or anything that can be sliced like one.
        transfer_syntax_uid: negotiated for its presentation context.
        inflate_limit_bytes: a deflated dataset larger than this is refused.
        further: tags of the top level whose encoded values are wanted too, up to 512 bytes of each.

    Raises:
        InvalidInstance: empty, truncated, nested too deeply, without the UIDs that identify it, or too costly to check.
    """
    if not len(dataset):
        raise InvalidInstance("empty dataset", offending=SOP_INSTANCE_UID)
    with CpuBudget(len(dataset)) as budget:
        if transfer_syntax_uid == DEFLATED:
            dataset = Inflated(dataset, inflate_limit_bytes, budget.check)
        walk = Walk(dataset, transfer_syntax_uid, budget.check, _wanted(further) if further else _WANTED)
        found = walk.run()
    header = ScannedHeader(
        sop_class_uid=_uid(found, SOP_CLASS_UID, "SOP Class UID"),
        sop_instance_uid=_uid(found, SOP_INSTANCE_UID, "SOP Instance UID"),
        study_instance_uid=_uid(found, STUDY_INSTANCE_UID, "Study Instance UID"),
        series_instance_uid=_uid(found, SERIES_INSTANCE_UID, "Series Instance UID"),
        modality=_modality(found),
        series_number=_integer(found.get(SERIES_NUMBER, b"")),
        has_pixels=walk.pixels is not None,
        identity=identity_of_elements(found, walk.odd_vrs, is_little_endian=transfer_syntax_uid != EXPLICIT_BIG),
        elements=found,
    )
    is_image = _is_image_class(header.sop_class_uid)
    check_pixels(found, walk.pixels, transfer_syntax_uid, is_image=is_image, u16=walk.u16)
    return header


@lru_cache(maxsize=8)
def _wanted(further: frozenset[int]) -> dict[int, bytes]:
    return {**{tag: dictionary_VR(tag).encode() for tag in further}, **_WANTED}


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
