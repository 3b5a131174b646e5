"""The request and content of an export, and why a series was left out."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

Payload = Literal["refs", "dicom", "nifti", "npz"]
PAYLOADS: tuple[str, ...] = get_args(Payload)
SPLITS = ("train", "val", "test")

REASONS = {
    "not_settled": "still arriving, or not assessed or compared yet",
    "not_harvested": "no technique was read",
    "not_eligible": "neither a label nor ratings",
    "phantom": "phantom of the site",
    "purged": "images deleted after retention",
    "rejected": "images rejected by a reject note",
    "several_patients": "images of several patients",
    "conflicting_copies": "copies of an image with other pixels",
    "other_identity": "an archive has the study under another patient",
    "no_image": "no image to export",
    "undecodable": "pixels could not be decoded",
    "unreadable": "a header, or an element that the pixels depend on, could not be read",
    "implausible": "a header value that cannot be true",
    "doubtful_header": "header values that contradict each other or the images",
    "unreadable_spacing": "pixel spacing or slice thickness could not be read",
    "file_missing": "a file is missing",
    "file_unreadable": "a file could not be read",
    "burned_in": "text burned into the pixels",
    "face": "a face could be rendered (`--faces` includes it)",
    "split_conflict": "its patient, or a copy of it, is in another split",
    "filter_modality": "other modality than asked for",
    "filter_scanner": "other scanner than asked for",
    "filter_date": "outside the dates asked for",
    "fault": "internal error, see the log",
    "localizer": "localizer",
    "derived": "derived image",
    "secondary_capture": "screen capture",
    "too_few_slices": "too few slices",
    "mixed_orientation": "slices in several orientations",
    "gap": "gaps between the slices",
    "diffusion": "diffusion images",
    "missing_label": "mAs or tesla is missing",
    "unverified_label": "mAs or tesla could not be verified",
    "range": "mAs or tesla out of range",
    "several_techniques": "images with several mAs, kV or tesla",
    "no_images": "no image in the series",
    "map": "computed map",
    "not_an_image": "not an image",
    "modality": "neither CT, MR nor fundus",
    "document": "document",
    "reformat": "reformatted or projected image",
    "colour": "colour image in CT or MR",
    "review": "images to be reviewed",
    "converted": "converted image",
    "lossy": "lossy compression",
    "multi_energy": "multi-energy CT",
    "frames_in_single_frame_class": "several frames in a class of one image",
    "mosaic": "mosaic of slices",
}
"""Reasons for which a series is left out, in words; a code that is not here is shown as it is."""


def in_words(*codes: str) -> str:
    """Return reason codes in words.

    >>> in_words("too_few_slices", "ge_exposure_unverified")
    'too few slices; ge exposure unverified'
    """
    return "; ".join(REASONS.get(code, code.replace("_", " ")) for code in codes)


Row = Mapping[str, Any]
"""One series of the manifest by column name; a missing column is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which series to export, and what of them.

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

    def takes_day(self, day: date) -> bool:
        """Return whether a study of this day is within the dates."""
        return not ((self.since and day < self.since) or (self.until and day > self.until))

    def takes_scanner(self, names: Iterable[str]) -> bool:
        """Return whether any of a scanner's names matches a pattern; upper and lower case are the same."""
        patterns = [pattern.upper() for pattern in self.scanners]
        return not patterns or any(fnmatchcase(name.upper(), pattern) for name in names for pattern in patterns)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON that may leave: no scanner's name, and no day, which would date the studies."""
        given = {"since": self.since is not None, "until": self.until is not None}
        return {**asdict(self), "scanners": len(self.scanners), **given}


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A series that was left out. Reasons are codes, because details would quote headers."""

    series_key: str
    modality: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """The result of an export.

    Attributes:
        splits: number of series by split.
        reasons: number of series left out by reason; a series with several counts under each.
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
