"""The order of a reader: random, the same again for the same seed, and repeats far apart."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediqa_node.reader_study.kappa import repeated, weighted_kappa
from mediqa_node.reader_study.order import chosen, reading_order


@given(n=st.integers(1, 120), share=st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.3]), seed=st.text(max_size=8))
def test_each_case_comes_once_and_repeats_are_a_third_of_the_list_apart(n: int, share: float, seed: str):
    order = reading_order(n, share, seed)

    first = {case: at for at, (case, number) in enumerate(order) if number == 1}
    second = {case: at for at, (case, number) in enumerate(order) if number == 2}
    assert sorted(first) == list(range(n))
    assert all(second[case] - first[case] >= ceil(len(order) / 3) for case in second)
    assert len(order) == n + len(second)
    if n >= 20:
        assert len(second) == round(share * n)


def test_two_readers_see_the_cases_in_different_orders_and_each_always_in_the_same():
    ada, ben = (reading_order(40, 0.1, f"1:7:{name}") for name in ("ada", "ben"))

    assert ada != ben
    assert {case for case, number in ada if number == 2} != {case for case, number in ben if number == 2}
    assert ada == reading_order(40, 0.1, "1:7:ada")


def test_repeats_do_not_all_come_in_the_order_of_their_first_reading():
    agree = 0
    for seed in range(20):
        order = reading_order(100, 0.1, str(seed))
        first = [case for case, number in order if number == 1]
        again = [first.index(case) for case, number in order if number == 2]
        agree += again == sorted(again)

    assert agree <= 1


def test_cases_spread_over_the_scores_take_one_of_each_tenth():
    values = [i / 100 for i in range(100)]

    for seed in range(20):
        drawn = chosen(values, 10, seed=seed, spread=True)
        assert sorted(int(10 * values[i]) for i in drawn) == list(range(10))
    assert chosen(values, 10, seed=1, spread=True) != chosen(values, 10, seed=2, spread=True)
    assert any(
        sorted(int(10 * values[i]) for i in chosen(values, 10, seed=seed, spread=False)) != list(range(10))
        for seed in range(20)
    )


def test_all_series_are_taken_where_there_are_fewer_than_wanted():
    assert chosen([0.4, 0.2], 10, seed=1, spread=True) == [0, 1]


def test_weighted_kappa_is_that_of_cohens_formula():
    one, other = [1, 2, 3, 4, 5, 1, 2], [1, 3, 3, 5, 4, 2, 2]
    levels = range(1, 6)
    observed = sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / 7
    by_chance = sum(one.count(i) * other.count(j) * (i - j) ** 2 for i in levels for j in levels) / 49

    assert weighted_kappa(one, other) == pytest.approx(1 - observed / by_chance)


def test_a_reader_is_compared_with_themselves_on_repeated_cases_only():
    found = repeated([(0.5, 0.5), (0.25, 0.5), (1.0,), (0.75, 0.75)])

    assert (found.n, found.same) == (3, pytest.approx(2 / 3))
    assert repeated([]).n == 0
