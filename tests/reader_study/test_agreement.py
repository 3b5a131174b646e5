"""Agreement of readers against published figures and simulated readers, and mean opinions."""

import numpy as np
import pytest

from mediqa_node.domain.rating import Rating
from mediqa_node.reader_study.agreement import agreement, intraclass, ordinal_alpha, srcc
from mediqa_node.reader_study.mos import BIAS_REMOVED, Z_SCORES, mos_by_series, opinions, score_table

SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float
)
"""Table 2 of Shrout and Fleiss 1979: six targets, four judges."""
_ = np.nan
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
).T
"""Section C of Krippendorff 2011: twelve units, four observers, with missing data."""


def simulated(n: int, k: int, *, reader_sd: float = 0.35, noise_sd: float = 0.63, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    parts = (random.normal(0, sd, size) for sd, size in ((1, (n, 1)), (reader_sd, (1, k)), (noise_sd, (n, k))))
    return 0.5 + 0.1 * sum(parts)


def names(k: int) -> list[str]:
    return [f"r{i}" for i in range(k)]


def rating(series: str, reader: str, score: float, **more: object) -> Rating:
    kind = {"scale_min": 1.0, "scale_max": 5.0, "scale_direction": "higher_better", **more}
    return Rating(series_instance_uid=series, reader_id=reader, score=score, **kind)


def test_the_example_of_shrout_and_fleiss_comes_out_as_published() -> None:
    assert [round(value, 2) for value in intraclass(SHROUT_FLEISS)] == [0.29, 0.62, 0.71, 0.91]


def test_the_example_of_krippendorff_comes_out_as_published() -> None:
    assert round(ordinal_alpha(KRIPPENDORFF), 3) == 0.815


def test_ten_readers_of_moderate_agreement_make_a_strong_mean() -> None:
    one, mean, *_ = np.mean([intraclass(simulated(200, 10, seed=seed)) for seed in range(40)], axis=0)
    found = agreement(simulated(200, 10), names(10), [str(i) for i in range(200)])

    assert one == pytest.approx(0.66, abs=0.01)  # 1 / (1 + 0.35² + 0.63²)
    assert mean == pytest.approx(0.95, abs=0.005)
    assert found.icc_2_1.low < found.icc_2_1.value < found.icc_2_1.high < found.icc_2_k.low
    assert found.ceiling == pytest.approx(found.icc_3_k.value**0.5)
    assert found.warnings == ()


def test_what_a_model_can_reach_does_not_fall_with_the_bias_of_readers() -> None:
    scores = simulated(400, 4, reader_sd=0.0)
    strict = scores - np.array([0.0, 0.1, 0.2, 0.3])

    same, apart = (agreement(table, names(4), [str(i) for i in range(400)]) for table in (scores, strict))

    truth = np.random.default_rng(0).normal(0, 1, (400, 1))[:, 0]  # as `simulated` draws it first
    assert apart.icc_2_k.value < same.icc_2_k.value - 0.1
    assert apart.ceiling == pytest.approx(same.ceiling)
    assert apart.ceiling == pytest.approx(np.corrcoef(truth, strict.mean(axis=1))[0, 1], abs=0.02)


def test_where_all_scores_are_equal_that_is_what_is_said() -> None:
    found = agreement(np.full((25, 3), 0.1), names(3), [str(i) for i in range(25)])

    said = " | ".join(found.warnings)
    assert np.isnan([found.icc_2_k.value, found.ceiling]).all()
    assert "ICC cannot be had: all scores are equal" in said
    assert "the same score for every series: r0, r1, r2" in said
    assert "no two series" not in said


def test_series_of_one_patient_are_no_further_witnesses() -> None:
    scores = np.repeat(simulated(30, 4), 6, axis=0)  # every patient six times

    alone = agreement(scores, names(4), [str(i) for i in range(180)]).icc_2_1
    by_patient = agreement(scores, names(4), [str(i // 6) for i in range(180)]).icc_2_1

    assert by_patient.value == alone.value
    assert by_patient.high - by_patient.low > 1.8 * (alone.high - alone.low)
    assert agreement(scores, names(4), [str(i // 6) for i in range(180)]).icc_2_1 == by_patient, "seeded"


def test_a_reader_who_ranks_unlike_the_others_is_flagged_and_kept() -> None:
    scores = simulated(60, 6)
    scores[:, 2] = scores[::-1, 2]

    found = agreement(scores, names(6), [str(i) for i in range(60)])

    assert [reader.reader_id for reader in found.readers if reader.outlying] == ["r2"]
    assert len(found.readers) == 6
    assert any("unlike the others: r2" in warning for warning in found.warnings)


def test_what_weakens_a_mean_is_said() -> None:
    scores = simulated(30, 2, noise_sd=3.0)
    scores[:4, 1] = np.nan
    scores[:, 0] = 0.5

    said = " | ".join(agreement(scores, names(2), [str(i) for i in range(30)]).warnings)

    for words in ("2 readers", "below 0.75", "4 of 30 series", "the same score for every series: r0"):
        assert words in said


def test_without_two_series_that_all_have_rated_there_is_alpha_and_no_icc() -> None:
    found = agreement(KRIPPENDORFF / 5, names(4), [str(i) for i in range(12)])
    halves = np.full((8, 2), np.nan)
    halves[:4, 0], halves[4:, 1] = 0.5, 0.7

    nobody_shares = agreement(halves, names(2), [str(i) for i in range(8)])

    assert found.n_complete == 8
    assert round(found.alpha, 3) == 0.815
    assert np.isnan([nobody_shares.icc_2_k.value, nobody_shares.alpha, nobody_shares.srcc]).all()
    assert any("ICC cannot be had" in warning for warning in nobody_shares.warnings)


def test_repeated_cases_give_the_spread_within_a_reader() -> None:
    found = agreement(SHROUT_FLEISS / 10, names(4), list("abcdef"), repeats=[[(0.2, 0.4), (0.6, 0.6)], [], [], []])

    assert found.readers[0].repeat_sd == pytest.approx(0.1)  # sqrt((0.02 + 0) / 2)
    assert np.isnan(found.readers[1].repeat_sd)


def test_rank_correlation_knows_ties_and_what_it_cannot_say() -> None:
    assert srcc(np.array([1.0, 2, 2, 3]), np.array([10.0, 20, 20, 90])) == pytest.approx(1.0)
    assert srcc(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(0.8)
    assert np.isnan(srcc(np.ones(5), np.arange(5.0)))


def test_readers_of_the_same_cases_are_compared_by_z_scores() -> None:
    truth = np.linspace(0.2, 0.8, 25)
    scores = np.stack([truth, 0.5 + 0.5 * (truth - 0.5), truth - 0.1], axis=1)  # one timid, one strict

    said = opinions(scores)

    assert said.method == Z_SCORES
    assert np.ptp(said.adjusted - (truth - truth.mean()) * scores.std(ddof=1) / truth.std(ddof=1)) < 1e-12
    assert said.adjusted.mean() == pytest.approx(scores.mean())


def test_few_cases_a_constant_reader_or_other_cases_leave_only_the_bias_to_take_out() -> None:
    scores = simulated(25, 3)
    constant, other = scores.copy(), scores.copy()
    constant[:, 1], other[0, 1] = 0.5, np.nan

    assert opinions(scores).method == Z_SCORES
    assert {opinions(some).method for some in (scores[:19], constant, other)} == {BIAS_REMOVED}


def test_a_strict_reader_does_not_pull_down_the_series_that_only_they_have_seen() -> None:
    scores = np.array([[0.5, 0.3], [0.6, 0.4], [0.7, 0.5], [np.nan, 0.4], [0.6, np.nan]])

    said = opinions(scores)

    assert said.mean[3] == pytest.approx(0.4)
    assert said.adjusted[4] - said.adjusted[3] < said.mean[4] - said.mean[3]
    assert said.n_readers.tolist() == [2, 2, 2, 1, 1]
    assert np.isnan(said.ci95[3])
    assert said.ci95[0] == pytest.approx(12.706 * 0.1, rel=1e-3)  # t(0.975, 1) x SD / sqrt 2


def test_a_scale_where_low_is_good_is_turned_round() -> None:
    found = mos_by_series(rating("1.2", reader, 2, scale_direction="lower_better") for reader in "ab")

    assert (found["1.2"].mos, found["1.2"].mos_sd, found["1.2"].n_readers) == (0.75, 0.0, 2)


def test_a_reader_who_says_the_same_of_everything_moves_no_mean_opinion_by_a_z_score() -> None:
    truth = np.linspace(0.2, 0.8, 25)
    scores = np.stack([truth, truth - 0.1, np.full(25, 0.1)], axis=1)
    assert scores[:, 2].std() > 0, "the mean of equal numbers is rounded"

    said = opinions(scores)

    assert said.method == BIAS_REMOVED
    assert np.ptp(said.adjusted - 2 / 3 * truth) < 1e-12


def test_scores_that_mean_the_same_are_the_same_level() -> None:
    three = [rating("1.1", "a", score, scale_min=0.0, scale_max=10.0) for score in (1, 2, 3)]
    once = [rating("1.2", "a", 2, scale_min=0.0, scale_max=10.0)]
    assert np.mean([one.unit_score for one in three]) != once[0].unit_score

    table = score_table([*three, *once])

    assert table.scores[0, 0] == table.scores[1, 0] == 0.2


def test_repeats_and_images_of_a_series_count_as_one_score_of_a_reader() -> None:
    said = [rating("1.2", "a", 1), rating("1.2", "a", 3, repeat=2), rating("1.2", "b", 5, sop_instance_uid="1.2.1")]

    table = score_table([*said, rating("1.2", "b", 3, sop_instance_uid="1.2.2")])

    assert table.scores.tolist() == [[0.25, 0.75]]
    assert table.repeats == (((0.0, 0.5),), ())


def test_of_several_studies_the_one_with_most_readers_speaks() -> None:
    few = [rating("1.2", "a", 1, study_id="pilot")]
    many = [rating("1.2", reader, 90, study_id="main", scale_max=100.0, scale_min=0.0) for reader in "abc"]

    [mos] = mos_by_series([*few, *many]).values()

    assert (mos.study_id, mos.n_readers, mos.scale_max) == ("main", 3, 100.0)
    assert mos.mos == pytest.approx(0.9)
    assert mos.zmos is None
