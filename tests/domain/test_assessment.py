"""The number of a stack follows from those of its slices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediqa_node.domain.assessment import weighted_quality

UNIT = st.floats(0, 1)


@given(st.lists(st.tuples(UNIT, st.floats(1e-6, 1)), min_size=1, max_size=7))
def test_a_weighted_mean_lies_between_its_parts(parts):
    quality, total = [q for q, _ in parts], sum(w for _, w in parts)
    weights = [w / total for _, w in parts]

    found = weighted_quality(quality, weights)

    assert min(quality) <= found <= max(quality)
    assert found == pytest.approx(sum(w * q for q, w in zip(quality, weights, strict=True)))


def test_slices_that_are_all_perfect_make_no_more_than_1():
    weights = [w / 3.604500040683136 for w in (1.0, 1.0, 1.0, 0.604500040683136)]
    assert sum(weights) > 1

    assert weighted_quality([1.0] * 4, weights) == 1.0
