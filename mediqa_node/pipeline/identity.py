"""Two copies of one SOP Instance UID: the same image, a corrected header, or another image?

Never a report under the wrong patient, never a second score for the same pixels.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.header import integer, items, text
from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import read_header
from mediqa_node.domain.errors import MediqaError, UndecodablePixels
from mediqa_node.domain.identity import Identity, differences, disagreements
from mediqa_node.storage.index import InstanceRow
from mediqa_node.storage.spool import Spool

_DESCRIPTIONS = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyDescription", "SeriesDescription",
)  # fmt: skip
_GEOMETRY = (
    "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "RescaleSlope", "RescaleIntercept", "PixelRepresentation",
)  # fmt: skip
_COERCED = frozenset(map(tag_for_keyword, (
    "SpecificCharacterSet", "InstanceCoercionDateTime", "StudyDate", "StudyTime", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "InstitutionName", "InstitutionAddress", "ReferringPhysicianName",
    "TimezoneOffsetFromUTC", "StudyDescription", "SeriesDescription", "ReferencedStudySequence",
    "ReferencedPatientSequence", "StudyInstanceUID", "StudyID", "RequestAttributesSequence",
    "ReferencedRequestSequence", "OriginalAttributesSequence",
)))  # fmt: skip
"""What an archive may change without changing the document; besides the patient group and private elements."""
_PATIENT_GROUP = 0x0010


class Relation(StrEnum):
    """How a further copy of an instance relates to the current one."""

    SAME = "same"
    DESCRIPTION = "description"
    CORRECTION = "correction"
    CONFLICT = "conflict"


class Interrupted(MediqaError):
    """The process stops: the comparison is made again by the next one."""

    retryable = True


def compare(
    current: InstanceRow,
    candidate: InstanceRow,
    spool: Spool,
    reader: FrameReader,
    stopping: Callable[[], bool] = lambda: False,
) -> Relation:
    """Compare two copies of an instance by content and identity.

    Only a transfer syntax or what an archive fills in differs: SAME. Patient, study or accession differ: CORRECTION;
    only how they are described: DESCRIPTION. Pixels, geometry or the content of a document differ, or cannot be
    compared: CONFLICT. A current copy whose file was deleted after retention is compared by what was kept of it.

    Raises:
        UndecodablePixels: a header cannot be read.
        Interrupted: the process stops.
        OSError: a file cannot be opened.
    """
    if current.series_instance_uid != candidate.series_instance_uid:
        return Relation.CONFLICT
    other = read_header(spool.path(candidate.path))
    gone = current.purged_at is not None
    one = None if gone else read_header(spool.path(current.path))
    ours = current.identity or (identity_of(one) if one is not None else Identity())
    if not _same_content(current, candidate, spool, reader, stopping):
        return Relation.CONFLICT
    if differences(ours, candidate.identity or identity_of(other)):
        return Relation.CORRECTION
    if one is None or _values(one, _DESCRIPTIONS) == _values(other, _DESCRIPTIONS):
        return Relation.SAME
    return Relation.DESCRIPTION


def identities(headers: Iterable[Dataset]) -> tuple[str, ...]:
    """Return in words what tells the patients, studies or visits of a series' images apart; () if nothing does."""
    return disagreements(map(identity_of, headers))


def _same_content(
    current: InstanceRow, candidate: InstanceRow, spool: Spool, reader: FrameReader, stopping: Callable[[], bool]
) -> bool:
    known = current.content_digest
    if known is None and current.purged_at is None:
        known = content_digest(spool.path(current.path), reader, stopping)
    return known is not None and known == content_digest(spool.path(candidate.path), reader, stopping)


def content_digest(path: Path, reader: FrameReader, stopping: Callable[[], bool] = lambda: False) -> str:
    """Return a digest over what makes an instance what it is, whatever patient it names and however it is coded.

    Of an image: geometry and decoded frames. Of anything else, and of an image of one value, which looks like any
    other: all its elements but those that an archive may change. An image that cannot be decoded: the whole file.

    Raises:
        UndecodablePixels: the header cannot be read.
        OSError: the file cannot be opened.
    """
    header = read_header(path)
    digest = hashlib.sha256(repr(_values(header, _GEOMETRY)).encode())
    if "Rows" not in header or not _add_frames(digest, path, header, reader, stopping):
        for part in _content(header):
            digest.update(part)
    return digest.hexdigest()


def _add_frames(
    digest: "hashlib._Hash", path: Path, header: Dataset, reader: FrameReader, stopping: Callable[[], bool]
) -> bool:
    """Add all decoded frames; return whether they show anything."""
    n_frames = integer(header, "NumberOfFrames") or 0
    lowest = highest = None
    try:
        for number in range(1, n_frames + 1) if n_frames else [None]:
            if stopping():
                raise Interrupted("the process stops")
            values = reader.raw(path, number)
            digest.update(values.tobytes())
            lowest = values.min() if lowest is None else min(lowest, values.min())
            highest = values.max() if highest is None else max(highest, values.max())
    except UndecodablePixels:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
        return True
    return bool(lowest != highest)


def _content(dataset: Dataset) -> Iterator[bytes]:
    """Yield the elements of a dataset, nested ones included, without those that an archive may change."""
    for tag in sorted(dataset.keys()):
        if tag.group == _PATIENT_GROUP or tag.is_private or tag in _COERCED:
            continue
        yield f"\n{tag:08x} ".encode()
        nested = items(dataset, tag)
        if nested:
            for item in nested:
                yield b"{"
                yield from _content(item)
        else:
            value = dataset.get_item(tag).value
            yield value.strip(b"\0 ") if isinstance(value, bytes) else text(dataset, tag).encode()


def _values(header: Dataset, keywords: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_value(header, keyword).rstrip("^=") for keyword in keywords)


def _value(header: Dataset, keyword: str) -> str:
    return "\n".join(map(str, items(header, keyword))) or text(header, keyword)
