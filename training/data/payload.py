"""The images of a row of a manifest, read as the node reads them, for `image.preprocess`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter, salient_images
from mediqa_node.dicom.part10 import read_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.errors import MediqaError, UndecodablePixels
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.image.salient import salient_slices
from mediqa_node.system import npz
from training.data.manifest import Row

_TIFF = (".tif", ".tiff")


def slices_of(row: Row, spec: PreprocessSpec) -> tuple[np.ndarray, ...]:
    """Return the salient slices of a row: (rows, columns) in HU or signal, or (rows, columns, 3) RGB 0..255.

    From a DICOM series the first stack, as in the node; from a NIfTI file axial slices, with the right of the patient
    on the left of the image.

    Raises:
        UndecodablePixels: it has no pixels, or they cannot be read.
        NotScorable: the node would not score such a series.
    """
    readers: dict[str, Callable[[Row, PreprocessSpec], tuple[np.ndarray, ...]]] = {
        "dicom": _dicom, "npz": _npz, "nifti": _nifti, "image": _picture
    }  # fmt: skip
    if row.payload_kind not in readers or not row.paths:
        raise UndecodablePixels(f"series {row.key} has no pixels (payload {row.payload_kind}): export them")
    try:
        return readers[row.payload_kind](row, spec)
    except (MediqaError, ImportError):
        raise
    except Exception as error:  # a codec may raise anything on a broken file
        raise UndecodablePixels(f"series {row.key}: {row.paths[0].name}: {type(error).__name__}: {error}") from error


def _dicom(row: Row, spec: PreprocessSpec) -> tuple[np.ndarray, ...]:
    headers = [read_header(path) for path in row.paths]
    stacks = assemble_stacks(headers)
    if not stacks:
        raise UndecodablePixels(f"series {row.key} holds no image plane")
    with FrameReader() as reader:
        image_at = image_getter(stacks[0], row.paths, headers, reader, stored=spec.reads_stored_values)
        return salient_images(stacks[0], image_at, spec, modality=row.modality).images


def _npz(row: Row, spec: PreprocessSpec) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(one, dtype=np.float32) for one in npz.unpacked(row.paths[0])["slices"])


def _nifti(row: Row, spec: PreprocessSpec) -> tuple[np.ndarray, ...]:
    import nibabel

    image = nibabel.as_closest_canonical(nibabel.load(row.paths[0]))
    volume = np.asarray(image.dataobj, dtype=np.float32)
    volume = volume[..., 0] if volume.ndim == 4 else volume
    axial = partial(_axial, volume)
    return tuple(map(axial, salient_slices(volume.shape[2], axial, modality=row.modality, wanted=spec.slices)))


def _axial(volume: np.ndarray, index: int) -> np.ndarray:
    """Return an axial slice (rows, columns) of an RAS volume with left and right reversed, anterior at the top."""
    return np.ascontiguousarray(volume[::-1, ::-1, index].T)


def _picture(row: Row, spec: PreprocessSpec) -> tuple[np.ndarray, ...]:
    image = _pixels(row.paths[0])
    if row.window is not None:
        low, high = row.window
        image = low + image * (high - low)
    return (image,)


def _pixels(path: Path) -> np.ndarray:
    if path.suffix.lower() in _TIFF:
        import tifffile

        return np.asarray(tifffile.imread(path), dtype=np.float32)
    with Image.open(path) as picture:
        gray = picture.mode in ("L", "I", "I;16", "F", "1")
        return np.asarray(picture if gray else picture.convert("RGB"), dtype=np.float32)
