"""CT series of real size from the slices of the demonstration series: cheap to make, new UIDs each time."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, generate_uid

import mediqa_node

DEMO = Path(mediqa_node.__file__).parent / "demo_series"
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
BRAIN = Path(__file__).parents[1] / "data" / "mr_brain_t1_xa30_enhanced"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


def chest(size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the slices of the demonstration series with fresh noise of 5 HU, as stored values.

    Real anatomy: the default checkpoint refuses what is unlike the patients that it was trained on.
    """
    step = 512 // size
    slices = [pydicom.dcmread(path).pixel_array[::step, ::step] for path in sorted(DEMO.glob("*.dcm"))]
    return [(pixels + rng.normal(0, 5, pixels.shape)).clip(0, 4095).astype("<u2") for pixels in slices]


def ct_slice(pixels: np.ndarray, z_mm: float, number: int, series: str, study: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, study
    ds.Modality, ds.Manufacturer, ds.ImageType = "CT", "SYNTHETIC", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "BENCHMARK", "BENCHMARK", "", ""
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = (
        "20260101",
        "120000",
        "",
        "",
        "",
    )
    ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = 1, number, 1
    ds.SeriesDescription, ds.BodyPartExamined, ds.ConvolutionKernel = "CHEST", "CHEST", "B30f"
    ds.KVP, ds.XRayTubeCurrent, ds.Exposure, ds.SliceThickness = "120", "200", "100", "2"
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, z_mm]
    ds.Rows, ds.Columns = pixels.shape
    ds.PixelSpacing, ds.SamplesPerPixel, ds.PhotometricInterpretation = [330 / ds.Rows, 330 / ds.Rows], 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = pixels.tobytes()
    return _with_meta(ds)


def _with_meta(ds: Dataset) -> Dataset:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
        UID(ds.SOPClassUID),
        ds.SOPInstanceUID,
    )
    return ds


def write_ct_series(folder: Path, slices: int, *, size: int = 512, seed: int = 0) -> str:
    """Write one evenly spaced series; return its UID."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    series, study = generate_uid(), generate_uid()
    pool = chest(size, rng)
    for i in range(slices):
        ds = ct_slice(pool[i % len(pool)], 2.0 * i, i + 1, series, study)
        ds.save_as(folder / f"{i:04d}.dcm", enforce_file_format=True)
    return series


def write_mr_series(folder: Path, slices: int, *, size: int = 256, seed: int = 0) -> str:
    """Write one evenly spaced MR series with the anatomy of a real brain and fresh noise; return its UID."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    series, study = generate_uid(), generate_uid()
    frames = pydicom.dcmread(next(BRAIN.glob("*.dcm"))).pixel_array
    for i in range(slices):
        frame = frames[len(frames) // 4 + i % (len(frames) // 2)]
        pixels = np.zeros((size, size), dtype=np.float64)
        height, width = (min(size, edge) for edge in frame.shape)
        pixels[:height, :width] = frame[:height, :width]
        noisy = np.hypot(pixels + rng.normal(0, 5, pixels.shape), rng.normal(0, 5, pixels.shape))
        ds = ct_slice(noisy.clip(0, 4095).astype("<u2"), 2.0 * i, i + 1, series, study)
        ds.SOPClassUID, ds.Modality, ds.SeriesDescription, ds.BodyPartExamined = MR, "MR", "T1", "BRAIN"
        ds.ImageType, ds.MagneticFieldStrength = ["ORIGINAL", "PRIMARY", "M"], 3
        ds.AcquisitionMatrix, ds.InPlanePhaseEncodingDirection = [size, 0, 0, size], "ROW"
        ds.ScanningSequence, ds.SequenceVariant, ds.MRAcquisitionType = "GR", "MP", "3D"
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        _with_meta(ds).save_as(folder / f"{i:04d}.dcm", enforce_file_format=True)
    return series


def write_multi_frame(path: Path, frames: int, *, size: int = 512) -> None:
    """Write one enhanced CT object of `frames` frames of half a megabyte, without geometry: for the receiver only."""
    ds = ct_slice(np.zeros((size, size), "<u2"), 0, 1, generate_uid(), generate_uid())
    ds.SOPClassUID = ENHANCED_CT
    ds.NumberOfFrames = frames
    ds.PixelData = b""
    _with_meta(ds)
    head = BytesIO()
    ds.save_as(head, enforce_file_format=True)
    # the empty PixelData element ends the file: give it its true length and append the frames
    body = bytearray(head.getvalue())
    body[-4:] = (frames * size * size * 2).to_bytes(4, "little")
    with path.open("wb") as stream:
        stream.write(body)
        for _ in range(frames):
            stream.write(b"\0" * (size * size * 2))
