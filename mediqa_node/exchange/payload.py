"""Exported pixels as bytes that depend on the pixels alone: they contain no time, name or path."""

import gzip
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from mediqa_node.dicom.deidentify.native_pixels import TRANSFER_SYNTAX
from mediqa_node.dicom.stacks.geometry import slice_normal
from mediqa_node.domain.errors import ConfigurationError, NotScorable
from mediqa_node.domain.images import Stack
from mediqa_node.domain.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from mediqa_node.domain.preprocessing import NetworkInput

_UNEVEN = ("gap", "uneven_spacing", "gantry_tilt", "missing_geometry", "orientation")
_VIEW = ("slice_index", "top", "left", "height", "width")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def dicom_bytes(dataset: Dataset) -> bytes:
    """Return a Part 10 file (PS3.10) of a de-identified dataset with native pixels."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = TRANSFER_SYNTAX
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    file = BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def network_arrays(inputs: NetworkInput) -> dict[str, np.ndarray]:
    """Return `images`, float32 (m, C, size, size), and `views`, int32 (m, 5): slice index, top, left, height, width.

    C is 1 if the three channels of every image are equal, as for gray slices.
    """
    images = inputs.images
    gray = bool((images == images[:, :1]).all())
    views = [[getattr(view, name) for name in _VIEW] for view in inputs.views]
    return {"images": images[:, :1] if gray else images, "views": np.array(views, dtype=np.int32)}


def compact(values: np.ndarray) -> np.ndarray:
    """Return int16 if that represents every value exactly, else float32."""
    fits = bool(((values >= -32768) & (values <= 32767) & (values == np.rint(values))).all())
    return values.astype(np.int16 if fits else np.float32)


def volume_of(image_at: Callable[[int], np.ndarray], count: int) -> np.ndarray:
    """Return `count` images as one `compact` array, (slices, rows, columns), never copied: it may be gigabytes."""
    first = compact(image_at(0))
    volume = np.empty((count, *first.shape), first.dtype)
    for index in range(count):
        image = compact(image_at(index))
        if image.dtype != np.int16 and volume.dtype == np.int16:
            volume = volume.astype(np.float32)
        volume[index] = image
    return volume


def check_grid(stack: Stack) -> None:
    """Raise NotScorable unless a stack is evenly spaced, as a NIfTI affine requires."""
    if found := [flag for flag in _UNEVEN if flag in stack.flags]:
        raise NotScorable("not_a_grid", ", ".join(found))
    if not stack.is_volume or stack.orientation is None or 0.0 in stack.spacing_mm:
        raise NotScorable("not_a_grid", "a single plane, or no pixel spacing")


def affine_ras(stack: Stack) -> np.ndarray:
    """Return the 4 x 4 matrix from (column, row, slice) index to RAS in mm, for an evenly spaced stack."""
    assert stack.orientation is not None
    assert stack.origin_mm is not None
    slice_mm, row_mm, column_mm = stack.spacing_mm
    cosines = np.asarray(stack.orientation, dtype=np.float64)
    axes = np.stack([cosines[:3] * column_mm, cosines[3:] * row_mm, slice_normal(cosines) * slice_mm], axis=1)
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ axes
    affine[:3, 3] = _LPS_TO_RAS @ np.asarray(stack.origin_mm)
    return affine


def nifti_bytes(volume: np.ndarray, stack: Stack) -> bytes:
    """Return a `.nii.gz` of a volume of `volume_of`, (slices, rows, columns) in HU or rescaled signal.

    Raises:
        ConfigurationError: nibabel is not installed.
    """
    try:
        import nibabel
    except ImportError as error:
        raise ConfigurationError("payload nifti needs nibabel: pip install 'mediqa-node[train]'") from error
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0), affine_ras(stack))
    image.header.set_xyzt_units("mm")
    file = BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as zipped:
        image.to_stream(zipped)
    return file.getvalue()
