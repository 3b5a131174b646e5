"""Recognise a Siemens mosaic: many slices tiled into one image, which cannot be scored slice by slice."""

import re
import struct

from pydicom import Dataset

from mediqa_node.dicom.header import FrameHeader, codes, integer, numbers, text

_CSA_NAME = b"NumberOfImagesInMosaic\0"
_TILES = 3


def mosaic_evidence(header: Dataset) -> str | None:
    """Return why this image is a mosaic, with tag and value, or None.

    By Image Type (0008,0008); by NumberOfImagesInMosaic (0019,xx0A) under `SIEMENS MR HEADER`; by the
    element of that name in the CSA header (0029,xx10); or, if anonymisation removed all of these, by an image of a
    Siemens scanner whose size is an integer multiple, at least three, of its Acquisition Matrix (0018,1310). (Twice is
    common: interpolation.)
    """
    if "MOSAIC" in codes(header, "ImageType"):
        return "Image Type (0008,0008) contains MOSAIC"
    if codes(header, "Modality") == ("CT",):
        return None
    stated = FrameHeader(header).private_numbers(0x0019, "SIEMENS MR HEADER", 0x0A)
    images = int(stated[0]) if stated else _csa_images(header)
    if images is not None and images > 1:
        return f"NumberOfImagesInMosaic (0019,100A) is {images}"
    if "SIEMENS" not in text(header, "Manufacturer").upper():
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
