"""From ratings to thresholds: a known threshold is found again, and none is made of nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediqa_node.reader_study.thresholds import FEWEST_SERIES, NotFitted, OutOfReach, fit, rising


def readings(n: int = 200, *, noise: float = 0.05, seed: int = 1) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores, and ratings that follow them: the rating is 0.5 at a score of 0.3, and 0.25 at 0.2."""
    chance = np.random.default_rng(seed)
    scores = chance.uniform(0, 0.6, n)
    ratings = np.clip(np.interp(scores, [0, 0.2, 0.3, 0.6], [0, 0.25, 0.5, 1]) + chance.normal(0, noise, n), 0, 1)
    return scores, ratings, [f"p{i}" for i in range(n)]


def test_the_score_at_which_the_readers_mean_reaches_a_limit_is_found_again():
    found = fit(*readings(), look=0.5, repeat=0.25)

    assert found.look.score == pytest.approx(0.3, abs=0.02)
    assert found.repeat.score == pytest.approx(0.2, abs=0.02)
    assert found.look.low <= found.look.score <= found.look.high
    assert found.look.high - found.look.low < 0.06
    assert found.n == 200


def test_an_interval_covers_the_true_threshold_about_as_often_as_it_promises():
    covered = 0
    for seed in range(40):
        found = fit(*readings(60, noise=0.1, seed=seed), look=0.5, repeat=0.25)
        covered += found.look.low <= 0.3 <= found.look.high

    assert covered >= 34, "of 40; 38 are promised"


def test_the_threshold_to_repeat_never_exceeds_that_to_look():
    for seed in range(20):
        found = fit(*readings(40, noise=0.2, seed=seed), look=0.55, repeat=0.5)
        assert found.repeat.score <= found.look.score
        assert found.repeat.high <= found.look.high


def test_fewer_than_twenty_series_are_refused_with_their_number():
    with pytest.raises(NotFitted, match=rf"^{FEWEST_SERIES - 1} series .* needs {FEWEST_SERIES}"):
        fit(*readings(FEWEST_SERIES - 1), look=0.5, repeat=0.25)


def test_scores_that_do_not_follow_the_ratings_give_no_threshold():
    scores, ratings, patients = readings(60)
    np.random.default_rng(3).shuffle(ratings)

    with pytest.raises(NotFitted, match="does not follow"):
        fit(scores, ratings, patients, look=0.5, repeat=0.25)


def test_a_limit_that_no_series_reaches_is_refused_with_what_there_is():
    scores, ratings, patients = readings(60)

    with pytest.raises(OutOfReach) as refused:
        fit(scores, 0.4 + 0.2 * ratings, patients, look=0.5, repeat=0.2)

    assert 0.4 <= refused.value.low < refused.value.high <= 0.6


def test_limits_in_the_wrong_order_are_refused():
    with pytest.raises(NotFitted, match="worse"):
        fit(*readings(), look=0.25, repeat=0.5)


def test_series_of_one_patient_are_not_independent():
    scores, ratings, patients = readings(100, noise=0.2)
    alone = fit(scores, ratings, patients, look=0.5, repeat=0.25)

    pairs = fit(np.repeat(scores, 4), np.repeat(ratings, 4), list(np.repeat(patients, 4)), look=0.5, repeat=0.25)
    as_if = fit(np.repeat(scores, 4), np.repeat(ratings, 4), list(map(str, range(400))), look=0.5, repeat=0.25)

    assert pairs.look.high - pairs.look.low == pytest.approx(alone.look.high - alone.look.low, abs=0.01)
    assert as_if.look.high - as_if.look.low < 0.8 * (alone.look.high - alone.look.low)


def test_sensitivity_and_specificity_count_series_on_both_sides_of_the_limit():
    scores, ratings, patients = readings(noise=0.15)
    found = fit(scores, ratings, patients, look=0.5, repeat=0.25).look

    poor, flagged = ratings < 0.5, scores < found.score
    assert (found.sensitivity.hits, found.sensitivity.of) == (int((poor & flagged).sum()), int(poor.sum()))
    assert (found.specificity.hits, found.specificity.of) == (int((~poor & ~flagged).sum()), int((~poor).sum()))
    assert found.sensitivity.held_out == pytest.approx(found.sensitivity.value, abs=0.1)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4)), min_size=2, max_size=40))
def test_the_fit_rises_and_keeps_the_mean(points: list[tuple[int, int]]):
    scores, ratings = (
        np.array(values, dtype=float) / most for values, most in zip(zip(*points, strict=True), (20, 4), strict=True)
    )

    x, y = rising(scores, ratings, np.ones(len(points)))

    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    assert ratings.min() - 1e-9 <= y.min() <= y.max() <= ratings.max() + 1e-9
    assert np.interp(scores, x, y).shape == ratings.shape


def test_a_weight_of_zero_is_as_good_as_no_series():
    scores, ratings, _ = readings(30)
    weights = np.ones(30)
    weights[::3] = 0

    some, others = rising(scores, ratings, weights), rising(scores[weights > 0], ratings[weights > 0], np.ones(20))

    assert np.allclose(some[0], others[0])
    assert np.allclose(some[1], others[1])
