"""Small synthetic headers: a series of axial slices with only what a test is about."""

from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.sequence import Sequence
from pydicom.tag import Tag

DATA = Path(__file__).parents[1] / "data"
DEMO = Path(__file__).parents[2] / "mediqa_node" / "demo_series"
CT, MR, OP = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.77.1.5.1"


def dataset(**values: object) -> Dataset:
    header = Dataset()
    for keyword, value in values.items():
        setattr(header, keyword, [value] if isinstance(value, Dataset) else value)
    return header


def series(sop_class: str = CT, *, n: int = 8, **values: object) -> list[Dataset]:
    """n axial slices 5 mm apart; a list of n values is spread over them where the keyword starts with `each_`."""
    headers = []
    for index in range(n):
        own = {
            key.removeprefix("each_"): value[index] if key.startswith("each_") else value
            for key, value in values.items()
        }
        headers.append(dataset(**(_base(sop_class, index) | own)))
    return headers


def _base(sop_class: str, index: int) -> dict[str, object]:
    return {
        "SOPClassUID": sop_class,
        "Modality": {CT: "CT", MR: "MR", OP: "OP"}.get(sop_class, "CT"),
        "SOPInstanceUID": f"1.2.3.{index + 1}",
        "StudyInstanceUID": "1.2.1",
        "SeriesInstanceUID": "1.2.2",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Rows": 64,
        "Columns": 64,
        "PixelSpacing": [0.5, 0.5],
        "SliceThickness": 5,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 5.0 * index],
    }


def multi_frame(sop_class: str, shared: Dataset, frames: list[Dataset], **values: object) -> Dataset:
    """An enhanced object of axial frames 5 mm apart; `frames` are the per-frame items."""
    for index, frame in enumerate(frames):
        frame.PlanePositionSequence = [dataset(ImagePositionPatient=[0, 0, 5.0 * index])]
    shared.PlaneOrientationSequence = [dataset(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    header = dataset(**(_base(sop_class, 0) | {"NumberOfFrames": len(frames)} | values))
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness"):
        del header[keyword]
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    header.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return header


def raw(header: Dataset, keyword: str, vr: str, value: bytes) -> Dataset:
    """Put bytes into an element as a file would, past every check of pydicom."""
    tag = Tag(keyword)
    header[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return header


def stored(folder: Path) -> list[Dataset]:
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.glob("*.dcm"))]
