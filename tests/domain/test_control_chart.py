"""Control charts against hand-computed limits, published run lengths, and what must and must not alarm."""

import math

import numpy as np
import pytest

from mediqa_node.domain.control_chart import (
    ALARMING,
    EWMA_LIMIT,
    Judged,
    Phase,
    Points,
    Rule,
    broken,
    fit,
    judge,
    one_for_each_session,
    smoothed,
)
from mediqa_node.domain.envelope import envelope
from mediqa_node.domain.false_alarms import expected, rate, run_length

DAY = 86_400.0


def points(values: np.ndarray, stratum: np.ndarray | None = None) -> Points:
    n = len(values)
    return Points(
        at=np.arange(n) * DAY,
        value=np.asarray(values, dtype=float),
        stratum=np.zeros(n, dtype=int) if stratum is None else stratum,
        series=np.arange(n) + 1,
    )


def alarms(judged: Judged) -> list[int]:
    return [signal.first for signal in judged.signals if signal.alarms]


def test_limits_are_the_mean_and_2_66_mean_moving_ranges() -> None:
    values = np.tile([10.0, 12.0], 10)  # every moving range is 2

    limits = fit(values, logarithmic=False)

    assert limits is not None
    assert (limits.n, limits.mean) == (20, 11.0)
    assert limits.at(3) == pytest.approx(11 + 2.66 * 2, abs=0.005)
    assert limits.at(-3) == pytest.approx(11 - 2.66 * 2, abs=0.005)


def test_the_ewma_and_its_limit_are_those_of_the_exact_variance() -> None:
    ewma, limit = smoothed(np.array([1.0, 1.0, -2.0]))

    assert ewma == pytest.approx([0.2, 0.36, -0.112])
    assert limit[:2] == pytest.approx([EWMA_LIMIT * 0.2, EWMA_LIMIT * math.sqrt(0.04 + 0.0256)])
    assert smoothed(np.zeros(200))[1][-1] == pytest.approx(EWMA_LIMIT / 3)


@pytest.mark.parametrize(
    ("rule", "z", "at"),
    [
        (Rule.BEYOND, [0, 3.1, 0, -3.1, 2.9], [1, 3]),
        (Rule.TWO_OF_THREE, [2.1, 0, 2.1, 0, 0, 2.1, -2.1], [2]),
        (Rule.FOUR_OF_FIVE, [1.1, 1.1, 0, 1.1, 1.1, -1.1, -1.1, -1.1, -1.1], [4, 8]),
        (Rule.EIGHT, [0.1] * 9 + [-0.1], [7, 8]),
    ],
)
def test_each_rule_marks_the_points_that_complete_it(rule: Rule, z: list[float], at: list[int]) -> None:
    assert np.flatnonzero(broken(np.array(z))[rule]).tolist() == at


def test_with_fewer_than_twenty_points_nothing_is_judged() -> None:
    values = np.random.default_rng(1).normal(size=20)

    assert not judge(points(values[:19])).is_judged.any()
    assert judge(points(values[:19])).signals == ()
    assert judge(points(values)).is_judged.all()


def test_equal_values_have_no_limits() -> None:
    assert not judge(points(np.zeros(50))).is_judged.any()


def test_run_lengths_are_the_published_ones() -> None:
    assert run_length(sigmas=math.inf) == pytest.approx(500, rel=0.01)  # Lucas & Saccucci 1990
    assert run_length(ewma_limit=50) == pytest.approx(370.4, rel=0.001)  # Shewhart


def test_the_four_rules_together_alarm_after_92_points() -> None:
    rng = np.random.default_rng(2)  # Champ & Woodall 1987, Table 1: 91.75
    lengths = []
    for _ in range(2500):
        z = rng.normal(size=1200)
        lengths.append(1 + min(int(np.argmax(out)) for out in broken(z).values() if out.any()))

    assert np.mean(lengths) == pytest.approx(91.75, rel=0.06)


def test_rule_1_and_ewma_together_alarm_as_often_as_the_markov_chain_says() -> None:
    rng = np.random.default_rng(3)
    z, half = rng.normal(size=(4000, 2000)), EWMA_LIMIT / 3
    ewma, alive, length = np.zeros(4000), np.ones(4000, dtype=bool), np.full(4000, 2000)
    for i in range(2000):
        ewma += 0.2 * (z[:, i] - ewma)
        out = alive & ((np.abs(z[:, i]) > 3) | (np.abs(ewma) > half))
        length[out], alive = i + 1, alive & ~out

    assert run_length() == pytest.approx(length.mean(), rel=0.05)


@pytest.mark.parametrize("n", [20, 60])
def test_the_expected_number_of_false_alarms_is_about_what_limits_from_few_points_raise(n: int) -> None:
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(300):
        judged = judge(points(rng.normal(size=n + 300)), [Phase(since=-math.inf, baseline=(0.0, n * DAY))])
        found += len(alarms(judged))

    assert expected([(300 * 300, n)]) == pytest.approx(found, rel=0.3)
    assert rate(n) > 1 / run_length()


