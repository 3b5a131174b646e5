"""Recognise a mosaic: many slices tiled into one image, which cannot be scored slice by slice."""

import re
import struct

from pydicom import Dataset

from mediqa_node.dicom.header import FrameHeader, codes, integer, numbers, text
from mediqa_node.dicom.modality import modality_of
from mediqa_node.dicom.vendor_elements import TILE_COUNTS, TILED_TYPES, TILING_VENDORS

_CSA_NAME = b"NumberOfImagesInMosaic\0"
_TILES = 3


def mosaic_evidence(header: Dataset) -> str | None:
    """Return why this image is a mosaic, with tag and value, or None.

    By Image Type (0008,0008); by a vendor's number of tiles (`vendor_elements.TILE_COUNTS`); by NumberOfImagesInMosaic
    in the CSA header of Siemens (0029,xx10); or, if anonymisation removed all of these, by an image of a
    Siemens scanner whose size is an integer multiple, at least three, of its Acquisition Matrix (0018,1310). (Twice is
    common: interpolation.)
    """
    if words := TILED_TYPES.intersection(codes(header, "ImageType")):
        return f"Image Type (0008,0008) contains {min(words)}"
    if modality_of(header) == "CT":
        return None
    return _counted(header) or _by_size(header)


def _counted(header: Dataset) -> str | None:
    for private in TILE_COUNTS:
        for stated in FrameHeader(header).private_numbers(private.group, private.creator, private.element)[:1]:
            if stated > 1:
                return f"{private} of {private.creator} counts {stated:g} tiles"
    images = _csa_images(header)
    return f"NumberOfImagesInMosaic in the CSA header is {images}" if images is not None and images > 1 else None


def _by_size(header: Dataset) -> str | None:
    if not any(vendor in text(header, "Manufacturer").upper() for vendor in TILING_VENDORS):
        return None
    rows, columns = integer(header, "Rows"), integer(header, "Columns")
    edge = _acquired_edge(header)
    if edge and rows and columns and rows % edge == columns % edge == 0 and min(rows, columns) >= _TILES * edge:
        return f"{rows} x {columns} pixels from an Acquisition Matrix (0018,1310) of {edge}"
    return None


def _acquired_edge(header: Dataset) -> int | None:
    """Return the longer edge of Acquisition Matrix (0018,1310): frequency rows\\columns\\phase rows\\columns."""
    return int(max(numbers(header, "AcquisitionMatrix"), default=0)) or None


def _csa_images(header: Dataset) -> int | None:
    """Return NumberOfImagesInMosaic of the CSA image header (0029,xx10), or None.

    An entry is: name (64 bytes), number of values, VR (4), type, number of items, a mark (4 each); an
    item: four lengths of 4 bytes, of which the second is the text's, and the text.
    """
    csa = FrameHeader(header).private_bytes(0x0029, "SIEMENS CSA HEADER", 0x10)
    start = csa.find(_CSA_NAME)
    if start < 0 or start + 100 > len(csa):
        return None
    (n_items,) = struct.unpack_from("<i", csa, start + 76)
    text = re.match(rb"\s*(\d{1,4})\s*", csa[start + 100 : start + 116])
    return int(text[1]) if n_items > 0 and text else None
