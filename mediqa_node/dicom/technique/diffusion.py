"""The b-value of an image: from the standard attribute if present, else from the vendors' private elements.

Private elements are resolved by their creator (PS3.5 7.8.1), never by a fixed block number.
"""

import re

from mediqa_node.dicom.header import FrameHeader
from mediqa_node.dicom.modality import modality_of
from mediqa_node.dicom.vendor_elements import B_VALUES

GE_FLAG = 1_000_000_000
_SIEMENS_SEQUENCE = re.compile(r"\*?ep_b(\d{1,5})(?![\d.])")
"""Sequence Name (0018,0024) of syngo MR: `*ep_b0`, `*ep_b1000t`, `ep_b700#12`."""


def b_value(frame: FrameHeader) -> float | None:
    """Return the diffusion weighting of a frame in s/mm2, or None.

    Diffusion b-value (0018,9087) of MR Diffusion Sequence (0018,9117), per frame, shared or at the top level
    (PS3.3 C.8.13.5.9; Canon and Toshiba write it there in classic objects), else what vendors
    write (`vendor_elements.B_VALUES`); GE may add a flag of 10^9 to the first value. Where private elements were taken
    away, the name of a Siemens sequence has it.
    """
    standard = frame.number("DiffusionBValue", signed=True)
    if standard is not None:
        return standard
    if modality_of(frame.dataset) == "CT":
        return None
    for private in B_VALUES:
        for found in frame.private_numbers(private.group, private.creator, private.element)[:1]:
            return found % GE_FLAG if private.creator == "GEMS_PARM_01" else found
    named = _SIEMENS_SEQUENCE.match(frame.text("SequenceName"))
    return float(named[1]) if named else None
