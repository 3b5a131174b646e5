"""Selection of an export: every series of the node is either described, or left out with the reason."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from hashlib import sha256
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from pydicom import Dataset

from mediqa_node.decode.reader import FrameReader
from mediqa_node.decode.stack_images import image_getter
from mediqa_node.dicom.deidentify.pseudonyms import Pseudonyms
from mediqa_node.dicom.exclusions import scorable
from mediqa_node.dicom.header import text
from mediqa_node.dicom.prompts import PromptRules, prompt_from_header
from mediqa_node.dicom.stacks.assemble import assemble_stacks
from mediqa_node.domain.errors import NotScorable, StorageFailed, UndecodablePixels
from mediqa_node.domain.export import Excluded, ExportRequest, Payload
from mediqa_node.domain.images import Stack
from mediqa_node.domain.measures import Measure
from mediqa_node.domain.preprocessing import PreprocessSpec
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.rating import Mos
from mediqa_node.domain.series import DeliveryReason, DeliveryState, InstanceStatus, ReasonCode, SeriesState
from mediqa_node.domain.technique import Technique
from mediqa_node.exchange.series_row import DescribedSeries, opinion, series_row
from mediqa_node.image.salient import WANTED
from mediqa_node.pipeline.identity import identities
from mediqa_node.pipeline.policy import acquisition_of
from mediqa_node.pipeline.score import SeriesFiles, read_headers
from mediqa_node.storage import copies, harvested, index, outbox, ratings, rejections
from mediqa_node.storage import measures as stored_measures
from mediqa_node.storage.copies import SET_ASIDE
from mediqa_node.storage.database import Connection, Database
from mediqa_node.storage.harvested import HarvestedSeries
from mediqa_node.storage.index import InstanceRow, SeriesRow
from mediqa_node.storage.spool import Spool

log = structlog.get_logger("export")

WITH_FACE = frozenset({"head", "brain", "neck", "unknown"})
"""Regions of CT and MR whose volume may show a face; `unknown` may too."""
FAULT = "fault"
"""Reason for a series on which this program fails; the log has the error."""
_VIEWS_BYTES = 4 * 224 * 224 * 4
"""Size of one slice as network input: up to four views, float32."""
_LABELLED = {"mas": "CT", "tesla": "MR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSource:
    """Sources of an export.

    Attributes:
        spec: reads the preprocessing of the active checkpoint; called only for network input.
    """

    database: Database
    spool: Spool
    prompts: PromptRules
    pseudonyms: Pseudonyms
    spec: Callable[[], PreprocessSpec]
    software_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """A series that may leave.

    Attributes:
        row: of the manifest, without split, label map and path.
        measures: of its newest content.
        paths: kept instances that belong to the scan.
        received_at: of its first instance, seconds since 1970.
        former_patients: keys of the patients whom copies named that were set aside, so that it is not theirs.
        n_bytes: approximate size of its decoded pixels.
    """

    series_instance_uid: str
    row: dict[str, Any]
    measures: tuple[Measure, ...]
    paths: tuple[Path, ...]
    prompt: Prompt
    received_at: float
    former_patients: tuple[str, ...]
    n_bytes: int


def gather(
    source: ExportSource, request: ExportRequest, advance: Callable[[int, int], None]
) -> tuple[list[Gathered], list[Excluded]]:
    """Return the selected series and the excluded ones, each in order of their keys.

    Args:
        advance: called with the number of series examined, and of all.
    """
    with source.database.read() as connection:
        known = harvested.harvested(connection)
        mos = ratings.mos_of(connection, [series.row.series_instance_uid for series in known])
    taken: list[Gathered] = []
    left_out: list[Excluded] = []
    with FrameReader() as reader:
        for done, series in enumerate(known):
            advance(done, len(known))
            uid = series.row.series_instance_uid
            try:
                taken.append(_gathered(source, request, series, mos.get(uid), reader))
                continue
            except StorageFailed:
                raise
            except Exception as error:  # a broken header or file must not stop the export of all others
                reasons = reasons_of(error, uid)
            key = source.pseudonyms.key("series", uid)
            left_out.append(Excluded(series_key=key, modality=_modality(series), reasons=reasons))
    advance(len(known), len(known))
    return sorted(taken, key=lambda one: str(one.row["series_key"])), sorted(left_out, key=lambda one: one.series_key)


def reasons_of(error: Exception, series_instance_uid: str) -> tuple[str, ...]:
    """Return the exclusion reasons for an error; log it where a person may have to act."""
    if isinstance(error, _Unfit):
        return error.codes
    if isinstance(error, NotScorable):
        return (str(error.code),)
    if isinstance(error, UndecodablePixels):
        return ("undecodable",)
    if isinstance(error, FileNotFoundError):
        return ("file_missing",)
    if isinstance(error, OSError):
        log.error("series cannot be read", series=series_instance_uid, file=error.filename, reason=error.strerror)
        return ("file_unreadable",)
    log.error("series not exported", series=series_instance_uid, exc_info=error)
    return (FAULT,)


def _gathered(
    source: ExportSource, request: ExportRequest, known: HarvestedSeries, mos: Mos | None, reader: FrameReader
) -> Gathered:
    """Describe one series; `reasons_of` turns what is raised into the exclusion reasons."""
    technique = _technique(known, request, rated=mos is not None)
    with source.database.read() as connection:
        instances = index.current_instances(connection, known.row.series_instance_uid)
        purged = index.is_purged(connection, known.row.series_instance_uid)
        question = _question(connection, known.row)
        set_aside = copies.copies_of(connection, known.row.series_instance_uid, *SET_ASIDE)
        frames = harvested.frames_of(connection, known.row.series_instance_uid)
        measured = stored_measures.load(connection, known.row.series_instance_uid, known.row.generation)
    technique = replace(technique, frames=frames)
    if purged or not instances:
        raise NotScorable("purged" if purged else "rejected")
    files = read_headers([source.spool.path(instance.path) for instance in instances])
    _check_filters(request, known, files.headers[0])
    if identities(files.headers):
        raise NotScorable("several_patients")
    if question is not None:
        raise NotScorable(question)
    files = _of_the_scan(files)
    stacks = assemble_stacks(files.headers)
    if not stacks:
        raise NotScorable("no_image")
    prompt = prompt_from_header(files.headers, stacks[0], source.prompts)
    _check_pixels_may_leave(request, technique, prompt)
    described = DescribedSeries(
        header=files.headers[stacks[0].frames[0].instance_index],
        stack=stacks[0],
        prompt=prompt,
        technique=technique,
        measures=() if measured is None else measured.measures,
        n_instances=len(files.paths),
        acquisition=acquisition_of(files.headers),
        received_year=str(datetime.fromtimestamp(known.received_at, UTC).year),
        headers_sha256=_digest_of(instances),
        pixels_sha256=_middle_slice(stacks[0], files, reader),
    )
    row = series_row(described, source.pseudonyms)
    return Gathered(
        series_instance_uid=known.row.series_instance_uid,
        row=row | opinion(mos),
        measures=described.measures,
        paths=files.paths,
        prompt=prompt,
        received_at=known.received_at,
        former_patients=tuple(sorted(_patients_of(set_aside, source.pseudonyms) - {row["patient_key"]})),
        n_bytes=_about_bytes(request.payload, stacks, colour=prompt.modality.value == "OP"),
    )


def _patients_of(rows: Iterable[InstanceRow], pseudonyms: Pseudonyms) -> set[str]:
    """Return the keys of the patients whom copies name."""
    return {
        pseudonyms.patient(
            {
                "PatientID": named.patient_id,
                "IssuerOfPatientID": named.issuer,
                "StudyInstanceUID": named.study_instance_uid,
            }
        )
        for row in rows
        if (named := row.identity) is not None
    }


def _question(connection: Connection, row: SeriesRow) -> str | None:
    """Return the code of what is open about whose images these are, or which, or whether they count; None: nothing."""
    uid = row.series_instance_uid
    if copies.has_status(connection, uid, InstanceStatus.CANDIDATE):
        return "not_settled"
    if row.study_instance_uid in rejections.studies_with_unread(connection):
        return "not_settled"
    if copies.has_status(connection, uid, InstanceStatus.DISPUTED):
        return "several_patients"
    if copies.has_status(connection, uid, InstanceStatus.CONFLICT):
        return "conflicting_copies"
    withheld = [one for one in outbox.deliveries_of(connection, uid) if one.state is DeliveryState.WITHHELD]
    return "other_identity" if any(one.reason_code is DeliveryReason.OTHER_IDENTITY for one in withheld) else None


def _technique(known: HarvestedSeries, request: ExportRequest, *, rated: bool) -> Technique:
    """Return the technique of a series that passes the filters on database facts."""
    technique = known.technique
    if known.row.state in (SeriesState.RECEIVING, SeriesState.READY):
        raise NotScorable("not_settled")
    if technique is None:
        raise NotScorable("not_harvested")
    if known.row.reason is not None and known.row.reason.code is ReasonCode.PHANTOM:
        raise NotScorable("phantom")
    if technique.refusal is not None:
        raise _Unfit(technique, scorable=False)
    if request.modalities and _modality(known) not in request.modalities:
        raise NotScorable("filter_modality")
    if request.eligible_only and not (technique.eligible or rated):
        raise _Unfit(technique, scorable=True)
    return technique


class _Unfit(NotScorable):
    """The technique of a series has exclusions: all of one kind are named."""

    def __init__(self, technique: Technique, *, scorable: bool) -> None:
        codes = dict.fromkeys(one.code for one in technique.exclusions if one.scorable is scorable)
        self.codes = tuple(codes) or ("not_eligible",)
        super().__init__(self.codes[0])


def _modality(known: HarvestedSeries) -> str:
    """Return CT, MR or OP; otherwise the recorded modality, if it is short."""
    label = known.technique.label_name if known.technique else None
    said = known.row.modality if len(known.row.modality) <= 2 and known.row.modality.isalpha() else ""
    return _LABELLED.get(label or "", "OP" if said in ("OP", "") and known.technique else said)


def _check_filters(request: ExportRequest, known: HarvestedSeries, header: Dataset) -> None:
    taken = _study_date(header) or datetime.fromtimestamp(known.received_at, UTC).date()
    if not request.takes_day(taken):
        raise NotScorable("filter_date")
    names = [text(header, "StationName"), text(header, "ManufacturerModelName"), known.row.calling_ae_title]
    if not request.takes_scanner(names):
        raise NotScorable("filter_scanner")


def _study_date(header: Dataset) -> date | None:
    try:
        return datetime.strptime(text(header, "StudyDate")[:8], "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _check_pixels_may_leave(request: ExportRequest, technique: Technique, prompt: Prompt) -> None:
    if request.payload == "refs":
        return
    if "burned_in" in [found.code for found in technique.exclusions]:
        raise NotScorable("burned_in")
    faces = prompt.modality.value in ("CT", "MR") and prompt.region.value in WITH_FACE
    if faces and not request.faces and request.payload in ("dicom", "nifti"):
        raise NotScorable("face")


def _of_the_scan(files: SeriesFiles) -> SeriesFiles:
    """Leave out instances that could not be scored on their own.

    A few of them do not refuse the series, but a screen capture among its slices may show a name, which header
    filters do not see.
    """
    fine = scorable(files.exclusions)
    return SeriesFiles(paths=tuple(compress(files.paths, fine)), headers=tuple(compress(files.headers, fine)))


def _digest_of(instances: Sequence[InstanceRow]) -> str:
    """Return one digest over the digests of the kept datasets, independent of their order."""
    return sha256("".join(sorted(instance.sha256 for instance in instances)).encode()).hexdigest()


def _middle_slice(stack: Stack, files: SeriesFiles, reader: FrameReader) -> str | None:
    """Return a digest of the middle slice's stored values; None if it cannot be decoded or is uniform."""
    try:
        values = image_getter(stack, files.paths, files.headers, reader, stored=True)(len(stack.frames) // 2)
    except UndecodablePixels:
        return None
    if np.ptp(values) == 0:
        return None
    return sha256(f"{values.shape} {values.dtype.str}".encode() + np.ascontiguousarray(values).tobytes()).hexdigest()


def _about_bytes(kind: Payload, stacks: Sequence[Stack], *, colour: bool) -> int:
    """Estimate the size of the payload of a series on disk; an upper bound."""
    per_slice = [(len(stack.frames), stack.rows * stack.columns * (3 if colour else 2)) for stack in stacks]
    if kind == "dicom":
        return sum(count * size for count, size in per_slice)
    count, size = per_slice[0]
    if kind == "nifti":
        return count * size
    return min(count, WANTED) * (size + _VIEWS_BYTES) if kind == "npz" else 0
