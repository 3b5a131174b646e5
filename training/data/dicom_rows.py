"""Make rows of a manifest from DICOM files, by the rules of the node."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from mediqa_node.dicom.part10 import is_part10, read_header
from mediqa_node.dicom.prompts import default_rules, prompt_from_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.dicom.technique.harvest import harvest
from mediqa_node.domain.errors import InconsistentGeometry, NotScorable, UndecodablePixels
from training.data.manifest import Row

Series = tuple[tuple[Path, ...], tuple[Dataset, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """An item that was left out, and why.

    Attributes:
        missing: whether it is a label without an image or an image without a label.
    """

    reason: str
    missing: bool = False


def key_of(*parts: str) -> str:
    """Return a key of 20 hex digits derived from its parts."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:20]


def series_below(folder: Path) -> Iterator[Series | Left]:
    """Yield the DICOM series below a folder, each with paths and headers, one folder at a time."""
    for place in sorted({folder, *(path for path in folder.rglob("*") if path.is_dir())}):
        series: dict[str, list[tuple[Path, Dataset]]] = {}
        for path in sorted(place.iterdir()):
            if path.is_file() and is_part10(path):
                try:
                    header = read_header(path)
                except UndecodablePixels:
                    yield Left(reason="DICOM files that cannot be read")
                else:
                    series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))
        for files in series.values():
            paths, headers = zip(*files, strict=True)
            yield paths, headers


def rows_below(folder: Path, row_of: Callable[[Sequence[Path], Sequence[Dataset]], Row | Left]) -> Iterator[Row | Left]:
    """Yield a row, or the reason to leave it out, for every DICOM series below a folder."""
    for one in series_below(folder):
        yield one if isinstance(one, Left) else row_of(*one)


def first_header(folder: Path) -> tuple[Path, Dataset] | None:
    """Return the first readable DICOM file below a folder with its header, or None."""
    path = next((path for path in sorted(folder.rglob("*")) if path.is_file() and is_part10(path)), None)
    try:
        return (path, read_header(path)) if path else None
    except UndecodablePixels:
        return None


def dicom_row(
    paths: Sequence[Path], headers: Sequence[Dataset], *, patient: str, source: str, licence: str, region: str
) -> Row | Left:
    """Return the row of a DICOM series with prompts and physical label as the node harvests them.

    Args:
        region: of the data set, used if headers have none.
    """
    technique = harvest(headers)
    if technique.refusal is not None:
        return Left(reason=f"the node would not score it: {technique.refusal.code}")
    try:
        stack = assemble_stacks(headers)[0]
        prompt = prompt_from_header(headers, stack, default_rules())
    except (NotScorable, InconsistentGeometry, IndexError) as error:
        return Left(reason=f"the node would not score it: {getattr(error, 'reason', 'no image')}")
    label = {"mas": technique.tube_charge_mas, "tesla": technique.field_strength_t}.get(technique.label_name or "")
    return Row(
        key=key_of(source, str(headers[0].get("SeriesInstanceUID", "")), str(paths[0].parent)),
        patient=patient,
        source=source,
        dimension=prompt.dimension.value,
        modality=prompt.modality.value,
        region=region if prompt.region.value == "unknown" else prompt.region.value,
        type=prompt.type.value,
        payload_kind="dicom",
        paths=tuple(path.absolute() for path in paths),
        label_name=technique.label_name or "" if label is not None else "",
        label_value=label,
        eligible=technique.eligible,
        licence=licence,
    )
