"""Read one frame from an open Part 10 stream. Compressed frames are read in the child process."""

import struct
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.pixels import as_pixel_options, get_decoder

from mediqa_node.dicom.values import with_known_vrs
from mediqa_node.domain.errors import UndecodablePixels

_TAGS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)  # fmt: skip
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelElement:
    """The offset of the pixels in a file, and their format according to the header.

    Attributes:
        options: rows, columns, bits, ... as pydicom's decoders take them.
        offset: of the element's value, from the start of the file.
    """

    transfer_syntax_uid: str
    options: dict[str, Any]
    offset: int

    @property
    def frame_bytes(self) -> int:
        """Size of one frame as the header claims it: rows x columns x samples x bytes (PS3.3 C.7.6.3.1)."""
        sizes: list[Any] = [self.options.get(name) for name in ("rows", "columns", "bits_allocated")]
        sizes.append(self.options.get("samples_per_pixel", 1))
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise UndecodablePixels(f"Rows, Columns, Bits Allocated, Samples per Pixel are {sizes}")
        return int((prod(sizes) + 7) // 8)


def locate_pixels(stream: BinaryIO) -> PixelElement:
    """Find Pixel Data (7FE0,0010), or its float kinds, in a Part 10 file without reading it.

    Raises:
        UndecodablePixels: there is none, or the header is unreadable.
    """
    try:
        stream.seek(0)
        header = with_known_vrs(dcmread(stream, stop_before_pixels=True, specific_tags=list(_TAGS)))
        syntax = header.file_meta.TransferSyntaxUID
        options = as_pixel_options(header)
        group, element = struct.unpack("<HH" if syntax.is_little_endian else ">HH", stream.read(4).ljust(4, b"\0"))
        keyword = _PIXELS[group << 16 | element]
        if syntax.is_implicit_VR:
            stream.seek(4, 1)
        else:
            options["pixel_vr"] = stream.read(2).decode("ascii")
            stream.seek(6, 1)
    except OSError:
        raise
    except KeyError as error:
        raise UndecodablePixels("there is no Pixel Data (7FE0,0010)") from error
    except Exception as error:  # a parser of hostile bytes may raise anything
        raise UndecodablePixels(f"unreadable header: {type(error).__name__}: {error}"[:300]) from error
    options.setdefault("planar_configuration", 0)
    options |= {"pixel_keyword": keyword, "transfer_syntax_uid": syntax}
    return PixelElement(transfer_syntax_uid=str(syntax), options=options, offset=stream.tell())


def read_frame(
    stream: BinaryIO, element: PixelElement, frame_number: int | None, *, max_frame_bytes: int
) -> np.ndarray:
    """Return the stored values of one frame, reading only this frame's bytes of the pixel data.

    Args:
        stream: the file that `element` was found in.
        frame_number: from 1; None for a single-frame object.
        max_frame_bytes: the largest frame that the header may claim.

    Returns:
        (rows, columns), or (rows, columns, samples) with colour as RGB; native byte order. Unused bits
        are as stored: `dicom.pixels.to_image` cuts them.

    Raises:
        UndecodablePixels: over budget, no such frame, or pydicom or a codec fails.
    """
    if element.frame_bytes > max_frame_bytes:
        raise UndecodablePixels(
            f"the header claims {element.frame_bytes:,} bytes per frame; at most {max_frame_bytes:,}"
        )
    index, frames = (frame_number or 1) - 1, element.options["number_of_frames"]
    if not 0 <= index < frames:
        raise UndecodablePixels(f"frame {frame_number} of an object with {frames} frames")
    options = element.options | {"correct_unused_bits": False, "allow_excess_frames": False}
    try:
        stream.seek(element.offset)
        array, _ = get_decoder(element.transfer_syntax_uid).as_array(stream, index=index, **options)
    except OSError:
        raise
    except Exception as error:  # a codec may raise anything
        raise UndecodablePixels(f"frame {index + 1}: {type(error).__name__}: {error}"[:300]) from error
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
