"""The manifest that training reads: a row for each series, from an export of the node or from an adapter.

Columns are those of the export; a manifest may lack all but `series_key`, `patient_key`, `prompt_dim` and
`prompt_mod`, and may have any others. An empty cell is null. `relative_path` is a file or a folder below the
manifest, an absolute path, or several of them between bars (`a.dcm|b.dcm`); it is empty if only keys were exported.
"""

import csv
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.domain.prompt import DIMENSIONS, MODALITIES, REGIONS, TYPES

MANIFEST_FILE = "manifest.csv"
SPLITS = ("train", "val", "test")
LABELS = {"mas": "mA.s", "tesla": "T"}
"""What stage 1 learns, with its unit (UCUM)."""
PAYLOADS = ("refs", "npz", "dicom", "nifti", "image")
_COLUMNS = (
    "series_key", "patient_key", "source_dataset", "relative_path", "payload_kind", "prompt_dim", "prompt_mod",
    "prompt_reg", "prompt_type", "window_low", "window_high", "label_name", "label_value", "label_unit", "mos_norm",
    "weight", "split", "stage1_eligible", "license",
)  # fmt: skip
_NEEDED = ("series_key", "patient_key", "prompt_dim", "prompt_mod")
_PROBLEMS_SHOWN = 8
_BETWEEN = "|"
_LARGEST_FIELD = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One series, or one picture.

    Attributes:
        key, patient: pseudonyms; rows of one patient are never in two splits.
        source: data set or device that it comes from.
        split: `train`, `val`, `test`, or "" where undecided.
        dimension, modality, region, type: prompt words (`domain.prompt`).
        payload_kind: `npz`, `dicom`, `nifti`, `image`, or `refs` without pixels.
        paths: absolute; every file of a DICOM series.
        window: the HU values of 0 and 1 in a picture that is already windowed; else None.
        label_name: `mas`, `tesla` or "".
        label_value: in mA.s or T; None without a label.
        mos: mean opinion score, 0..1, larger is better; None without ratings.
        weight: of its mean opinion in the loss.
        eligible: fit for stage 1.
        licence: of the data set, as stated by its owner.
    """

    key: str
    patient: str
    source: str = ""
    split: str = ""
    dimension: str
    modality: str
    region: str = "unknown"
    type: str = "unknown"
    payload_kind: str = "refs"
    paths: tuple[Path, ...] = ()
    window: tuple[float, float] | None = None
    label_name: str = ""
    label_value: float | None = None
    mos: float | None = None
    weight: float = 1.0
    eligible: bool = False
    licence: str = ""


def read_manifest(path: Path) -> list[Row]:
    """Return the rows of a manifest, or of the `manifest.csv` in a folder.

    Raises:
        ConfigurationError: unreadable, columns missing, or invalid rows, with line numbers.
    """
    file = path / MANIFEST_FILE if path.is_dir() else path
    try:
        csv.field_size_limit(_LARGEST_FIELD)
        with file.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            if missing := [name for name in _NEEDED if name not in (table.fieldnames or ())]:
                raise ConfigurationError(f"manifest {file} lacks the columns {', '.join(missing)}")
            cells = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"manifest {file} cannot be read: {error}") from error
    rows, problems, seen = [], [], set()
    for line, row in cells:
        try:
            rows.append(one := _row(row, file.parent))
            if one.key in seen:
                raise ValueError(f"series_key {one.key!r} occurs twice")
            seen.add(one.key)
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    if problems:
        more = len(problems) - _PROBLEMS_SHOWN
        shown = "\n  ".join(problems[:_PROBLEMS_SHOWN] + ([f"and {more} more"] if more > 0 else []))
        raise ConfigurationError(f"manifest {file}: {len(problems)} of {len(cells)} rows cannot be used\n  {shown}")
    return rows


def write_manifest(rows: Iterable[Row], path: Path) -> None:
    """Write a manifest that `read_manifest` reads back unchanged; paths below its folder are written relative to it.

    Raises:
        ConfigurationError: a path contains the bar that separates paths.
    """
    with path.open("w", newline="", encoding="utf-8") as lines:
        table = csv.DictWriter(lines, _COLUMNS)
        table.writeheader()
        for row in rows:
            if wrong := next((one for one in row.paths if _BETWEEN in str(one)), None):
                raise ConfigurationError(f"{wrong}: {_BETWEEN} separates the paths of a manifest; rename the file")
            table.writerow(_cells(row, path.parent.absolute()))


# ── what may train ───────────────────────────────────────────────────────────

FEWEST_SERIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The rows of a manifest to train one stage on.

    Attributes:
        rows: usable rows of all splits.
        left_out: reasons why other rows are not usable, one sentence each, for the user.
    """

    rows: tuple[Row, ...]
    left_out: tuple[str, ...] = ()


