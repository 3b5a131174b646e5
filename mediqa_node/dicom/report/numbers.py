"""Read the numbers of a report back from its content tree, by measurement group and concept name."""

import re
from collections.abc import Iterator

from pydicom import Dataset

from mediqa_node.dicom.report import codes

_LAYOUT = re.compile(r"\blayout=(\S+)")

Numbers = dict[tuple[str, str], float]
"""By tracking identifier of the measurement group (`IQA series`, `IQA slice 3/7`) and meaning of the concept."""


def numbers(report: Dataset) -> Numbers:
    """Return every NUM of every measurement group of a report, or of its content tree alone (TID 1500, TID 1501)."""
    found: Numbers = {}
    for group in _groups(report):
        items = group.get("ContentSequence", ())
        label = next((item.TextValue for item in items if _concept(item) == codes.TRACKING_ID.value), "")
        for item in items:
            if item.ValueType == "NUM" and item.get("MeasuredValueSequence"):
                meaning = str(item.ConceptNameCodeSequence[0].CodeMeaning)
                found[label, meaning] = _exact(item.MeasuredValueSequence[0])
    return found


def layout_of(report: Dataset) -> str:
    """Return the layout that a report was built in, as its Algorithm Parameters name it; "" if they do not."""
    for group in _groups(report):
        for item in group.get("ContentSequence", ()):
            if _concept(item) == codes.ALGORITHM_PARAMETERS.value and (found := _LAYOUT.search(item.TextValue)):
                return str(found[1])
    return ""


def _exact(measured: Dataset) -> float:
    """Return Floating Point Value (0040,A161), or Numeric Value (0040,A30A) of reports of an earlier layout."""
    exact = measured.get("FloatingPointValue")
    return float(measured.NumericValue if exact is None else exact)


def _groups(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        if _concept(child) == codes.GROUP.value:
            yield child
        elif child.ValueType == "CONTAINER":
            yield from _groups(child)


def _concept(item: Dataset) -> str:
    sequence = item.get("ConceptNameCodeSequence")
    return str(sequence[0].CodeValue) if sequence else ""
