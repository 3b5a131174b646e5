"""The worklist: each series has an entry that follows it, whoever has changed it."""

from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from support.bench import Bench
from support.series import ct_series, series_uid, uid

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.peer import Peer
from mediqa_node.domain.series import DeliveryState, SeriesState
from mediqa_node.domain.worklist import AnswerKind, Category
from mediqa_node.storage import answers, series_changes, worklist
from mediqa_node.storage.workbench_tables import series_changes as notes
from mediqa_node.storage.workbench_tables import worklist as entries
from mediqa_node.storage.worklist import Filter

DEAD = Peer(name="DEAD", ae_title="DEAD", host="127.0.0.1", port=1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A node that reports to an archive that does not answer."""
    return Bench(tmp_path / "bench", peers=[DEAD])


def listed(bench: Bench) -> list[str]:
    with bench.database.read() as connection:
        return [entry.series_instance_uid for entry in worklist.page(connection, Filter(), at_most=100)]


def test_a_series_is_listed_with_its_first_image_and_grows(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "x", StationName="CT_ROOM_1", AccessionNumber="A12345678", SeriesNumber=4)
    bench.receive(paths[0])

    first = bench.entry(series_uid(paths))
    bench.receive(paths[1])
    grown = bench.entry(series_uid(paths))

    assert (first.category, first.state, first.n_images) == (Category.ARRIVING, SeriesState.RECEIVING, 1)
    assert (first.scanner, first.accession_end, first.series_number) == ("CT_ROOM_1", "5678", 4)
    assert (grown.id, grown.n_images) == (first.id, 2)
    assert grown.change > first.change
    assert first.is_provisional(bench.now)


def test_an_entry_follows_the_series_to_score_and_delivery(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "x", slices=range(8))
    bench.receive_all(paths)
    bench.pass_time(5)

    entry = bench.entry(series_uid(paths))

    assert entry.category is Category.SCORED
    assert entry.score == pytest.approx(bench_score(bench, series_uid(paths)))
    assert (entry.delivery, entry.destination) == (DeliveryState.WAITING, "DEAD")
    assert not entry.is_provisional(bench.now), "evenly spaced slices of a released association are a whole series"


def bench_score(bench: Bench, series: str) -> float:
    with bench.database.read() as connection:
        return float(
            connection.execute(
                sa.text("SELECT quality FROM assessments WHERE series_instance_uid = :uid"), {"uid": series}
            ).scalar_one()
        )


def test_a_late_image_makes_a_score_provisional_again(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "x", slices=range(9))
    bench.receive_all(paths[:8])
    bench.pass_time(5)
    scored = bench.entry(series_uid(paths))
    bench.receive(paths[8], association="a2")

    late = bench.entry(series_uid(paths))

    assert (late.state, late.score) == (SeriesState.RECEIVING, scored.score)
    assert late.is_provisional(bench.now)


def test_a_refused_series_says_why_in_the_words_of_its_reason(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "x", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    bench.receive_all(paths)
    bench.pass_time(20)

    entry = bench.entry(series_uid(paths))

    assert (entry.category, entry.why) == (Category.NOT_SCORED, "Localizer")
    assert "LOCALIZER" in entry.why_more
    assert entry.score is None


def test_a_score_stands_on_what_is_usual_for_its_scanner_and_protocol(bench: Bench, tmp_path: Path) -> None:
    for name in ("CT1", "CT2"):
        paths = ct_series(tmp_path / name, name, slices=range(7), StationName=name)
        bench.receive_all(paths, association=name)
        bench.pass_time(4)
    one, other = (bench.entry(series_uid(ct_series(tmp_path / name, name, slices=range(7)))) for name in ("CT1", "CT2"))
    assert one.usual is None, "one series makes no range"
    scores = [0.5 + 0.02 * i for i in range(20)]
    with bench.database.write() as connection:
        row = connection.execute(sa.select(entries).where(entries.c.id == one.id)).one()._asdict()
        for i, score in enumerate(scores):
            column = row | {"id": 100 + i, "change": 100 + i, "series_instance_uid": f"1.2.{i}", "score": score}
            connection.execute(sa.insert(entries).values(**column))
        for entry in (one, other):
            series_changes.note(connection, entry.series_instance_uid)

    again, alone = (bench.entry(entry.series_instance_uid) for entry in (one, other))

    assert again.usual is not None and again.usual.n == 20
    assert (again.usual.low, again.usual.high) == tuple(pytest.approx(np.percentile(scores, at)) for at in (10, 90))
    assert alone.usual is None, "the series of another scanner do not count"


def test_an_answer_stays_with_the_series_when_its_entry_is_made_again(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "x", slices=range(8))
    bench.receive_all(paths)
    bench.pass_time(5)
    entry = bench.entry(series_uid(paths))
    with bench.database.write() as connection:
        answers.give(connection, entry, AnswerKind.REPEATED, by="CT 1", role="technologist", at=1.0, initials="AB")
        series_changes.note(connection, entry.series_instance_uid)

    again = bench.entry(entry.series_instance_uid)
    with bench.database.write() as connection:
        assert answers.undo(connection, again, by="CT 1", at=2.0)
        series_changes.note(connection, entry.series_instance_uid)
    undone = bench.entry(entry.series_instance_uid)

    assert (again.answer, undone.answer) == (AnswerKind.REPEATED, None)
    with bench.database.read() as connection:
        [kept] = answers.of_series(connection, entry.series_instance_uid)
    assert (kept.initials, kept.by, kept.undone_by, kept.score) == ("AB", "CT 1", "CT 1", entry.score)


def test_a_note_that_is_committed_late_is_found_late(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "x", slices=range(8))
    bench.receive_all(paths)
    series = series_uid(paths)
    with bench.database.write() as connection:
        connection.execute(sa.delete(notes))
        connection.execute(sa.insert(notes).values(id=900, series_instance_uid=series))
    bench.lister.run()
    assert listed(bench) == [series]

    with bench.database.write() as connection:  # a smaller number, as a slower transaction would commit it
        connection.execute(sa.insert(notes).values(id=5, series_instance_uid=uid("series", "never listed")))
    bench.lister.run()

    with bench.database.read() as connection:
        assert series_changes.oldest(connection, at_most=9) == []


def test_a_description_outlives_the_images(bench: Bench, tmp_path: Path) -> None:
    paths = ct_series(tmp_path / "ct", "x", slices=range(8), StationName="CT1", SeriesDescription="THORAX 1.0")
    bench.receive_all(paths)
    bench.pass_time(5)
    before = bench.entry(series_uid(paths))
    with bench.database.write() as connection:
        connection.execute(sa.text("UPDATE instances SET purged_at = 1"))
        connection.execute(sa.text("UPDATE series SET generation = generation + 1, reason_code = 'purged'"))

    after = bench.entry(series_uid(paths))

    assert (after.scanner, after.description) == (before.scanner, before.description) == ("CT1", "THORAX 1.0")


def test_changes_are_numbered_in_the_order_of_their_commits(bench: Bench, tmp_path: Path) -> None:
    for i in range(3):
        bench.receive_all(ct_series(tmp_path / f"{i}", f"s{i}"), association=f"a{i}")
    bench.lister.run()
    with bench.database.read() as connection:
        seen = worklist.last_change(connection)
        entries = worklist.page(connection, Filter(), at_most=9)
    with bench.database.write() as connection:
        worklist.set_answer(connection, entries[2].id, AnswerKind.KEPT, at=1.0)
    with bench.database.write() as connection:
        worklist.set_answer(connection, entries[0].id, AnswerKind.KEPT, at=1.0)

    with bench.database.read() as connection:
        changed = worklist.changed_since(connection, seen, at_most=9)

    assert [entry.id for entry in changed] == [entries[2].id, entries[0].id]
    assert [entry.change for entry in changed] == [seen + 1, seen + 2]


def test_filters_find_what_a_technologist_matches_by(bench: Bench, tmp_path: Path) -> None:
    wanted = ct_series(
        tmp_path / "1", "s1", StationName="CT1", SeriesDescription="Thorax 100%", AccessionNumber="X-7788"
    )
    other = ct_series(tmp_path / "2", "s2", StationName="CT2", SeriesDescription="Abdomen 1000", SeriesNumber=17)
    for i, paths in enumerate((wanted, other)):
        bench.receive_all(paths, association=f"a{i}")
    bench.lister.run()

    def found(**values: object) -> list[str]:
        with bench.database.read() as connection:
            entries = worklist.page(connection, Filter(**values), at_most=9)  # type: ignore[arg-type]
        return [entry.scanner for entry in entries]

    assert found(text="7788") == found(text="thorax") == found(text="100%") == found(scanner="CT1") == ["CT1"]
    assert found(text="17") == ["CT2"]
    assert found(scanners=frozenset({"CT2"})) == ["CT2"]
    assert found(since=bench.now + 1) == found(text="'; DROP TABLE worklist") == []


def test_one_series_that_cannot_be_understood_keeps_no_other_out(bench: Bench, tmp_path: Path) -> None:
    broken, fine = (ct_series(tmp_path / name, name, slices=range(7)) for name in ("broken", "fine"))
    for i, paths in enumerate((broken, fine)):
        bench.receive_all(paths, association=f"a{i}")
        bench.pass_time(4)
    with bench.database.write() as connection:
        connection.execute(
            sa.text("UPDATE assessments SET assessment = '{}' WHERE series_instance_uid = :uid"),
            {"uid": series_uid(broken)},
        )
        for paths in (broken, fine):
            series_changes.note(connection, series_uid(paths))

    assert bench.entry(series_uid(fine)).score is not None
    with bench.database.read() as connection:
        assert series_changes.oldest(connection, at_most=9) == []


def test_a_sweep_that_fails_loses_no_note(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = ct_series(tmp_path / "ct", "x")
    bench.receive_all(paths)

    def full(*_: object, **__: object) -> None:
        raise StorageFailed("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(worklist, "save", full)
        with pytest.raises(StorageFailed):
            bench.lister.run()

    assert bench.entry(series_uid(paths)).n_images == len(paths)
