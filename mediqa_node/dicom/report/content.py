"""The content tree of an image-quality report: TID 1500 with one TID 1501 group per series, slice and stack.

Items are in the order of the templates (PS3.16), which validators check. TID 1501 prescribes none: its groups begin
with the rating and the verdict.
"""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from pydicom import Dataset

from mediqa_node.dicom.report import codes
from mediqa_node.dicom.report.items import (
    code_item,
    container,
    date_item,
    decimal,
    image_items,
    number_item,
    text_item,
    uid_item,
)
from mediqa_node.dicom.report.measures import in_words, measure_group, measures_comment
from mediqa_node.dicom.report.request import ReportDevice
from mediqa_node.dicom.report.uid import deterministic_uid
from mediqa_node.dicom.stacks.assemble import stack_label
from mediqa_node.domain.assessment import Assessment, Calibration, SliceResult, StackResult, mapped, rounded
from mediqa_node.domain.baseline import StandsOut, Usual, usual_of, what_stands_out
from mediqa_node.domain.images import FrameRef
from mediqa_node.domain.measures import MeasuredStack
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.range_position import times_limit
from mediqa_node.domain.technique import DOUBTS, Technique
from mediqa_node.domain.uid import is_canonical_uid

LAYOUT = "4"
"""Raised with every change of the tree, because a report's UID must change with it."""

SCORE_PLACES = 12
"""Decimals of Numeric Value (0040,A30A): as many as its 16 characters hold of 0..100."""

OBSERVED, CONTEXT, MODIFIER, CONTAINS = "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "CONTAINS"

RESEARCH_ONLY = (
    "FOR RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE. "
    "Image quality score computed by software; not reviewed by a physician."
)
UNCALIBRATED = "Uncalibrated: no site threshold applies, so no verdict is given."
UNTRAINED = "UNTRAINED WEIGHTS: the score has no meaning."
OUTSIDE_RANGE = "OUTSIDE THE TRAINING RANGE"
NOT_EVALUATED = "NOT EVALUATED: nobody has measured what the score of these weights is worth."


def content_tree(
    assessment: Assessment,
    device: ReportDevice,
    study_date: str,
    *,
    predicted_parameters: bool = False,
    measured: MeasuredStack | None = None,
    usual: Sequence[Usual] = (),
) -> Dataset:
    """Return the root container.

    Args:
        measured: physical measures of the series, in a group of their own after those of the score.
        usual: of the site's approved baseline; what stands out from it is said in the comment.
        study_date: YYYYMMDD, or "" if the source has none.
        predicted_parameters: also state the predicted exposure or field strength, where the checkpoint's card supports
            the value.
    """
    if not predicted_parameters:
        assessment = _without_predictions(assessment)
    groups = _groups(assessment, device)
    standing_out: tuple[StandsOut, ...] = ()
    on_measures: list[Dataset] = []
    if measured is not None and measured.measures:
        comparable = usual_of(measured, usual)
        standing_out = what_stands_out(measured.measures, comparable)
        site = codes.REGIONS[assessment.primary.prompt.region.value]
        groups.append(measure_group(measured, device, site))
        on_measures = measures_comment(measured, comparable, standing_out)
    children = [
        code_item(MODIFIER, codes.LANGUAGE, codes.ENGLISH),
        *observer(device),
        code_item(
            MODIFIER,
            codes.PROCEDURE_REPORTED,
            codes.PROCEDURES.get(assessment.modality, codes.OTHER_PROCEDURE),
        ),
        container(codes.IMAGE_LIBRARY, _library_groups(assessment, study_date)),
        container(codes.MEASUREMENTS, groups),
        container(
            codes.QUALITATIVE_EVALUATIONS,
            [text_item(CONTAINS, codes.COMMENT, comment(assessment, standing_out)), *on_measures],
        ),
    ]
    return container(codes.REPORT, children, relationship=None, template="1500")


def matching_calibration(assessment: Assessment) -> Calibration | None:
    """Return the calibration if it applies to the weights, card and preprocessing of this assessment, else None."""
    record, checkpoint = assessment.calibration, assessment.checkpoint
    if record is None or assessment.verdict not in codes.VERDICTS:
        return None
    same = record.made_for(checkpoint.sha256, checkpoint.card_sha256) and record.fingerprint == assessment.fingerprint
    return record if same else None


