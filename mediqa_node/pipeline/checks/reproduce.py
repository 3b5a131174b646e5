"""Reproduce the numbers of a report from the kept instances and pinned weights, or state what is missing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO

import pydicom
from pydicom import Dataset

from mediqa_node.dicom.part10 import dataset_sha256
from mediqa_node.dicom.report.codes import PREDICTED, SLICE_WEIGHT
from mediqa_node.dicom.report.content import LAYOUT, content_tree
from mediqa_node.dicom.report.measure_codes import MEAN_CTDI, concept
from mediqa_node.dicom.report.measures import LABEL
from mediqa_node.dicom.report.numbers import Numbers, layout_of, numbers
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import CheckpointRefused, NotScorable
from mediqa_node.domain.measures import MeasuredStack
from mediqa_node.domain.policy import Refuse
from mediqa_node.domain.technique import Technique
from mediqa_node.pipeline.measures import measure_series
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.pipeline.score import Assessor, SeriesFiles, assess, read_headers
from mediqa_node.storage import assessments, index, measures, outbox
from mediqa_node.storage.index import InstanceRow

SAME = 1e-9
"""Largest difference of a written number that counts as the same: earlier layouts carry twelve places."""
_PREDICTED = frozenset(concept.meaning for concept in PREDICTED.values())
_OMITTED = _PREDICTED | {SLICE_WEIGHT.meaning}
"""What earlier layouts stated even where nothing supports it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The result of assessing the images of a report again.

    Attributes:
        series_instance_uid: of the images.
        missing: what prevents it, one sentence each; all other fields are then empty.
        notes: changes since the report that do not prevent it.
        written: the numbers of the report.
        reproduced: the same numbers, from the kept instances.
        assessment: the new assessment, with its patch maps.
    """

    series_instance_uid: str | None = None
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    written: Numbers | None = None
    reproduced: Numbers | None = None
    assessment: Assessment | None = None

    @property
    def largest_difference(self) -> float:
        """The largest difference of any number; infinite if one is missing on either side."""
        written, again = self.written or {}, self.reproduced or {}
        if not written or written.keys() != again.keys():
            return float("inf")
        return max(abs(written[key] - again[key]) for key in written)

    @property
    def is_reproduced(self) -> bool:
        """Whether every number was reproduced."""
        return not self.missing and self.largest_difference <= SAME


def explain(node: NodeContext, sop_instance_uid: str, open_active: Callable[[str, str], Assessor]) -> Explanation:
    """Assess the images of a report again and compare the numbers.

    Args:
        sop_instance_uid: of the report.
        open_active: loads the checkpoint of a name and a SHA-256 of its weights; CheckpointRefused if they are no
            longer pinned here.
    """
    with node.database.read() as connection:
        report = outbox.report_by_uid(connection, sop_instance_uid)
        if report is None:
            return Explanation(missing=(f"this node has built no report {sop_instance_uid}",))
        assessment = assessments.load_assessment(connection, report.series_instance_uid, report.revision)
        kept = index.current_instances(connection, report.series_instance_uid)
        technique = assessments.load_technique(connection, report.series_instance_uid)
        generation = assessments.assessed_generation(connection, report.series_instance_uid, report.revision)
        measured = measures.load(connection, report.series_instance_uid, generation) if generation is not None else None
    dataset = pydicom.dcmread(BytesIO(report.part10))
    if "CurrentRequestedProcedureEvidenceSequence" not in dataset:
        return Explanation(
            series_instance_uid=report.series_instance_uid, missing=("the report is void: it states no number",)
        )
    known = Explanation(series_instance_uid=report.series_instance_uid, written=numbers(dataset))
    if assessment is None:
        return replace(known, missing=("the assessment that the report was built from is gone",))
    instances, missing = _evidence(node, dataset, kept)
    try:
        assessor = open_active(assessment.checkpoint.name, assessment.checkpoint.sha256)
    except CheckpointRefused as error:
        missing.append(str(error))
    if missing:
        return replace(known, missing=tuple(missing))
    try:
        files = read_headers([node.spool.path(instance.path) for instance in instances])
        again = assess(
            files,
            technique or assessment.technique,
            replace(assessor, refuse=_refusing_as_then(assessment)),
            revision=assessment.revision,
            assessed_at=assessment.assessed_at,
        )
    except NotScorable as reason:
        return replace(known, missing=(f"today the images are not scored: {reason}",))
    # later decisions of a site are not part of the score
    settled = replace(again, verdict=assessment.verdict, calibration=assessment.calibration)
    written, layout = numbers(dataset), layout_of(dataset)
    predicted = any(concept in _PREDICTED for _, concept in written)
    remeasured = _measured_again(files, again.technique, assessor, measured)
    tree = content_tree(settled, node.device, "", predicted_parameters=predicted, measured=remeasured)
    reproduced = numbers(tree)
    notes = _notes(assessment, again, instances)
    for note, names in _changed_measures(written, reproduced, measured, remeasured):
        notes += (note,)
        written, reproduced = (
            {key: value for key, value in one.items() if key[0] != LABEL or key[1] not in names}
            for one in (written, reproduced)
        )
    if layout != LAYOUT:
        notes += (
            f"the report has layout {layout}, this version writes {LAYOUT}: what it no longer states is left out",
        )
        written = {key: value for key, value in written.items() if key in reproduced or key[1] not in _OMITTED}
    return replace(known, notes=notes, written=written, reproduced=reproduced, assessment=settled)


def _refusing_as_then(assessment: Assessment) -> Refuse:
    """Return the setting with which the same stacks are scored as then, whatever the site has set since."""
    stacks = (assessment.primary, *assessment.others)
    return Refuse.FLAG if any(stack.outside_range for stack in stacks) else Refuse.STRICT


def _measured_again(
    files: SeriesFiles, technique: Technique, assessor: Assessor, then: MeasuredStack | None
) -> MeasuredStack | None:
    """Measure what the report states again; None if it states nothing measured."""
    if then is None:
        return None
    return measure_series(files, technique, assessor.prompts, {one.name for one in then.measures})


def _changed_measures(
    written: Numbers, reproduced: Numbers, then: MeasuredStack | None, now: MeasuredStack | None
) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield what has changed on purpose since the report, and the meanings of the concepts that it changes."""
    before = {one.name: one.method for one in then.measures} if then is not None else {}
    methods = [one for one in now.measures if before.get(one.name, one.method) != one.method] if now is not None else []
    for one in methods:
        yield f"{one.name} is measured by another method now", frozenset({concept(one.name).meaning})
    dose = (LABEL, MEAN_CTDI.meaning)
    if written.get(dose) != reproduced.get(dose):
        rests = frozenset({MEAN_CTDI.meaning, *(concept(name).meaning for name in ("ct.ssde", "ct.figure_of_merit"))})
        yield "CTDIvol has come, changed or gone since, with a dose report", rests


