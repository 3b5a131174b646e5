"""Back-scoring: which series, in what order behind all others, and what it leaves alone."""

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bench import Bench, StandInScorer
from support.scripted import ScriptedPacs, scripted
from support.series import ct_series, series_uid

from mediqa_node.domain.backscore import ItemState, PauseReason, Selection, SetState
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.policy import DeliveryRules, ScorePolicy
from mediqa_node.domain.promotion import Weights
from mediqa_node.domain.rules import PhantomRule, ScoreRule
from mediqa_node.domain.series import DeliveryState, SeriesState
from mediqa_node.domain.worklist import Category
from mediqa_node.pipeline.backscore import feeder
from mediqa_node.pipeline.checks import constancy
from mediqa_node.pipeline.trends import TrendSweep
from mediqa_node.storage import backscore_selection, backscores, findings, index
from mediqa_node.storage.backscore_tables import backscore_items
from mediqa_node.storage.tables import assessments, instances
from mediqa_node.storage.trend_tables import trend_charts, trend_points, trend_strata

OLD = "20240110"
RECENT = ScorePolicy(max_age_days=30)


@pytest.fixture
def pacs() -> Iterator[ScriptedPacs]:
    with scripted() as running:
        yield running


@pytest.fixture
def bench(pacs: ScriptedPacs, tmp_path: Path) -> Iterator[Bench]:
    made = node(tmp_path / "bench", pacs)
    yield made
    made.close()


def node(folder: Path, pacs: ScriptedPacs, **policy: object) -> Bench:
    peer = Peer(name="PACS", ae_title="SCRIPTED", host="127.0.0.1", port=pacs.port)
    patient = DeliveryRules(timeout_s=30.0, revisions_apart_s=1.0)
    return Bench(folder, peers=[peer], **{"score": RECENT, "delivery": patient, **policy})


def received(bench: Bench, folder: Path, name: str, *, aet: str = "CT_ROOM_1", **changes: object) -> str:
    """Send a series, let the node finish it, and return its UID."""
    paths = ct_series(folder / name, name, **changes)
    moved_for = "MEDIQA" if aet == "ARCHIVE" else None
    bench.receive_all(paths, association=name, aet=aet, moved_for=moved_for)
    bench.pass_time(90)
    return series_uid(paths)


def old(bench: Bench, folder: Path, name: str, **changes: object) -> str:
    """Send a series that is too old for a score."""
    uid = received(bench, folder, name, StudyDate=OLD, SeriesDate=OLD, AcquisitionDate=OLD, **changes)
    assert bench.series(uid).reason.code == "too_old"
    return uid


def weights_of(bench: Bench) -> Weights:
    checkpoint = bench.scorer.checkpoint
    return Weights(name=checkpoint.name, sha256=checkpoint.sha256, card_sha256=checkpoint.card_sha256)


def start(bench: Bench, *, with_reports: bool = False, **selection: object) -> int:
    chosen, weights = Selection(**selection), weights_of(bench)
    bench.lister.run()
    with bench.database.write() as connection:
        total = backscore_selection.count(connection, chosen, weights, before=bench.now)
        return backscores.add(
            connection, chosen, weights, with_reports=with_reports, total=total, by="Anna", at=bench.now
        )


def run(bench: Bench, seconds: float = 60.0) -> None:
    """Let feeder and worker work."""
    end = bench.now + seconds
    while bench.now < end:
        feeder.feed(bench.node)
        bench.work()
        bench.pass_time(1)


def look(bench: Bench, number: int):
    with bench.database.read() as connection:
        one = backscores.find(connection, number)
        known = backscores.progress(connection, number, now=bench.now)
    assert one is not None
    return one, {(str(found.state), found.reason_code): found.n for found in known.outcomes}


def another_checkpoint(bench: Bench) -> None:
    """Have another checkpoint active from now on."""
    scorer = StandInScorer()
    scorer.checkpoint = dataclasses.replace(scorer.checkpoint, name="second", sha256="cd" * 32)
    bench.scorer = scorer
    bench.node = dataclasses.replace(bench.node, assessor=dataclasses.replace(bench.node.assessor, scorer=scorer))


