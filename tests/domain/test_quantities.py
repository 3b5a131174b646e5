"""The catalogue: every name has a unit, a definition and a method; every limit has words."""

import re

import pytest

from mediqa_node.dicom.report import measure_codes
from mediqa_node.domain.measures import LIMITS, Limit
from mediqa_node.domain.quantities import QUANTITIES, Quantity


@pytest.mark.parametrize("quantity", QUANTITIES.values(), ids=lambda one: one.name)
def test_every_quantity_has_unit_definition_method_and_code(quantity: Quantity) -> None:
    measure = quantity.measured(1.0, n=1)

    assert re.fullmatch(r"(ct|mr|op|stack)(\.[a-z0-9_]+)+", quantity.name)
    assert quantity.unit
    assert 3 <= len(quantity.title) <= 40
    assert quantity.definition[-1] != "."
    assert quantity.method.name
    assert quantity.method.version >= 1
    assert re.search(r"(19|20)\d\d|PS3", quantity.method.citation), "a citation has a year"
    for code in (measure_codes.concept(quantity.name), measure_codes.method(measure)):
        assert 1 <= len(code.value) <= 16
        assert 1 <= len(code.meaning) <= 64
    assert measure_codes.unit(measure).value == quantity.unit


def test_codes_differ() -> None:
    concepts = [measure_codes.concept(name) for name in QUANTITIES]
    methods = [measure_codes.method(one.measured(1.0, n=1)) for one in QUANTITIES.values()]

    assert len(set(concepts)) == len(concepts)
    assert not {code.value for code in concepts} & {code.value for code in methods}


def test_every_limit_has_words_in_ascii() -> None:
    assert set(LIMITS) == set(Limit)
    assert all(words.isascii() and len(words) > 10 for words in LIMITS.values())