def _evidence(node: NodeContext, report: Dataset, kept: list[InstanceRow]) -> tuple[list[InstanceRow], list[str]]:
    """Return the kept instances in the evidence of the report, and their problems."""
    references = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    named = {str(reference.ReferencedSOPInstanceUID) for reference in references}
    instances = [instance for instance in kept if instance.sop_instance_uid in named]
    gone = len(named) - len(instances)
    missing = [f"{gone} of {len(named)} instances are not kept any more (retention, rejection)"] if gone else []
    changed = sum(not _is_unchanged(node, instance) for instance in instances)
    if changed:
        missing.append(f"{changed} of {len(named)} spooled files are gone or damaged; `mediqa-node verify` names them")
    return instances, missing


def _is_unchanged(node: NodeContext, instance: InstanceRow) -> bool:
    try:
        return dataset_sha256(node.spool.path(instance.path)) == instance.sha256
    except Exception:  # a damaged head can make the parser fail in any way
        return False


def _notes(then: Assessment, now: Assessment, instances: list[InstanceRow]) -> tuple[str, ...]:
    later = sum(instance.received_at > then.assessed_at.timestamp() for instance in instances)
    found = {
        f"{later} instances were replaced by corrected copies after the report": later,
        f"scored as {then.checkpoint.execution!r} then, as {now.checkpoint.execution!r} now": (
            then.checkpoint.execution != now.checkpoint.execution
        ),
        f"preprocessing was {then.fingerprint} then, is {now.fingerprint} now": then.fingerprint != now.fingerprint,
        "the checkpoint's card has changed since, and with it what raw scores become": (
            then.checkpoint.card_sha256 not in ("", now.checkpoint.card_sha256)
        ),
        "the prompts have changed": then.primary.prompt != now.primary.prompt,
    }
    return tuple(note for note, holds in found.items() if holds)
