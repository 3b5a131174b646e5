"""Site policy: which series are scored, and where reports go."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TypeVar

from pydicom import Dataset

from mediqa_node.dicom.header import number, text
from mediqa_node.dicom.matching import facts_of
from mediqa_node.domain.assessment import Assessment
from mediqa_node.domain.errors import NotScorable
from mediqa_node.domain.match import TEXT_AT_MOST, Match, RuleList, compiled
from mediqa_node.domain.policy import CompletionRules, ScorePolicy
from mediqa_node.domain.rules import PhantomRule, PrimaryRule
from mediqa_node.domain.uid import is_uid
from mediqa_node.pipeline.clock_watch import is_doubtful
from mediqa_node.pipeline.node import NodeContext
from mediqa_node.storage.index import SeriesRow

_Rule = TypeVar("_Rule", bound=Match)


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


def matching(
    node: NodeContext, row: SeriesRow, header: Dataset, rules: Sequence[_Rule], *, modality: str | None = None
) -> tuple[_Rule, ...]:
    """Return the rules that match a series, in order.

    Args:
        header: of its first image; a rule on a series looks at nothing else.
        modality: what it was assessed as, where a header has another word for it.
    """
    if not rules:
        return ()
    asked = RuleList(rules)
    today = datetime.fromtimestamp(node.clock(), node.time_zone).date()
    sender = node.peer_of(row.calling_ae_title)
    senders = (row.calling_ae_title, *((sender.name,) if sender else ()))
    facts = facts_of(header, asked.keywords, senders=senders, called=row.called_ae_title, today=today)
    if modality is not None:
        facts = replace(facts, values={**facts.values, "Modality": (modality,)})
    return asked.all(facts)


def check_rules(node: NodeContext, row: SeriesRow, header: Dataset) -> None:
    """Raise NotScorable for a series that a rule of the site excludes, or that is no primary reconstruction."""
    rule = next(iter(matching(node, row, header, node.score.rules)), None)
    if rule is not None and not rule.score:
        number_of = node.score.rules.index(rule) + 1
        raise NotScorable("excluded_by_rule", f"rule {number_of} of `score.rules` excludes it")
    if isinstance(node.score.primary, str):
        return
    if not any(_is_primary(rule, header) for rule in matching(node, row, header, node.score.primary)):
        raise NotScorable("no_primary_rule", "no rule of `score.primary` matches this reconstruction")


def _is_primary(rule: PrimaryRule, header: Dataset) -> bool:
    thickness_mm = number(header, "SliceThickness")
    kernel = text(header, "ConvolutionKernel")[:TEXT_AT_MOST]
    return (rule.kernel is None or compiled(rule.kernel).search(kernel) is not None) and (
        rule.thickness_at_most_mm is None or (thickness_mm is not None and thickness_mm <= rule.thickness_at_most_mm)
    )


def phantom_rule(node: NodeContext, row: SeriesRow, header: Dataset) -> PhantomRule | None:
    """Return the first of the site's rules that names this series a phantom, or None."""
    return next(iter(matching(node, row, header, node.score.phantoms)), None)


def completion_rules(node: NodeContext, row: SeriesRow, header: Dataset) -> CompletionRules:
    """Return the times after which this series counts as complete, by the rules of the site."""
    return node.completion.with_rule(next(iter(matching(node, row, header, node.completion.rules)), None))


def check_scored(node: NodeContext, row: SeriesRow, headers: Sequence[Dataset]) -> str | None:
    """Return the key of the acquisition that a series competes for; None where every reconstruction is scored.

    Raises:
        NotScorable: the site has such a series not scored.
    """
    if not is_doubtful(node) and not row.pulled:
        check_age(node.score, headers[0], node.clock())
    check_rules(node, row, headers[0])
    return claim_of(node, row, headers)


def acquisition_key(headers: Sequence[Dataset]) -> str | None:
    """Return a key shared by the reconstructions of one acquisition, or None if the headers give none.

    It is one of this patient and study only, since some devices use one UID for every patient, and the first patient
    must not keep the others from being scored.
    """
    if (acquisition := acquisition_of(headers)) is None:
        return None
    whose = [text(headers[0], name) for name in ("StudyInstanceUID", "IssuerOfPatientID", "PatientID")]
    return f"{sha256(json.dumps(whose).encode()).hexdigest()[:32]} {acquisition}"


def claim_of(node: NodeContext, row: SeriesRow, headers: Sequence[Dataset]) -> str | None:
    """Return the key of the acquisition of which a series may be the one that is scored; None where all are."""
    key = acquisition_key(headers) if node.score.primary != "all" else None
    # what the archive had takes no place of what is sent live
    return f"pulled {key}" if key is not None and row.pulled else key


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


def destinations(
    node: NodeContext, row: SeriesRow, header: Dataset, assessment: Assessment
) -> tuple[tuple[str, float], ...]:
    """Return the peers that get this report, each with the seconds to wait there for the study; none if pulled."""
    if row.pulled:
        return ()
    sender = node.peer_of(row.calling_ae_title)
    rule = next(iter(matching(node, row, header, node.returns, modality=assessment.modality)), None)
    if rule is None or rule.when == "never":
        return ()
    if rule.when == "flagged" and assessment.verdict not in ("borderline", "review"):
        return ()
    wanted = [sender.name if name == "sender" and sender else name for name in rule.to]
    return tuple((name, rule.wait_for_study_s) for name in dict.fromkeys(wanted) if node.peer(name) is not None)
