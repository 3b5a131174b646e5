"""The rows of the reading room and of calibrations, on SQLite and PostgreSQL alike."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bench import Bench
from support.factories import calibration
from support.series import ct_series, series_uid

from mediqa_node.domain.reading import Criterion, Scale
from mediqa_node.pipeline.worklist import WorklistSweep
from mediqa_node.storage import calibrations, reading, reading_results, worklist
from mediqa_node.storage.worklist import Filter


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    url = request.getfixturevalue("url") if request.param == "postgresql" else None
    made = Bench(tmp_path / "bench", url=url)
    yield made
    made.close()


def test_a_study_is_kept_read_undone_and_its_scores_are_found(bench: Bench, tmp_path: Path) -> None:
    paths = [ct_series(tmp_path / f"s{i}", f"s{i}", slices=range(3), patient_id=f"P{i}") for i in range(3)]
    for i, one in enumerate(paths):
        bench.receive_all(one, association=f"a{i}")
    bench.pass_time(30)
    while WorklistSweep(bench.node).run():
        pass
    scale = Scale(points=((1, "bad"), (2, "fair"), (3, "good")))
    with bench.database.write() as connection:
        known = reading_results.candidates(connection, Filter(modality="CT", since=0.0))
        number = reading.add_study(
            connection, criteria=[Criterion(name="overall", question="?")], scale=scale,
            cases=[(one.series_instance_uid, one.revision) for one in known[:2]],
            examples=[(known[2].series_instance_uid, 1, 3)], name="x", question="", seed=1, repeats=0.0,
            readers=["ada"], chosen="", made_at=1.0, made_by="curie",
        )  # fmt: skip
        study = reading.find(connection, number)
        assert study is not None
        me = reading.begin(connection, study, "ada", seed="s", order=[(1, 1), (0, 1)], at=2.0)
        again = reading.begin(connection, study, "ada", seed="other", order=[(0, 1), (1, 1)], at=3.0)
        same = {"comment": "", "window": "", "took_s": 1.0}
        kept = [reading.confirm(connection, me.id, 1, {"overall": value}, at=4.0, **same) for value in (2, 3)]
        undone = reading.undo_last(connection, me.id, at=5.0)
        reading.confirm(connection, me.id, 1, {"overall": 3}, at=6.0, **same)
        reading.confirm(connection, me.id, 2, {}, at=7.0, **same)
        [progress] = reading.progress(connection, number)
        [rating] = reading_results.ratings_of(connection, study)
        scored = reading_results.scored(connection, reading.cases(connection, number))
        patients = reading_results.patients_of(connection, [series_uid(one) for one in paths])

    assert {one.series_instance_uid for one in known} == {series_uid(one) for one in paths}
    assert (study.scale, study.n_cases, study.readers) == (scale, 2, ("ada",))
    assert again == me
    assert kept == [True, False]
    assert undone is not None
    assert undone.values == {"overall": 2}
    assert (progress.n_done, progress.n_places, progress.n_unrated) == (2, 2, 1)
    assert (rating.score, rating.series_instance_uid) == (3.0, known[1].series_instance_uid)
    assert {one.made_with for one in scored} == {("ab" * 32, "", bench.scorer.spec.fingerprint())}
    assert len(set(patients.values())) == 3


def test_calibrations_are_imported_once_made_approved_and_replaced(bench: Bench) -> None:
    one = calibration()
    values = {
        name: getattr(one, name)
        for name in one.__dataclass_fields__
        if name not in ("id", "approved_by", "approved_on")
    }
    with bench.database.write() as connection:
        assert calibrations.are_kept(connection)
        assert calibrations.import_once(connection, [one], at=1.0) == (["CAL-7"], [])
        assert calibrations.import_once(connection, [one], at=2.0) == ([], ["CAL-7"])
        study = reading.add_study(
            connection, criteria=[], scale=Scale(points=((1, ""), (2, ""))), cases=[("1.2", 1)], examples=[], name="x",
            question="", seed=1, repeats=0.0, readers=[], chosen="", made_at=1.0, made_by="curie",
        )  # fmt: skip
        number = calibrations.add(connection, by="curie", at=3.0, study_id=study, basis={"n": 1}, **values)
        assert [found.id for found in calibrations.active(connection)] == ["CAL-7"]
        made = calibrations.find(connection, number)
        assert made is not None
        assert calibrations.approve(connection, made, by="roentgen", role="physicist", at=4.0)
        assert not calibrations.approve(connection, made, by="roentgen", role="physicist", at=5.0)

        assert [found.id for found in calibrations.active(connection)] == ["cal-1"]
        assert [record.withdrawn_why for record in calibrations.every(connection)] == ["", "replaced by cal-1"]
        assert worklist.page(connection, Filter(), at_most=1) == []
