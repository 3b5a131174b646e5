"""Decisions about weights, and what a candidate says in shadow, on SQLite and PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.bench import Bench, StandInScorer
from support.factories import range_position
from support.series import ct_series, series_uid

from mediqa_node.composition import checkpoints
from mediqa_node.config import Settings
from mediqa_node.domain.errors import PromotionRefused, StorageFailed
from mediqa_node.domain.preprocessing import NetworkInput
from mediqa_node.domain.promotion import Promotion, Standing, Weights, Who
from mediqa_node.domain.prompt import Prompt
from mediqa_node.domain.scoring import CheckpointId, ScoredSlices
from mediqa_node.pipeline.checkpoints.promote import roll_back, set_shadow
from mediqa_node.pipeline.checkpoints.shadow import Shadow
from mediqa_node.pipeline.score import Assessor
from mediqa_node.reader_study.comparison import compare
from mediqa_node.storage import assessments, promotions

CONFIGURED, A, B = (Weights(name=name, sha256=name * 64, card_sha256=name * 64) for name in "cab")


class Candidate(StandInScorer):
    """Scores as the stand-in does, and refuses what it is told to."""

    checkpoint = CheckpointId(name="a", sha256=A.sha256, trained=True, size="t16")
    error: Exception | None = None

    def score(self, inputs: NetworkInput, prompt: Prompt) -> ScoredSlices:
        if self.error is not None:
            raise self.error
        return super().score(inputs, prompt)


on_both = pytest.mark.parametrize("bench", ["sqlite", "postgresql"], indirect=True)
"""Each test there costs a database of its own: only those whose SQL is not plain."""


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """The stations, with nobody to report to."""
    url = request.getfixturevalue("url") if getattr(request, "param", "sqlite") == "postgresql" else None
    made = Bench(tmp_path / "bench", url=url)
    yield made
    made.close()


@pytest.fixture
def candidate() -> Candidate:
    return Candidate()


@pytest.fixture
def shadow(bench: Bench, candidate: Candidate) -> Shadow:
    """The candidate's loop, loading the stand-in."""
    rules = checkpoints.prompt_rules(Settings())
    return Shadow(bench.node, lambda _: Assessor(scorer=candidate, prompts=rules))


def who(at: float = 1.0) -> Who:
    return Who(by="Dr. Curie", reason="a trial", at=at)


def in_force(bench: Bench) -> Standing:
    with bench.database.read() as connection:
        return promotions.standing(connection)


def promoted(bench: Bench, weights: Weights, before: Weights = CONFIGURED) -> None:
    with bench.database.write() as connection:
        decision = Promotion(action="promote", at=1.0, by="x", reason="", before=before, after=weights)
        promotions.save(connection, decision)


def arrive(bench: Bench, folder: Path, name: str, *, slices: int = 5, **header: object) -> str:
    paths = ct_series(folder / name, name, slices=range(slices), study=name, **header)
    bench.receive_all(paths, association=f"association {name}")
    bench.pass_time(10)
    return series_uid(paths)


@on_both
def test_promotions_pile_up_and_each_rollback_takes_one_away(bench: Bench) -> None:
    promoted(bench, A)
    promoted(bench, B, before=A)
    assert (in_force(bench).current, in_force(bench).previous) == (B, A)

    first = roll_back(bench.database, to=A, decision=2, who=who())
    with pytest.raises(PromotionRefused, match="another decision was recorded meanwhile"):
        roll_back(bench.database, to=A, decision=2, who=who())
    second = roll_back(bench.database, to=CONFIGURED, decision=first.id, who=who())

    assert (first.before, first.after, second.after) == (B, A, CONFIGURED)
    assert (in_force(bench).current, in_force(bench).can_roll_back) == (None, False)
    with pytest.raises(PromotionRefused, match="no promotion to roll back"):
        roll_back(bench.database, to=CONFIGURED, decision=second.id, who=who())
    with bench.database.read() as connection:
        kept = promotions.history(connection)
    assert [(one.action, one.by) for one in kept][2:] == [("rollback", "Dr. Curie")] * 2


@on_both
def test_a_candidate_scores_what_comes_after_it_was_named_and_nothing_waits_for_it(
    bench: Bench, shadow: Shadow, tmp_path: Path
) -> None:
    arrive(bench, tmp_path, "before")
    set_shadow(bench.database, A, configured=CONFIGURED, who=who(bench.now + 1))
    series = arrive(bench, tmp_path, "after", StationName="CT1")

    said = [shadow.score_next(), shadow.score_next()]

    assert said == [series, None]
    with bench.database.read() as connection:
        [score] = promotions.shadow_of(connection, A)
        own = assessments.load_assessment(connection, series, 1)
    assert own is not None
    assert (score.station_name, score.modality, score.revision) == ("CT1", "CT", 1)
    assert (score.quality, score.candidate_quality) == (own.quality, own.quality)
    assert bench.series(series).revision == 1, "nothing of the series changed"
    assert bench.deliveries(series) == []


def test_a_series_that_waits_for_its_own_score_goes_first(bench: Bench, shadow: Shadow, tmp_path: Path) -> None:
    set_shadow(bench.database, A, configured=CONFIGURED, who=who())
    scored = arrive(bench, tmp_path, "scored")
    bench.receive_all(ct_series(tmp_path / "w", "waiting", study="w"), association="w")
    bench.now += 5
    bench.complete_series()

    first = shadow.score_next()
    bench.work()
    then = shadow.score_next()

    assert (first, then) == (None, scored)