def for_pretraining(rows: Sequence[Row]) -> Chosen:
    """Return the rows for stage 1: eligible series with labels that differ.

    Raises:
        ConfigurationError: nothing is left, or `unfit_splits` has a reason; the message has every reason.
    """
    left_out, kept = [], []
    labelled = [row for row in rows if row.eligible and row.label_value is not None]
    if unlabelled := len(rows) - len(labelled):
        left_out.append(f"{unlabelled} of {len(rows)} series are not eligible or have no label")
    for name in LABELS:
        mine = [row for row in labelled if row.label_name == name]
        if (why := unfit_labels(mine, name)) is None:
            kept += mine
        elif mine:
            left_out.append(why)
    return _chosen("stage 1", kept, left_out)


def for_finetuning(rows: Sequence[Row]) -> Chosen:
    """Return the rows for stage 2: series with an opinion score.

    Raises:
        ConfigurationError: too few rows, all with one score, or `unfit_splits` has a reason.
    """
    rated = [row for row in rows if row.mos is not None]
    left_out = [f"{n} of {len(rows)} series have no opinion score"] if (n := len(rows) - len(rated)) else []
    if (why := unfit_opinions(rated)) is not None:
        left_out.append(why)
        rated = []
    return _chosen("stage 2", rated, left_out)


def unfit_labels(rows: Sequence[Row], name: str) -> str | None:
    """Return why labels `mas` or `tesla` cannot be learnt, or None. Tesla is compared to one decimal."""
    unit = LABELS[name]
    values = [row.label_value for row in rows if row.label_value is not None]
    if len(values) < FEWEST_SERIES:
        return f"{name}: {len(values)} series; at least {FEWEST_SERIES} are needed"
    levels = {round(value, 1) if name == "tesla" else value for value in values}
    if len(levels) == 1:
        what = "one field strength" if name == "tesla" else "one tube charge"
        return f"{name}: {what} only, {min(levels):g} {unit}, in all {len(values)} series: nothing to learn"
    return None


def unfit_opinions(rows: Sequence[Row]) -> str | None:
    """Return why opinion scores cannot be learnt, or None."""
    if len(rows) < FEWEST_SERIES:
        return f"opinion scores: {len(rows)} series; at least {FEWEST_SERIES} are needed"
    levels = {row.mos for row in rows}
    if len(levels) == 1:
        return f"opinion scores: all {len(rows)} are {rows[0].mos:g} of 1: nothing to learn"
    return None


def unfit_splits(rows: Sequence[Row]) -> str | None:
    """Return why rows cannot be split into training and test, or None: undecided, a split empty, patients in two."""
    if undecided := sum(row.split == "" for row in rows):
        return f"{undecided} of {len(rows)} series have no split; `with_splits` decides by patient"
    patients = {split: {row.patient for row in rows if row.split == split} for split in SPLITS}
    for split in ("train", "test"):  # `val` may be empty: no step uses it
        if not patients[split]:
            size = f"{len(rows)} series of {len({row.patient for row in rows})} patients"
            return f"no patient in split {split}; {size}: split again with `--resplit SEED`"
    for one, two in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := patients[one] & patients[two]:
            return f"{len(both)} patients are in {one} and in {two}, for example {min(both)}: the result would be wrong"
    return None


