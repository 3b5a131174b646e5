"""`mediqa-node score`: files in, judgements out, by the same code as in the node and without its database."""

import dataclasses
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError

from mediqa_node.assess.fundus import looks_like_fundus
from mediqa_node.dicom.dose_sr import DoseEvent, dose_events
from mediqa_node.dicom.wrap import wrap_photograph
from mediqa_node.domain.assessment import Assessment, StackResult
from mediqa_node.domain.errors import MediqaError, NotScorable
from mediqa_node.domain.technique import Technique
from mediqa_node.pipeline.assessing import Judge, SeriesFiles, assess, harvest_series, read_headers

_PICTURES = frozenset({".jpg", ".jpeg", ".png"})
_MOST_PIXELS = 100_000_000

Unreadable = tuple[Path, str]


def score_paths(
    paths: Sequence[Path], *, judge: Callable[[], Judge], advance: Callable[[int, int], None]
) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    """Score every series and picture found in files and folders.

    Returns:
        one plain dictionary for each series, in order of discovery, and what could not be read.
    """
    unreadable: list[Unreadable] = []
    with tempfile.TemporaryDirectory() as folder:
        found = _by_series(paths, Path(folder), unreadable)
        results = []
        events = _dose_events(found)
        for done, (uid, entries) in enumerate(found.items()):
            advance(done, len(found))
            results.append(_score(uid, entries, events, judge, unreadable))
    return [result for result in results if result is not None], unreadable


def _by_series(paths: Sequence[Path], folder: Path, unreadable: list[Unreadable]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path, was_named in _walk(paths):
        try:
            file = _wrapped(path, folder) if path.suffix.lower() in _PICTURES else path
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        except NotScorable:
            found[f"file:{path}"].append(path)
            continue
        except InvalidDicomError:
            if was_named or path.suffix.lower() == ".dcm":
                unreadable.append((path, "neither DICOM nor JPEG nor PNG"))
            continue
        except (OSError, ValueError, RecursionError, EOFError) as error:
            unreadable.append((path, f"cannot be read: {type(error).__name__}"))
            continue
        found[str(header.get("SeriesInstanceUID", "") or f"file:{path}")].append(file)
    return found


def _walk(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    for path in paths:
        if path.is_dir():
            yield from ((file, False) for file in sorted(path.rglob("*")) if file.is_file())
        else:
            yield path, True


def _wrapped(path: Path, folder: Path) -> Path:
    """Turn a picture file into an OP instance; the temporary file lives as long as the folder."""
    with Image.open(path) as picture:
        if picture.width * picture.height > _MOST_PIXELS:
            raise ValueError("picture is too large")
        colour = picture.mode not in ("1", "L", "I;16", "I", "F", "LA")
        rgb = np.asarray(picture.convert("RGB"))
    if not colour or not looks_like_fundus(rgb):
        raise NotScorable("not a fundus photograph", "a picture without a header is judged only if it can be one")
    dataset = wrap_photograph(rgb)
    target = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(target, enforce_file_format=True)
    return target


def _dose_events(found: dict[str, list[Path]]) -> dict[str, DoseEvent]:
    events: dict[str, DoseEvent] = {}
    for uid, files in found.items():
        if uid.startswith("file:"):
            continue
        header = pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=["Modality"])
        if header.get("Modality") == "SR":
            for file in files:
                events |= {event.irradiation_event_uid: event for event in dose_events(pydicom.dcmread(file))}
    return events


def _score(
    uid: str,
    paths: list[Path],
    events: dict[str, DoseEvent],
    judge: Callable[[], Judge],
    unreadable: list[Unreadable],
) -> dict[str, Any] | None:
    if uid.startswith("file:") and paths[0].suffix.lower() in _PICTURES:
        return _result(uid, "", None, None, "not a fundus photograph")
    modality, technique = "", None
    try:
        files: SeriesFiles = read_headers(paths)
        modality = str(files.headers[0].get("Modality", "") or "")
        technique = harvest_series(files, events)
        assessment = assess(files, technique, judge(), revision=1, assessed_at=datetime.now(UTC))
    except NotScorable as reason:
        if reason.reason == "unreadable":
            unreadable.append((paths[0], reason.detail))
        return _result(uid, modality, technique, None, str(reason))
    except (MediqaError, ValueError) as error:
        unreadable.append((paths[0], str(error)))
        return None
    return _result(uid, assessment.modality, technique, assessment, None)


def _result(
    uid: str, modality: str, technique: Technique | None, assessment: Assessment | None, not_scored: str | None
) -> dict[str, Any]:
    primary = assessment.primary if assessment else None
    return {
        "series_instance_uid": uid,
        "modality": modality,
        "quality": primary.quality if primary else None,
        "raw_score": primary.raw_score if primary else None,
        "slice_scores": [part.quality for part in primary.slices] if primary else [],
        "slice_weights": [part.weight for part in primary.slices] if primary else [],
        "slice_instance_uids": [part.frame.sop_instance_uid for part in primary.slices] if primary else [],
        "slice_frame_numbers": [part.frame.frame_number for part in primary.slices] if primary else [],
        "verdict": assessment.verdict if assessment else None,
        "prompt": dataclasses.asdict(primary.prompt) if primary else None,
        "technique": dataclasses.asdict(dataclasses.replace(technique, frames=())) if technique else None,
        "stacks": [_stack(result) for result in (primary, *assessment.others)] if assessment and primary else [],
        "n_stacks": assessment.n_stacks if assessment else 0,
        "weights_sha256": assessment.checkpoint.sha256 if assessment else None,
        "trained": assessment.checkpoint.trained if assessment else None,
        "not_scored": not_scored,
    }


def _stack(result: StackResult) -> dict[str, Any]:
    return {
        "label": result.stack.key.label(),
        "images": len(result.stack.frames),
        "quality": result.quality,
        "flags": list(result.stack.flags),
    }
