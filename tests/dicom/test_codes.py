"""Code meanings that are typed into the source are those of pydicom's copy of PS3.16; a wrong digit fails here."""

from collections.abc import Iterator
from types import ModuleType

import pytest
from pydicom.sr.codedict import codes as dictionary

from mediqa_node.dicom import reject_note
from mediqa_node.dicom.companions import request
from mediqa_node.dicom.deidentify.instance import METHODS
from mediqa_node.dicom.report import codes, header, measure_codes
from mediqa_node.dicom.report.codes import PRIVATE_SCHEME, Code
from mediqa_node.dicom.report.items import text_item
from mediqa_node.dicom.technique import dose_sr

ELSEWHERE = {
    codes.SOURCE: "PS3.16 TID 1602 says Source; pydicom has SNOMED's own name, Source (attribute)",
    codes.QUALITATIVE_EVALUATIONS: "UMLS is not in pydicom; PS3.16 TID 1500",
    codes.ENGLISH: "RFC 5646 is not in pydicom; PS3.16 CID 5000",
    codes.UNITS["mA.s"]: "pydicom has only the units of context groups; UCUM, meaning as the code",
    codes.UNITS["T"]: "as mA.s",
    codes.PIXELS: "an annotation of UCUM in braces",
    codes.PERCENT_RANGE: "as pixels",
    codes.UNIT_RANGE: "as pixels",
}
"""Codes that pydicom does not have under this meaning, and where they are from."""


def known(scheme: str) -> dict[str, set[str]]:
    """Meanings by code value."""
    found: dict[str, set[str]] = {}
    for code in getattr(dictionary, scheme).concepts.values():
        found.setdefault(code.value, set()).add(code.meaning)
    return found


def codes_in(value: object) -> Iterator[Code]:
    if isinstance(value, Code):
        yield value
    elif isinstance(value, ModuleType):
        for one in vars(value).values():
            if not isinstance(one, ModuleType):
                yield from codes_in(one)
    elif isinstance(value, dict):
        yield from codes_in(tuple(value.values()))
    elif isinstance(value, tuple):
        for one in value:
            yield from codes_in(one)


TYPED = sorted({code for module in (codes, header, measure_codes, request) for code in codes_in(module)})
STANDARD = [code for code in TYPED if code.scheme != PRIVATE_SCHEME and code not in ELSEWHERE]
DOSE = {
    value for value in vars(dose_sr).values() if isinstance(value, tuple) and all(isinstance(v, str) for v in value)
}
REJECTS = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}


@pytest.mark.parametrize("code", STANDARD, ids=lambda code: f"{code.scheme} {code.value}")
def test_a_code_has_the_meaning_of_the_standard(code):
    assert code.meaning in known(code.scheme)[code.value]


@pytest.mark.parametrize("code", ELSEWHERE, ids=lambda code: f"{code.scheme} {code.value}")
def test_a_code_that_is_listed_as_missing_from_pydicom_is_missing(code):
    there = getattr(dictionary, code.scheme, None)
    assert there is None or code.meaning not in known(code.scheme).get(code.value, set())


def test_the_codes_of_dose_reports_are_those_of_the_standard():
    assert len(DOSE) == 13
    for value, meaning in DOSE:
        assert meaning in {known_meaning.lower() for known_meaning in known("DCM")[value]}, value


def test_the_titles_of_reject_notes_are_those_of_the_standard():
    assert set(REJECTS) == reject_note.REJECT_TITLES
    assert all(meaning in known("DCM")[value] for value, meaning in REJECTS.items())


def test_the_methods_of_de_identification_are_those_of_the_standard():
    assert all(meaning in known("DCM")[value] for value, meaning in METHODS)


def test_codes_and_meanings_fit_their_elements_and_mean_one_thing():
    meanings: dict[tuple[str, str], str] = {}
    for code in TYPED:
        assert len(code.value) <= 16, code
        assert len(code.meaning) <= 64, code
        assert meanings.setdefault((code.scheme, code.value), code.meaning) == code.meaning


def test_a_text_holds_nothing_that_a_display_cannot_show() -> None:
    item = text_item("CONTAINS", codes.COMMENT, "kernel B70f\x1b[2J, station Ger\ufffdt2\r\nsecond line")

    assert item.TextValue == "kernel B70f?[2J, station Ger?t2\r\nsecond line"