def n_assessments(bench: Bench, uid: str) -> int:
    with bench.database.read() as connection:
        query = sa.select(sa.func.count()).where(assessments.c.series_instance_uid == uid)
        return int(connection.execute(query).scalar_one())


def test_a_series_too_old_for_a_score_gets_one_and_no_report(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    uid = old(bench, tmp_path, "a")

    number = start(bench)
    run(bench)

    one, outcomes = look(bench, number)
    assert (one.state, one.total, one.n_taken) == (SetState.DONE, 1, 1)
    assert outcomes == {("scored", None): 1}
    row = bench.series(uid)
    assert (row.state, str(row.reason), row.revision) == (SeriesState.ASSESSED, "back-scored, not reported", 1)
    assert bench.deliveries(uid) == []
    assert bench.entry(uid).score is not None
    assert bench.entry(uid).category is not Category.REPEAT


def test_a_reported_series_keeps_its_report_and_its_state(bench: Bench, pacs: ScriptedPacs, tmp_path: Path) -> None:
    uid = received(bench, tmp_path, "a")
    before, sent = bench.series(uid), bench.deliveries(uid)
    assert before.state == SeriesState.DELIVERED
    another_checkpoint(bench)

    number = start(bench)
    run(bench)

    assert look(bench, number)[1] == {("alongside", None): 1}
    assert (bench.series(uid), bench.deliveries(uid)) == (before, sent)
    with bench.database.read() as connection:
        [kept] = backscores.scores_of(connection, [uid])
        reported = findings.of_series(connection, before).assessment
    assert (kept.weights_name, kept.revision, kept.state) == ("second", 1, ItemState.ALONGSIDE)
    assert reported is not None
    assert reported.checkpoint.name == "stand-in"
    assert start_counts(bench) == 0, "it has a score of the active checkpoint now"
    assert charted_weights(bench) == {"cd" * 32}, "the trend has the newest score, of the checkpoint that scores now"


def charted_weights(bench: Bench) -> set[str]:
    """Return the weights of the scores in trends."""
    bench.lister.run()
    TrendSweep(bench.database, time_zone=UTC, clock=lambda: bench.now).run()
    with bench.database.read() as connection:
        of_score = sa.select(trend_charts.c.id).where(trend_charts.c.quantity == "score")
        points = sa.select(trend_points.c.stratum_id).where(trend_points.c.chart_id.in_(of_score))
        return set(connection.execute(sa.select(trend_strata.c.basis).where(trend_strata.c.id.in_(points))).scalars())


def start_counts(bench: Bench, **selection: object) -> int:
    bench.lister.run()
    with bench.database.read() as connection:
        return backscore_selection.count(connection, Selection(**selection), weights_of(bench), before=bench.now)


def test_a_late_instance_after_a_back_score_makes_the_next_revision(bench: Bench, tmp_path: Path) -> None:
    reported = received(bench, tmp_path, "a", slices=range(5))
    silent = old(bench, tmp_path, "b", slices=range(5))
    another_checkpoint(bench)
    start(bench)
    run(bench)

    bench.node = dataclasses.replace(bench.node, score=ScorePolicy())
    for name, changes in (("a", {}), ("b", {"StudyDate": OLD, "SeriesDate": OLD, "AcquisitionDate": OLD})):
        bench.receive_all(ct_series(tmp_path / f"late {name}", name, slices=[5], **changes), association=f"l{name}")
    bench.pass_time(120)

    assert [one.revision for one in bench.deliveries(reported)] == [1, 2]
    assert [one.revision for one in bench.deliveries(silent)] == [2], "revision 1 was the back-score, never reported"
    assert {bench.series(uid).state for uid in (reported, silent)} == {SeriesState.DELIVERED}


def test_with_reports_a_back_score_is_a_revision_like_any_other(bench: Bench, tmp_path: Path) -> None:
    reported, silent = received(bench, tmp_path, "a"), old(bench, tmp_path, "b")
    pulled = received(bench, tmp_path, "c", aet="ARCHIVE")
    another_checkpoint(bench)

    number = start(bench, with_reports=True)
    run(bench)

    assert look(bench, number)[1] == {("scored", None): 3}
    assert [(one.revision, one.state) for one in bench.deliveries(reported)] == [
        (1, DeliveryState.SENT),
        (2, DeliveryState.SENT),
    ]
    assert [(one.revision, one.state) for one in bench.deliveries(silent)] == [(1, DeliveryState.SENT)]
    assert bench.deliveries(pulled) == []
    assert str(bench.series(pulled).reason) == "pulled from an archive, never reported"


def test_pulled_series_are_scored_again_and_stay_unreported(bench: Bench, tmp_path: Path) -> None:
    uid = received(bench, tmp_path, "a", aet="ARCHIVE")
    another_checkpoint(bench)

    number = start(bench)
    run(bench)

    row = bench.series(uid)
    assert look(bench, number)[1] == {("scored", None): 1}
    assert (row.state, row.reason.code, row.revision) == (SeriesState.ASSESSED, "pulled", 2)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (ScorePolicy(max_age_days=30, rules=(ScoreRule(score=False),)), "excluded_by_rule"),
        (ScorePolicy(max_age_days=30, phantoms=(PhantomRule(name="water", station="^CT_ROOM"),)), "phantom"),
    ],
)
def test_rules_of_the_site_hold_and_what_they_refuse_stays_as_it_was(
    bench: Bench, tmp_path: Path, policy: ScorePolicy, reason: str
) -> None:
    before = bench.series(old(bench, tmp_path, "a"))
    bench.node = dataclasses.replace(bench.node, score=policy)

    number = start(bench)
    run(bench)

    assert look(bench, number)[1] == {("refused", reason): 1}
    assert bench.series(before.series_instance_uid) == before