def _without_predictions(assessment: Assessment) -> Assessment:
    stacks = [replace(stack, prediction=None) for stack in (assessment.primary, *assessment.others)]
    return replace(assessment, primary=stacks[0], others=tuple(stacks[1:]))


def comment(assessment: Assessment, standing_out: Sequence[StandsOut] = ()) -> str:
    """Return the text of the report in ASCII: in its first line the rating and the verdict, then the caveats."""
    parts = [RESEARCH_ONLY]
    if (outside := assessment.primary.outside_range) is not None:
        parts.append(f"{OUTSIDE_RANGE} ({outside.details()}): the score may have no meaning, and no verdict is given.")
    elif matching_calibration(assessment) is None:
        parts.append(UNCALIBRATED)
    if (found := assessment.primary.prediction) is not None and found.likely is not None and found.is_supported:
        low, high = found.likely
        parts.append(
            f"{codes.PREDICTED[found.name].meaning} {found.value:.3g} {found.unit}, estimated from the image, not "
            f"recorded; {low:.3g} to {high:.3g} {found.unit} within one root mean square error on held-out sources."
        )
    if claim := assessment.checkpoint.claims.get(assessment.modality):
        parts.append(claim)
    if assessment.failed_slices:
        parts.append(f"{len(assessment.failed_slices)} selected slice(s) could not be decoded and are not scored.")
    if assessment.primary.n_clamped:
        parts.append(f"{assessment.primary.n_clamped} slice(s) lie beyond the scale of the score and count as its end.")
    scored = 1 + len(assessment.others)
    if assessment.n_stacks > 1:
        parts.append(f"The series holds {assessment.n_stacks} stacks of images; {scored} scored.")
    if n_outside := sum(other.outside_range is not None for other in assessment.others):
        parts.append(f"{n_outside} further stack(s) are outside the training range: their score may have no meaning.")
    if assessment.doubts:
        parts.append(f"In doubt: {'; '.join(DOUBTS[doubt] for doubt in assessment.doubts)}.")
    lines = [_headline(assessment), in_words(standing_out), " ".join(parts)]
    return "\r\n".join(filter(None, lines))


def _headline(assessment: Assessment) -> str:
    """Return the first line of the comment: what is wrong with weights or images, the rating, the verdict."""
    checkpoint, calibration = assessment.checkpoint, matching_calibration(assessment)
    warning = UNTRAINED if not checkpoint.trained else "" if checkpoint.evaluated else NOT_EVALUATED
    verdict = "uncalibrated" if calibration is None else codes.VERDICTS[assessment.verdict][1].meaning
    if assessment.primary.outside_range is not None:
        warning, verdict = f"{warning} {OUTSIDE_RANGE}.".lstrip(), "no verdict"
    rating = _rating_text(assessment.quality, calibration)
    return f"{warning} Image quality rating {rating} of 100: {verdict}.".lstrip()


def observer(device: ReportDevice) -> list[Dataset]:
    """Return the device as observer, TID 1002 and 1004."""
    return [
        code_item(OBSERVED, codes.OBSERVER_TYPE, codes.DEVICE),
        uid_item(OBSERVED, codes.DEVICE_UID, device.device_uid),
        text_item(OBSERVED, codes.DEVICE_NAME, device.ae_title),
        text_item(OBSERVED, codes.DEVICE_MANUFACTURER, device.manufacturer),
        text_item(OBSERVED, codes.DEVICE_MODEL, device.model_name),
        text_item(OBSERVED, codes.DEVICE_SERIAL, device.serial_number),
    ]


def _library_groups(assessment: Assessment, study_date: str) -> list[Dataset]:
    """TID 1600: the scored images, one group per matrix and frame of reference."""
    shared: dict[tuple[int, int, str | None], list[FrameRef]] = {}
    for result in (assessment.primary, *assessment.others):
        stack = result.stack
        frames = shared.setdefault((stack.rows, stack.columns, stack.frame_of_reference_uid), [])
        frames += [part.frame for part in result.slices]
    groups = []
    for (rows, columns, frame_of_reference), frames in shared.items():
        items = [code_item(CONTEXT, codes.MODALITY, codes.MODALITIES[assessment.modality])]
        if study_date:
            items.append(date_item(CONTEXT, codes.STUDY_DATE, study_date))
        if frame_of_reference and is_canonical_uid(frame_of_reference):
            items.append(uid_item(CONTEXT, codes.FRAME_OF_REFERENCE, frame_of_reference))
        items.append(number_item(CONTEXT, codes.ROWS, str(rows), codes.PIXELS))
        items.append(number_item(CONTEXT, codes.COLUMNS, str(columns), codes.PIXELS))
        items += _recorded(assessment.technique) + image_items(codes.SOURCE, frames)
        groups.append(container(codes.LIBRARY_GROUP, items))
    return groups


