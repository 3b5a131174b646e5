"""Write one slice of a simulated series as a DICOM file, with the technical attributes of its source."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from mediqa_node.dicom.deidentify.instance import deidentify
from mediqa_node.dicom.deidentify.pseudonyms import Pseudonyms
from mediqa_node.dicom.header import FrameHeader
from mediqa_node.dicom.technique.ct_exposure import is_helical
from mediqa_node.dicom.technique.mr import GYROMAGNETIC_MHZ_T
from mediqa_node.domain.prompt import Prompt

LEVELS = {"CT": (10.0, 40.0, 160.0, 20.0, 80.0), "MR": (0.5, 1.5, 3.0, 0.3, 1.0)}
"""mA.s and T, in an order that has low and high among the first few."""
UNITS = {"CT": "mAs", "MR": "T"}
_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}
_OF_THE_SOURCE_ALONE = """
    PatientAge PatientSex IrradiationEventUID PixelPaddingValue PixelPaddingRangeLimit ExposureModulationType
    ExposureInuAs ExposureInmAs ExposureTimeInuS ExposureTimeInms XRayTubeCurrentInuA XRayTubeCurrentInmA
    GeneratorPower CTDIvol EstimatedDoseSaving TableSpeed TableFeedPerRotation TransmitterFrequency SAR dBdt
"""
"""On the allow-list of the de-identifier, and wrong or of no use for a copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSeries:
    """Neighbouring slices of one real series, from which copies are made.

    Attributes:
        number: index of the base from 0; `patient` numbers sources from 1, so that patients never share one.
        source: of the collection; never divided between splits.
        prompt: from the headers of the source.
        paths: of single-frame images, in the order of their position.
        spacing_mm: between rows.
        levels: the `LEVELS` that it can simulate: a noisy base cannot become a copy at a higher field.
    """

    number: int
    patient: int
    source: str
    prompt: Prompt
    paths: tuple[Path, ...]
    spacing_mm: float
    levels: tuple[float, ...]

    @property
    def modality(self) -> str:
        """CT or MR."""
        return self.prompt.modality.value


def uid_of(seed: int, *parts: object) -> str:
    """Return a UID below 2.25 (PS3.5 B.2) derived from its parts."""
    digest = hashlib.sha256("|".join(map(str, ("mediqa-train simulate", seed, *parts))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def header_of(source: Dataset, base: BaseSeries, level: float, place: int, seed: int) -> Dataset:
    """Return the header of one slice of a copy: technique of the source, exposure or field of the copy."""
    ds = deidentify(source, Pseudonyms(hashlib.sha256(f"simulated {seed}".encode()).digest()))
    for keyword in _OF_THE_SOURCE_ALONE.split():
        if keyword in ds:
            delattr(ds, keyword)
    amount = f"{level:g} {UNITS[base.modality]}"
    ds.SOPClassUID = _CLASSES[base.modality]
    ds.StudyInstanceUID = uid_of(seed, "study", base.patient, base.modality)
    ds.SeriesInstanceUID = uid_of(seed, "series", base.number, level)
    ds.FrameOfReferenceUID = uid_of(seed, "frame", base.number)
    ds.SOPInstanceUID = uid_of(seed, "instance", base.number, level, place)
    ds.PatientID, ds.PatientName, ds.PatientSex = f"SIM-{base.patient}", f"SIMULATED^{base.patient}", ""
    ds.SeriesDescription = f"SIMULATED {amount}"
    ds.DerivationDescription = f"Simulated: noise of {amount} inserted into a real image; for research and trials only"
    ds.ContentQualification = "RESEARCH"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL" if base.modality == "CT" else "OTHER"]
    ds.SeriesNumber = ds.AcquisitionNumber = 100 * base.number + LEVELS[base.modality].index(level) + 1
    ds.InstanceNumber = place + 1
    (_expose if base.modality == "CT" else _magnetise)(ds, level)
    return ds


def _expose(ds: Dataset, mas: float) -> None:
    """Write one second at `mas` mA, so that the exposure tag, mA x s and rotation / pitch agree for every vendor."""
    ds.Exposure = ds.XRayTubeCurrent = round(mas)
    ds.ExposureTime, ds.RevolutionTime = 1000, 1.0
    if "SpiralPitchFactor" in ds:
        del ds.SpiralPitchFactor
    if is_helical(FrameHeader(ds), None) is not False:
        ds.SpiralPitchFactor = 1.0


def _magnetise(ds: Dataset, tesla: float) -> None:
    """Write the field strength and the resonance frequency in MHz."""
    ds.MagneticFieldStrength = f"{tesla:g}"
    ds.ImagedNucleus = "1H"
    ds.ImagingFrequency = f"{tesla * GYROMAGNETIC_MHZ_T['1H']:.6f}"


def save(ds: Dataset, image: np.ndarray, path: Path) -> None:
    """Store pixels (rows, columns), in HU or signal, with the rescale of the header, explicit little endian."""
    slope, intercept = float(ds.get("RescaleSlope") or 1.0), float(ds.get("RescaleIntercept") or 0.0)
    signed = int(ds.PixelRepresentation)
    bits = int(ds.BitsStored)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    stored = np.clip(np.rint((image - intercept) / slope), low, high).astype("<i2" if signed else "<u2")
    ds.BitsAllocated, ds.HighBit, ds.PhotometricInterpretation = 16, bits - 1, "MONOCHROME2"
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.save_as(path, enforce_file_format=True)