def with_splits(rows: Sequence[Row], *, seed: int = 0) -> list[Row]:
    """Assign splits to undecided rows, 8:1:1 by patient, at least one patient each if there are three.

    Patients are ordered by a digest of seed and key, so that the order of rows does not matter. Splits of the data set
    are kept: its patients stay where they are, and no patient is added to an existing `test` or `val`.
    """
    side = {row.patient: row.split for row in rows if row.split}
    open_ = {row.patient for row in rows} - set(side)
    order = sorted(open_, key=lambda patient: hashlib.sha256(f"{seed}|{patient}".encode()).digest())
    tenth = max(1, round(len(order) / 10)) if len(order) >= len(SPLITS) else 0
    wanted = [split for split in ("test", "val") if split not in side.values()]
    for place, patient in enumerate(order):
        side[patient] = wanted[place // tenth] if tenth and place < tenth * len(wanted) else "train"
    return [replace(row, split=side[row.patient]) for row in rows]


def _chosen(stage: str, kept: Sequence[Row], left_out: Sequence[str]) -> Chosen:
    why = unfit_splits(kept) if kept else None
    if why is not None or not kept:
        reasons = "\n  ".join([*left_out, *([why] if why else [])]) or "the manifest is empty"
        raise ConfigurationError(f"nothing to train {stage} on\n  {reasons}")
    return Chosen(rows=tuple(kept), left_out=tuple(left_out))


# ── cells ────────────────────────────────────────────────────────────────────


def _row(cells: Mapping[str | None, str | None], folder: Path) -> Row:
    """Read one row; ValueError names the column and what is allowed."""
    text = {name: (value or "").strip() for name, value in cells.items() if name and not isinstance(value, list)}
    if None in cells:
        raise ValueError("more cells than columns")
    for name in _NEEDED:
        if not text.get(name):
            raise ValueError(f"{name} is empty")
    label_name = text.get("label_name", "")
    label = "" if label_name == "mos" else _one_of(text, "label_name", ("", *LABELS))
    value = _number(text, "label_value", above=0.0) if label else None
    if label and (unit := text.get("label_unit")) and unit not in (LABELS[label], {"mas": "mAs"}.get(label)):
        raise ValueError(f"label_unit {unit!r} of {label}; known: {LABELS[label]}")
    mos = _number(text, "mos_norm", within=(0.0, 1.0))
    return Row(
        key=text["series_key"],
        patient=text["patient_key"],
        source=text.get("source_dataset") or text.get("device_key") or "",
        split=_one_of(text, "split", ("", *SPLITS)),
        dimension=_one_of(text, "prompt_dim", DIMENSIONS),
        modality=_one_of(text, "prompt_mod", MODALITIES),
        region=_one_of(text, "prompt_reg", REGIONS, default="unknown"),
        type=_one_of(text, "prompt_type", TYPES, default="unknown"),
        payload_kind=_one_of(text, "payload_kind", PAYLOADS, default="refs"),
        paths=_paths(text.get("relative_path", ""), folder),
        window=_window(text),
        label_name=label if value is not None else "",
        label_value=value,
        mos=mos,
        weight=1.0 if (weight := _number(text, "weight", above=0.0)) is None else weight,
        eligible=_flag(text, "stage1_eligible"),
        licence=text.get("license", ""),
    )


def _paths(cell: str, folder: Path) -> tuple[Path, ...]:
    found: list[Path] = []
    for part in filter(None, cell.split(_BETWEEN)):
        path = (folder / part).absolute()
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise ValueError(f"relative_path {part} is not there")
    return tuple(found)


def _window(text: Mapping[str, str]) -> tuple[float, float] | None:
    low, high = _number(text, "window_low"), _number(text, "window_high")
    if low is None or high is None:
        return None
    if not low < high:
        raise ValueError(f"window_low {low:g} is not below window_high {high:g}")
    return low, high


def _one_of(text: Mapping[str, str], name: str, allowed: Sequence[str], *, default: str = "") -> str:
    value = text.get(name) or default
    if value not in allowed:
        raise ValueError(f"{name} {value!r}; known: {', '.join(filter(None, allowed))}")
    return value


def _flag(text: Mapping[str, str], name: str) -> bool:
    value = text.get(name, "").lower()
    if value not in ("", "0", "1", "false", "true"):
        raise ValueError(f"{name} {value!r}; known: true, false")
    return value in ("1", "true")


def _number(
    text: Mapping[str, str], name: str, *, above: float | None = None, within: tuple[float, float] | None = None
) -> float | None:
    if not (cell := text.get(name, "")):
        return None
    try:
        value = float(cell)
    except ValueError as error:
        raise ValueError(f"{name} {cell!r} is no number") from error
    if not isfinite(value) or (above is not None and value <= above):
        raise ValueError(f"{name} {cell} must be finite" + (f" and above {above:g}" if above is not None else ""))
    if within is not None and not within[0] <= value <= within[1]:
        raise ValueError(f"{name} {cell} must lie in {within[0]:g}..{within[1]:g}")
    return value


def _cells(row: Row, folder: Path) -> dict[str, str]:
    def relative(path: Path) -> str:
        return os.fspath(path.relative_to(folder)) if path.is_relative_to(folder) else os.fspath(path.absolute())

    low, high = row.window or (None, None)
    values = (
        row.key, row.patient, row.source, _BETWEEN.join(map(relative, row.paths)), row.payload_kind, row.dimension,
        row.modality, row.region, row.type, _written(low), _written(high), row.label_name, _written(row.label_value),
        LABELS.get(row.label_name, ""), _written(row.mos), _written(row.weight), row.split, str(row.eligible).lower(),
        row.licence,
    )  # fmt: skip
    return dict(zip(_COLUMNS, values, strict=True))


def _written(value: float | None) -> str:
    return "" if value is None else repr(float(value))
