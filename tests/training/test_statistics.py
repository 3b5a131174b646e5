"""Regressors on statistics: never tried on what they were fitted on, and mixed with a network only as it helps."""

import numpy as np
import pytest

from mediqa_node.reader_study.statistics import srcc
from training.fit.regressors import Fit, added, choose, fit_regressor, fuse, left_out, merit

SOURCES = ("a", "b", "c", "d")


def fit(*, planted: bool = False, n: int = 30) -> Fit:
    """Return statistics of four sources whose first tells the label.

    Args:
        planted: the label is instead what the source is, which the second statistic tells, and in one source only.
    """
    random = np.random.default_rng(0)
    source = np.repeat(SOURCES, n)
    statistics = random.normal(size=(len(source), 5))
    label = statistics[:, 0] + 0.1 * random.normal(size=len(source))
    if planted:
        label = random.normal(size=len(source))
        mine = source == "a"
        statistics[mine, 1] = 3.0 + label[mine]
    return Fit(statistics=statistics, label=label, source=source, group=np.arange(len(source)))


def test_a_source_is_never_predicted_by_what_was_fitted_on_it():
    planted = fit(planted=True)
    mine = planted.source == "a"

    seen = fit_regressor(planted, 10.0, 1.0)(planted.statistics[mine])
    unseen = left_out(planted, 10.0, 1.0)[mine]

    assert srcc(seen, planted.label[mine]) > 0.8
    assert abs(srcc(unseen, planted.label[mine])) < 0.4


def test_sources_can_be_left_out_together():
    planted = fit(planted=True)

    together = left_out(planted, 10.0, 1.0, folds=2)
    first = np.isin(planted.source, np.unique(planted.source)[::2])
    by_hand = fit_regressor(planted.where(~first), 10.0, 1.0)(planted.statistics[first])

    assert np.array_equal(together[first], by_hand)
    assert np.array_equal(left_out(planted, 10.0, 1.0, folds=99), left_out(planted, 10.0, 1.0))


def test_what_all_sources_share_is_found_on_those_left_out():
    cost, share, said = choose(fit())

    assert (cost, share) != (0, 0)
    assert merit(said, fit()) > 0.8


def test_sources_weigh_alike_however_many_slices_they_have():
    random = np.random.default_rng(0)
    source = np.array(["many"] * 200 + ["few"] * 20)
    label = np.where(source == "many", 1.0, 0.0)
    data = Fit(statistics=random.normal(size=(220, 3)) * 1e-3, label=label, source=source, group=label)

    said = fit_regressor(data, 0.3, 0.1)(data.statistics)

    assert 0.15 < float(said.mean()) < 0.85


def test_of_two_that_agree_with_the_label_the_better_counts():
    data = fit()
    good, bad = data.label + 0.05, np.random.default_rng(3).normal(size=len(data.label))

    for_network, merits = fuse(3.0 * good, bad, data, (0.0, 0.5, 1.0))
    for_statistics, _ = fuse(bad, good, data, (0.0, 0.5, 1.0))

    assert max(merits, key=merits.__getitem__) == 0.0
    assert (for_network.statistics, for_statistics.network) == (0.0, 0.0)
    assert for_network.network == pytest.approx(1 / 3)
    assert for_network.offset + for_network.network * 3.0 * good == pytest.approx(data.label)


def test_a_network_that_falls_where_labels_rise_counts_nothing():
    data = fit()

    fusion, _ = fuse(-data.label, data.label, data, (0.25, 0.5))

    assert fusion.network == 0.0
    assert fusion.statistics > 0.0


def test_predictions_without_any_spread_have_no_merit():
    assert merit(np.zeros(120), fit()) == 0.0


def test_following_single_factors_is_worth_as_much_as_agreeing_over_all():
    data = fit()
    group = np.repeat(np.arange(30), 4)
    factor = np.tile(np.array(["clean", "dose", "dose", "mixed"]), 30)
    truth = np.tile([1.0, 0.7, 0.4, 0.1], 30)
    of_images = Fit(statistics=data.statistics, label=truth, source=data.source, group=group, factor=factor)
    swapped = np.tile([1.0, 0.4, 0.7, 0.1], 30)  # two copies of each image by one factor in the wrong order

    assert merit(truth, of_images) == pytest.approx(1.0)
    assert merit(swapped, of_images) == pytest.approx((0.8 + 0.8 + 1 / 3) / 3, abs=0.01)
    blind = Fit(statistics=data.statistics, label=truth, source=data.source, group=group)
    assert merit(swapped, blind) == pytest.approx(0.8, abs=0.01)


def test_two_regressors_of_one_kernel_add_up_to_one():
    data = fit()
    other = Fit(statistics=data.statistics, label=data.statistics[:, 1], source=data.source, group=data.group)
    one, two = (fit_regressor(each, 1.0, 0.3) for each in (data, other))

    both = added(one, 0.5, two)

    asked = np.random.default_rng(9).normal(size=(10, 5))
    assert both(asked) == pytest.approx(one(asked) + 0.5 * two(asked))
    with pytest.raises(ValueError, match="other samples or kernels"):
        added(one, 0.5, fit_regressor(other, 1.0, 0.1))
