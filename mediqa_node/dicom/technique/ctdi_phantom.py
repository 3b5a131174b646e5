"""Which phantom CTDIvol refers to: CTDI Phantom Type Code Sequence (0018,9346), or CTDIw Phantom Type of a dose report.

CID 4052 (PS3.16): (113690, DCM) IEC Head Dosimetry Phantom is 16 cm wide, (113691, DCM) IEC Body Dosimetry Phantom
32 cm, (113692, DCM) NEMA XR21-2000 Phantom neither. CTDIvol of one exposure differs by a factor of two between them.
"""

import re

from pydicom import Dataset

from mediqa_node.dicom.header import text

_DIAMETERS_CM = {"113690": 16, "113691": 32}
_NEMA = "113692"
_MEANINGS = {"iec head dosimetry phantom": 16, "iec body dosimetry phantom": 32}
_STATED = re.compile(r"\bIEC\b.*cm\b|cm\b.*\bIEC\b", re.I)
_DIAMETER = re.compile(r"(?<!\d)(16|32)(?!\d)")


def phantom_cm(code: Dataset) -> int | None:
    """Return 16 or 32 for the IEC phantoms by an item of a code sequence, else None."""
    return stated_phantom_cm(text(code, "CodeValue"), text(code, "CodingSchemeDesignator"), text(code, "CodeMeaning"))


def stated_phantom_cm(value: str, scheme: str, meaning: str) -> int | None:
    """Return 16 or 32 for the IEC phantoms, else None.

    The code decides. Without a code of the standard, its meaning must be that of the standard, or name IEC and one
    of the two diameters.
    """
    if scheme in ("DCM", "") and (value in _DIAMETERS_CM or value == _NEMA):
        return _DIAMETERS_CM.get(value)
    known = _MEANINGS.get(" ".join(meaning.lower().split()))
    if known is not None:
        return known
    diameters = set(_DIAMETER.findall(meaning))
    return int(diameters.pop()) if _STATED.search(meaning) and len(diameters) == 1 else None
