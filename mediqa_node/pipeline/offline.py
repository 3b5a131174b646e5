"""`mediqa-node score`: score files by the same code as in the node, without its database.

A file has to pass the checks that the receiver makes of an instance: a truncated file is reported and never scored.
"""

import dataclasses
import hashlib
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mediqa_node.dicom.identity import identity_of
from mediqa_node.dicom.part10 import dataset_offset, is_part10, read_header, transfer_syntax
from mediqa_node.dicom.photograph import wrap_photograph
from mediqa_node.dicom.scan import ScannedHeader, scan
from mediqa_node.dicom.scan_walk import SERIES_INSTANCE_UID, SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID
from mediqa_node.dicom.stacks.assemble import stack_label
from mediqa_node.dicom.technique.dose_sr import DoseEvent, dose_events
from mediqa_node.domain.assessment import Assessment, StackResult
from mediqa_node.domain.errors import (
    CheckpointRefused,
    ConfigurationError,
    InvalidInstance,
    NotScorable,
    UndecodablePixels,
    fault_of,
)
from mediqa_node.domain.identity import Identity, is_same_patient, merged
from mediqa_node.domain.measures import by_name
from mediqa_node.domain.series import Reason, ReasonCode
from mediqa_node.domain.technique import Technique
from mediqa_node.image.fundus import NO_FIELD, looks_like_fundus
from mediqa_node.pipeline.measures import ALL, measure_series
from mediqa_node.pipeline.score import Assessor, SeriesFiles, assess, harvest_series, read_headers, shown_again
from mediqa_node.system import npz

_PICTURES = frozenset({".jpg", ".jpeg", ".png"})
_MOST_PIXELS = 100_000_000
_IDENTITY = frozenset({SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID})

Unreadable = tuple[Path, str]


@dataclass(slots=True)
class _Series:
    """The files of one series.

    Attributes:
        files: path to read, by SOP Instance UID.
        named: path given by the user, by path to read (a picture is wrapped in a temporary DICOM file).
        refusal: why the series is not read any further, or None.
    """

    uid: str
    modality: str = ""
    files: dict[str, Path] = field(default_factory=dict)
    named: dict[Path, Path] = field(default_factory=dict)
    refusal: Reason | None = None

    @property
    def given(self) -> list[Path]:
        """The paths that the user knows, in order."""
        return sorted(self.named[path] for path in self.files.values())

    @property
    def output_name(self) -> str:
        """A name for what is written about the series, see `output_name`."""
        return output_name(self.uid, self.given)


Also = Callable[[SeriesFiles, Assessment, Assessor, str], Mapping[str, Any]]
"""An action on an assessed series with a name for its output; returns what is added to the result."""


def score_paths(
    paths: Sequence[Path],
    assessor: Callable[[], Assessor],
    *,
    advance: Callable[[int, int], None],
    also: Sequence[Also] = (),
    emit: Callable[[dict[str, Any]], None] = lambda result: None,
    measures: Collection[str] = ALL,
) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    """Score every series and picture found in files and folders.

    Args:
        assessor: called when the first series is to be scored; loading a network takes seconds.
        advance: called with the number of series that are done, and of all series.
        also: called with every assessed series while its files exist.
        emit: called with every result as soon as its series is done.
        measures: names of the quantities to measure on the pixels.

    Returns:
        one plain dictionary for each series, in order of discovery, and the files that could not be read, with the
        reason. A series or picture that cannot be scored by its nature is a result, not a failure.
    """
    unreadable: list[Unreadable] = []
    with tempfile.TemporaryDirectory() as folder:
        found = _by_series(paths, Path(folder), unreadable)
        events = _dose_events(found, unreadable)
        results = []
        for done, series in enumerate(found):
            advance(done, len(found))
            results.append(_score(series, events, assessor, unreadable, also, measures))
            emit(results[-1])
        advance(len(found), len(found))
    return results, unreadable


