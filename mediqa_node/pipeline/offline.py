"""`mediqa-node score`: files in, judgements out, by the same code as in the node and without its database.

A file is held to what the receiver holds an instance to: one that is cut short is named, never
judged by what is left of it.
"""

import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mediqa_node.dicom.part10 import dataset_offset, is_part10, read_header, transfer_syntax
from mediqa_node.dicom.photograph import wrap_photograph
from mediqa_node.dicom.scan import (
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    ScannedHeader,
    scan,
)
from mediqa_node.dicom.stacks.assemble import stack_label
from mediqa_node.dicom.technique.dose_sr import DoseEvent, dose_events
from mediqa_node.domain.assessment import Assessment, StackResult
from mediqa_node.domain.errors import (
    ConfigurationError,
    InvalidInstance,
    MediqaError,
    NotScorable,
    UndecodablePixels,
)
from mediqa_node.domain.technique import Technique
from mediqa_node.image.fundus import looks_like_fundus
from mediqa_node.pipeline.score import Assessor, SeriesFiles, assess, harvest_series, read_headers, shown_again

_PICTURES = frozenset({".jpg", ".jpeg", ".png"})
_MOST_PIXELS = 100_000_000
_IDENTITY = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID})

Unreadable = tuple[Path, str]


@dataclass(slots=True)
class _Series:
    """Files that belong together: what to read by SOP Instance UID, and what the user calls it.

    Attributes:
        named: by the path that is read, the path that was given (a picture is read from its wrapping).
        refusal: why it is not looked at further, or None.
    """

    uid: str
    modality: str = ""
    files: dict[str, Path] = field(default_factory=dict)
    named: dict[Path, Path] = field(default_factory=dict)
    refusal: str | None = None


Also = Callable[[SeriesFiles, Assessment, Assessor], Mapping[str, Any]]
"""What else to do with a judged series, and what to say of it in its result."""


def score_paths(
    paths: Sequence[Path],
    *,
    judge: Callable[[], Assessor],
    advance: Callable[[int, int], None],
    also: Sequence[Also] = (),
) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    """Score every series and picture found in files and folders.

    Args:
        judge: called when the first series is to be scored; loading a network takes seconds.
        advance: told how many series are done, of how many.
        also: called with every judged series while its files are there.

    Returns:
        one plain dictionary for each series, in order of discovery, and what could not be read, with
        a sentence. A series or picture that is nothing to score is a result, not a failure.
    """
    unreadable: list[Unreadable] = []
    with tempfile.TemporaryDirectory() as folder:
        found = _by_series(paths, Path(folder), unreadable)
        events = _dose_events(found, unreadable)
        results = []
        for done, series in enumerate(found):
            advance(done, len(found))
            results.append(_score(series, events, judge, unreadable, also))
        advance(len(found), len(found))
    return results, unreadable


def safe_name(series_instance_uid: str) -> str:
    """Return a name for what is written of a series: a digest, for what a UID holds is never a path."""
    return hashlib.sha256(series_instance_uid.encode()).hexdigest()[:16]


def dump_network_input(folder: Path) -> Also:
    """Return what writes the network's input of each series as NPZ, for whoever wants to run a network of their own.

    Arrays: `images` (m, 3, S, S) float32, `slice_of` (m,), `prompt` (64,), and what came out of it: `raw` and
    `weights` (n,) of the slices; `raw_score` is the mean over views, then the weighted sum over slices.
    """

    def dump(files: SeriesFiles, assessment: Assessment, assessor: Assessor) -> Mapping[str, Any]:
        result, scorer = assessment.primary, assessor.scorer
        inputs = shown_again(files, result, scorer.spec)
        name = safe_name(assessment.series_instance_uid)
        arrays = {
            "images": inputs.images,
            "slice_of": inputs.slice_of,
            "prompt": scorer.code(result.prompt),
            "raw": np.array([part.raw for part in result.slices]),
            "weights": np.array([part.weight for part in result.slices]),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **arrays)
        except OSError as error:
            raise ConfigurationError(f"--dump-input {folder}: cannot be written: {error.strerror or error}") from error
        return {"network_input": str(folder / f"{name}.npz")}

    return dump


# ── what is there ────────────────────────────────────────────────────────────


