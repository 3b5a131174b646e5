"""The b-value of an image: from the standard where it is there, else from the vendors' private elements.

Private elements are resolved by their creator (PS3.5 7.8.1), never by a fixed block number.
"""

import struct
from typing import Any

from pydicom import Dataset

from mediqa_node.dicom.functional_groups import FrameView, number, value_of

GE_FLAG = 1_000_000_000
_PRIVATE = (
    ("SIEMENS MR HEADER", 0x0019, 0x0C),
    ("Philips Imaging DD 001", 0x2001, 0x03),
    ("GEMS_PARM_01", 0x0043, 0x39),
)


def private_value(dataset: Dataset, creator: str, group: int, element: int) -> Any:
    """Return a private element's value found by its creator, or None."""
    try:
        return dataset.private_block(group, creator)[element].value
    except (KeyError, ValueError, TypeError, AttributeError, NotImplementedError, struct.error):
        return None


def b_value(frame: FrameView) -> float | None:
    """Return the diffusion weighting of a frame in s/mm2, or None.

    Diffusion b-value (0018,9087) of MR Diffusion Sequence (0018,9117), per frame, shared or in the root
    (PS3.3 C.8.13.5.9; Canon and Toshiba use it in the root of classic objects), else Siemens (0019,xx0C),
    Philips (2001,xx03), GE (0043,xx39), whose first value may carry a flag of 10^9.
    """
    standard = number(frame.value("MRDiffusionSequence", "DiffusionBValue"))
    if standard is not None:
        return standard
    if value_of(frame.header, "Modality") == "CT":
        return None
    for creator, group, element in _PRIVATE:
        for dataset in frame.datasets():
            found = _private_number(private_value(dataset, creator, group, element))
            if found is not None:
                return found % GE_FLAG if creator == "GEMS_PARM_01" else found
    return None


def _private_number(value: Any) -> float | None:
    """Return the first number of a private value; unknown VR arrives as bytes: text, else a 4-byte float."""
    if isinstance(value, bytes):
        text = number(value.split(b"\\")[0].strip(b" \0").decode("latin-1"))
        return number(struct.unpack("<f", value)[0]) if text is None and len(value) == 4 else text
    if isinstance(value, str):
        return number(value.split("\\")[0])
    try:
        return number(value[0])
    except (TypeError, IndexError):
        return number(value)
