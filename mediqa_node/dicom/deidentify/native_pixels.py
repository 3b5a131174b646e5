"""Decoded frames as native Pixel Data (7FE0,0010): a compressed stream could carry a name in a comment (PS3.5 A.4)."""

from collections.abc import Sequence

import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from mediqa_node.dicom.header import frame_count, integer, text
from mediqa_node.dicom.pixels import without_unused_bits
from mediqa_node.domain.errors import UndecodablePixels

TRANSFER_SYNTAX = ExplicitVRLittleEndian


def put_pixels(dataset: Dataset, frames: Sequence[np.ndarray], header: Dataset) -> None:
    """Put the frames of the source into a de-identified dataset.

    Args:
        frames: of `FrameReader.raw`, all of the instance, in order: (rows, columns), or (rows, columns, 3) RGB.
        header: of the source; defines what the values mean.

    Raises:
        UndecodablePixels: colour tables, lookup tables or floating point, which cannot be exported with the pixels.
    """
    first, photometric = frames[0], text(header, "PhotometricInterpretation").upper()
    if photometric == "PALETTE COLOR" or "ModalityLUTSequence" in header or first.dtype.kind not in "iu":
        raise UndecodablePixels(f"pixels of {photometric}, type {first.dtype}, need a table that is not let out")
    if any(frame.shape != first.shape or frame.dtype != first.dtype for frame in frames):
        raise UndecodablePixels("frames of one instance differ in size or type")
    colour = first.ndim == 3
    allocated = first.dtype.itemsize * 8
    stored = integer(header, "BitsStored") or allocated
    dataset.Rows, dataset.Columns = first.shape[:2]
    dataset.SamplesPerPixel = first.shape[2] if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else photometric or "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored = allocated, min(stored, allocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = integer(header, "PixelRepresentation") or 0
    if "NumberOfFrames" in dataset or frame_count(header) is not None:
        dataset.NumberOfFrames = len(frames)
    pixels = b"".join(without_unused_bits(frame, header).astype(_little(first.dtype)).tobytes() for frame in frames)
    dataset.add_new(0x7FE00010, "OB" if allocated == 8 else "OW", pixels + b"\0" * (len(pixels) % 2))


def _little(dtype: np.dtype) -> np.dtype:
    return dtype.newbyteorder("<")
