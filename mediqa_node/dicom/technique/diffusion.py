"""The b-value of an image: from the standard attribute if present, else from the vendors' private elements.

Private elements are resolved by their creator (PS3.5 7.8.1), never by a fixed block number.
"""

from mediqa_node.dicom.header import FrameHeader

GE_FLAG = 1_000_000_000
_PRIVATE = (
    ("SIEMENS MR HEADER", 0x0019, 0x0C),
    ("Philips Imaging DD 001", 0x2001, 0x03),
    ("GEMS_PARM_01", 0x0043, 0x39),
)


def b_value(frame: FrameHeader) -> float | None:
    """Return the diffusion weighting of a frame in s/mm2, or None.

    Diffusion b-value (0018,9087) of MR Diffusion Sequence (0018,9117), per frame, shared or at the top level
    (PS3.3 C.8.13.5.9; Canon and Toshiba write it there in classic objects), else Siemens (0019,xx0C),
    Philips (2001,xx03), GE (0043,xx39), which may add a flag of 10^9 to the first value.
    """
    standard = frame.number("DiffusionBValue", signed=True)
    if standard is not None:
        return standard
    if frame.codes("Modality") == ("CT",):
        return None
    for creator, group, element in _PRIVATE:
        for found in frame.private_numbers(group, creator, element)[:1]:
            return found % GE_FLAG if creator == "GEMS_PARM_01" else found
    return None
