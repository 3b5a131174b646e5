"""Synthetic CT: an ellipse of water with noise, evenly spaced, small. Everything follows from the arguments."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
KEY_OBJECT = "1.2.840.10008.5.1.4.1.1.88.59"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


def uid(*parts: object) -> str:
    """Return a UID that follows from its parts."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def ct_series(
    folder: Path,
    name: str,
    *,
    slices: Sequence[int] = range(5),
    size_px: int = 64,
    study: str | None = None,
    patient_id: str = "SYN001",
    patient_name: str = "Wasser^Anna",
    event: str | None = None,
    kernel: str = "B30f",
    pixels: str = "",
    charset: str | Sequence[str] = "ISO_IR 192",
    **changes: Any,
) -> list[Path]:
    """Write a series and return its files, in order.

    Args:
        name: what its UIDs follow from: the same name is the same series and the same instances.
        slices: which slices to write; slice i lies at 5 i mm.
        study: what the study's UIDs follow from; else the series' own.
        event: of Irradiation Event UID (0008,3010), shared by the reconstructions of one acquisition.
        pixels: another word gives other noise, under the same UIDs.
        changes: further elements by keyword; None removes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study = study or name
    paths = []
    for number in slices:
        ds = _header(name, study, number, size_px)
        ds.SpecificCharacterSet = list(charset) if not isinstance(charset, str) else charset
        ds.PatientID, ds.PatientName, ds.ConvolutionKernel = patient_id, patient_name, kernel
        if event:
            ds.IrradiationEventUID = uid("event", event)
        for keyword, value in changes.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        ds.PixelData = _phantom(size_px, f"{name}|{number}|{pixels}").tobytes()
        path = folder / f"{number:03}.dcm"
        write(ds, path)
        paths.append(path)
    return paths


def _header(name: str, study: str, number: int, size_px: int) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT_IMAGE, uid(name, number)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study", study), uid("series", name)
    ds.FrameOfReferenceUID = uid("frame", name)
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientBirthDate, ds.PatientSex, ds.PatientPosition = "19600102", "O", "HFS"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20261120"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101500"
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "S1", "A123", ""
    ds.StudyDescription, ds.SeriesDescription, ds.ProtocolName = "Abdomen", "Axial 5.0", "Abdomen"
    ds.Manufacturer, ds.ManufacturerModelName, ds.StationName = "ACME", "Scanner 64", "CT_ROOM_1"
    ds.BodyPartExamined = "ABDOMEN"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 3, 1, number + 1
    ds.ImagePositionPatient = [-100.0, -100.0, 5.0 * number]
    ds.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ds.PixelSpacing, ds.SliceThickness = [200.0 / size_px] * 2, 5.0
    ds.KVP, ds.XRayTubeCurrent, ds.ExposureTime, ds.Exposure = 120, 200, 500, 100
    ds.Rows = ds.Columns = size_px
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
    return ds


def _phantom(size_px: int, seed: str) -> np.ndarray:
    """Return an ellipse of 0 HU in air of -1000 HU, with noise of 15 HU, int16."""
    noise = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    inside = (x / 0.8) ** 2 + (y / 0.6) ** 2 < 1
    return (np.where(inside, 0.0, -1000.0) + noise.normal(0, 15, inside.shape)).astype("<i2")


def reject_note(
    path: Path, rejected: Sequence[Path], *, title: str = "113001", meaning: str = "Rejected for Quality Reasons"
) -> Path:
    """Write a Key Object Selection that rejects these instances (PS3.3 A.35.4)."""
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in rejected]
    ds = Dataset()
    for keyword in (
        "SpecificCharacterSet", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
        "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "Manufacturer",
    ):  # fmt: skip
        setattr(ds, keyword, headers[0].get(keyword, ""))
    ds.SOPClassUID, ds.Modality = KEY_OBJECT, "KO"
    ds.SOPInstanceUID, ds.SeriesInstanceUID = uid("note", path), uid("note series", path)
    ds.SeriesNumber = ds.InstanceNumber = 99
    ds.ContentDate, ds.ContentTime, ds.ValueType, ds.ContinuityOfContent = "20261120", "110000", "CONTAINER", "SEPARATE"
    concept = Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = title, "DCM", meaning
    ds.ConceptNameCodeSequence = Items([concept])
    series = Dataset()
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    series.ReferencedSOPSequence = Items([_reference(header) for header in headers])
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = headers[0].StudyInstanceUID, Items([series])
    ds.CurrentRequestedProcedureEvidenceSequence = Items([study])
    items = []
    for header in headers:
        item = Dataset()
        item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
        item.ReferencedSOPSequence = Items([_reference(header)])
        items.append(item)
    ds.ContentSequence = Items(items)
    write(ds, path)
    return path


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item


def write(ds: Dataset, path: Path) -> None:
    """Write a Part 10 file, Explicit VR Little Endian."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


def series_uid(paths: Sequence[Path]) -> str:
    """Return the Series Instance UID of written files."""
    return str(pydicom.dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)


def refreshed(source: Path, target: Path, **changes: Any) -> Path:
    """Write a copy of a real instance with some elements changed, its pixels as they are."""
    ds = pydicom.dcmread(source)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    target.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(target, ds, enforce_file_format=True)
    return target
