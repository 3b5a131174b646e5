"""Agreement: the formulas against scipy's, the intervals against copies of one image, and what is undefined."""

import time

import numpy as np
import pytest
from scipy import stats

from mediqa_node.reader_study.statistics import draws, interval, srcc, weighted_srcc
from training.evaluate.metrics import agreement, difference, srcc_cap, undefined, within


def judged(n: int, *, noise: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A score of n images and their truth in 0..1."""
    random = np.random.default_rng(seed)
    truth = random.uniform(size=n)
    return truth + noise * random.normal(size=n), truth


@pytest.mark.parametrize("digits", [1, 6])
def test_rank_correlation_is_that_of_scipy_with_and_without_ties(digits):
    x, y = (np.round(values, digits) for values in judged(200, noise=0.3))

    assert srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_a_resample_counts_an_image_as_often_as_it_was_drawn():
    x, y = (np.round(values, 1) for values in judged(40, noise=0.3))
    times = np.random.default_rng(1).integers(0, 4, 40)

    [weighted] = weighted_srcc(x, y, times[None].astype(float))

    assert weighted == pytest.approx(stats.spearmanr(np.repeat(x, times), np.repeat(y, times)).statistic, abs=1e-12)


def test_copies_of_one_image_are_no_further_evidence():
    x, y = judged(40, noise=0.3)
    copies = np.repeat(np.arange(40), 10)

    alone = agreement(x, y, [str(i) for i in range(40)])
    tenfold = agreement(x[copies], y[copies], [str(i) for i in copies])
    fooled = agreement(x[copies], y[copies], [str(i) for i in range(400)])

    width = [one.srcc.high - one.srcc.low for one in (alone, tenfold, fooled)]
    assert width[1] == pytest.approx(width[0], rel=0.05)
    assert width[2] < 0.5 * width[0]


def test_intervals_cover_the_value_of_the_population_about_as_often_as_they_say():
    x, y = judged(100_000, noise=0.3, seed=9)
    true = srcc(x, y)
    covered = 0
    for i in range(100):
        part = slice(50 * i, 50 * i + 50)
        found = interval(weighted_srcc, x[part], y[part], np.arange(50), resamples=200)
        covered += found.low <= true <= found.high

    assert 86 <= covered <= 99


def test_sources_that_differ_widen_an_interval():
    x, y = judged(200, noise=0.1)
    source = np.arange(200) % 4
    x = np.where(source == 0, -x, x)
    keys = [str(i) for i in range(200)]

    alone, nested = agreement(x, y, keys), agreement(x, y, keys, sources=[str(one) for one in source])

    assert nested.srcc.value == alone.srcc.value
    assert nested.srcc.high - nested.srcc.low > 2.0 * (alone.srcc.high - alone.srcc.low)


def test_the_groups_of_a_source_are_drawn_as_often_as_it_is():
    source = np.array([0, 0, 0, 1, 1, 2])
    drawn = draws(6, seed=0, resamples=500, source=source)
    of_source = np.stack([drawn[:, source == one].sum(axis=1) / (source == one).sum() for one in range(3)])

    assert np.array_equal(of_source, of_source.round())
    assert set(of_source.sum(axis=0)) == {3.0}
    assert of_source.mean(axis=1) == pytest.approx([1.0, 1.0, 1.0], abs=0.1)


def test_the_same_seed_gives_the_same_interval_and_another_nearly_so():
    x, y = judged(60, noise=0.3)
    keys = [str(i // 3) for i in range(60)]

    first, again, other = (agreement(x, y, keys, seed=seed).srcc for seed in (0, 0, 1))

    assert first == again != other
    assert first.low == pytest.approx(other.low, abs=0.03)


def test_a_method_that_is_better_on_the_same_images_is_told_from_a_worse_one():
    good, truth = judged(120, noise=0.1)
    bad, _ = judged(120, noise=0.6)
    keys = [str(i // 4) for i in range(120)]

    apart = difference(good, bad, truth, keys)
    same = difference(good, good, truth, keys)

    assert apart.value == pytest.approx(srcc(good, truth) - srcc(bad, truth))
    assert apart.low > 0
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert difference(good, bad, truth, keys, metric="rmse").high < 0


def test_ranking_inside_a_group_is_not_ranking_of_groups():
    offset = np.repeat(np.arange(10) * 10.0, 4)
    level = np.tile(np.arange(4.0), 10)
    keys = [str(i // 4) for i in range(40)]

    assert within(offset - level, offset + level, keys) == pytest.approx(-1)
    assert srcc(offset - level, offset + level) > 0.9
    assert within(offset, offset + level, keys) == 0, "a constant answer ranks nothing"
    assert within(level[:8], level[:8], [str(i // 2) for i in range(8)]) is None, "two images are no ranking"


def test_ties_of_the_truth_cap_rank_correlation_and_auroc_is_told_instead():
    truth = np.repeat([1.5, 3.0], [80, 20])
    perfect = truth + np.random.default_rng(0).uniform(0, 0.1, 100)

    found = agreement(perfect, truth, [str(i) for i in range(100)])

    assert found.srcc.value == pytest.approx(found.srcc_cap) == pytest.approx(0.693, abs=5e-4)
    assert found.auroc == 1.0
    assert srcc_cap([0, 1] * 500) == pytest.approx(0.866, abs=5e-4)
    assert agreement(*judged(50, noise=0.1), [str(i) for i in range(50)]).auroc is None


def test_a_logistic_of_the_truth_has_a_higher_plcc_after_the_logistic():
    truth = np.linspace(0, 1, 80)
    score = np.log((truth + 0.01) / (1.01 - truth))

    found = agreement(score, truth, [str(i) for i in range(80)])

    assert found.plcc.value < 0.99 < found.plcc_logistic4
    assert found.krcc == pytest.approx(1)


@pytest.mark.parametrize(
    ("predicted", "truth", "said"),
    [
        ([0.1] * 12, range(12), "all 12 predictions are 0.1"),
        (range(12), [3.0] * 12, "all 12 labels are 3"),
        (range(9), range(9), "9 images; at least 10 are needed"),
        ([np.nan, *range(11)], range(12), "1 of 12 predictions are not finite"),
        ([], [], "0 images; at least 10 are needed"),
    ],
)
def test_what_is_undefined_is_none_and_says_why(predicted, truth, said):
    found = agreement(list(predicted), list(truth), [str(i) for i in range(len(truth))])

    assert found.undefined == said == undefined(list(predicted), list(truth))
    assert (found.srcc.value, found.plcc.value, found.krcc, found.plcc_logistic4) == (None,) * 4
    assert str(found.srcc) == "–"


def test_two_patients_give_a_value_and_no_interval():
    x, y = judged(30, noise=0.2)

    found = agreement(x, y, ["a", "b"] * 15).srcc

    assert found.value is not None
    assert found.low is None


def test_a_thousand_resamples_of_two_thousand_images_take_seconds_at_most():
    x, y = judged(2000, noise=0.3)
    started = time.process_time()

    agreement(x, y, [str(i // 4) for i in range(2000)])

    assert time.process_time() - started < 6