def test_of_one_acquisition_only_the_primary_reconstruction_is_scored(pacs: ScriptedPacs, tmp_path: Path) -> None:
    bench = node(tmp_path / "bench", pacs, score=ScorePolicy(max_age_days=30, primary="first"))
    uids = [old(bench, tmp_path, name, study="one", event="e1") for name in ("a", "b")]

    number = start(bench)
    run(bench)

    assert look(bench, number)[1] == {("scored", None): 1, ("refused", "other_reconstruction"): 1}
    assert sorted(bench.series(uid).state for uid in uids) == [SeriesState.ASSESSED, SeriesState.NOT_SCORED]
    bench.close()


def test_what_is_deleted_changed_or_received_again_is_not_scored(bench: Bench, tmp_path: Path) -> None:
    gone, damaged, again = (old(bench, tmp_path, name) for name in ("a", "b", "c"))
    number = start(bench)
    feeder.feed(bench.node)
    with bench.database.write() as connection:
        here = sa.update(instances).where(instances.c.series_instance_uid == gone)
        connection.execute(here.values(purged_at=bench.now))
        [first, *_] = index.current_instances(connection, damaged)
    path = bench.spool.path(first.path)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    changes = {"StudyDate": OLD, "SeriesDate": OLD, "AcquisitionDate": OLD}
    bench.receive_all(ct_series(tmp_path / "late", "c", slices=[9], **changes), association="late")

    run(bench)

    outcomes = look(bench, number)[1]
    assert outcomes == {("refused", "purged"): 1, ("failed", "file_changed"): 1, ("changed", None): 1}
    assert bench.series(damaged).state == SeriesState.NOT_SCORED
    assert bench.series(again).reason.code == "too_old"