def output_name(series_instance_uid: str, paths: Sequence[Path]) -> str:
    """Return a file name for what is written about a series.

    The name of its file, or of its folder if there are several, is followed by a digest of the UID, so that two series
    never share a name and nothing in a header becomes a path.

    >>> output_name("1.2.3", [Path("retina/left eye.jpg")])
    'left_eye-c47f5b18'
    """
    known = paths[0].stem if len(paths) == 1 else paths[0].resolve().parent.name if paths else "series"
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", known).strip("_")[:48] or "series"
    return f"{plain}-{hashlib.sha256(series_instance_uid.encode()).hexdigest()[:8]}"


def dump_network_input(folder: Path) -> Also:
    """Return an action that writes the network's input for each series as NPZ.

    Arrays: `images` (m, 3, S, S) float32, `slice_of` (m,), `prompt` (64,), and the network's output: `raw` and
    `weights` (n,) of the slices; `raw_score` is the mean over views, then the weighted sum over slices.
    """

    def dump(files: SeriesFiles, assessment: Assessment, assessor: Assessor, name: str) -> Mapping[str, Any]:
        result, scorer = assessment.primary, assessor.scorer
        inputs = shown_again(files, result, scorer.spec)
        arrays = {
            "images": inputs.images,
            "slice_of": inputs.slice_of,
            "prompt": scorer.code(result.prompt),
            "raw": np.array([part.raw for part in result.slices]),
            "weights": np.array([part.weight for part in result.slices]),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.npz").write_bytes(npz.packed(arrays))
        except OSError as error:
            raise ConfigurationError(f"--dump-input {folder}: cannot be written: {error.strerror or error}") from error
        return {"network_input": str(folder / f"{name}.npz")}

    return dump


# ── finding files ────────────────────────────────────────────────────────────


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
            refused = _Series(f"file:{path}", refusal=reason.reason, files={"": path}, named={path: path})
            found[f"file:{path}"] = refused
        except Exception as error:  # codecs and pydicom may raise anything
            unreadable.append((path, f"cannot be read: {_described(error)}"))
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
        UndecodablePixels: too large to be opened.
    """
    with Image.open(path) as picture:
        if picture.width * picture.height > _MOST_PIXELS:
            raise UndecodablePixels(
                f"{picture.width:,} x {picture.height:,} pixels; at most {_MOST_PIXELS:,} are opened"
            )
        colour = picture.mode not in ("1", "L", "I;16", "I", "F", "LA")
        rgb = np.asarray(picture.convert("RGB"))
    if not colour or not looks_like_fundus(rgb):
        raise NotScorable(ReasonCode.NOT_A_FUNDUS_PHOTOGRAPH, NO_FIELD)
    dataset = wrap_photograph(rgb)
    target = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(target, enforce_file_format=True)
    return target


def _dose_events(found: Sequence[_Series], unreadable: list[Unreadable]) -> list[tuple[Identity, DoseEvent]]:
    """Return the irradiation events of all dose reports, each with the patient that its report names."""
    events: list[tuple[Identity, DoseEvent]] = []
    for file in (file for series in found if series.modality == "SR" for file in series.files.values()):
        try:
            header = read_header(file)
            events += [(identity_of(header), event) for event in dose_events(header)]
        except Exception as error:
            unreadable.append((file, _described(error)))
    return events


def _events_of(files: SeriesFiles, events: Sequence[tuple[Identity, DoseEvent]]) -> dict[str, DoseEvent]:
    """Return the events by UID that are stated of the patient of these images."""
    patient = reduce(merged, map(identity_of, files.headers)) if events else Identity()
    return {event.irradiation_event_uid: event for identity, event in events if is_same_patient(identity, patient)}


# ── scoring ─────────────────────────────────────────────────────────


def _score(
    series: _Series,
    events: Sequence[tuple[Identity, DoseEvent]],
    assessor: Callable[[], Assessor],
    unreadable: list[Unreadable],
    also: Sequence[Also],
    measures: Collection[str],
) -> dict[str, Any]:
    if series.refusal is not None:
        return _result(series, None, None, str(series.refusal)) | {"reason_code": str(series.refusal.code)}
    technique, paths = None, list(series.files.values())
    measured: dict[str, Any] = {"measures": {}}
    try:
        files = read_headers(paths)
        technique = harvest_series(files, _events_of(files, events))
        measured = _measured(files, technique, assessor(), measures)
        assessment = assess(files, technique, assessor(), revision=1, assessed_at=datetime.now(UTC))
        more = {
            key: value for act in also for key, value in act(files, assessment, assessor(), series.output_name).items()
        }
    except NotScorable as reason:
        if reason.code in (ReasonCode.UNREADABLE, ReasonCode.IMPLAUSIBLE, ReasonCode.UNDECODABLE):
            unreadable.append((series.named[paths[0]], reason.detail))
        codes = {"reason_code": str(reason.code), "measured": reason.measured or None}
        return _result(series, technique, None, str(reason)) | codes | measured
    except (ConfigurationError, CheckpointRefused):
        raise  # would be the same for every series
    except Exception as error:  # one broken series does not hide the others
        message = _described(error)
        unreadable.append((series.named[paths[0]], message))
        return _result(series, technique, None, f"unreadable: {message}") | measured
    for frame in assessment.failed_slices:
        unreadable.append((series.named[paths[frame.instance_index]], "its pixels could not be decoded"))
    return _result(series, technique, assessment, None) | measured | more


def _measured(files: SeriesFiles, technique: Technique, assessor: Assessor, wanted: Collection[str]) -> dict[str, Any]:
    found = measure_series(files, technique, assessor.prompts, wanted)
    return {"measures": by_name(found.measures) if found is not None else {}}


def _described(error: Exception) -> str:
    """Return the system's or our own words for an error; the message of any other may quote a header."""
    return f"{error.strerror or error}" if isinstance(error, OSError) else fault_of(error)


def _result(
    series: _Series, technique: Technique | None, assessment: Assessment | None, not_scored: str | None
) -> dict[str, Any]:
    primary = assessment.primary if assessment else None
    slices = primary.slices if primary else ()
    return {
        "series_instance_uid": series.uid,
        "files": [str(path) for path in series.given],
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
        "calibration": dataclasses.asdict(assessment.calibration) if assessment and assessment.calibration else None,
        "prompt": dataclasses.asdict(primary.prompt) if primary else None,
        "technique": dataclasses.asdict(dataclasses.replace(technique, frames=())) if technique else None,
        "range_position": _position(primary) if primary else None,
        "stacks": [_stack(result) for result in (primary, *assessment.others)] if assessment and primary else [],
        "n_stacks": assessment.n_stacks if assessment else 0,
        "weights_sha256": assessment.checkpoint.sha256 if assessment else None,
        "trained": assessment.checkpoint.trained if assessment else None,
        "execution": assessment.checkpoint.execution if assessment else None,
        "predicted": _predicted(primary, assessment.technique) if assessment and primary else None,
        "not_scored": not_scored,
        "reason_code": None if not_scored is None else str(ReasonCode.UNREADABLE),
        "measured": None,
        "measures": {},
    }


def _predicted(result: StackResult, technique: Technique) -> dict[str, Any] | None:
    """Return the prediction of the parameter head, the recorded value and their difference."""
    found = result.prediction
    if found is None:
        return None
    recorded = technique.tube_charge_mas if found.name == "mas" else technique.field_strength_t
    if found.unit == "{0:1}":  # a normalised label has its own scale
        recorded = None
    deviation = None if recorded is None else found.value - recorded
    more = {"supported": found.is_supported, "recorded": recorded, "deviation": deviation}
    return dataclasses.asdict(found) | more


def _position(result: StackResult) -> dict[str, Any] | None:
    """Return where a stack lies in the training range; None without limits for its modality."""
    found = result.range_position
    return dataclasses.asdict(found) | {"outside": found.is_outside} if found is not None else None


def _stack(result: StackResult) -> dict[str, Any]:
    return {
        "label": stack_label(result.stack),
        "images": len(result.stack.frames),
        "quality": result.quality,
        "flags": list(result.stack.flags),
        "range_position": _position(result),
    }
