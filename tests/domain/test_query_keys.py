"""Matching of keys (PS3.4 C.2.2.2), against Python's own for wildcards."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediqa_node.domain.query import Level, OwnObject, described, grouped, has_wildcard_match, matches, selected

LETTERS = st.text("ab*?", max_size=8)


@given(LETTERS, st.text("ab", max_size=8))
def test_wildcards_match_as_in_a_shell(pattern: str, text: str) -> None:
    assert has_wildcard_match(pattern, text) == fnmatchcase(text, pattern)


@pytest.mark.parametrize(
    ("keyword", "wanted", "value", "found"),
    [
        ("StudyDate", "20260101-20261231", "2026.06.01", True),
        ("StudyDate", "-20251231", "", False),
        ("StudyTime", "10-1030", "101500.123", True),
        ("StudyTime", "10-1030", "110000", False),
        ("SeriesNumber", "7", "007", True),
        ("SeriesNumber", "7", "70", False),
        ("SOPClassUID", "1.2*", "1.23", False),
        ("PatientName", "doe", "DOE", True),
        ("PatientID", "doe", "DOE", False),
        ("PatientID", "*", "", True),
    ],
)
def test_each_key_matches_by_its_kind(keyword: str, wanted: str, value: str, found: bool) -> None:
    assert matches(keyword, wanted, value) is found


def test_keys_below_the_level_select_nothing_and_entities_are_counted() -> None:
    objects = [
        OwnObject(values={"PatientID": "P", "StudyInstanceUID": "1", "SeriesInstanceUID": s, "Modality": m})
        for s, m in (("1.1", "SR"), ("1.2", "OT"), ("1.2", "OT"))
    ]

    [study] = grouped(list(selected(objects, {"PatientID": "P", "Modality": "SR"}, Level.STUDY)), Level.STUDY)
    found = described(study, Level.STUDY)

    assert (found["ModalitiesInStudy"], found["NumberOfStudyRelatedSeries"]) == (["OT", "SR"], 2)
    assert found["NumberOfStudyRelatedInstances"] == 3
    assert list(selected(objects, {"Modality": "CT"}, Level.SERIES)) == []
