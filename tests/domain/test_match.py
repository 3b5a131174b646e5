"""Rules: every condition given must hold, patterns cannot backtrack, equal facts are answered from memory."""

import time
from typing import Any

import pytest

from mediqa_node.domain.match import Facts, InstanceMatch, Match, RuleList, failing, words
from mediqa_node.domain.rules import ForwardRule, PhantomRule

CHEST = Facts(
    senders=("CT_ROOM_1", "CT1"),
    called="MEDIQA",
    values={"Modality": ("CT",), "StationName": ("CT_ROOM_1",), "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL")},
    study_age_days=2.0,
)


@pytest.mark.parametrize(
    ("conditions", "key"),
    [
        ({}, ""),
        ({"sender": "CT_ROOM_1"}, ""),
        ({"sender": "CT1"}, ""),
        ({"sender": ("MR1", "CT1")}, ""),
        ({"sender": "MR1"}, "from"),
        ({"called": ("OTHER", "MEDIQA")}, ""),
        ({"called": "OTHER"}, "called"),
        ({"modality": ("CT", "MR")}, ""),
        ({"modality": "MR"}, "modality"),
        ({"station": "^ct_room"}, ""),
        ({"station": "ROOM_2"}, "station"),
        ({"protocol": "^$"}, ""),
        ({"protocol": "."}, "protocol"),
        ({"study_at_most_days": 2}, ""),
        ({"study_at_most_days": 1}, "study_at_most_days"),
        ({"study_at_least_days": 3}, "study_at_least_days"),
        ({"attributes": {"StationName": "1$"}}, ""),
        ({"attributes": {"StationName": "2$"}}, "station"),
        ({"image_type": "^PRIMARY$"}, ""),
        ({"image_type": "^DERIVED$"}, "image_type"),
        ({"sender": "CT1", "station": "ROOM_2", "modality": "MR"}, "modality"),
    ],
)
def test_a_rule_names_the_first_condition_that_does_not_hold(conditions: dict[str, Any], key: str) -> None:
    rule = InstanceMatch(**conditions)

    assert failing(rule, CHEST) == key
    assert bool(RuleList([rule]).first(CHEST)) is (key == "")


def test_a_study_without_a_date_has_no_age_that_matches() -> None:
    undated = Facts(values={})

    assert failing(Match(study_at_most_days=9999), undated) == "study_at_most_days"
    assert failing(Match(study_at_least_days=0), undated) == "study_at_least_days"


def test_all_rules_that_match_are_found_in_their_order() -> None:
    rules = [ForwardRule(modality="CT", to=("A",)), ForwardRule(modality="MR", to=("B",)), ForwardRule(to=("C",))]

    assert [rule.to for rule in RuleList(rules).all(CHEST)] == [("A",), ("C",)]


def test_facts_that_differ_are_not_answered_from_memory() -> None:
    asked = RuleList([Match(study_at_most_days=3, station="1$")])

    assert asked.first(CHEST) is not None
    assert asked.first(Facts(values=CHEST.values, study_age_days=4.0)) is None
    assert asked.first(Facts(values={"StationName": ("CT_ROOM_2",)}, study_age_days=2.0)) is None
    assert asked.first(CHEST) is not None


def test_a_text_made_to_backtrack_costs_no_time() -> None:
    asked = RuleList([Match(description="(a+)+$")])
    hostile = Facts(values={"SeriesDescription": ("a" * 60_000 + "b",)})
    began = time.perf_counter()

    assert asked.first(hostile) is not None, "only the first 256 characters are looked at"
    assert RuleList([Match(description="(a|aa)+c")]).first(hostile) is None
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize("pattern", ["(", "(?=x)", "(?<!x)y", "a{1001}", "((a{100}){100}){100}"])
def test_a_pattern_that_is_none_of_re2_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="no RE2 regular expression"):
        Match(station=pattern)


def test_a_rule_is_described_by_its_conditions() -> None:
    rule = InstanceMatch(sender="CT1", image_type="ORIGINAL", attributes={"KVP": "^1[24]0$"})

    assert words(rule) == "any modality from CT1, image type 'ORIGINAL', KVP '^1[24]0$'"


def test_a_phantom_needs_a_condition() -> None:
    with pytest.raises(ValueError, match="needs a condition"):
        PhantomRule(name="water")
