"""Two copies of one SOP Instance UID: the same image, a corrected header, or another image?

Never a report under the wrong patient, never a second score for the same pixels.
"""

import hashlib
from enum import StrEnum
from pathlib import Path

from pydicom import Dataset

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.header import integer, items, text
from mediqa_node.dicom.part10 import read_header
from mediqa_node.domain.errors import UndecodablePixels

_IDENTITY = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "StudyInstanceUID", "SeriesInstanceUID", "StudyID", "StudyDate", "StudyDescription", "SeriesDescription",
)  # fmt: skip
_WHOSE = ("PatientID", "IssuerOfPatientID", "PatientName", "AccessionNumber", "StudyInstanceUID")
_GEOMETRY = (
    "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "RescaleSlope", "RescaleIntercept", "PixelRepresentation",
)  # fmt: skip
_DOCUMENT = ("ConceptNameCodeSequence", "ContentSequence", "CurrentRequestedProcedureEvidenceSequence")


class Relation(StrEnum):
    """How a further copy of an instance relates to the current one. A DISPUTED copy is kept but not used."""

    SAME = "same"
    CORRECTION = "correction"
    DISPUTED = "disputed"
    CONFLICT = "conflict"


def compare(current: Path, candidate: Path) -> Relation:
    """Compare two spooled copies by decoded pixels, geometry and identity.

    Only a transfer syntax or what an archive coerces on its way differs: SAME. Patient, study or
    descriptions differ: CORRECTION. Pixels, geometry or the content of a document differ, or cannot be
    compared: CONFLICT.

    Raises:
        UndecodablePixels: a header cannot be read.
        OSError: a file cannot be opened.
    """
    one, other = (read_header(path) for path in (current, candidate))
    if _values(one, _GEOMETRY + _DOCUMENT) != _values(other, _GEOMETRY + _DOCUMENT):
        return Relation.CONFLICT
    if _pixel_digest(current, one) != _pixel_digest(candidate, other):
        return Relation.CONFLICT
    same = _values(one, _IDENTITY) == _values(other, _IDENTITY)
    return Relation.SAME if same else Relation.CORRECTION


def patients(headers: tuple[Dataset, ...]) -> set[tuple[str, ...]]:
    """Return the distinct patients and visits that a series' headers name: ID, issuer, name, accession, study."""
    return {_values(header, _WHOSE) for header in headers}


def _values(header: Dataset, keywords: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_value(header, keyword).rstrip("^=") for keyword in keywords)


def _value(header: Dataset, keyword: str) -> str:
    return "\n".join(map(str, items(header, keyword))) or text(header, keyword)


def _pixel_digest(path: Path, header: Dataset) -> str:
    """Return a digest over all decoded frames, or over the whole file where an image does not decode."""
    digest = hashlib.sha256()
    if "Rows" not in header:
        return ""
    frames = integer(header, "NumberOfFrames") or 0
    try:
        with FrameReader() as reader:
            for number in range(1, frames + 1) if frames else [None]:
                digest.update(reader.raw(path, number).tobytes())
    except UndecodablePixels:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    return digest.hexdigest()
