"""fastMRI: clinical brain and knee MR as DICOM, for stage 1: field strength is its only label.

Layout: folders of .dcm below `fastMRI_brain_DICOM` or `knee…`, one folder a patient; contrast stands in Series
Description (0008,103E): AXT1, AXT1PRE, AXT1POST, AXT2, AXFLAIR. The k-space archives (.h5) hold no field strength.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mediqa_node.dicom.header import text
from mediqa_node.dicom.part10 import is_part10, read_header
from mediqa_node.domain.errors import UndecodablePixels
from training.adapters.contract import Adapter, Match
from training.data.dicom_rows import Left, dicom_row, series_below
from training.data.manifest import Row

LICENCE = "fastMRI data use agreement (NYU): research only, no redistribution"
_CONTRAST = re.compile(r"^AX_?(T1|T1PRE|T1POST|T2|FLAIR)\b")


def probe(root: Path) -> Match | None:
    """Look for a folder of its name with DICOM below, or for Series Descriptions of its kind."""
    first = next((path for path in sorted(root.rglob("*")) if path.is_file() and is_part10(path)), None)
    named = "fastmri" in str(root.absolute()).lower() or any("fastmri" in one.name.lower() for one in root.iterdir())
    if first is None:
        raw = named and any(root.rglob("*.h5"))
        why = "k-space (.h5) holds no field strength, so it has no label here; bring fastMRI's DICOM archives"
        return Match(root=root, found="k-space of fastMRI", refusal=why) if raw else None
    try:
        described = text(read_header(first), "SeriesDescription").upper()
    except UndecodablePixels:
        return None
    if named or _CONTRAST.match(described):
        return Match(root=root, found=f"DICOM, {described or first.parent.name}")
    return None


def records(root: Path) -> Iterator[Row | Left]:
    """Yield a row a series."""
    for one in series_below(root):
        if isinstance(one, Left):
            yield one
            continue
        paths, headers = one
        knee = "knee" in str(paths[0]).lower()
        patient = text(headers[0], "PatientID") or paths[0].parent.name
        yield dicom_row(
            paths, headers, patient=patient, source="fastMRI", licence=LICENCE, region="extremity" if knee else "brain"
        )


ADAPTER = Adapter(
    name="fastmri",
    licence=LICENCE,
    polarity="tesla, as the header has it; nobody judged the images",
    expects="fastMRI_brain_DICOM/<patient>/*.dcm with Series Descriptions such as AXT2",
    probe=probe,
    records=records,
)
