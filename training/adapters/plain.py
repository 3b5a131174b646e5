"""A CSV with a folder of images: for a site's own images and data sets without an adapter.

`labels.csv` has the columns image (below the folder), patient, modality, score, scale_min, scale_max and
scale_direction (`higher_better` or `lower_better`), and may have region, type, dimension, source
and split. An image is a picture, a NIfTI file, an npz of an export, or a folder of one DICOM series. Patients are
hashed. A picture of CT needs window_low and window_high, the HU values of black and white.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from training.adapters.contract import Match
from training.adapters.files import number, opinion, table
from training.data.dicom_rows import Left, key_of
from training.data.manifest import Row

NAME = "plain"
LICENCE = "the user's own"
_TABLE = "labels.csv"
_NEEDED = ("image", "patient", "modality", "score", "scale_min", "scale_max", "scale_direction")
POLARITY = "as scale_direction says, score between scale_min and scale_max → 0..1"
EXPECTS = f"{_TABLE} with {', '.join(_NEEDED)}, beside the images"
_DIRECTIONS = ("higher_better", "lower_better")
_KINDS = {".nii": "nifti", ".gz": "nifti", ".npz": "npz", ".dcm": "dicom", "": "dicom"}


def probe(root: Path) -> Match | None:
    """Look for `labels.csv` with a column image; refuse it without the columns that define the scale."""
    if not (root / _TABLE).is_file():
        return None
    columns = next(iter(table(root / _TABLE)), {})
    if "image" not in columns:
        return None
    if missing := [name for name in _NEEDED if name not in columns]:
        why = f"{_TABLE} lacks {', '.join(missing)}: without patients splits leak, without a scale scores mean nothing"
        return Match(root=root, found=_TABLE, refusal=why)
    return Match(root=root, found=_TABLE)


def records(root: Path) -> Iterator[Row | Left]:
    """Yield a row for every line."""
    for row in table(root / _TABLE):
        path = root / row["image"]
        low, high, score = (number(row[name]) for name in ("scale_min", "scale_max", "score"))
        share = opinion(score, worst=low, best=high) if low is not None and high is not None and low < high else None
        if share is None:
            yield Left(reason="score is empty or outside its scale")
        elif row["scale_direction"] not in _DIRECTIONS:
            yield Left(reason=f"scale_direction is not {' or '.join(_DIRECTIONS)}")
        elif not row["patient"]:
            yield Left(reason="patient is empty")
        elif not row["image"] or not path.exists():
            yield Left(reason=f"images that {_TABLE} names", missing=True)
        elif row["modality"].upper() == "CT" and _kind(path) == "image" and _window(row) is None:
            yield Left(reason="CT picture without window_low and window_high: its gray values are no HU")
        else:
            yield _row(path, row, share if row["scale_direction"] == _DIRECTIONS[0] else 1.0 - share)


def _row(path: Path, row: Mapping[str, str], mos: float) -> Row:
    return Row(
        key=key_of(row["image"]),
        patient=key_of("patient", row["patient"]),
        source=row.get("source") or path.parent.name,
        split=row.get("split", ""),
        dimension=row.get("dimension") or ("3D" if path.is_dir() or path.suffix in (".nii", ".gz") else "2D"),
        modality=row["modality"].upper(),
        region=row.get("region", "").lower() or "unknown",
        type=row.get("type", "").lower() or "unknown",
        payload_kind=_kind(path),
        window=_window(row) if _kind(path) == "image" else None,
        paths=tuple(sorted(path.absolute().iterdir())) if path.is_dir() else (path.absolute(),),
        mos=mos,
    )


def _kind(path: Path) -> str:
    return "dicom" if path.is_dir() else _KINDS.get(path.suffix.lower(), "image")


def _window(row: Mapping[str, str]) -> tuple[float, float] | None:
    low, high = number(row.get("window_low", "")), number(row.get("window_high", ""))
    return None if low is None or high is None or low >= high else (low, high)
