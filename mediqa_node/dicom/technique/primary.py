"""The primary stack of a series, to which its label belongs, and the images outside of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from mediqa_node.dicom.header import FrameHeader, frame_headers
from mediqa_node.dicom.stacks.assemble import stacks_of
from mediqa_node.dicom.stacks.planes import Plane
from mediqa_node.domain.images import Stack


@dataclass(frozen=True, slots=True)
class Primary:
    """The primary stack.

    Attributes:
        frames, planes: of the stack, in the order of the headers.
        others: frames that were dropped at a repeated position or are in other stacks.
    """

    stack: Stack
    frames: tuple[FrameHeader, ...]
    planes: tuple[Plane, ...]
    others: tuple[FrameHeader, ...]


def primary_stack(headers: Sequence[Dataset], placed: Sequence[Plane], fine: Sequence[bool]) -> Primary:
    """Return the primary stack of a series.

    A refused image, such as a scout among the slices, counts for nothing.

    Args:
        headers: at least one.
        placed: `planes(headers)`.
        fine: for each header, whether nothing refuses it on its own; true of at least one.
    """
    usable = {_place(plane): plane for plane in placed if fine[plane.ref.instance_index]}
    stack = stacks_of(list(usable.values()), headers)[0]
    in_stack = {(ref.instance_index, ref.frame_number) for ref in stack.frames}
    own: dict[tuple[int, int | None], FrameHeader] = {}
    others: list[FrameHeader] = []
    for index, header in enumerate(headers):
        for frame in frame_headers(header):
            place = (index, frame.frame_number)
            if place in in_stack:
                own[place] = frame
            elif place in usable:
                others.append(frame)
    return Primary(stack, tuple(own.values()), tuple(usable[place] for place in own), tuple(others))


def _place(plane: Plane) -> tuple[int, int | None]:
    return plane.ref.instance_index, plane.ref.frame_number
