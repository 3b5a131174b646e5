"""Splits: nobody ever moves, nothing is ever on both sides, whatever comes later and whoever turns out to be one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediqa_node.dicom.deidentify.pseudonyms import Pseudonyms
from mediqa_node.exchange.splits import (
    Member,
    SplitsOverlap,
    assert_apart,
    leave_scanner_out,
    links_of,
    place,
    split_of,
)

KEYS = Pseudonyms(b"s" * 32)


def member(series: str, patient: str, *links: str, at: float = 0.0) -> Member:
    return Member(series_key=series, patient_key=patient, links=links, received_at=at)


def patients_of(split: str, count: int) -> list[str]:
    """Patients who draw a split."""
    found = (name for name in (f"P{i}" for i in range(10_000)) if split_of(name, KEYS) == split)
    return [next(found) for _ in range(count)]


def test_patients_are_drawn_eight_to_one_to_one() -> None:
    drawn = Counter(split_of(f"P{i}", KEYS) for i in range(5000))

    assert drawn["train"] == pytest.approx(4000, abs=120)
    assert drawn["val"] == pytest.approx(500, abs=90)
    assert drawn["test"] == pytest.approx(500, abs=90)


def test_another_key_draws_other_splits() -> None:
    names = [f"P{i}" for i in range(50)]

    assert [split_of(name, KEYS) for name in names] != [split_of(name, Pseudonyms(b"t" * 32)) for name in names]


def test_of_two_patients_who_turn_out_to_be_one_the_earlier_stays_and_the_other_is_left_out() -> None:
    [trains], [tests] = patients_of("train", 1), patients_of("test", 1)

    placed = place([member("a", trains, "pixels", at=2.0), member("b", tests, "pixels", at=1.0)], KEYS)

    assert placed["b"].split == "test"
    assert placed["a"].split is None


def test_patients_who_turn_out_to_be_one_and_drew_the_same_both_stay_in_one_fold() -> None:
    one, other = patients_of("train", 2)

    placed = place([member("a", one, "event"), member("b", other, "event"), member("c", other)], KEYS)

    assert {where.split for where in placed.values()} == {"train"}
    assert len({where.fold for where in placed.values()}) == 1


def test_who_was_found_to_be_one_stays_so_when_the_earlier_series_are_gone() -> None:
    [trains], [tests] = patients_of("train", 1), patients_of("test", 1)
    before = links_of([member("a", trains, "pixels", at=2.0), member("b", tests, "pixels", at=1.0)])

    placed = place([member("a", trains, "other pixels", at=2.0), member("c", tests, at=9.0)], KEYS, before)

    assert placed["a"].split is None
    assert placed["c"].split == "test", "the first to come speaks for both, though its later series came later"


series = st.tuples(st.integers(0, 8), st.lists(st.integers(0, 5), max_size=2))


@given(st.lists(st.lists(series, max_size=8), min_size=1, max_size=4))
def test_no_export_of_a_growing_node_moves_a_patient_or_lets_two_splits_share_anything(
    arrivals: list[list[tuple[int, list[int]]]],
) -> None:
    members: list[Member] = []
    earlier: dict[str, str] = {}
    for batch in arrivals:
        for patient, links in batch:
            number = len(members)
            members.append(member(f"S{number}", f"P{patient}", *(f"L{link}" for link in links), at=float(number)))
        placed = place(members, KEYS)
        for one in members:
            split = placed[one.series_key].split
            if split is not None:
                assert earlier.setdefault(one.patient_key, split) == split
        kept = [(one, placed[one.series_key].split) for one in members if placed[one.series_key].split]
        for share in {link for one, _ in kept for link in one.links}:
            assert len({split for one, split in kept if share in one.links}) == 1


def test_an_overlap_is_refused() -> None:
    rows = [{"patient_key": "P", "split": "train"}, {"patient_key": "P", "split": "test"}]

    with pytest.raises(SplitsOverlap, match="patient_key P would be in train and test"):
        assert_apart(rows)


def test_leaving_a_scanner_out_leaves_out_its_patients_elsewhere() -> None:
    rows = [
        {"series_key": "1", "patient_key": "P", "device_key": "A"},
        {"series_key": "2", "patient_key": "P", "device_key": "B"},
        {"series_key": "3", "patient_key": "Q", "device_key": "B"},
    ]

    assert leave_scanner_out(rows)["A"] == {"test": ["1"], "left_out": ["2"]}