def test_why_a_candidate_does_not_score_is_kept_and_asked_once(
    bench: Bench, shadow: Shadow, candidate: Candidate, tmp_path: Path
) -> None:
    candidate.position = range_position()
    set_shadow(bench.database, A, configured=CONFIGURED, who=who())
    arrive(bench, tmp_path, "odd")

    said = [shadow.score_next() is None, shadow.score_next() is None]

    with bench.database.read() as connection:
        [score] = promotions.shadow_of(connection, A)
    assert said == [False, True]
    assert (score.candidate_quality, score.reason) == (
        None,
        "outside training range: unlike the CT images it was trained on (1.03 x the limit)",
    )


@pytest.mark.parametrize("error", [FloatingPointError("the answer holds NaN"), ValueError("to score: 3 views")])
def test_a_candidate_that_fails_on_a_series_goes_on_with_the_next(
    bench: Bench, shadow: Shadow, candidate: Candidate, tmp_path: Path, error: Exception
) -> None:
    set_shadow(bench.database, A, configured=CONFIGURED, who=who())
    series = [arrive(bench, tmp_path, name) for name in ("one", "two")]

    candidate.error = error
    shadow.score_next()
    candidate.error = None
    shadow.score_next()

    with bench.database.read() as connection:
        said = {one.series_instance_uid: one.reason for one in promotions.shadow_of(connection, A)}
    assert said[series[1]] is None
    assert str(said[series[0]]).startswith(f"{type(error).__name__}, ")


def test_a_disk_that_fails_is_no_word_of_the_candidate(
    bench: Bench, shadow: Shadow, candidate: Candidate, tmp_path: Path
) -> None:
    set_shadow(bench.database, A, configured=CONFIGURED, who=who())
    series = arrive(bench, tmp_path, "one")

    candidate.error = StorageFailed("the spool is away")
    with pytest.raises(StorageFailed):
        shadow.score_next()
    candidate.error = None

    assert shadow.score_next() == series


def test_a_candidate_never_judges_other_images_than_the_quality_beside_it_is_of(
    bench: Bench, shadow: Shadow, candidate: Candidate, tmp_path: Path
) -> None:
    set_shadow(bench.database, A, configured=CONFIGURED, who=who())
    paths = ct_series(tmp_path / "late", "late", slices=range(6), study="late")
    bench.receive_all(paths[:5], association="first")
    bench.pass_time(10)
    bench.receive(paths[5], association="second")  # an image more, not judged yet

    before = shadow.score_next()
    bench.release("second")
    bench.pass_time(90)
    after = shadow.score_next()

    with bench.database.read() as connection:
        assert [score.revision for score in promotions.shadow_of(connection, A)] == [2]
    assert (before, after) == (None, series_uid(paths))


def test_a_promotion_of_the_candidate_ends_its_shadow_for_good(bench: Bench) -> None:
    set_shadow(bench.database, A, configured=CONFIGURED, who=who())
    promoted(bench, replace(A, name="renamed"))
    assert in_force(bench).shadow is None

    decision = in_force(bench).since
    assert decision is not None
    back = roll_back(bench.database, to=CONFIGURED, decision=decision.id, who=who())

    assert back.after == CONFIGURED
    assert in_force(bench).shadow is None


def test_what_comes_back_into_force_is_not_in_shadow_beside_itself(bench: Bench) -> None:
    promoted(bench, A)
    set_shadow(bench.database, CONFIGURED, configured=CONFIGURED, who=who())
    decision = in_force(bench).since
    assert decision is not None

    roll_back(bench.database, to=CONFIGURED, decision=decision.id, who=who())

    assert in_force(bench).shadow is None


def test_a_revision_is_compared_instead_of_what_it_replaced(bench: Bench, shadow: Shadow, tmp_path: Path) -> None:
    set_shadow(bench.database, A, configured=CONFIGURED, who=who())
    arrive(bench, tmp_path, "late")
    shadow.score_next()

    arrive(bench, tmp_path, "late", slices=6)
    shadow.score_next()

    with bench.database.read() as connection:
        assert [score.revision for score in promotions.shadow_of(connection, A)] == [2]


def test_what_is_in_force_or_in_shadow_already_cannot_be_put_there(bench: Bench) -> None:
    set_shadow(bench.database, A, configured=CONFIGURED, who=who())

    with pytest.raises(PromotionRefused, match="again aaaaaaaaaaaa is in shadow already"):
        set_shadow(bench.database, replace(A, name="again"), configured=CONFIGURED, who=who())
    with pytest.raises(PromotionRefused, match="active already"):
        set_shadow(bench.database, replace(CONFIGURED, name="again"), configured=CONFIGURED, who=who())
    promoted(bench, A)
    assert in_force(bench).shadow is None, "weights are not held against themselves"
    set_shadow(bench.database, B, configured=CONFIGURED, who=who())
    set_shadow(bench.database, None, configured=CONFIGURED, who=who())
    with pytest.raises(PromotionRefused, match="nothing is in shadow"):
        set_shadow(bench.database, None, configured=CONFIGURED, who=who())


def test_a_comparison_counts_pairs_that_change_their_order() -> None:
    found = compare(np.array([0.1, 0.2, 0.3, 0.3]), np.array([0.2, 0.3, 0.1, 0.5]))

    assert found.n == 4
    assert found.mean_difference == pytest.approx(0.05)
    assert found.sd == pytest.approx(np.std([0.1, 0.1, -0.2, 0.2], ddof=1))
    assert found.turned == pytest.approx(2 / 5)  # of six pairs one is tied
    assert np.isnan([compare(np.array([0.5]), np.array([0.4])).sd, compare(np.ones(3), np.ones(3)).turned]).all()
