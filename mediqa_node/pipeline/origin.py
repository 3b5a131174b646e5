"""Where and when a series was acquired, from the header of one of its kept instances."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from mediqa_node.dicom.header import text
from mediqa_node.dicom.part10 import read_header
from mediqa_node.domain.errors import MediqaError

_DATES = ("AcquisitionDate", "SeriesDate", "ContentDate", "StudyDate")
_TIMES = ("AcquisitionTime", "SeriesTime", "ContentTime", "StudyTime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of an acquisition from its header, without the patient; "" if missing.

    Attributes:
        scanner: Station Name (0008,1010), else Manufacturer's Model Name (0008,1090).
        model: Manufacturer (0008,0070) and model.
        acquired: Acquisition, Series or Study Date with its time, as `2026-11-28 14:05`.
        description: Series Description (0008,103E), else Protocol Name (0018,1030).
        protocol: Protocol Name, else Series Description.
        accession_end: the last four characters of Accession Number (0008,0050).
        laterality: Image Laterality (0020,0062), else Laterality (0020,0060): R, L or B.
    """

    scanner: str = ""
    model: str = ""
    acquired: str = ""
    description: str = ""
    protocol: str = ""
    accession_end: str = ""
    laterality: str = ""


def read_origin(path: Path) -> Origin:
    """Return the origin of the series of an instance; an empty one if the file cannot be read."""
    try:
        header = read_header(path)
    except (MediqaError, OSError):
        return Origin()
    model = text(header, "ManufacturerModelName")
    maker = text(header, "Manufacturer")
    return Origin(
        scanner=scanner_of(header),
        model=model if model.startswith(maker) else f"{maker} {model}".strip(),
        acquired=next((at for at in (_when(header, kind) for kind in ("Acquisition", "Series", "Study")) if at), ""),
        description=text(header, "SeriesDescription") or text(header, "ProtocolName"),
        protocol=protocol_of(header),
        accession_end=text(header, "AccessionNumber")[-4:],
        laterality=(text(header, "ImageLaterality") or text(header, "Laterality")).upper()[:1],
    )


def _when(header: Dataset, kind: str) -> str:
    day, time = text(header, f"{kind}Date"), text(header, f"{kind}Time")
    if len(day) < 8 or not day[:8].isdigit():
        return ""
    clock = f" {time[:2]}:{time[2:4]}" if time[:4].isdigit() and len(time) >= 4 else ""
    return f"{day[:4]}-{day[4:6]}-{day[6:8]}{clock}"


def scanner_of(header: Dataset) -> str:
    """Return Station Name (0008,1010), else Manufacturer's Model Name (0008,1090); "" if neither is there."""
    return text(header, "StationName") or text(header, "ManufacturerModelName")


def protocol_of(header: Dataset) -> str:
    """Return Protocol Name (0018,1030), else Series Description (0008,103E); "" if neither is there."""
    return text(header, "ProtocolName") or text(header, "SeriesDescription")


def acquired_at(header: Dataset) -> str:
    """`2026-11-20 10:15:00` of acquisition, else of series, content or study; "" where the header gives none."""
    date, time = (_first(header, names) for names in (_DATES, _TIMES))
    day = f"{date[:4]}-{date[4:6]}-{date[6:8]}" if date[:8].isdigit() and len(date) >= 8 else ""
    clock = f"{time[:2]}:{time[2:4]}:{time[4:6] or '00'}" if time[:4].isdigit() and len(time) >= 4 else ""
    return f"{day} {clock}".strip() if day else ""


def _first(header: Dataset, names: Sequence[str]) -> str:
    return next((found for name in names if (found := text(header, name))), "")