def mixed(rng: np.random.Generator, n: int, *, step: float = 0.0, mix: bool = False) -> Points:
    """Scores of small and large patients, whose means are three standard deviations apart."""
    late = np.arange(n) >= n // 2
    large = rng.uniform(size=n) < np.where(late & mix, 0.9, 0.4)
    values = 0.75 - 0.09 * large + 0.03 * rng.normal(size=n) - 0.03 * step * late
    return points(values, large.astype(int))


def test_a_step_change_in_300_series_is_alarmed_and_a_change_of_patient_mix_is_not() -> None:
    n, tries = 300, 40
    stepped, quiet, remixed, expected_number = 0, 0, 0, 0.0
    for seed in range(tries):
        judged = judge(mixed(np.random.default_rng(seed), n, step=1.5))
        stepped += any(150 <= first < 200 for first in alarms(judged))
        quiet += len(alarms(judge(mixed(np.random.default_rng(seed), n))))
        judged = judge(mixed(np.random.default_rng(seed), n, mix=True))
        remixed += len(alarms(judged))
        counted = judged.is_judged & ~judged.in_baseline
        expected_number += expected([(int(counted.sum()), 60)])

    assert stepped == tries
    assert remixed < 2 * expected_number
    assert remixed < 2 * quiet + 10


def test_the_same_change_of_mix_alarms_where_sizes_are_not_told_apart() -> None:
    for seed in range(20):
        of_mix = mixed(np.random.default_rng(seed), 300, mix=True)

        assert any(first >= 150 for first in alarms(judge(points(of_mix.value))))


def test_a_phase_is_judged_by_its_own_baseline() -> None:
    rng = np.random.default_rng(5)
    values = np.r_[rng.normal(0, 1, 120), rng.normal(8, 1, 120)]

    apart = judge(points(values), [Phase(since=120 * DAY)])
    together = judge(points(values))

    assert np.bincount(apart.phase).tolist() == [120, 120]
    assert apart.limits[1, 0].mean == pytest.approx(8, abs=0.4)
    assert len(alarms(apart)) < 5
    assert 120 in {signal.first for signal in together.signals if signal.rule is Rule.BEYOND}


def test_a_chosen_baseline_takes_the_place_of_the_provisional_one_and_its_points_never_alarm() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=200)
    values[[110, 190]] = 9.0

    judged = judge(points(values), [Phase(since=-math.inf, baseline=(100 * DAY, 180 * DAY))])

    assert judged.is_provisional == (False,)
    assert np.flatnonzero(judged.in_baseline).tolist() == list(range(100, 180))
    beyond = {signal.first: signal.alarms for signal in judged.signals if signal.rule is Rule.BEYOND}
    assert beyond[110] is False
    assert beyond[190] is True


def test_rules_2_to_4_never_alarm() -> None:
    judged = judge(points(np.r_[np.random.default_rng(7).normal(size=60), np.full(60, 1.5)]))

    assert {signal.rule for signal in judged.signals if signal.alarms} <= set(ALARMING)
    assert Rule.EIGHT in {signal.rule for signal in judged.signals}


def test_skewed_positive_values_have_limits_on_a_logarithmic_scale() -> None:
    noise = np.exp(np.random.default_rng(8).normal(2.4, 0.5, 60))

    limits = judge(points(noise)).limits[0, 0]

    assert limits.logarithmic
    assert limits.at(-3) > 0
    assert not judge(points(np.random.default_rng(8).normal(70, 3, 60))).limits[0, 0].logarithmic


def test_a_stratum_that_is_never_judged_is_shown_and_leaves_the_others_alone() -> None:
    rng = np.random.default_rng(9)
    stratum = np.arange(200) % 2

    judged = judge(points(rng.normal(size=200), stratum), never=frozenset({1}))

    assert judged.is_judged.tolist() == (stratum == 0).tolist()


def test_series_of_one_session_count_as_one_point_with_their_median() -> None:
    found = one_for_each_session(
        Points(
            at=np.array([3.0, 1.0, 2.0, 9.0, 5.0]),
            value=np.array([30.0, 10.0, 20.0, 7.0, 99.0]),
            stratum=np.array([1, 1, 1, 1, 2]),
            series=np.array([13, 11, 12, 14, 15]),
        ),
        np.array([1, 1, 1, 2, 1]),  # the fifth is another reconstruction of the first study
    )

    assert found.value.tolist() == [20.0, 7.0]
    assert found.series.tolist() == [12, 14]


def test_judging_goes_by_neither_unit_nor_origin_of_a_quantity() -> None:
    values = np.random.default_rng(10).normal(50, 4, 200)

    plain, scaled = judge(points(values)), judge(points(0.01 * values - 3))

    assert scaled.z == pytest.approx(plain.z)
    assert [(s.rule, s.first, s.last) for s in scaled.signals] == [(s.rule, s.first, s.last) for s in plain.signals]


def test_an_envelope_keeps_every_extreme() -> None:
    values = np.random.default_rng(11).normal(size=10_000)
    values[[77, 5000]] = -50.0, 60.0

    found = envelope(np.arange(10_000.0), values, parts=600)

    assert len(found.at) == 600
    assert found.n.sum() == 10_000
    assert (found.low.min(), found.high.max()) == (-50.0, 60.0)
    assert (found.low <= found.median).all()
    assert (found.median <= found.high).all()
