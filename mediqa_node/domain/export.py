"""What an export is asked for, what stands in it, and what is said of what does not."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

Payload = Literal["refs", "dicom", "nifti", "npz"]
PAYLOADS: tuple[str, ...] = get_args(Payload)
SPLITS = ("train", "val", "test")

Row = Mapping[str, Any]
"""One series of the manifest by column name; a column without a value is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which series leave, and what of them.

    Attributes:
        payload: `refs`: keys and numbers alone, no pixels; `dicom`: de-identified instances; `nifti`: volumes;
            `npz`: the salient slices, as they are and as the network is shown them.
        modalities: CT, MR, OP; () for all.
        scanners: patterns (`*`, `?`) for Station Name, model or calling AE title; () for all.
        since, until: Study Date (0008,0020), both days included; None: no limit.
        eligible_only: fit for training: of stage 1, or rated by readers; else all that may be scored.
        faces: let `dicom` and `nifti` of heads leave, from which a face can be rendered.
    """

    payload: Payload = "refs"
    modalities: tuple[str, ...] = ()
    scanners: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    eligible_only: bool = True
    faces: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON that may leave: no scanner's name, and no day, which would date the studies."""
        given = {"since": self.since is not None, "until": self.until is not None}
        return {**asdict(self), "scanners": len(self.scanners), **given}


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A series that was left out; reasons are codes, since details quote what stands in headers."""

    series_key: str
    modality: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What became of an export.

    Attributes:
        splits: number of series by split.
        reasons: number of series left out by reason.
    """

    folder: Path
    export_id: str
    n_series: int
    n_patients: int
    n_bytes: int
    splits: Mapping[str, int]
    reasons: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "folder": str(self.folder)}
