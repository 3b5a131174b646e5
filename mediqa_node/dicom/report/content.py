"""The content tree of an image-quality report: TID 1500 with one TID 1501 group per series, slice and stack.

Items are in the order of the templates (PS3.16), which validators check.
"""

from collections.abc import Sequence
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
from mediqa_node.dicom.report.request import ReportDevice
from mediqa_node.dicom.report.uid import deterministic_uid
from mediqa_node.dicom.stacks.assemble import stack_label
from mediqa_node.domain.assessment import Assessment, Calibration, SliceResult, StackResult, mapped
from mediqa_node.domain.images import FrameRef
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.technique import DOUBTS, Technique
from mediqa_node.domain.uid import is_canonical_uid

LAYOUT = "2"
"""Raised with every change of the tree, because a report's UID must change with it."""

SCORE_PLACES = 12
"""PS3.5 section 9. What only describes is left out where it is against it; what identifies is kept as it is."""

OBSERVED, CONTEXT, MODIFIER, CONTAINS = "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "CONTAINS"

RESEARCH_ONLY = (
    "FOR RESEARCH USE ONLY - NOT FOR DIAGNOSTIC USE. "
    "Image quality score computed by software; not reviewed by a physician."
)
UNCALIBRATED = "Uncalibrated: no site threshold applies, so no verdict is given."
UNTRAINED = "UNTRAINED WEIGHTS: the score has no meaning."
NOT_EVALUATED = "NOT EVALUATED: nobody has measured what the score of these weights is worth."


def content_tree(assessment: Assessment, device: ReportDevice, study_date: str) -> Dataset:
    """Return the root container.

    Args:
        study_date: YYYYMMDD, or "" if the source has none.
    """
    children = [
        code_item(MODIFIER, codes.LANGUAGE, codes.ENGLISH),
        *observer(device),
        code_item(
            MODIFIER,
            codes.PROCEDURE_REPORTED,
            codes.PROCEDURES.get(assessment.modality, codes.OTHER_PROCEDURE),
        ),
        container(codes.IMAGE_LIBRARY, _library_groups(assessment, study_date)),
        container(codes.MEASUREMENTS, _groups(assessment, device)),
        container(
            codes.QUALITATIVE_EVALUATIONS,
            [text_item(CONTAINS, codes.COMMENT, comment(assessment))],
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


def comment(assessment: Assessment) -> str:
    """Return the caveats that a reader needs before the score, in ASCII."""
    parts = [RESEARCH_ONLY]
    if not assessment.checkpoint.trained:
        parts.insert(0, UNTRAINED)
    elif not assessment.checkpoint.evaluated:
        parts.insert(0, NOT_EVALUATED)
    if matching_calibration(assessment) is None:
        parts.append(UNCALIBRATED)
    if claim := assessment.checkpoint.claims.get(assessment.modality):
        parts.append(claim)
    if assessment.failed_slices:
        parts.append(f"{len(assessment.failed_slices)} selected slice(s) could not be decoded and are not scored.")
    if assessment.primary.n_clamped:
        parts.append(f"{assessment.primary.n_clamped} slice(s) lie beyond the scale of the score and count as its end.")
    scored = 1 + len(assessment.others)
    if assessment.n_stacks > 1:
        parts.append(f"The series holds {assessment.n_stacks} stacks of images; {scored} scored.")
    if assessment.doubts:
        parts.append(f"In doubt: {'; '.join(DOUBTS[doubt] for doubt in assessment.doubts)}.")
    return " ".join(parts)


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
        number_item(CONTEXT, concept, f"{value:.6g}", codes.UNITS[unit])
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
    if calibration is not None:
        parameters += [
            f"thresholds: borderline<{calibration.borderline_below:.4g} review<{calibration.review_below:.4g}",
            f"calibration={calibration.id} series={calibration.n_series} readers={calibration.n_readers}",
        ]
    items = _identity(assessment, device, "IQA series", primary.prompt, parameters)
    items += _scores(primary)
    if calibration is not None:
        meets, action = codes.VERDICTS[assessment.verdict]
        items += [
            code_item(CONTAINS, codes.QUALITY_ASSESSMENT, meets),
            code_item(CONTAINS, codes.QUALITY_STANDARD, codes.INSTITUTIONAL),
            code_item(CONTAINS, codes.ACTION, action),
        ]
    items += _prompts(primary.prompt)
    items += image_items(codes.SOURCE_OF_MEASUREMENT, [part.frame for part in primary.slices])
    return container(codes.GROUP, items, template="1501")


def _stack_group(assessment: Assessment, device: ReportDevice, result: StackResult, label: str) -> Dataset:
    parameters = [f"stack: {stack_label(result.stack)}", _prompt_sources(result.prompt)]
    items = _identity(assessment, device, label, result.prompt, parameters)
    items += _scores(result) + _prompts(result.prompt)
    items += image_items(codes.SOURCE_OF_MEASUREMENT, [part.frame for part in result.slices])
    return container(codes.GROUP, items, template="1501")


def _slice_group(assessment: Assessment, device: ReportDevice, part: SliceResult, label: str) -> Dataset:
    weight = decimal(part.weight, SCORE_PLACES)
    items = _identity(assessment, device, label, assessment.primary.prompt, [])
    items += [
        _rating(mapped(part.quality)),
        number_item(CONTAINS, codes.SLICE_WEIGHT, weight, codes.UNIT_RANGE, estimated=True),
        *image_items(codes.SOURCE_OF_MEASUREMENT, [part.frame]),
    ]
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


def _scores(result: StackResult) -> list[Dataset]:
    quality = mapped(result.quality)
    items = [
        _rating(quality),
        number_item(CONTAINS, codes.SCORE, decimal(quality, SCORE_PLACES), codes.UNIT_RANGE, estimated=True),
    ]
    if result.prediction is not None:
        concept, unit = codes.PREDICTED[result.prediction.name], codes.UNITS[result.prediction.unit]
        items.append(number_item(CONTAINS, concept, f"{result.prediction.value:.6g}", unit, estimated=True))
    return items


def _rating(quality: float) -> Dataset:
    """DCM 111029 is defined from 0, worst, to 100, best: exactly 100 times the written Q."""
    rating = Decimal(decimal(quality, SCORE_PLACES)) * 100
    return number_item(CONTAINS, codes.RATING, decimal(rating, SCORE_PLACES - 2), codes.PERCENT_RANGE, estimated=True)


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
