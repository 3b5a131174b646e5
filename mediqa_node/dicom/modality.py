"""The modality of an image by its SOP class, which decides; Modality (0008,0060) counts only without one."""

import re

from pydicom import Dataset

from mediqa_node.dicom.values import text

_STORAGE = r"^1\.2\.840\.10008\.5\.1\.4\.1\.1\."
_SCORED = {
    "CT": re.compile(_STORAGE + r"2(\.1|\.2)?$"),
    "MR": re.compile(_STORAGE + r"4(\.1|\.3|\.4)?$"),
    "OP": re.compile(_STORAGE + r"77\.1\.5\.[1256]$"),
}


def modality_of(ds: Dataset) -> str:
    """Return `CT`, `MR`, `OP` or "" from SOP Class UID (0008,0016), or from Modality (0008,0060) without it."""
    sop_class = text(ds, "SOPClassUID")
    if not sop_class:
        modality = text(ds, "Modality").upper()
        return modality if modality in _SCORED else ""
    return next((modality for modality, pattern in _SCORED.items() if pattern.match(sop_class)), "")
