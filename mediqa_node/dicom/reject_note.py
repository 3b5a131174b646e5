"""Key Object Selections that reject images (PS3.3 A.35.4, IHE Image Object Change Management)."""

from collections.abc import Iterator

from pydicom import Dataset

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
REJECT_TITLES = frozenset({"113001", "113037", "113038", "113039"})
"""Rejected for Quality Reasons, for Patient Safety Reasons; Incorrect Worklist Entry; Data Retention Expired."""


def rejected_by(document: Dataset) -> tuple[str, tuple[str, ...]]:
    """Return the title code of a reject note and the SOP Instance UIDs it rejects; ("", ()) for anything else."""
    if document.get("SOPClassUID") != KEY_OBJECT_SELECTION:
        return "", ()
    title = next(iter(document.get("ConceptNameCodeSequence", None) or []), Dataset())
    code = str(title.get("CodeValue", ""))
    if title.get("CodingSchemeDesignator") != "DCM" or code not in REJECT_TITLES:
        return "", ()
    return code, tuple(dict.fromkeys(_referenced(document)))


def _referenced(document: Dataset) -> Iterator[str]:
    for study in document.get("CurrentRequestedProcedureEvidenceSequence", None) or []:
        for series in study.get("ReferencedSeriesSequence", None) or []:
            for instance in series.get("ReferencedSOPSequence", None) or []:
                uid = str(instance.get("ReferencedSOPInstanceUID", "") or "")
                if uid:
                    yield uid
