"""What rules see of a header is the same, parsed or still encoded."""

from datetime import date

import pytest
from pydicom import Dataset
from support.receiving import BIG, EXPLICIT, IMPLICIT, ct, encode

from mediqa_node.dicom.matching import check_keywords, facts_of, facts_of_elements, tag_of
from mediqa_node.dicom.scan import scan
from mediqa_node.domain.match import Facts, InstanceMatch, Match

KEYWORDS = (
    "Modality",
    "StationName",
    "ProtocolName",
    "SeriesDescription",
    "ImageType",
    "Rows",
    "KVP",
    "StudyDate",
    "InstitutionName",
    "StudyComments",
)
TODAY = date(2026, 11, 30)


def header(**changes: object) -> Dataset:
    return ct(
        SpecificCharacterSet="ISO_IR 100",
        StationName="CT 3 ",
        ProtocolName="Schädel\\nativ",
        ImageType=["ORIGINAL", "PRIMARY"],
        KVP="120",
        StudyDate="20261128",
        InstitutionName="Klinikum Köln",
        **changes,
    )


def scanned(ds: Dataset, syntax: str) -> Facts:
    found = scan(memoryview(encode(ds, syntax)), syntax, further=frozenset(map(tag_of, KEYWORDS)))
    return facts_of_elements(
        found.elements, KEYWORDS, is_little_endian=syntax != BIG, senders=("A",), called="B", today=TODAY
    )


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_encoded_and_parsed_headers_give_the_same_facts(syntax: str) -> None:
    ds = header(Rows=16)

    facts = scanned(ds, syntax)

    assert facts == facts_of(ds, KEYWORDS, senders=("A",), called="B", today=TODAY)
    assert facts.values["Rows"] == ("16",)
    assert facts.values["InstitutionName"] == ("Klinikum Köln",)
    assert facts.values["ImageType"] == ("ORIGINAL", "PRIMARY")
    assert facts.study_age_days == 2.0
    assert "SeriesDescription" not in facts.values


def test_a_date_that_is_none_gives_no_age() -> None:
    ds = ct(StudyDate="20261128")
    encoded = encode(ds).replace(b"20261128", b"2026 11 ")

    found = scan(memoryview(encoded), EXPLICIT, further=frozenset({tag_of("StudyDate")}))
    facts = facts_of_elements(found.elements, ("StudyDate",), is_little_endian=True, senders=(), called="", today=TODAY)

    assert facts.study_age_days is None


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Match(attributes={"Stationname": "x"}), "no keyword"),
        (Match(attributes={"InstanceNumber": "1"}), "only `forward`"),
        (InstanceMatch(attributes={"PixelData": "1"}), "only text and numbers"),
        (InstanceMatch(attributes={"ReferencedImageSequence": "1"}), "only text and numbers"),
    ],
)
def test_a_rule_names_only_what_can_be_compared(rule: Match, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_keywords(rule)


def test_a_rule_on_an_instance_may_look_at_any_text_or_number() -> None:
    check_keywords(InstanceMatch(attributes={"InstanceNumber": "1", "KVP": "120", "Rows": "512"}))
