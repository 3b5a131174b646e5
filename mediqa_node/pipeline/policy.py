"""Site policy: which series are scored, and where reports go."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256

from pydicom import Dataset

from mediqa_node.dicom.header import number, text
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.policy import PhantomRule, PrimaryRule, ScorePolicy
from mediqa_node.domain.uid import is_uid
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage.index import SeriesRow


def check_age(policy: ScorePolicy, header: Dataset, now: float) -> None:
    """Raise NotScorable for a study older than `score.max_age_days`, such as a prefetched prior."""
    if policy.max_age_days is None:
        return
    try:
        taken = datetime.strptime(text(header, "StudyDate")[:8], "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return
    age_days = (now - taken.timestamp()) / 86400
    if age_days > policy.max_age_days + 1:  # a date without a time may be a day off
        raise NotScorable(
            "too_old", f"study is {age_days:.0f} days old, `score.max_age_days` is {policy.max_age_days:g}"
        )


def check_reconstruction(policy: ScorePolicy, header: Dataset) -> None:
    """Raise NotScorable unless one of the site's rules for the primary reconstruction matches."""
    if isinstance(policy.primary, str):
        return
    if not any(_matches(rule, header) for rule in policy.primary):
        raise NotScorable("no_primary_rule", "no rule of `score.primary` matches this reconstruction")


def _matches(rule: PrimaryRule, header: Dataset) -> bool:
    thickness_mm = number(header, "SliceThickness")
    return (
        _found(rule.kernel, text(header, "ConvolutionKernel"))
        and _found(rule.description, text(header, "SeriesDescription"))
        and (
            rule.thickness_at_most_mm is None
            or (thickness_mm is not None and thickness_mm <= rule.thickness_at_most_mm)
        )
    )


def phantom_rule(policy: ScorePolicy, header: Dataset) -> PhantomRule | None:
    """Return the first of the site's rules that names this series a phantom, or None."""
    return next((rule for rule in policy.phantoms if _is_phantom(rule, header)), None)


def _is_phantom(rule: PhantomRule, header: Dataset) -> bool:
    return (
        _found(rule.station, text(header, "StationName"))
        and _found(rule.protocol, text(header, "ProtocolName"))
        and _found(rule.description, text(header, "SeriesDescription"))
        and _found(rule.patient_id, text(header, "PatientID"))
    )


def _found(pattern: str | None, value: str) -> bool:
    return pattern is None or re.search(pattern, value, re.IGNORECASE) is not None


def acquisition_key(headers: Sequence[Dataset]) -> str | None:
    """Return a key shared by the reconstructions of one acquisition, or None if the headers give none.

    It is one of this patient and study only, since some devices use one UID for every patient, and the first patient
    must not keep the others from being scored.
    """
    if (acquisition := acquisition_of(headers)) is None:
        return None
    whose = [text(headers[0], name) for name in ("StudyInstanceUID", "IssuerOfPatientID", "PatientID")]
    return f"{sha256(json.dumps(whose).encode()).hexdigest()[:32]} {acquisition}"


def acquisition_of(headers: Sequence[Dataset]) -> str | None:
    """Return what names the acquisition of a series whatever patient it names, or None if the headers do not tell.

    Irradiation Event UID (0008,3010), else Frame of Reference UID + Acquisition Number + Acquisition Time; of several
    in one series the smallest, so that every reconstruction yields the same.
    """
    keys = [key for header in headers if (key := _acquisition_of(header)) is not None]
    return min(keys, default=None)


def _acquisition_of(header: Dataset) -> str | None:
    if is_uid(event := text(header, "IrradiationEventUID")):
        return f"event {event}"[:160]
    if text(header, "Modality") != "CT":
        return None
    parts = [text(header, name) for name in ("FrameOfReferenceUID", "AcquisitionNumber", "AcquisitionTime")]
    return " ".join(["frame", *parts])[:160] if all(parts) else None


def destinations(node: NodeContext, row: SeriesRow, assessment: Assessment) -> tuple[tuple[str, float], ...]:
    """Return the peers that get this report, each with the seconds to wait there for the study; none if pulled."""
    if row.pulled:
        return ()
    sender = node.peer_of(row.calling_ae_title)
    names = (row.calling_ae_title, *((sender.name,) if sender else ()))
    rule = next((rule for rule in node.returns if rule.matches(names, assessment.modality)), None)
    if rule is None or rule.when == "never":
        return ()
    if rule.when == "flagged" and assessment.verdict not in ("borderline", "review"):
        return ()
    wanted = [sender.name if name == "sender" and sender else name for name in rule.to]
    return tuple((name, rule.wait_for_study_s) for name in dict.fromkeys(wanted) if node.peer(name) is not None)
