"""Recognise a Siemens mosaic: many slices tiled into one image, which no slice-wise score can judge."""

import re
import struct

from pydicom import Dataset

from mediqa_node.dicom.functional_groups import integer, value_of, words
from mediqa_node.dicom.technique.diffusion import private_value

_CSA_NAME = b"NumberOfImagesInMosaic\0"
_TILES = 3


def mosaic_evidence(header: Dataset) -> str | None:
    """Return why this image is a mosaic, with tag and value, or None.

    By Image Type (0008,0008); by NumberOfImagesInMosaic (0019,xx0A) under `SIEMENS MR HEADER`; by the
    element of that name in the CSA header (0029,xx10); or, where anonymisation removed all of these, by
    an image of a Siemens scanner that is a whole number of times, three at least, as large as its
    Acquisition Matrix (0018,1310). (Twice is common: interpolation.)
    """
    if "MOSAIC" in words(value_of(header, "ImageType")):
        return "Image Type (0008,0008) contains MOSAIC"
    if value_of(header, "Modality") == "CT":
        return None
    images = integer(private_value(header, "SIEMENS MR HEADER", 0x0019, 0x0A)) or _csa_images(header)
    if images is not None and images > 1:
        return f"NumberOfImagesInMosaic (0019,100A) is {images}"
    if "SIEMENS" not in str(value_of(header, "Manufacturer") or "").upper():
        return None
    rows, columns = integer(value_of(header, "Rows")), integer(value_of(header, "Columns"))
    edge = _acquired_edge(header)
    if edge and rows and columns and rows % edge == columns % edge == 0 and min(rows, columns) >= _TILES * edge:
        return f"{rows} x {columns} pixels from an Acquisition Matrix (0018,1310) of {edge}"
    return None


def _acquired_edge(header: Dataset) -> int | None:
    """Return the longer edge of Acquisition Matrix (0018,1310): frequency rows\\columns\\phase rows\\columns."""
    matrix = value_of(header, "AcquisitionMatrix")
    edges = [integer(edge) or 0 for edge in matrix] if matrix is not None and not isinstance(matrix, int) else []
    return max(edges, default=0) or None


def _csa_images(header: Dataset) -> int | None:
    """Return NumberOfImagesInMosaic of the CSA image header (0029,xx10), or None.

    An entry is: name (64 bytes), number of values, VR (4), type, number of items, a mark (4 each); an
    item: four lengths of 4 bytes, of which the second is the text's, and the text.
    """
    csa = private_value(header, "SIEMENS CSA HEADER", 0x0029, 0x10)
    start = csa.find(_CSA_NAME) if isinstance(csa, bytes) else -1
    if start < 0 or start + 100 > len(csa):
        return None
    (n_items,) = struct.unpack_from("<i", csa, start + 76)
    text = re.match(rb"\s*(\d{1,4})\s*", csa[start + 100 : start + 116])
    return int(text[1]) if n_items > 0 and text else None
