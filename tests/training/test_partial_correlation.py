"""Partial rank correlation: known values, what it takes out, and where it is undefined."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from mediqa_node.reader_study.statistics import Interval
from training.evaluate.partial_correlation import ranked

SLICES, COPIES = 40, 30
BASES = [f"b{base}" for base in range(SLICES) for _ in range(COPIES)]


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SLICES * COPIES)


def test_without_others_one_slice_gives_spearmans_correlation():
    severity, score = noise(0)[:COPIES], noise(0)[:COPIES] + noise(1)[:COPIES]

    found = ranked({"severity": severity, "score": score}, ["b"] * COPIES).correlation("severity", "score")

    assert found.value == pytest.approx(spearmanr(severity, score).statistic)


def test_with_one_given_it_is_the_textbook_formula_of_three_correlations():
    severity, measure = noise(0), noise(0) + noise(1)
    pool = ranked({"severity": severity, "measure": measure, "score": measure + severity + noise(2)}, BASES)
    a, b, c = (
        pool.correlation(*pair).value for pair in (("severity", "score"), ("severity", "measure"), ("score", "measure"))
    )

    found = pool.correlation("severity", "score", ["measure"])

    assert found.value == pytest.approx((a - b * c) / np.sqrt((1 - b**2) * (1 - c**2)))
    assert pool.explained("severity", ["measure"]) == pytest.approx(b**2)


def test_a_known_partial_correlation_is_found_inside_its_interval():
    common, shared = noise(0), noise(1)
    severity = common + np.sqrt(0.6) * shared + np.sqrt(0.4) * noise(2)
    score = common + np.sqrt(0.6) * shared + np.sqrt(0.4) * noise(3)  # residuals of the common part correlate by 0.6

    found = ranked({"severity": severity, "score": score, "measure": common}, BASES).correlation(
        "severity", "score", ["measure"]
    )

    spearman_of_pearson = 6 / np.pi * np.arcsin(0.6 / 2)
    assert found.low < spearman_of_pearson < found.high
    assert found.high - found.low < 0.12


def test_a_score_that_is_a_measure_says_nothing_beyond_it():
    severity, measure = noise(0), noise(0) + noise(1)
    pool = ranked({"severity": severity, "measure": measure, "score": np.exp(measure)}, BASES)

    found = pool.correlation("severity", "score", ["measure"])

    assert pool.correlation("severity", "score").value > 0.6
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_score_that_is_a_measure_and_chance_says_nothing_beyond_it():
    severity, measure = noise(0), noise(0) + noise(1)

    pool = ranked({"severity": severity, "measure": measure, "score": measure + noise(2)}, BASES)

    found = pool.correlation("severity", "score", ["measure"])
    assert pool.correlation("severity", "score").value > 0.4
    assert abs(found.value) < 0.06


def test_a_score_that_adds_information_keeps_a_correlation():
    severity = noise(0)

    pool = ranked({"severity": severity, "measure": severity + noise(1), "score": severity + noise(2)}, BASES)

    assert pool.correlation("severity", "score", ["measure"]).low > 0.4


def test_what_differs_between_slices_has_no_part_in_it():
    severity, score = noise(0), noise(1)
    anatomy = np.repeat(10.0 * np.arange(SLICES), COPIES)

    found, with_anatomy = (
        ranked({"severity": severity + more, "score": score + more}, BASES).correlation("severity", "score")
        for more in (0.0, anatomy)
    )

    assert found == with_anatomy


def test_a_missing_value_has_the_mean_rank():
    severity = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    score = np.array([1.0, 2.0, np.nan, 3.0, 4.0])

    pool = ranked({"severity": severity, "score": score}, ["b"] * 5)

    assert pool.correlation("severity", "score").value == pytest.approx(
        np.corrcoef(severity, [1.0, 2.0, 2.5, 3.0, 4.0])[0, 1]
    )


def test_a_constant_has_no_correlation_and_as_a_given_changes_none():
    severity, score, constant = noise(0), noise(0) + noise(1), np.ones(SLICES * COPIES)
    pool = ranked({"severity": severity, "score": score, "constant": constant}, BASES)

    assert pool.correlation("severity", "constant") == Interval(value=None)
    assert pool.explained("constant", ["score"]) is None
    assert pool.correlation("severity", "score", ["constant"]).value == pytest.approx(
        pool.correlation("severity", "score").value
    )


def test_two_slices_have_a_value_and_no_interval():
    pool = ranked({"severity": np.arange(10.0), "score": np.arange(10.0)}, ["a"] * 5 + ["b"] * 5)

    assert pool.correlation("severity", "score") == Interval(value=pytest.approx(1.0))