def _by_series(paths: Sequence[Path], folder: Path, unreadable: list[Unreadable]) -> list[_Series]:
    found: dict[str, _Series] = {}
    for path, was_named in _walk(paths):
        is_picture = path.suffix.lower() in _PICTURES
        try:
            if not is_picture and not is_part10(path):
                if was_named or path.suffix.lower() == ".dcm":
                    unreadable.append((path, "neither DICOM nor JPEG nor PNG"))
                continue
            file = _wrapped(path, folder) if is_picture else path
            header = _scanned(file)
        except NotScorable as reason:
            found[f"file:{path}"] = _Series(f"file:{path}", refusal=str(reason))
        except (MediqaError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            unreadable.append((path, f"cannot be read: {error}"))
        else:
            series = found.setdefault(header.series_instance_uid, _Series(header.series_instance_uid, header.modality))
            series.files.setdefault(header.sop_instance_uid, file)
            series.named[file] = path
    return list(found.values())


def _walk(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Yield every file once, and whether the user named it."""
    seen: set[Path] = set()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if (file == path or file.is_file()) and (real := file.resolve()) not in seen:
                seen.add(real)
                yield file, file == path


def _scanned(path: Path) -> ScannedHeader:
    """Return what identifies an instance, once all its lengths are proven.

    Raises:
        NotScorable: `unidentified`: without one of the UIDs that the node would need to keep it.
        InvalidInstance: cut short, or otherwise nothing that the receiver would take.
    """
    syntax = transfer_syntax(path)
    with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
        whole = memoryview(content)
        dataset = whole[dataset_offset(whole) :]
        try:
            return scan(dataset, syntax)
        except InvalidInstance as error:
            if error.offending in _IDENTITY and dataset:
                raise NotScorable("unidentified", f"{error}; the node would refuse this instance") from error
            raise
        finally:
            dataset.release()
            whole.release()


def _wrapped(path: Path, folder: Path) -> Path:
    """Turn a picture file into an OP instance; the temporary file lives as long as the folder.

    Raises:
        NotScorable: it cannot be a photograph of the fundus.
        ValueError: too large to be opened.
    """
    with Image.open(path) as picture:
        if picture.width * picture.height > _MOST_PIXELS:
            raise ValueError(f"{picture.width:,} x {picture.height:,} pixels; at most {_MOST_PIXELS:,} are opened")
        colour = picture.mode not in ("1", "L", "I;16", "I", "F", "LA")
        rgb = np.asarray(picture.convert("RGB"))
    if not colour or not looks_like_fundus(rgb):
        raise NotScorable("not a fundus photograph", "a picture without a header is judged only if it can be one")
    dataset = wrap_photograph(rgb)
    target = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(target, enforce_file_format=True)
    return target


def _dose_events(found: Sequence[_Series], unreadable: list[Unreadable]) -> dict[str, DoseEvent]:
    events: dict[str, DoseEvent] = {}
    for file in (file for series in found if series.modality == "SR" for file in series.files.values()):
        try:
            events |= {event.irradiation_event_uid: event for event in dose_events(read_header(file))}
        except (MediqaError, OSError) as error:
            unreadable.append((file, str(error)))
    return events


# ── what comes of it ─────────────────────────────────────────────────────────


def _score(
    series: _Series,
    events: Mapping[str, DoseEvent],
    judge: Callable[[], Assessor],
    unreadable: list[Unreadable],
    also: Sequence[Also],
) -> dict[str, Any]:
    if series.refusal is not None:
        return _result(series, None, None, series.refusal)
    technique, paths = None, list(series.files.values())
    try:
        files = read_headers(paths)
        technique = harvest_series(files, events)
        assessment = assess(files, technique, judge(), revision=1, assessed_at=datetime.now(UTC))
        more = {key: value for act in also for key, value in act(files, assessment, judge()).items()}
    except NotScorable as reason:
        if reason.reason in ("unreadable", "undecodable"):
            unreadable.append((series.named[paths[0]], reason.detail))
        return _result(series, technique, None, str(reason))
    except (UndecodablePixels, ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        message = f"{type(error).__name__}: {error}"  # one broken series does not hide the others
        unreadable.append((series.named[paths[0]], message))
        return _result(series, technique, None, f"unreadable: {message}")
    for frame in assessment.failed_slices:
        unreadable.append((series.named[paths[frame.instance_index]], "its pixels could not be decoded"))
    return _result(series, technique, assessment, None) | more


def _result(
    series: _Series, technique: Technique | None, assessment: Assessment | None, not_scored: str | None
) -> dict[str, Any]:
    primary = assessment.primary if assessment else None
    slices = primary.slices if primary else ()
    return {
        "series_instance_uid": series.uid,
        "modality": assessment.modality if assessment else series.modality,
        "quality": primary.quality if primary else None,
        "raw_score": primary.raw_score if primary else None,
        "slice_scores": [part.quality for part in slices],
        "slice_raw_scores": [part.raw for part in slices],
        "slice_weights": [part.weight for part in slices],
        "slice_instance_uids": [part.frame.sop_instance_uid for part in slices],
        "slice_frame_numbers": [part.frame.frame_number for part in slices],
        "slices_beyond_scale": primary.n_clamped if primary else 0,
        "verdict": assessment.verdict if assessment else None,
        "prompt": dataclasses.asdict(primary.prompt) if primary else None,
        "technique": dataclasses.asdict(dataclasses.replace(technique, frames=())) if technique else None,
        "stacks": [_stack(result) for result in (primary, *assessment.others)] if assessment and primary else [],
        "n_stacks": assessment.n_stacks if assessment else 0,
        "weights_sha256": assessment.checkpoint.sha256 if assessment else None,
        "trained": assessment.checkpoint.trained if assessment else None,
        "execution": assessment.checkpoint.execution if assessment else None,
        "predicted": _predicted(primary, assessment.technique) if assessment and primary else None,
        "not_scored": not_scored,
    }


def _predicted(result: StackResult, technique: Technique) -> dict[str, Any] | None:
    """What the parameter head says, beside what was recorded and how far off it is."""
    found = result.prediction
    if found is None:
        return None
    recorded = technique.tube_charge_mas if found.name == "mas" else technique.field_strength_t
    if found.unit == "{0:1}":  # a normalised label stands on a scale of its own
        recorded = None
    deviation = None if recorded is None else found.value - recorded
    return {**dataclasses.asdict(found), "recorded": recorded, "deviation": deviation}


def _stack(result: StackResult) -> dict[str, Any]:
    return {
        "label": stack_label(result.stack),
        "images": len(result.stack.frames),
        "quality": result.quality,
        "flags": list(result.stack.flags),
    }
