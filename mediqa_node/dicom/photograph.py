"""Wrap a plain photograph as Ophthalmic Photography 8 Bit (PS3.3 A.41), so that all images are scored the same way."""

import hashlib

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

OPHTHALMIC_PHOTOGRAPHY_8_BIT = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


def wrap_photograph(rgb: np.ndarray) -> Dataset:
    """Return an uncompressed OP instance around a colour photograph of the fundus.

    Args:
        rgb: (rows, columns, 3), uint8.

    Returns:
        a complete dataset with file meta; UIDs derive from the pixels, so that the same photograph is the same
        instance.
    """
    digest = hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).digest()
    ds = Dataset()
    ds.SOPClassUID = OPHTHALMIC_PHOTOGRAPHY_8_BIT
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = (
        f"2.25.{int.from_bytes(hashlib.sha256(digest + name).digest()[:15])}" for name in (b"study", b"series", b"sop")
    )
    ds.Modality = "OP"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.PatientName = ds.PatientID = ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.StudyID = ""
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ds.Manufacturer = ""
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.Rows, ds.Columns = rgb.shape[:2]
    ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, "RGB"
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.BurnedInAnnotation = "NO"
    pixels = np.ascontiguousarray(rgb).tobytes()
    ds.PixelData = pixels + b"\0" * (len(pixels) % 2)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(EXPLICIT_LITTLE)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds
