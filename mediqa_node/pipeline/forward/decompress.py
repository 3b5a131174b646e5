"""Send an image uncompressed to a peer that does not accept its transfer syntax, where the site allows it.

Only compression that loses nothing, and only grey images: the values of a colour image change with its colour model.
The SOP Instance UID stays, as PS3.4 B.2.2 allows for a change of the transfer syntax alone.
"""

import os
from io import BytesIO
from pathlib import Path

from mediqa_node.network.store_link import StoredFile

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
LOSSLESS = frozenset(
    {
        "1.2.840.10008.1.2.5",  # RLE
        "1.2.840.10008.1.2.4.57",  # JPEG Lossless
        "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
        "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
        "1.2.840.10008.1.2.4.201",  # High-Throughput JPEG 2000 Lossless
        "1.2.840.10008.1.2.4.202",
    }
)


def decompressed(path: Path) -> StoredFile:
    """Return the dataset of an image in Explicit VR Little Endian, in memory; the caller closes its descriptor.

    Raises:
        UndecodablePixels: broken, over budget, in colour, or of more than the header says.
        OSError: the file cannot be opened.
    """
    from pydicom import dcmread
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    from mediqa_node.decode.reader import FrameReader
    from mediqa_node.dicom.deidentify.native_pixels import put_pixels
    from mediqa_node.dicom.header import frame_count, integer
    from mediqa_node.domain.errors import UndecodablePixels

    dataset = dcmread(BytesIO(path.read_bytes()))
    if integer(dataset, "SamplesPerPixel") != 1:
        raise UndecodablePixels("a colour image is not decompressed")
    count = frame_count(dataset)
    with FrameReader() as reader:
        frames = [reader.raw(path, number) for number in (range(1, count + 1) if count is not None else [None])]
    put_pixels(dataset, frames, dataset)
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in dataset:
            del dataset[keyword]
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, False
    write_dataset(encoded, dataset)
    fd = os.memfd_create("decompressed", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as stream:
        stream.write(encoded.getvalue())
    return StoredFile(fd, 0, os.fstat(fd).st_size)
