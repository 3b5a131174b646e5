"""fastMRI: clinical brain and knee MR as DICOM, for stage 1: field strength is the only label.

Layout: folders of .dcm below `fastMRI_brain_DICOM` or `knee…`, one folder per patient; the contrast is in Series
Description (0008,103E): AXT1, AXT1PRE, AXT1POST, AXT2, AXFLAIR. The k-space archives (.h5) do not contain the field
strength.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom import Dataset

from mediqa_node.dicom.header import text
from training.adapters.contract import Match
from training.data.dicom_rows import Left, dicom_row, first_header, rows_below
from training.data.manifest import Row

NAME = "fastmri"
LICENCE = "fastMRI data use agreement (NYU): research only, no redistribution"
POLARITY = "tesla, as the header has it; nobody judged the images"
EXPECTS = "fastMRI_brain_DICOM/<patient>/*.dcm with Series Descriptions such as AXT2"
_CONTRAST = re.compile(r"^AX_?(T1|T1PRE|T1POST|T2|FLAIR)\b")


def probe(root: Path) -> Match | None:
    """Look for a fastMRI folder with DICOM below, or for its Series Descriptions."""
    named = "fastmri" in str(root.absolute()).lower() or any("fastmri" in one.name.lower() for one in root.iterdir())
    if (first := first_header(root)) is None:
        raw = named and any(root.rglob("*.h5"))
        why = "k-space (.h5) holds no field strength, so it has no label here; bring the DICOM archives of fastMRI"
        return Match(root=root, found="k-space of fastMRI", refusal=why) if raw else None
    path, header = first
    described = text(header, "SeriesDescription").upper()
    if named or _CONTRAST.match(described):
        return Match(root=root, found=f"DICOM, {described or path.parent.name}")
    return None


def records(root: Path) -> Iterator[Row | Left]:
    """Yield a row for every series."""
    return rows_below(root, _row)


def _row(paths: Sequence[Path], headers: Sequence[Dataset]) -> Row | Left:
    region = "extremity" if "knee" in str(paths[0]).lower() else "brain"
    patient = text(headers[0], "PatientID") or paths[0].parent.name
    return dicom_row(paths, headers, patient=patient, source="fastMRI", licence=LICENCE, region=region)