def _recorded(technique: Technique) -> list[Dataset]:
    """Return the values recorded by the scanner, under standard concepts; network predictions are never included."""
    found = (
        (codes.EXPOSURE, technique.tube_charge_mas, "mA.s"),
        (codes.FIELD_STRENGTH, technique.field_strength_t, "T"),
    )
    return [
        number_item(CONTEXT, concept, f"{value:.10g}", codes.UNITS[unit], exact=value)
        for concept, value, unit in found
        if value is not None
    ]


def _groups(assessment: Assessment, device: ReportDevice) -> list[Dataset]:
    """Return the series' group, then its slices (none for a single image), then further stacks."""
    primary = assessment.primary
    groups = [_series_group(assessment, device)]
    if len(primary.slices) > 1:
        for index, part in enumerate(primary.slices, start=1):
            groups.append(_slice_group(assessment, device, part, f"IQA slice {index}/{len(primary.slices)}"))
    for index, result in enumerate(assessment.others, start=2):
        groups.append(_stack_group(assessment, device, result, f"IQA stack {index}"))
    return groups


def _series_group(assessment: Assessment, device: ReportDevice) -> Dataset:
    primary = assessment.primary
    calibration = matching_calibration(assessment)
    parameters = [_prompt_sources(primary.prompt)]
    if len(primary.slices) > 1 and not primary.has_learned_weights:
        parameters.append("series=mean-of-slices")
    if calibration is not None:
        parameters += [
            f"thresholds: borderline<{calibration.borderline_below:.12g} review<{calibration.review_below:.12g}",
            f"calibration={calibration.id} series={calibration.n_series} readers={calibration.n_readers}",
        ]
    items = [
        _rating(assessment.quality, calibration),
        *_verdict(assessment, calibration),
        *_identity(assessment, device, "IQA series", primary.prompt, parameters),
        *_details(primary),
        *image_items(codes.SOURCE_OF_MEASUREMENT, [part.frame for part in primary.slices]),
    ]
    return container(codes.GROUP, items, template="1501")


def _verdict(assessment: Assessment, calibration: Calibration | None) -> list[Dataset]:
    if assessment.primary.outside_range is not None:
        return _outside(assessment.primary)
    if calibration is None:
        return [code_item(CONTAINS, codes.CALIBRATION, codes.UNCALIBRATED)]
    meets, action = codes.VERDICTS[assessment.verdict]
    return [
        code_item(CONTAINS, codes.ACTION, action),
        code_item(CONTAINS, codes.QUALITY_ASSESSMENT, meets),
        code_item(CONTAINS, codes.QUALITY_STANDARD, codes.INSTITUTIONAL),
    ]


def _outside(result: StackResult) -> list[Dataset]:
    """Return that a stack is outside the training range, and by how much; nothing for a stack inside."""
    if (position := result.outside_range) is None:
        return []
    distance, text = position.times_limit, f"{times_limit(position.times_limit)}"
    return [
        code_item(CONTAINS, codes.CALIBRATION, codes.OUTSIDE_RANGE),
        number_item(CONTAINS, codes.TIMES_LIMIT, text, codes.NO_UNITS, exact=distance, estimated=True),
    ]


def _stack_group(assessment: Assessment, device: ReportDevice, result: StackResult, label: str) -> Dataset:
    parameters = [f"stack: {stack_label(result.stack)}", _prompt_sources(result.prompt)]
    items = [
        _rating(mapped(result.quality), matching_calibration(assessment)),
        *_outside(result),
        *_identity(assessment, device, label, result.prompt, parameters),
        *_details(result),
        *image_items(codes.SOURCE_OF_MEASUREMENT, [part.frame for part in result.slices]),
    ]
    return container(codes.GROUP, items, template="1501")


