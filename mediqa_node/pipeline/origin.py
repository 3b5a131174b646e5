"""Where and when a series was acquired, from the header of one of its kept instances."""

from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from mediqa_node.dicom.header import text
from mediqa_node.dicom.part10 import read_header
from mediqa_node.domain.errors import MediqaError


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of an acquisition from its header, without the patient; "" if missing.

    Attributes:
        scanner: Station Name (0008,1010), else Manufacturer's Model Name (0008,1090).
        model: Manufacturer (0008,0070) and model.
        acquired: Acquisition, Series or Study Date with its time, as `2026-11-28 14:05`.
        description: Series Description (0008,103E), else Protocol Name (0018,1030).
    """

    scanner: str = ""
    model: str = ""
    acquired: str = ""
    description: str = ""


def read_origin(path: Path) -> Origin:
    """Return the origin of the series of an instance; an empty one if the file cannot be read."""
    try:
        header = read_header(path)
    except (MediqaError, OSError):
        return Origin()
    model = text(header, "ManufacturerModelName")
    maker = text(header, "Manufacturer")
    return Origin(
        scanner=text(header, "StationName") or model,
        model=model if model.startswith(maker) else f"{maker} {model}".strip(),
        acquired=next((at for at in (_when(header, kind) for kind in ("Acquisition", "Series", "Study")) if at), ""),
        description=text(header, "SeriesDescription") or text(header, "ProtocolName"),
    )


def _when(header: Dataset, kind: str) -> str:
    day, time = text(header, f"{kind}Date"), text(header, f"{kind}Time")
    if len(day) < 8 or not day[:8].isdigit():
        return ""
    clock = f" {time[:2]}:{time[2:4]}" if time[:4].isdigit() and len(time) >= 4 else ""
    return f"{day[:4]}-{day[4:6]}-{day[6:8]}{clock}"
