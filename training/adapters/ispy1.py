"""ACRIN-6657/I-SPY1: breast MR under chemotherapy, for stage 1.

Layout: DICOM as TCIA packs it, Patient ID (0010,0020) `ISPY1_1001`, a folder a series. Analysis series are no
acquisitions: PE and SER maps have the Series Number (0020,0011) of their source x 10000 + 1000 or 1001,
segmentations + 2000 or 2001. The protocol was one of 1.5 T: check the label histogram before training on it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset

from mediqa_node.dicom.header import text
from mediqa_node.dicom.part10 import is_part10, read_header
from mediqa_node.domain.errors import UndecodablePixels
from training.adapters.contract import Adapter, Match
from training.adapters.files import number
from training.data.dicom_rows import Left, dicom_row, series_below
from training.data.manifest import Row

LICENCE = "CC BY 3.0 (TCIA, doi 10.7937/K9/TCIA.2016.HDHG1OCK)"
_PATIENT = re.compile(r"^ISPY1_\d{4}$")
_ANALYSES = frozenset({1000, 1001, 2000, 2001})


def probe(root: Path) -> Match | None:
    """Look at the first DICOM file: whose is it?"""
    first = next((path for path in sorted(root.rglob("*")) if path.is_file() and is_part10(path)), None)
    if first is None:
        return None
    try:
        patient = text(read_header(first), "PatientID")
    except UndecodablePixels:
        return None
    return Match(root=root, found="Patient ID ISPY1_…") if _PATIENT.match(patient) else None


def records(root: Path) -> Iterator[Row | Left]:
    """Yield a row for every acquired series."""
    for one in series_below(root):
        if isinstance(one, Left):
            yield one
            continue
        paths, headers = one
        patient = text(headers[0], "PatientID")
        if not _PATIENT.match(patient):
            yield Left(reason="Patient ID is not of I-SPY1")
        elif is_analysis(headers[0]):
            yield Left(reason="PE, SER or segmentation: computed, not acquired")
        else:
            yield dicom_row(paths, headers, patient=patient, source="I-SPY1", licence=LICENCE, region="breast")


def is_analysis(header: Dataset) -> bool:
    """Whether Series Number (0020,0011) is one of a map or segmentation that was computed of another series."""
    series = int(number(text(header, "SeriesNumber")) or 0)
    return series > 10_000 and series % 10_000 in _ANALYSES


ADAPTER = Adapter(
    name="ispy1",
    licence=LICENCE,
    polarity="tesla, as the header has it; nobody judged the images",
    expects="DICOM of TCIA with Patient ID ISPY1_1001, a folder a series",
    probe=probe,
    records=records,
)