def _slice_group(assessment: Assessment, device: ReportDevice, part: SliceResult, label: str) -> Dataset:
    items = [
        _rating(mapped(part.quality), matching_calibration(assessment)),
        *_identity(assessment, device, label, assessment.primary.prompt, []),
    ]
    if assessment.primary.has_learned_weights:
        items.append(_estimate(codes.SLICE_WEIGHT, part.weight, codes.UNIT_RANGE))
    items += image_items(codes.SOURCE_OF_MEASUREMENT, [part.frame])
    return container(codes.GROUP, items, template="1501")


def _identity(
    assessment: Assessment, device: ReportDevice, label: str, prompt: Prompt, parameters: Sequence[str]
) -> list[Dataset]:
    """Return tracking, finding, site and algorithm (TID 4019) of a group; revisions keep the tracking UID."""
    checkpoint = assessment.checkpoint
    tracking = deterministic_uid(
        "tracking", assessment.study_instance_uid, assessment.series_instance_uid, device.device_uid, label
    )
    site = codes.REGIONS[prompt.region.value]
    all_parameters = [
        f"weights-sha256={checkpoint.sha256}",
        f"checkpoint={checkpoint.name} size={checkpoint.size} execution={checkpoint.execution.replace(' ', '-')} "
        f"preprocessing={assessment.fingerprint} layout={LAYOUT}",
        *parameters,
    ]
    return [
        text_item(OBSERVED, codes.TRACKING_ID, label),
        uid_item(OBSERVED, codes.TRACKING_UID, tracking),
        code_item(CONTAINS, codes.FINDING, codes.IMAGE_QUALITY),
        *([] if site == codes.UNKNOWN else [code_item(MODIFIER, codes.FINDING_SITE, site)]),
        text_item(MODIFIER, codes.ALGORITHM_NAME, "MedIQA"),
        text_item(MODIFIER, codes.ALGORITHM_VERSION, algorithm_version(assessment, device)),
        *(text_item(MODIFIER, codes.ALGORITHM_PARAMETERS, parameter) for parameter in all_parameters),
    ]


def algorithm_version(assessment: Assessment, device: ReportDevice) -> str:
    """Return the software version, with a conspicuous suffix for untrained weights."""
    return device.software_version + ("" if assessment.checkpoint.trained else "-untrained")


def _details(result: StackResult) -> list[Dataset]:
    """Return what else is known of a stack than its rating: Q, a supported prediction, the prompt."""
    items = [_estimate(codes.SCORE, mapped(result.quality), codes.UNIT_RANGE)]
    predicted = result.prediction
    if predicted is not None and predicted.is_supported:
        concept, unit = codes.PREDICTED[predicted.name], codes.UNITS[predicted.unit]
        text = f"{predicted.value:.10g}"
        items.append(number_item(CONTAINS, concept, text, unit, exact=predicted.value, estimated=True))
    return items + _prompts(result.prompt)


def _estimate(concept: codes.Code, value: float, unit: codes.Code) -> Dataset:
    return number_item(CONTAINS, concept, decimal(value, SCORE_PLACES), unit, exact=value, estimated=True)


def _rating(quality: float, calibration: Calibration | None) -> Dataset:
    """DCM 111029 is defined from 0, worst, to 100, best: a whole number to read, and exactly 100 Q to compute with."""
    exact = float(Decimal(repr(quality)) * 100)
    text = _rating_text(quality, calibration)
    return number_item(CONTAINS, codes.RATING, text, codes.PERCENT_RANGE, exact=exact, estimated=True)


def _rating_text(quality: float, calibration: Calibration | None) -> str:
    """Return 100 Q as a whole number, with decimals only where no whole one is on its side of the thresholds."""
    return f"{(rounded(quality, calibration) * 100).normalize():f}"


def _prompts(prompt: Prompt) -> list[Dataset]:
    return [
        code_item(CONTAINS, codes.PREDICTED_DIMENSION, codes.DIMENSIONS[prompt.dimension.value]),
        code_item(CONTAINS, codes.PREDICTED_MODALITY, codes.MODALITIES[prompt.modality.value]),
        code_item(CONTAINS, codes.PREDICTED_REGION, codes.REGIONS[prompt.region.value]),
        code_item(CONTAINS, codes.PREDICTED_TYPE, codes.TYPES[prompt.type.value]),
    ]


def _prompt_sources(prompt: Prompt) -> str:
    terms = {name: getattr(prompt, name) for name in ("dimension", "modality", "region", "type")}
    parts = (f"{name}={term.value} ({term.source}, {term.confidence:.2f})" for name, term in terms.items())
    return "prompts: " + ", ".join(parts)
