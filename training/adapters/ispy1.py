"""ACRIN-6657/I-SPY1: breast MR during chemotherapy, for stage 1.

Layout: DICOM as TCIA packs it, Patient ID (0010,0020) `ISPY1_1001`, one folder per series. Analysis series are not
acquired images: PE and SER maps have the Series Number (0020,0011) of their source x 10000 + 1000 or 1001,
segmentations + 2000 or 2001. The protocol was at 1.5 T: check the label histogram before training on it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom import Dataset

from mediqa_node.dicom.header import text
from training.adapters.contract import Match
from training.adapters.files import number
from training.data.dicom_rows import Left, dicom_row, first_header, rows_below
from training.data.manifest import Row

NAME = "ispy1"
LICENCE = "CC BY 3.0 (TCIA, doi 10.7937/K9/TCIA.2016.HDHG1OCK)"
POLARITY = "tesla, as the header has it; nobody judged the images"
EXPECTS = "DICOM of TCIA with Patient ID ISPY1_1001, a folder a series"
_PATIENT = re.compile(r"^ISPY1_\d{4}$")
_ANALYSES = frozenset({1000, 1001, 2000, 2001})


def probe(root: Path) -> Match | None:
    """Look at the Patient ID of the first DICOM file."""
    first = first_header(root)
    known = first is not None and _PATIENT.match(text(first[1], "PatientID"))
    return Match(root=root, found="Patient ID ISPY1_…") if known else None


def records(root: Path) -> Iterator[Row | Left]:
    """Yield a row for every acquired series."""
    return rows_below(root, _row)


def _row(paths: Sequence[Path], headers: Sequence[Dataset]) -> Row | Left:
    patient = text(headers[0], "PatientID")
    if not _PATIENT.match(patient):
        return Left(reason="Patient ID is not of I-SPY1")
    if is_analysis(headers[0]):
        return Left(reason="PE, SER or segmentation: computed, not acquired")
    return dicom_row(paths, headers, patient=patient, source="I-SPY1", licence=LICENCE, region="breast")


def is_analysis(header: Dataset) -> bool:
    """Whether Series Number (0020,0011) belongs to a map or segmentation computed from another series."""
    series = int(number(text(header, "SeriesNumber")) or 0)
    return series > 10_000 and series % 10_000 in _ANALYSES
