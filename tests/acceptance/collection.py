"""The image sets of a collection folder, made ready to be sent: blank UIDs filled, photographs wrapped."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from support.series import uid

from mediqa_node.dicom.photograph import wrap_photograph

TESTS = Path(__file__).parents[1]
PHOTOGRAPHS_OF_A_SERIES = 4


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Files that one storescu sends; `refused` if the manifest expects no score."""

    name: str
    refused: bool
    paths: tuple[Path, ...]
    series: frozenset[str] = field(default_factory=frozenset)


def image_sets(collection: Path | None, made: Path) -> list[ImageSet]:
    """Return all sets with something to send.

    Args:
        collection: folder with manifest.json; None: tests/data and the demonstration series.
        made: folder for what has to be written.
    """
    return [found for name, folder, refused in _folders(collection) if (found := _set(name, folder, refused, made))]


def _folders(collection: Path | None) -> list[tuple[str, Path, bool]]:
    if collection is not None:
        items = json.loads((collection / "manifest.json").read_text(encoding="utf-8"))["items"]
        return [(item["id"], collection / item["id"], item.get("split") == "refuse") for item in items]
    found = [path.parent for path in sorted((TESTS / "data").rglob("*")) if path.is_file()]
    folders = [folder for folder in dict.fromkeys(found) if folder != TESTS / "data"]
    demo = TESTS.parent / "mediqa_node" / "demo_series"
    return [(folder.name, folder, folder.parent.name == "refuse") for folder in folders] + [
        ("demo_series", demo, False)
    ]


def _set(name: str, folder: Path, refused: bool, made: Path) -> ImageSet | None:
    paths: Sequence[Path] = sorted(folder.glob("*.dcm"))
    if not paths and not refused:
        paths = wrapped(sorted(folder.glob("*.jp*g")), made / name)
    if not paths:
        return None
    if any(not pydicom.dcmread(path, stop_before_pixels=True).get("SOPInstanceUID") for path in paths):
        paths = with_uids(paths, made / name, name)
    uids = {str(pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID) for path in paths}
    return ImageSet(name, refused, tuple(paths), frozenset(uids))


def wrapped(pictures: Sequence[Path], folder: Path) -> list[Path]:
    """Wrap photographs as the instances of one OP series."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, picture in enumerate(pictures[:PHOTOGRAPHS_OF_A_SERIES], start=1):
        ds = wrap_photograph(np.asarray(Image.open(picture).convert("RGB")))
        ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study", folder.name), uid("series", folder.name)
        ds.InstanceNumber = number
        ds.PatientID = f"SYN-{folder.name}"[:64]
        paths.append(folder / f"{number:03}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def with_uids(paths: Sequence[Path], folder: Path, name: str) -> list[Path]:
    """Copy files whose UIDs were blanked, with UIDs and the class that their Modality has; pixels as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2" if ds.Modality == "CT" else "1.2.840.10008.5.1.4.1.1.4"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study", name), uid("series", name)
        ds.FrameOfReferenceUID = uid("frame", name)
        ds.SOPInstanceUID = uid(name, path.name)
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        copies.append(folder / path.name)
        ds.save_as(copies[-1], enforce_file_format=True)
    return copies
