"""What makes an instance what it is, as a digest: whatever patient it names, however coded, wherever it was kept."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword

from mediqa_node.decode.frame import locate_pixels
from mediqa_node.decode.reader import FrameReader
from mediqa_node.dicom.part10 import DEFLATED, MAX_INFLATED_BYTES, inflated_file, read_header, transfer_syntax
from mediqa_node.dicom.pixels import stored_values
from mediqa_node.dicom.values import has_value, in_one_form, integer, items
from mediqa_node.domain.errors import MediqaError, UndecodablePixels

_GEOMETRY = (
    "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "RescaleSlope", "RescaleIntercept", "PixelRepresentation",
)  # fmt: skip
_FILLED_IN = {
    "PS3.4 B.4.1.3 and IHE RAD TF PIR: what an archive may coerce": (
        "StudyDate", "StudyTime", "AccessionNumber", "IssuerOfAccessionNumberSequence", "InstitutionName",
        "InstitutionAddress", "InstitutionCodeSequence", "InstitutionalDepartmentName", "ReferringPhysicianName",
        "StudyDescription", "SeriesDescription", "ReferencedStudySequence", "ReferencedPatientSequence",
        "ReferencedVisitSequence", "StudyInstanceUID", "StudyID", "ProcedureCodeSequence", "PhysiciansOfRecord",
        "NameOfPhysiciansReadingStudy", "OperatorsName",
    ),
    "PS3.3 C.4.10-C.4.14, IHE RAD SWF: the order and the procedure step, which a RIS may correct": (
        "RequestAttributesSequence", "ReferencedRequestSequence", "RequestedProcedureID", "ScheduledProcedureStepID",
        "ScheduledProcedureStepDescription", "PerformedProcedureStepID", "PerformedProcedureStepDescription",
        "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "PerformedProcedureStepEndDate",
        "PerformedProcedureStepEndTime", "PerformedProtocolCodeSequence", "ReasonForTheRequestedProcedure",
        "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
        "ReferencedPerformedProcedureStepSequence",
    ),
    "PS3.3 C.12.1 SOP Common: who has handled the instance": (
        "SpecificCharacterSet", "TimezoneOffsetFromUTC", "InstanceCreationDate", "InstanceCreationTime",
        "InstanceCreatorUID", "InstanceCoercionDateTime", "OriginalAttributesSequence",
        "ContributingEquipmentSequence", "SOPInstanceStatus", "SOPAuthorizationDateTime", "SOPAuthorizationComment",
        "AuthorizationEquipmentCertificationNumber", "InstanceOriginStatus", "QueryRetrieveView",
        "EncryptedAttributesSequence", "MACParametersSequence", "DigitalSignaturesSequence",
    ),
    "PS3.4 C.4.1: where it is kept, as answers to queries name it": (
        "RetrieveAETitle", "RetrieveURL", "InstanceAvailability", "StorageMediaFileSetID", "StorageMediaFileSetUID",
    ),
    "PS3.5 A.4, PS3.10 7.2, PS3.3 C.7.6.3: how the pixels and the dataset are coded": (
        "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit",
        "LossyImageCompression", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "IconImageSequence",
        "SmallestImagePixelValue", "LargestImagePixelValue", "PixelDataProviderURL", "DataSetTrailingPadding",
    ),
}  # fmt: skip
"""Elements that differ between copies of one instance, by who may write them; besides private ones."""
_FILLED_IN_TAGS = frozenset(map(tag_for_keyword, (keyword for some in _FILLED_IN.values() for keyword in some)))
_FILLED_IN_GROUPS = (0x0010, 0x0012, 0x0032, 0x0038)
"""Patient, clinical trial and de-identification, requested procedure, visit (PS3.3 C.7.1, C.2.2, C.3)."""
_PIECE_BYTES = 1 << 20


class Interrupted(MediqaError):
    """The process stops, or the copies of another series have their turn."""

    retryable = True


@dataclass(slots=True)
class _Frames:
    """What is decoded of an object: the digest of its first frames, and their lowest and highest value."""

    digest: "hashlib._Hash"
    n_done: int = 0
    lowest: int | None = None
    highest: int | None = None


class Contents:
    """Digests of instances, made in pieces: what was decoded before an interruption is not decoded again.

    Args:
        stopping: whether to break off; asked after each frame.
    """

    def __init__(self, reader: FrameReader, stopping: Callable[[], bool] = lambda: False) -> None:
        self.reader, self.stopping = reader, stopping
        self._begun: dict[Path, _Frames] = {}

    def digest(self, path: Path) -> str:
        """Return the `content_digest` of a file."""
        return _digest(path, self)

    def frames(self, path: Path, digest: "hashlib._Hash") -> _Frames:
        """Return what is decoded of a file so far; `digest` stands for no frame."""
        return self._begun.setdefault(path, _Frames(digest))


def content_digest(path: Path, reader: FrameReader) -> str:
    """Return a digest over what makes an instance what it is, whatever patient it names and however it is coded.

    Of an image: geometry and decoded frames. Of anything else, and of an image of one value, which looks like any
    other: all its elements but those that an archive may change. An image that cannot be decoded: these, and its pixels
    as they are coded.

    Raises:
        UndecodablePixels: the header cannot be read.
        OSError: the file cannot be opened.
    """
    return Contents(reader).digest(path)


def _digest(path: Path, contents: Contents) -> str:
    header = read_header(path)
    geometry = tuple(in_one_form(header, keyword) for keyword in _GEOMETRY)
    digest = hashlib.sha256(repr(geometry).encode())
    if "Rows" not in header or not _add_frames(digest, path, header, contents):
        for part in _content(header):
            digest.update(part)
    return digest.hexdigest()


def _add_frames(digest: "hashlib._Hash", path: Path, header: Dataset, contents: Contents) -> bool:
    """Add all decoded frames; return whether they show anything. Bits that are not stored do not count.

    Raises:
        Interrupted: at least one more frame is decoded, and others are left.
    """
    n_frames = integer(header, "NumberOfFrames") or 0
    numbers = list(range(1, n_frames + 1)) if n_frames else [None]
    frames = contents.frames(path, digest.copy())
    try:
        for number in numbers[frames.n_done :]:
            values = stored_values(contents.reader.raw(path, number), header)
            frames.digest.update(values.tobytes())
            frames.lowest = values.min() if frames.lowest is None else min(frames.lowest, values.min())
            frames.highest = values.max() if frames.highest is None else max(frames.highest, values.max())
            frames.n_done += 1
            if frames.n_done < len(numbers) and contents.stopping():
                raise Interrupted("a comparison goes on later")
    except UndecodablePixels:
        _add_coded_pixels(digest, path)
        return False
    digest.update(frames.digest.digest())
    return bool(frames.lowest != frames.highest)


def _add_coded_pixels(digest: "hashlib._Hash", path: Path) -> None:
    """Add pixels as they are coded, if there are any."""
    deflated = transfer_syntax(path) == DEFLATED
    with inflated_file(path, max_bytes=MAX_INFLATED_BYTES) if deflated else path.open("rb") as stream:
        try:
            stream.seek(locate_pixels(stream).offset)
        except UndecodablePixels:
            return
        for piece in iter(partial(stream.read, _PIECE_BYTES), b""):
            digest.update(piece)


def _content(dataset: Dataset) -> Iterator[bytes]:
    """Yield the elements of a dataset with a value, nested ones included, without those that an archive may change."""
    for tag in sorted(dataset.keys()):
        if tag.is_private or tag.element == 0 or tag.group in _FILLED_IN_GROUPS or tag in _FILLED_IN_TAGS:
            continue
        nested = items(dataset, tag)
        if not nested and not has_value(dataset, tag):
            continue
        yield f"\n{tag:08x} ".encode()
        for item in nested:
            yield b"{"
            yield from _content(item)
        if not nested:
            yield in_one_form(dataset, tag).encode("utf-8", "surrogateescape")
