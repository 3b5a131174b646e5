"""One frame out of an open Part 10 stream. Runs in the child for anything that is compressed."""

from math import prod
from typing import BinaryIO

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.pixels import pixel_array

from mediqa_node.domain.errors import UndecodablePixels

_NEEDED = ("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated")


def claimed_frame_bytes(header: Dataset) -> int:
    """Return rows x columns x samples x bytes of one frame, as the header claims (PS3.3 C.7.6.3.1)."""
    try:
        sizes = [int(header[keyword].value) for keyword in ("Rows", "Columns", "BitsAllocated")]
        samples = int(header.get("SamplesPerPixel") or 1)
    except (KeyError, TypeError, ValueError) as error:
        raise UndecodablePixels(f"Rows, Columns or Bits Allocated is missing or no number: {error}") from error
    if min(*sizes, samples) < 1:
        raise UndecodablePixels(f"Rows, Columns, Bits Allocated, Samples per Pixel: {sizes}, {samples}; none may be 0")
    return (prod(sizes) * samples + 7) // 8


def pixel_header(stream: BinaryIO) -> Dataset:
    """Read what describes the pixels, and nothing else; the stream is left at its start."""
    header = dcmread(stream, stop_before_pixels=True, specific_tags=list(_NEEDED))
    stream.seek(0)
    return header


def read_frame(stream: BinaryIO, frame_number: int | None, *, max_frame_bytes: int) -> np.ndarray:
    """Return the stored values of one frame; of a native file, only this frame's bytes are read.

    Args:
        stream: a whole Part 10 file, seekable, at its start.
        frame_number: from 1; None for a single-frame object.
        max_frame_bytes: what the header may claim.

    Returns:
        (rows, columns), or (rows, columns, samples) with colour as RGB; native byte order. Unused bits
        are as stored: `dicom.pixels.to_image` cuts them.

    Raises:
        UndecodablePixels: over budget, no such frame, or anything that pydicom or a codec objects to.
    """
    try:
        header = pixel_header(stream)
        _check_budget(header, max_frame_bytes)
        index = (frame_number or 1) - 1
        frames = int(header.get("NumberOfFrames") or 1)
        if not 0 <= index < frames:
            raise UndecodablePixels(f"frame {frame_number} of an object with {frames} frames")
        array = pixel_array(stream, index=index, correct_unused_bits=False, allow_excess_frames=False)
    except (UndecodablePixels, OSError):
        raise
    except Exception as error:  # codecs and parsers of hostile bytes raise what they like
        raise UndecodablePixels(f"frame {frame_number or 1}: {type(error).__name__}: {error}"[:300]) from error
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _check_budget(header: Dataset, max_frame_bytes: int) -> None:
    claimed = claimed_frame_bytes(header)
    if claimed > max_frame_bytes:
        raise UndecodablePixels(
            f"a frame of {header.Rows} x {header.Columns} pixels takes {claimed:,} bytes; at most {max_frame_bytes:,}"
        )
