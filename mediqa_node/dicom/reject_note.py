"""Key Object Selections that reject images (PS3.3 A.35.4, IHE Image Object Change Management)."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import Dataset

from mediqa_node.dicom.values import items, text

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
REJECT_TITLES = frozenset({"113001", "113037", "113038", "113039"})
"""Rejected for Quality Reasons, for Patient Safety Reasons; Incorrect Worklist Entry; Data Retention Expired."""


@dataclass(frozen=True, slots=True)
class Named:
    """An instance that a document names, and its study."""

    study_instance_uid: str
    sop_instance_uid: str


def rejected_by(document: Dataset) -> tuple[str, tuple[Named, ...]]:
    """Return the title code of a reject note and the instances it rejects; ("", ()) for anything else."""
    if text(document, "SOPClassUID") != KEY_OBJECT_SELECTION:
        return "", ()
    title = next(iter(items(document, "ConceptNameCodeSequence")), Dataset())
    code = text(title, "CodeValue")
    if text(title, "CodingSchemeDesignator") != "DCM" or code not in REJECT_TITLES:
        return "", ()
    return code, tuple(dict.fromkeys(referenced(document)))


def referenced(document: Dataset) -> Iterator[Named]:
    """Yield the instances that a document names as its evidence (0040,A375)."""
    for study in items(document, "CurrentRequestedProcedureEvidenceSequence"):
        for series in items(study, "ReferencedSeriesSequence"):
            for instance in items(series, "ReferencedSOPSequence"):
                if uid := text(instance, "ReferencedSOPInstanceUID"):
                    yield Named(text(study, "StudyInstanceUID"), uid)
