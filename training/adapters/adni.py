"""ADNI: brain MR, with series graded by the Mayo Clinic.

Layout: DICOM as LONI packs it, `ADNI/002_S_0295/MP-RAGE/2006-04-18_08_20_30.0/I13722/*.dcm`, and the tables
`MAYOADIRL_MRI_IMAGEQC_*.csv` (ADNI 1, GO, 2; column loni_image) and `MAYOADIRL_MRI_QUALITY_ADNI3*.csv`. Column
series_quality: 1 is the best, 4 unusable, **smaller is better**; -1 was not rated and is dropped. `MRIQUALITY.csv`,
which passes or fails whole protocols, is not read. Grades apply to a series and all its slices.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from pydicom import Dataset

from training.adapters.contract import Match
from training.adapters.files import here_or_below, number, opinion, table
from training.data.dicom_rows import Left, dicom_row, rows_below
from training.data.manifest import Row

NAME = "adni"
LICENCE = "ADNI Data Use Agreement (LONI IDA): no redistribution"
POLARITY = "series_quality 1 (best) to 4 (unusable), -1 not rated and dropped → (4 - q) / 3"
EXPECTS = "MAYOADIRL_MRI_IMAGEQC_*.csv or MAYOADIRL_MRI_QUALITY_ADNI3*.csv above ADNI/002_S_0295/…/I13722/*.dcm"
_TABLES = ("*MAYOADIRL_MRI_IMAGEQC*.csv", "*MAYOADIRL_MRI_QUALITY_ADNI3*.csv")
_PATIENT = re.compile(r"\d{3}_S_\d{4,5}")
_IMAGE = re.compile(r"(?:^|_)I(\d+)$")
_BEST, _WORST, _NOT_RATED = 1.0, 4.0, -1.0


def probe(root: Path) -> Match | None:
    """Look for a Mayo Clinic table above ADNI patient folders."""
    if not (tables := _tables(root)):
        return None
    found = " and ".join(file.name for file in tables)
    if any(_PATIENT.fullmatch(path.name) for path in root.rglob("*_S_*") if path.is_dir()):
        return Match(root=root, found=found)
    return Match(root=root, found=found, refusal="no folder of a patient, such as 002_S_0295, below: bring the DICOM")


def records(root: Path) -> Iterator[Row | Left]:
    """Yield a row for every graded series with images."""
    grades: dict[str, list[float]] = {}
    for file in _tables(root):
        for row in table(file):
            image, grade = row.get("loni_image", "").lstrip("iI"), number(row.get("series_quality"))
            if grade == _NOT_RATED or grade is None:
                yield Left(reason="not rated (-1 or empty)")
            elif not _BEST <= grade <= _WORST:
                yield Left(reason="series_quality is not 1 to 4")
            elif image:
                grades.setdefault(image, []).append(grade)
    seen: set[str] = set()

    def row_of(paths: Sequence[Path], headers: Sequence[Dataset]) -> Row | Left:
        image, patient = _image(paths[0]), _PATIENT.search(str(paths[0].relative_to(root)))
        if image not in grades or patient is None:
            return Left(reason="series without a grade", missing=True)
        seen.add(image)
        row = dicom_row(paths, headers, patient=patient[0], source="ADNI", licence=LICENCE, region="brain")
        mos = opinion(fmean(grades[image]), worst=_WORST, best=_BEST)
        return replace(row, mos=mos) if isinstance(row, Row) else row

    yield from rows_below(root, row_of)
    yield from (Left(reason="graded series whose images are elsewhere", missing=True) for _ in grades.keys() - seen)


def _image(path: Path) -> str:
    """Return the LONI image number from the folder, else from the end of the file name."""
    for name in (path.parent.name, path.stem):
        if found := _IMAGE.search(name):
            return found[1]
    return ""


def _tables(root: Path) -> list[Path]:
    found = {path for place in here_or_below(root) for pattern in _TABLES for path in place.glob(pattern)}
    return sorted(found)
