"""Two copies of one SOP Instance UID: the same image, a corrected header, or another image?

Never a report under the wrong patient, never a second score for the same pixels.
"""

import hashlib
from enum import StrEnum
from pathlib import Path

import pydicom
from pydicom import Dataset

from mediqa_node.decode.reader import FrameReader
from mediqa_node.domain.errors import UndecodablePixels

_IDENTITY = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "StudyInstanceUID", "SeriesInstanceUID", "StudyID", "StudyDate", "StudyDescription", "SeriesDescription",
)  # fmt: skip
_GEOMETRY = (
    "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "RescaleSlope", "RescaleIntercept", "PixelRepresentation",
)  # fmt: skip


class Relation(StrEnum):
    """How a further copy of an instance relates to the current one."""

    SAME = "same"
    CORRECTION = "correction"
    CONFLICT = "conflict"


def compare(current: Path, candidate: Path) -> Relation:
    """Compare two spooled copies by decoded pixels, geometry and identity.

    Only a transfer syntax or what an archive coerces on its way differs: SAME. Patient, study or
    descriptions differ: CORRECTION. Pixels or geometry differ, or cannot be compared: CONFLICT.
    """
    one, other = (pydicom.dcmread(path, stop_before_pixels=True) for path in (current, candidate))
    if _values(one, _GEOMETRY) != _values(other, _GEOMETRY):
        return Relation.CONFLICT
    if _pixel_digest(current, one) != _pixel_digest(candidate, other):
        return Relation.CONFLICT
    same = _values(one, _IDENTITY) == _values(other, _IDENTITY)
    return Relation.SAME if same else Relation.CORRECTION


def identity_digest(header: Dataset) -> str:
    """Return a digest of what identifies patient and study; it changes with a demographic correction."""
    return hashlib.sha256("\0".join(_values(header, _IDENTITY)).encode()).hexdigest()


def patients(headers: tuple[Dataset, ...]) -> set[tuple[str, ...]]:
    """Return the distinct patients that a series' headers name: ID, issuer, name."""
    return {_values(header, _IDENTITY[:3]) for header in headers}


def _values(header: Dataset, keywords: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(header.get(keyword, "") or "").strip().rstrip("^=") for keyword in keywords)


def _pixel_digest(path: Path, header: Dataset) -> str:
    """Return a digest over all decoded frames, or over the stored bytes where nothing decodes."""
    digest = hashlib.sha256()
    frames = int(header.get("NumberOfFrames", 0) or 0)
    try:
        with FrameReader() as reader:
            for number in range(1, frames + 1) if frames else [None]:
                digest.update(reader.raw(path, number).tobytes())
    except UndecodablePixels:
        whole = pydicom.dcmread(path)
        digest.update(whole.get("PixelData", b"") or b"")
    return digest.hexdigest()
