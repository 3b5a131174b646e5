"""The largest cost allowed for decoding one frame."""

from dataclasses import dataclass

from mediqa_node.dicom.part10 import MAX_INFLATED_BYTES

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """Budgets of one frame. A frame that exceeds one of them is undecodable; other frames are unaffected.

    Attributes:
        frame_bytes: rows x columns x samples x bytes, as the header claims, before anything is decoded.
        inflated_bytes: of a deflated dataset.
        working_bytes, working_factor: address space that the child may add to what it starts with: `working_bytes` +
            `working_factor` x the frame's bytes. A codestream larger than its header claims hits this limit.
        cpu_s: processor time of the child per frame.
        wall_s: until the answer has arrived, the start of the child included.
    """

    frame_bytes: int = 256 * MIB
    inflated_bytes: int = MAX_INFLATED_BYTES
    working_bytes: int = 192 * MIB
    working_factor: int = 12
    cpu_s: float = 20.0
    wall_s: float = 60.0
