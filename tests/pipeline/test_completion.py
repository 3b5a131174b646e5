"""When a series is complete: pure rules over stored facts and the clock."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mediqa_node.domain.policy import CompletionRules
from mediqa_node.pipeline.completion import (
    CLOCK_SET_BACK_S,
    Completion,
    SeriesFacts,
    completion,
    could_be_contiguous,
    quiet_after_s,
)

RULES = CompletionRules()
ARRIVED = SeriesFacts(
    opened_at=1000.0,
    last_instance_at=1010.0,
    n_associations=1,
    association_closed_at=1010.5,
    released=True,
    moved_on=False,
    sender_splits=False,
    evenly_spaced=True,
)


def test_a_whole_series_on_one_association_is_complete_after_a_second_and_reported_at_once() -> None:
    assert completion(ARRIVED, RULES, 1011.4) is None
    assert completion(ARRIVED, RULES, 1011.5) == Completion(reason="contiguous", report_not_before=1011.5)


@pytest.mark.parametrize(
    "change",
    [
        {"n_associations": 2},
        {"association_closed_at": None},
        {"released": False},
        {"sender_splits": True},
        {"evenly_spaced": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_speaks_against_one_whole_send_makes_the_node_wait_for_silence(change: dict[str, object]) -> None:
    facts = replace(ARRIVED, **change)

    assert completion(facts, RULES, 1019.9) is None
    decided = completion(facts, RULES, 1041.0)
    assert decided is not None
    assert (decided.reason, decided.report_not_before) == ("quiet", 1070.0)


def test_silence_counts_from_the_last_instance() -> None:
    facts = replace(ARRIVED, evenly_spaced=False)

    assert completion(facts, RULES, 1019.9) is None
    assert completion(facts, RULES, 1020.0) == Completion(reason="quiet", report_not_before=1070.0)


def test_an_open_association_that_is_still_at_it_holds_the_series_for_thirty_seconds() -> None:
    facts = replace(ARRIVED, association_closed_at=None)

    assert completion(facts, RULES, 1039.9) is None
    assert completion(facts, RULES, 1040.0) is not None


def test_an_open_association_that_has_moved_on_holds_nothing() -> None:
    facts = replace(ARRIVED, association_closed_at=None, moved_on=True)

    assert completion(facts, RULES, 1020.0) == Completion(reason="quiet", report_not_before=1070.0)


def test_an_announced_number_of_objects_that_is_here_needs_no_waiting() -> None:
    facts = replace(ARRIVED, association_closed_at=None, announced=True)

    assert completion(facts, RULES, 1010.0) == Completion(reason="announced", report_not_before=1010.0)


def test_an_announced_number_that_is_not_here_waits_until_it_is_forced() -> None:
    facts = replace(ARRIVED, announced=False)

    assert completion(facts, RULES, 1899.0) is None
    decided = completion(facts, RULES, 1900.0)
    assert decided is not None
    assert decided.reason == "forced"


def test_the_silence_that_ends_a_series_is_learned_within_bounds() -> None:
    assert quiet_after_s((), RULES) == 10.0
    assert quiet_after_s((0.1, 0.2, 0.3), RULES) == 10.0
    assert quiet_after_s((5.0,) * 20, RULES) == 20.0
    assert quiet_after_s((3600.0,), RULES) == 120.0
    assert quiet_after_s((1.0,) * 199 + (60.0,), RULES) == 10.0, "one long pause in two hundred is no habit"


seconds = st.floats(0, 4000, allow_nan=False)
facts_of_all_kinds = st.builds(
    SeriesFacts,
    opened_at=seconds,
    last_instance_at=seconds,
    n_associations=st.integers(1, 3),
    association_closed_at=st.none() | seconds,
    released=st.booleans(),
    moved_on=st.booleans(),
    sender_splits=st.booleans(),
    sender_gaps_s=st.lists(st.floats(0, 200), max_size=5),
    announced=st.none() | st.booleans(),
    evenly_spaced=st.booleans(),
)


@given(facts_of_all_kinds, seconds, seconds)
def test_a_complete_series_stays_complete_as_time_goes_on(facts: SeriesFacts, waited: float, more: float) -> None:
    now = max(facts.last_instance_at, facts.opened_at) - CLOCK_SET_BACK_S + waited
    assume(max(facts.last_instance_at, facts.opened_at) <= now + CLOCK_SET_BACK_S)  # rounding may miss it by a bit
    if completion(facts, RULES, now) is not None:
        assert completion(facts, RULES, now + more) is not None


@given(facts_of_all_kinds)
def test_every_series_is_complete_in_the_end(facts: SeriesFacts) -> None:
    assert completion(facts, RULES, 1e7) is not None


@given(facts_of_all_kinds, seconds)
def test_contiguous_is_never_said_of_a_sender_that_splits(facts: SeriesFacts, now: float) -> None:
    decided = completion(replace(facts, sender_splits=True), RULES, now)

    assert decided is None or decided.reason != "contiguous"
    assert not could_be_contiguous(replace(facts, sender_splits=True))


@given(facts_of_all_kinds, seconds)
def test_a_report_that_is_not_sure_waits_for_late_slices(facts: SeriesFacts, now: float) -> None:
    assume(max(facts.last_instance_at, facts.opened_at) <= now + CLOCK_SET_BACK_S)
    decided = completion(facts, RULES, now)

    if decided is not None and decided.reason in ("quiet", "forced"):
        assert decided.report_not_before == facts.last_instance_at + RULES.deliver_after_s


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    a_day_ahead = replace(ARRIVED, opened_at=86_400.0, last_instance_at=86_400.0)

    decided = completion(a_day_ahead, CompletionRules(), 0.0)

    assert decided is not None
    assert decided.reason == "forced"