def test_the_selection_is_by_day_modality_scanner_and_sender(bench: Bench, tmp_path: Path) -> None:
    old(bench, tmp_path, "a")
    old(bench, tmp_path, "b", StationName="CT_ROOM_2")
    old(bench, tmp_path, "c", aet="CT_ROOM_3")

    assert start_counts(bench) == 3
    assert start_counts(bench, station="CT_ROOM_2") == 1
    assert start_counts(bench, calling_ae="CT_ROOM_3") == 1
    assert start_counts(bench, modality="MR") == 0
    assert start_counts(bench, since="2024-01-10", until="2024-01-10") == 3
    assert start_counts(bench, since="2024-01-11") == 0
    assert start_counts(bench, until="2024-01-09") == 0
    assert start_counts(bench, at_most=2) == 2


def test_series_with_a_score_of_the_checkpoint_are_scored_again_only_with_all(bench: Bench, tmp_path: Path) -> None:
    uid = received(bench, tmp_path, "a", aet="ARCHIVE")
    assert start_counts(bench) == 0

    number = start(bench, with_score=True)
    run(bench)

    assert look(bench, number)[1] == {("scored", None): 1}
    assert n_assessments(bench, uid) == 2


def test_a_limit_ends_a_set_and_the_next_one_goes_on(bench: Bench, tmp_path: Path) -> None:
    uids = [old(bench, tmp_path, name) for name in "abc"]

    for number_of_scores in (2, 3):
        number = start(bench, at_most=2)
        run(bench)
        assert look(bench, number)[0].state is SetState.DONE
        assert sum(bench.series(uid).state == SeriesState.ASSESSED for uid in uids) == number_of_scores


def test_only_some_series_are_enqueued_at_a_time(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "AT_WORK_AT_MOST", 2)
    for name in "abcde":
        old(bench, tmp_path, name, slices=range(3))
    number = start(bench)

    assert [feeder.feed(bench.node), feeder.feed(bench.node)] == [2, 0]
    assert len(bench.jobs.waiting) == 2
    bench.work()
    assert feeder.feed(bench.node) == 2
    run(bench)

    one, outcomes = look(bench, number)
    assert (one.state, outcomes) == (SetState.DONE, {("scored", None): 5})


def test_nothing_is_scored_while_a_set_is_paused(bench: Bench, tmp_path: Path) -> None:
    uids = [old(bench, tmp_path, name) for name in "ab"]
    number = start(bench)
    feeder.feed(bench.node)
    with bench.database.write() as connection:
        assert backscores.pause(connection, number, PauseReason.BY_PERSON)

    run(bench)

    assert look(bench, number)[1] == {("waiting", None): 2}
    assert {bench.series(uid).state for uid in uids} == {SeriesState.NOT_SCORED}
    with bench.database.write() as connection:
        assert backscores.resume(connection, number)
    run(bench)
    one, outcomes = look(bench, number)
    assert (one.state, outcomes) == (SetState.DONE, {("scored", None): 2})


def test_a_cancelled_set_scores_no_more_and_keeps_its_scores(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeder, "AT_WORK_AT_MOST", 1)
    for name in "abc":
        old(bench, tmp_path, name)
    number = start(bench)
    feeder.feed(bench.node)
    bench.work()
    feeder.feed(bench.node)
    with bench.database.write() as connection:
        assert backscores.cancel(connection, number, at=bench.now)
        assert not backscores.resume(connection, number)

    run(bench)

    assert look(bench, number)[1] == {("scored", None): 1, ("cancelled", None): 1}
    assert bench.scorer.scored == 1


def untrained_checkpoint(bench: Bench) -> None:
    """Let the active checkpoint be one that was never trained."""
    bench.scorer.checkpoint = dataclasses.replace(bench.scorer.checkpoint, trained=False)


