"""Small makers of values that many tests need: source headers, assessments, report requests.

Everything follows from the arguments: no clock, no random UID.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydicom import Dataset

from mediqa_node.dicom.report.build import ReportDevice, ReportRequest
from mediqa_node.domain.assessment import (
    Assessment,
    Calibration,
    SliceResult,
    StackResult,
    weighted_quality,
)
from mediqa_node.domain.images import FrameRef, Stack, StackKey
from mediqa_node.domain.preprocessing import NetworkInput, View
from mediqa_node.domain.prompt import Prompt, PromptTerm
from mediqa_node.domain.range_position import OUTSIDE_RANGE, RangePosition, RangeTest
from mediqa_node.domain.scoring import CheckpointId, Prediction
from mediqa_node.domain.technique import Technique

STUDY_UID = "1.2.826.0.1.3680043.2.1125.1"
SERIES_UID = "1.2.826.0.1.3680043.2.1125.1.2"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
FUNDUS = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
ASSESSED_AT = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
WEIGHTS = "3f" * 32
CARD = "ca" * 32
DEVICE = ReportDevice(
    ae_title="MEDIQA1",
    device_uid="2.25.219635923986581790811188233710098332659",
    serial_number="SN0001",
    software_version="0.1.0",
)


def range_position(times_limit: float = 1.034, test: RangeTest = RangeTest.LOCAL) -> RangePosition:
    """Return the position of a stack in a training range; outside above 1."""
    return RangePosition(
        test=test,
        times_limit=times_limit,
        n_outside=4 if times_limit > 1 else 0,
        n_slices=7,
        share_inside=0.6,
        share_expected=0.1,
    )


def source_header(index: int = 1, *, sop_class: str = CT_IMAGE, frames: int | None = None, **changes: Any) -> Dataset:
    """Return the header of one clean source instance; `changes` by DICOM keyword, None removes."""
    values: dict[str, Any] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": sop_class,
        "SOPInstanceUID": f"{SERIES_UID}.{index}",
        "StudyInstanceUID": STUDY_UID,
        "SeriesInstanceUID": SERIES_UID,
        "Modality": {CT_IMAGE: "CT", ENHANCED_CT: "CT", FUNDUS: "OP"}.get(sop_class, "MR"),
        "PatientName": "Prüfling^Ünï",
        "PatientID": "SYN001",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": "19600102",
        "PatientSex": "F",
        "StudyDate": "20261120",
        "StudyTime": "101500",
        "StudyID": "S1",
        "StudyDescription": "Thorax",
        "AccessionNumber": "A123",
        "ReferringPhysicianName": "Overweisend^A",
        "Manufacturer": "SCANNER MAKER",
        "StationName": "CT_ROOM_3",
        "SeriesNumber": 3,
        "InstanceNumber": index,
        "Rows": 128,
        "Columns": 128,
        "NumberOfFrames": frames,
    } | changes
    header = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(header, keyword, value)
    return header


def prompt(dimension: str = "3D", modality: str = "CT", region: str = "chest", image_type: str = "lung") -> Prompt:
    """Return a prompt whose terms all come from the header."""
    words = (dimension, modality, region, image_type)
    sources = ("data", "sop_class", "body_part", "kernel")
    terms = [PromptTerm(value=word, source=source, confidence=0.9) for word, source in zip(words, sources, strict=True)]
    return Prompt(dimension=terms[0], modality=terms[1], region=terms[2], type=terms[3])


def technique(*, mas: float | None = None, tesla: float | None = None) -> Technique:
    """Return a technique with what the header recorded."""
    label = "mas" if mas is not None else "tesla" if tesla is not None else None
    return Technique(
        label_name=label, tube_charge_mas=mas, field_strength_t=tesla, source="exposure" if label else None
    )


def stack_result(
    frames: Sequence[FrameRef],
    quality: Sequence[float],
    weights: Sequence[float],
    *,
    prompt: Prompt,
    prediction: Prediction | None = None,
    key: StackKey | None = None,
    frame_of_reference_uid: str | None = "1.2.826.0.1.3680043.2.1125.9",
) -> StackResult:
    """Return a scored stack; Q is the weighted sum."""
    stack = Stack(
        study_instance_uid=STUDY_UID,
        series_instance_uid=SERIES_UID,
        frame_of_reference_uid=frame_of_reference_uid,
        modality=prompt.modality.value,
        key=key or StackKey(),
        frames=tuple(frames),
        rows=128,
        columns=128,
        positions_mm=tuple(5.0 * i for i in range(len(frames))) if len(frames) > 1 else (),
        spacing_mm=(5.0, 0.7, 0.7),
        origin_mm=None,
        orientation=None,
    )
    parts = zip(frames, quality, weights, strict=True)
    return StackResult(
        stack=stack,
        prompt=prompt,
        quality=weighted_quality(quality, weights),
        raw_score=0.0,
        slices=tuple(SliceResult(frame=frame, quality=q, raw=4 * q - 2, weight=w) for frame, q, w in parts),
        prediction=prediction,
    )


def assessment(primary: StackResult, **changes: Any) -> Assessment:
    """Return an uncalibrated judgement by trained weights; `changes` by field name."""
    values: dict[str, Any] = {
        "study_instance_uid": STUDY_UID,
        "series_instance_uid": SERIES_UID,
        "modality": primary.stack.modality,
        "revision": 1,
        "primary": primary,
        "others": (),
        "n_stacks": 1,
        "technique": technique(),
        "verdict": "uncalibrated",
        "calibration": None,
        "checkpoint": CheckpointId(name="default", sha256=WEIGHTS, trained=True, size="t16", card_sha256=CARD),
        "fingerprint": "0123456789abcdef",
        "assessed_at": ASSESSED_AT,
    } | changes
    return Assessment(**values)


def calibration(**changes: Any) -> Calibration:
    """Return a record that fits `assessment`."""
    values: dict[str, Any] = {
        "id": "CAL-7",
        "modality": "CT",
        "station_name": "CT_ROOM_3",
        "protocol_name": "*",
        "borderline_below": 0.6,
        "review_below": 0.4,
        "n_series": 120,
        "n_readers": 3,
        "approved_by": "physicist",
        "approved_on": "2026-10-01",
        "weights_sha256": WEIGHTS,
        "card_sha256": CARD,
        "fingerprint": "0123456789abcdef",
    } | changes
    return Calibration(**values)


def report_request(judgement: Assessment, sources: Sequence[Dataset], **changes: Any) -> ReportRequest:
    """Return a request for a first report at a fixed time."""
    request = ReportRequest(
        assessment=judgement,
        sources=sources,
        device=DEVICE,
        series_number=9000,
        instance_number=1,
        created_at=ASSESSED_AT,
    )
    return replace(request, **changes)


def references(headers: Sequence[Dataset]) -> list[FrameRef]:
    """Return a reference to each single-frame instance."""
    return [
        FrameRef(
            sop_class_uid=str(header.SOPClassUID),
            sop_instance_uid=str(header.SOPInstanceUID),
            frame_number=None,
            instance_index=index,
        )
        for index, header in enumerate(headers)
    ]


def frame_references(header: Dataset, numbers: Sequence[int]) -> list[FrameRef]:
    """Return references to frames of one multi-frame instance."""
    return [
        FrameRef(
            sop_class_uid=str(header.SOPClassUID),
            sop_instance_uid=str(header.SOPInstanceUID),
            frame_number=number,
            instance_index=0,
        )
        for number in numbers
    ]


QUALITIES = (0.71, 0.74, 0.69, 0.8, 0.77, 0.66, 0.73)
SLICE_WEIGHTS = (0.1, 0.15, 0.2, 0.2, 0.15, 0.1, 0.1)


def predicted_mas(value: float = 101.5, **changes: Any) -> Prediction:
    """Return a prediction of a card that states what was learned, and the error on held-out sources."""
    known: dict[str, Any] = {"unit": "mA.s", "learned": (2.0, 400.0), "likely": (0.5 * value, 2.0 * value)} | changes
    return Prediction(name="mas", value=value, **known)


def ct_volume() -> ReportRequest:
    """20 CT slices, 7 of them scored, calibrated, recorded mAs and a predicted one that its card supports."""
    headers = [source_header(index) for index in range(1, 21)]
    scored = [references(headers)[index] for index in (1, 4, 7, 10, 12, 15, 18)]
    primary = stack_result(scored, QUALITIES, SLICE_WEIGHTS, prompt=prompt(), prediction=predicted_mas())
    return report_request(
        assessment(primary, technique=technique(mas=120.0), verdict="acceptable", calibration=calibration()), headers
    )


def ct_image() -> ReportRequest:
    """One CT slice: two-dimensional, uncalibrated."""
    headers = [source_header(TimezoneOffsetFromUTC="+0900")]
    primary = stack_result(references(headers), [0.42], [1.0], prompt=prompt("2D", "CT", "abdomen", "soft"))
    return report_request(assessment(primary, technique=technique(mas=80.0)), headers)


def mr_without_field_strength() -> ReportRequest:
    """One MR slice whose header does not say the field strength, untrained weights."""
    headers = [source_header(sop_class=MR_IMAGE)]
    primary = stack_result(references(headers), [0.5], [1.0], prompt=prompt("2D", "MR", "unknown", "unknown"))
    untrained = CheckpointId(name="default", sha256=WEIGHTS, trained=False, size="t16")
    return report_request(assessment(primary, checkpoint=untrained), headers)


def enhanced_mr() -> ReportRequest:
    """One enhanced MR instance of 12 frames in two stacks, 5 and 3 frames scored, one frame undecodable."""
    header = source_header(sop_class=ENHANCED_MR, frames=12)
    brain = prompt("3D", "MR", "brain", "t2")
    first = stack_result(
        frame_references(header, (1, 3, 4, 6, 7)),
        [0.5, 0.25, 0.75, 1.0, 0.0],
        [0.2] * 5,
        prompt=brain,
        prediction=Prediction(name="tesla", value=2.91, unit="T"),
    )
    second = stack_result(
        frame_references(header, (8, 10, 12)),
        [0.5, 0.6, 0.7],
        [1 / 3] * 3,
        prompt=replace(brain, type=PromptTerm(value="dwi", source="physics", confidence=0.8)),
        key=StackKey(b_value=1000.0),
    )
    judgement = assessment(
        first,
        others=(second,),
        n_stacks=2,
        technique=technique(tesla=3.0),
        failed_slices=tuple(frame_references(header, (2,))),
    )
    return report_request(judgement, [header])


def fundus() -> ReportRequest:
    """One fundus photograph; no frame of reference."""
    headers = [source_header(sop_class=FUNDUS)]
    primary = stack_result(
        references(headers), [0.9], [1.0], prompt=prompt("2D", "OP", "retina", "cfp"), frame_of_reference_uid=None
    )
    return report_request(assessment(primary), headers)


def outside_range() -> ReportRequest:
    """The CT volume of a checkpoint whose training range it is outside of, with a further stack that is outside."""
    inside = ct_volume().assessment.primary
    primary = replace(inside, range_position=range_position())
    other = replace(primary, slices=inside.slices[:1], quality=inside.slices[0].quality)
    found = assessment(
        replace(primary, prediction=None), others=(_alone(other),), n_stacks=2, verdict=OUTSIDE_RANGE, calibration=None
    )
    return replace(ct_volume(), assessment=found)


def _alone(result: StackResult) -> StackResult:
    return replace(result, slices=(replace(result.slices[0], weight=1.0),))


REQUESTS = {
    "ct-volume": ct_volume,
    "ct-image": ct_image,
    "mr-without-field-strength": mr_without_field_strength,
    "enhanced-mr": enhanced_mr,
    "fundus": fundus,
    "outside-range": outside_range,
}
"""One of each kind of report."""


def network_input(images: np.ndarray) -> NetworkInput:
    """Return network images (n, 3, S, S) as the whole views of n slices."""
    edge = images.shape[-1]
    views = (View(slice_index=i, top=0, left=0, height=edge, width=edge) for i in range(len(images)))
    return NetworkInput(images=images, views=tuple(views))
