"""Read one value for one frame, whatever the object: per-frame groups, then shared groups, then the root.

PS3.3 C.7.6.16 (Multi-frame Functional Groups) and C.7.6.16.2.26/27 (the unassigned groups of Legacy
Converted objects). A value that cannot be read counts as absent: junk in a header costs a flag, never
the series.
"""

import math
import struct
from functools import cache
from typing import Any

from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

_JUNK = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, NotImplementedError, struct.error)
MAX_FRAMES = 20_000
_SINGLE_FRAME = frozenset({"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"})
"""CT and MR Image Storage: a Number of Frames (0028,0008) in them means nothing."""
_CONVERTED = ("UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence")


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Return the value of `keyword`, or None where it is absent, empty or unreadable."""
    tag = _tag(keyword)
    if tag not in dataset:  # most are absent, and asking for them by name is slow
        return None
    try:
        value = dataset[tag].value
    except _JUNK:
        return None
    return None if value is None or value == "" else value


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Return exactly `count` finite floats, or None."""
    try:
        found = tuple(float(number) for number in ([value] if isinstance(value, str) or count == 1 else value))
    except _JUNK:
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def number(value: Any) -> float | None:
    """Return a finite float, or None."""
    found = numbers(value, 1)
    return found[0] if found else None


def integer(value: Any) -> int | None:
    """Return the whole part of a finite number, or None."""
    found = number(value)
    return None if found is None else int(found)


def words(value: Any) -> tuple[str, ...]:
    """Return a multi-valued code string such as Image Type (0008,0008) as stripped upper-case words."""
    values = [value] if isinstance(value, str) else list(value or ())
    return tuple(str(word).strip().upper() for word in values)


def items_of(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence, or [] where it is absent or no sequence."""
    value = value_of(dataset, keyword)
    return list(value) if isinstance(value, Sequence) else []


def first_item(dataset: Dataset, keyword: str) -> Dataset | None:
    """Return the first item of a sequence, or None."""
    return next(iter(items_of(dataset, keyword)), None)


class FrameView:
    """One frame of a header: answers `value(group, keyword)`.

    Args:
        header: of a single-frame or multi-frame object, without pixels.
        frame_number: from 1; None for a single-frame object.
    """

    def __init__(self, header: Dataset, frame_number: int | None) -> None:
        self.header = header
        self.frame_number = frame_number
        self._layers = [*self._groups(), header]

    def _groups(self) -> list[Dataset]:
        index = (self.frame_number or 1) - 1
        own = items_of(self.header, "PerFrameFunctionalGroupsSequence")[index : index + 1]
        return own + items_of(self.header, "SharedFunctionalGroupsSequence")[:1]

    def value(self, group: str, keyword: str) -> Any:
        """Return `keyword` of functional group `group` (a sequence keyword), or of the root, or None."""
        for layer in self._layers:
            for holder in (first_item(layer, group), *(first_item(layer, name) for name in _CONVERTED)):
                if holder is not None and (value := value_of(holder, keyword)) is not None:
                    return value
        return value_of(self.header, keyword)

    def datasets(self) -> list[Dataset]:
        """Return every dataset that may hold a private element of this frame, the most specific first."""
        converted = [first_item(layer, name) for layer in self._layers for name in _CONVERTED]
        return [dataset for dataset in (*converted, *self._layers) if dataset is not None]


def frame_count(header: Dataset, *, limit: int = MAX_FRAMES) -> int | None:
    """Return how many frames a multi-frame object has; None for a single-frame object, by its class or its header.

    Never more than Per-frame Functional Groups (5200,9230) describes, where it is present, and never
    more than `limit`: Number of Frames (0028,0008) is a claim of the sender.
    """
    per_frame = items_of(header, "PerFrameFunctionalGroupsSequence")
    if not per_frame and str(value_of(header, "SOPClassUID") or "") in _SINGLE_FRAME:
        return None
    claimed = integer(value_of(header, "NumberOfFrames"))
    if per_frame:
        return min(len(per_frame), claimed or len(per_frame), limit)
    if claimed is None or (claimed <= 1 and "SharedFunctionalGroupsSequence" not in header):
        return None
    return max(1, min(claimed, limit))