def drift(bench: Bench) -> None:
    """Let the active checkpoint score otherwise than it did when it was last checked."""
    constancy.check_if_due(bench.node, at_start=True)
    score = bench.scorer.score

    def moved(*arguments: object):
        found = score(*arguments)
        return dataclasses.replace(found, raw=found.raw + 0.5)

    bench.scorer.score = moved
    bench.now += 2 * 86400
    constancy.check_if_due(bench.node)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (another_checkpoint, PauseReason.OTHER_CHECKPOINT),
        (untrained_checkpoint, PauseReason.UNTRAINED),
        (drift, PauseReason.CONSTANCY),
    ],
)
def test_a_set_pauses_when_the_checkpoint_must_not_score_for_it(
    bench: Bench, tmp_path: Path, change: Callable[[Bench], None], reason: PauseReason
) -> None:
    uid = old(bench, tmp_path, "a")
    number = start(bench)
    change(bench)

    run(bench)

    one, outcomes = look(bench, number)
    assert (one.state, one.pause_reason) == (SetState.PAUSED, reason)
    assert outcomes == {("waiting", None): 1}
    assert bench.series(uid).state == SeriesState.NOT_SCORED


def test_live_series_stop_the_feeder_and_a_job_that_starts_gives_way(bench: Bench, tmp_path: Path) -> None:
    old(bench, tmp_path, "a")
    number = start(bench)
    feeder.feed(bench.node)
    live = ct_series(tmp_path / "live", "live")
    bench.receive(live[0], association="live")

    assert bench.work() == ["put back"], "a live series is arriving"
    assert feeder.feed(bench.node) == 0
    bench.receive_all(live[1:], association="live")
    bench.now += 60
    bench.complete_series()
    assert bench.series(series_uid(live)).state == SeriesState.READY
    assert feeder.feed(bench.node) == 0, "a live series waits for its score"

    bench.pass_time(90)
    run(bench)
    assert look(bench, number)[1] == {("scored", None): 1}


def test_a_series_that_only_waits_for_its_timer_holds_nothing_up(bench: Bench, tmp_path: Path) -> None:
    old(bench, tmp_path, "a")
    start(bench)
    bench.receive(ct_series(tmp_path / "live", "live")[0], association="live")
    bench.now += 10

    assert feeder.feed(bench.node) == 1


def test_a_score_that_was_begun_before_the_series_changed_is_not_kept(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = old(bench, tmp_path, "a")
    number = start(bench)
    feeder.feed(bench.node)
    scorer, score = bench.scorer, bench.scorer.score

    def score_while_it_changes(*arguments: object):
        changes = {"StudyDate": OLD, "SeriesDate": OLD, "AcquisitionDate": OLD}
        bench.receive_all(ct_series(tmp_path / "late", "a", slices=[7], **changes), association="late")
        return score(*arguments)

    monkeypatch.setattr(scorer, "score", score_while_it_changes)
    assert bench.work() == ["put back"]
    monkeypatch.setattr(scorer, "score", score)
    bench.pass_time(90)
    run(bench)

    assert look(bench, number)[1] == {("changed", None): 1}
    assert n_assessments(bench, uid) == 0


class EndedJobs:
    """The engine's word about jobs, given by the test."""

    def __init__(self, why: str | None) -> None:
        self.why = why

    def ended(self, jobs: list[str]) -> dict[str, str | None]:
        return dict.fromkeys(jobs, self.why)

    def forget(self, *, ended_before: float, kind: str) -> int:
        return 0


@pytest.mark.parametrize(
    ("why", "outcome"),
    [(None, ("waiting", None)), ("it ended its process again and again", ("failed", "scoring_failed"))],
)
def test_a_job_that_leaves_a_series_undone_is_followed_by_another_unless_it_failed(
    bench: Bench, tmp_path: Path, why: str | None, outcome: tuple[str, str | None]
) -> None:
    old(bench, tmp_path, "a")
    number = start(bench)
    feeder.feed(bench.node)

    assert feeder.look_after(bench.node, EndedJobs(why)) == 1

    assert look(bench, number)[1] == {outcome: 1}
    bench.jobs.waiting.clear()
    run(bench)
    expected = {("scored", None): 1} if why is None else {outcome: 1}
    assert look(bench, number)[1] == expected
    with bench.database.read() as connection:
        assert connection.execute(sa.select(backscore_items.c.job)).scalars().all() == [None]
