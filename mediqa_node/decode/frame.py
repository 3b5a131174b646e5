"""Read one frame from an open Part 10 stream. Compressed frames are read in the child process."""

import struct
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any, BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import as_pixel_options, get_decoder
from pydicom.uid import UID, RLELossless

from mediqa_node.decode.colour import LOSSY_JPEG, colour_model, has_model, with_model
from mediqa_node.dicom.stored_frames import PIXEL_TAGS, UNDEFINED_LENGTH, fragments, pixel_element
from mediqa_node.dicom.values import with_known_vrs
from mediqa_node.domain.errors import UndecodablePixels

_TAGS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)  # fmt: skip
_NO_RUN = 128
"""The byte of an RLE segment that stands for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelElement:
    """The offset of the pixels in a file, and their format according to the header.

    Attributes:
        options: rows, columns, bits, ... as pydicom's decoders take them.
        offset: of the element's value, from the start of the file.
        length: of the value, as the element states it.
        frames: offset and length of the fragments of each frame, where as many begin a frame as there are frames.
    """

    transfer_syntax_uid: str
    options: dict[str, Any]
    offset: int
    length: int
    frames: tuple[tuple[tuple[int, int], ...], ...] = ()

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
        tag, vr, length = pixel_element(stream, little=syntax.is_little_endian)
        keyword = PIXEL_TAGS[tag]
        if vr:
            options["pixel_vr"] = vr
        offset = stream.tell()
        frames = _frames(stream) if length == UNDEFINED_LENGTH else ()
    except OSError:
        raise
    except KeyError as error:
        raise UndecodablePixels("there is no Pixel Data (7FE0,0010)") from error
    except Exception as error:  # a parser of hostile bytes may raise anything
        raise UndecodablePixels(f"unreadable header: {type(error).__name__}: {error}"[:300]) from error
    options.setdefault("planar_configuration", 0)
    if label := options.get("photometric_interpretation"):
        options["photometric_interpretation"] = str(label).strip(" \0").upper()
    options |= {"pixel_keyword": keyword, "transfer_syntax_uid": syntax}
    frames = frames if len(frames) == options["number_of_frames"] else ()
    return PixelElement(transfer_syntax_uid=str(syntax), options=options, offset=offset, length=length, frames=frames)


def _frames(stream: BinaryIO) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return the fragments of each frame by how they begin; () if the first one begins none."""
    found: list[list[tuple[int, int]]] = []
    for fragment in fragments(stream):
        if fragment.begins_frame:
            found.append([])
        elif fragment.length and not found:
            return ()
        if fragment.length:
            found[-1].append(fragment[:2])
    return tuple(map(tuple, found))


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """The stored values of one frame.

    Attributes:
        values: (rows, columns), or (rows, columns, samples) with colour as RGB; native byte order. Unused bits are as
            stored: `dicom.pixels.to_image` cuts them.
        colour_confirmed: False if only the label states the colour model of a codestream (`colour.ColourModel`).
    """

    values: np.ndarray
    colour_confirmed: bool = True


def read_frame(
    stream: BinaryIO, element: PixelElement, frame_number: int | None, *, max_frame_bytes: int
) -> DecodedFrame:
    """Return one frame, reading only this frame's bytes of the pixel data.

    Args:
        stream: the file that `element` was found in.
        frame_number: from 1; None for a single-frame object.
        max_frame_bytes: the largest frame that the header may claim.

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
    try:
        stream.seek(element.offset)
        if UID(element.transfer_syntax_uid).is_encapsulated:
            array, confirmed = _decompressed(_codestream(stream, element, index), element)
        else:
            options, confirmed = _by_label(element)
            array = _decoded(stream, element, index, options)
    except (OSError, UndecodablePixels):
        raise
    except Exception as error:  # a codec may raise anything
        raise UndecodablePixels(f"frame {index + 1}: {type(error).__name__}: {error}"[:300]) from error
    return DecodedFrame(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")), confirmed)


def _decoded(stream: BinaryIO, element: PixelElement, index: int, options: dict[str, Any]) -> np.ndarray:
    decode = get_decoder(element.transfer_syntax_uid).as_array
    array, _ = decode(stream, index=index, **options | {"correct_unused_bits": False, "allow_excess_frames": False})
    return array


def _by_label(element: PixelElement) -> tuple[dict[str, Any], bool]:
    """Return the options of pixels with nothing but a label; also whether the label is possible.

    The retired YBR_PARTIAL_422 and YBR_PARTIAL_420 are refused: no decoder converts them.

    YBR_ICT and YBR_RCT exist in JPEG 2000 only, and here are what is left of a decoder that returned RGB. Native pixels
    of YBR_FULL_422 hold two samples per pixel, so that three are not subsampled.
    """
    options, label = element.options, str(element.options.get("photometric_interpretation", ""))
    if label.startswith("YBR_PARTIAL"):
        raise UndecodablePixels(f"Photometric Interpretation (0028,0004) {label[:16]} is not supported here")
    if label in ("YBR_ICT", "YBR_RCT"):
        return options | {"photometric_interpretation": "RGB"}, False
    native = element.length != UNDEFINED_LENGTH
    if native and label == "YBR_FULL_422" and element.length >= element.frame_bytes * options["number_of_frames"]:
        return options | {"photometric_interpretation": "YBR_FULL"}, False
    return options, True


def _codestream(stream: BinaryIO, element: PixelElement, index: int) -> bytes:
    """Return a frame as its fragments begin it; only where these do not tell, as the offset tables have it."""
    if element.frames:
        parts = []
        for offset, length in element.frames[index]:
            stream.seek(offset)
            parts.append(stream.read(length))
        return b"".join(parts)
    offsets, count = element.options.get("extended_offsets"), element.options["number_of_frames"]
    return get_frame(stream, index, extended_offsets=offsets, number_of_frames=count)


def _decompressed(codestream: bytes, element: PixelElement) -> tuple[np.ndarray, bool]:
    """Decode a frame, colours by the model of the codestream; also return whether that confirms them."""
    options, syntax = element.options, element.transfer_syntax_uid
    if options.get("samples_per_pixel") == 3 and has_model(syntax):
        model = colour_model(codestream, syntax, str(options.get("photometric_interpretation", "")))
        options, confirmed = options | {"photometric_interpretation": model.name}, model.confirmed
        if syntax in LOSSY_JPEG:  # libjpeg converts by the marker, GDCM by the label
            codestream = with_model(codestream, model)
            options |= {"photometric_interpretation": "RGB", "decoding_plugin": "pillow"}
    else:
        options, confirmed = _by_label(element)
    options = {key: value for key, value in options.items() if key != "extended_offsets"} | {"number_of_frames": 1}
    array = _decoded(BytesIO(encapsulate([codestream])), element, 0, options)
    if syntax == RLELossless:
        _check_rle(codestream, *array.shape[:2])
    return array, confirmed


def _check_rle(codestream: bytes, rows: int, columns: int) -> None:
    """Raise UndecodablePixels where the first segment (PS3.5 G.3) is much longer than a frame; decoders cut it."""
    start, end = struct.unpack_from("<2I", codestream, 4)
    segment = codestream[start : end or None]
    position = pixels = 0
    while position < len(segment):
        run = segment[position]
        pixels += run + 1 if run < _NO_RUN else (257 - run) % 129
        position += run + 2 if run < _NO_RUN else 1 + (run > _NO_RUN)
    if 2 * pixels > 3 * rows * columns:
        raise UndecodablePixels(f"{pixels} pixels in a frame of {rows} x {columns}")
