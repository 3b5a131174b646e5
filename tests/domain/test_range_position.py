"""How far a stack is from the limit of a training range, in words."""

from dataclasses import replace

import pytest
from support.factories import range_position

from mediqa_node.domain.range_position import RangeTest


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(0.9, "0.90"), (0.9996, "0.99"), (1.0, "1.00"), (1.0004, "1.01"), (1.034, "1.03"), (45.5, "45.50"), (0.0, "0.00")],
)
def test_a_distance_has_two_decimals_and_is_never_rounded_across_the_limit(ratio, words):
    assert range_position(ratio).words == f"{words} x the limit"


def test_the_sentences_name_test_distance_and_slices():
    outside, inside = range_position(1.034), range_position(0.93)

    assert outside.details() == "local statistics 1.03 x the limit, outside on 4 of 7 slices"
    assert inside.details() == "local statistics 0.93 x the limit"
    assert outside.summary("OP") == "unlike the fundus photographs it was trained on (1.03 x the limit)"


def test_too_few_pixels_are_stated_as_a_share():
    found = replace(range_position(2.0, RangeTest.INSIDE_WINDOW), share_inside=0.05)

    assert found.details() == "only 5.0% of the pixels inside the window, at least 10.0% expected"
    assert found.summary("MR") == ("unlike the MR images it was trained on (only 5.0% of the pixels inside the window)")


def test_outside_begins_above_the_limit_and_near_at_nine_tenths():
    assert [range_position(ratio).is_outside for ratio in (0.5, 1.0, 1.001)] == [False, False, True]
    assert [range_position(ratio).is_near for ratio in (0.89, 0.9, 1.0, 1.3)] == [False, True, True, True]
