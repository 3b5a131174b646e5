"""Content items of a Structured Report (PS3.3 C.17.3), one function per value type."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE
from pydicom.tag import Tag

from mediqa_node.dicom.report.codes import DERIVATION, ESTIMATED, Code
from mediqa_node.domain.images import FrameRef

_LONGEST_CODE = 16
_UNSHOWN = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ufffd]")
"""Control characters other than those of a UT (PS3.5 6.1.3), and what stands for bytes that could not be decoded."""


def coded(code: Code) -> Dataset:
    """Return the item of a code sequence (PS3.3 table 8.8-1); a value of more than 16 characters is a long one."""
    item = Dataset()
    setattr(item, "CodeValue" if len(code.value) <= _LONGEST_CODE else "LongCodeValue", code.value)
    item.CodingSchemeDesignator = code.scheme
    item.CodeMeaning = code.meaning
    return item


def put_uid(dataset: Dataset, keyword: str, uid: str) -> None:
    """Set a UI element to a UID that exists elsewhere, even one against PS3.5 section 9 (leading zeros occur)."""
    dataset.add(DataElement(Tag(keyword), "UI", uid, validation_mode=IGNORE))


def container(
    concept: Code, children: Iterable[Dataset], *, relationship: str | None = "CONTAINS", template: str = ""
) -> Dataset:
    """Return a CONTAINER of separate items; the root has no relationship."""
    item = _item("CONTAINER", relationship, concept)
    item.ContinuityOfContent = "SEPARATE"
    if template:
        identification = Dataset()
        identification.MappingResource = "DCMR"
        identification.TemplateIdentifier = template
        item.ContentTemplateSequence = [identification]
    if content := list(children):
        item.ContentSequence = content
    return item


def code_item(relationship: str, concept: Code, value: Code) -> Dataset:
    """Return a CODE."""
    item = _item("CODE", relationship, concept)
    item.ConceptCodeSequence = [coded(value)]
    return item


def text_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a TEXT; what no display can show, such as an escape in the name of a kernel, is a question mark."""
    item = _item("TEXT", relationship, concept)
    item.TextValue = _UNSHOWN.sub("?", value)
    return item


def uid_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a UIDREF."""
    item = _item("UIDREF", relationship, concept)
    put_uid(item, "UID", value)
    return item


def date_item(relationship: str, concept: Code, value: str) -> Dataset:
    """Return a DATE, YYYYMMDD."""
    item = _item("DATE", relationship, concept)
    item.Date = value
    return item


def number_item(
    relationship: str, concept: Code, value: str, unit: Code, *, exact: float | None = None, estimated: bool = False
) -> Dataset:
    """Return a NUM.

    Args:
        value: Numeric Value (0040,A30A), a decimal string of at most 16 characters (VR DS).
        exact: Floating Point Value (0040,A161), for a value that no 16 characters hold (PS3.3 C.18.1); None: none.
        estimated: add Derivation = Estimated. Viewers read a group's NUM by its first child and
            fail on one without.
    """
    item = _item("NUM", relationship, concept)
    measured = Dataset()
    measured.NumericValue = value
    if exact is not None:
        measured.FloatingPointValue = exact
    measured.MeasurementUnitsCodeSequence = [coded(unit)]
    item.MeasuredValueSequence = [measured]
    if estimated:
        item.ContentSequence = [code_item("HAS CONCEPT MOD", DERIVATION, ESTIMATED)]
    return item


def image_items(concept: Code, frames: Sequence[FrameRef]) -> list[Dataset]:
    """Return one IMAGE per instance, in order of first mention, with its referenced frames if it is multi-frame."""
    by_instance: dict[tuple[str, str], list[int]] = {}
    for frame in frames:
        numbers = by_instance.setdefault((frame.sop_class_uid, frame.sop_instance_uid), [])
        if frame.frame_number is not None:
            numbers.append(frame.frame_number)
    items = []
    for (sop_class, sop_instance), numbers in by_instance.items():
        reference = sop_reference(sop_class, sop_instance)
        if numbers:
            reference.ReferencedFrameNumber = sorted(numbers)
        item = _item("IMAGE", "CONTAINS", concept)
        item.ReferencedSOPSequence = [reference]
        items.append(item)
    return items


def reference_item(instance: Dataset) -> Dataset:
    """Return an item of a Key Object Selection (TID 2010): IMAGE, or COMPOSITE for what has no pixels."""
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "IMAGE" if "Rows" in instance else "COMPOSITE"
    item.ReferencedSOPSequence = [sop_reference(str(instance.SOPClassUID), str(instance.SOPInstanceUID))]
    return item


def sop_reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Return an item of the SOP Instance Reference macro (PS3.3 table 10-11)."""
    reference = Dataset()
    put_uid(reference, "ReferencedSOPClassUID", sop_class_uid)
    put_uid(reference, "ReferencedSOPInstanceUID", sop_instance_uid)
    return reference


def decimal(value: float | Decimal, places: int) -> str:
    """Return a fixed-point decimal without trailing zeros, e.g. 73.45; 16 characters hold 0..100 at 12 places."""
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _item(value_type: str, relationship: str | None, concept: Code) -> Dataset:
    item = Dataset()
    if relationship:
        item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [coded(concept)]
    return item
