"""The rows of back-scoring: pages of a selection, on SQLite and PostgreSQL, and a whole set on PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bench import Bench
from support.series import ct_series, series_uid
from support.workbench import EMPTY_ENTRY

from mediqa_node.domain.backscore import BackscoreSet, ItemState, PauseReason, Selection, SetState
from mediqa_node.domain.policy import ScorePolicy
from mediqa_node.domain.promotion import Weights
from mediqa_node.pipeline.backscore import feeder
from mediqa_node.storage import backscore_selection, backscores
from mediqa_node.storage.database import Database
from mediqa_node.storage.migrate import upgrade
from mediqa_node.storage.tables import instances, series
from mediqa_node.storage.workbench_tables import worklist

NOW = 1_800_000_000.0
WEIGHTS = Weights(name="new", sha256="ab" * 32, card_sha256="cd" * 32)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(made)
    yield made
    made.close()


def fill(database: Database, uids: list[str], *, modality: str = "CT", acquired: str = "2026-01-05 10:00") -> None:
    """Enter series with one image each, as they stand when the node has finished with them."""
    own = {"study_instance_uid": "1.2", "modality": modality}
    of_series = {"state": "NOT_SCORED", "reason_code": "too_old", "calling_ae_title": "CT1", "association_id": "a"}
    counts = {"n_associations": 1, "longest_gap_s": 0.0, "n_instances": 1, "generation": 1, "revision": 0}
    times = {"opened_at": 1.0, "last_instance_at": 1.0, "state_at": 1.0}
    image = {"sop_class_uid": "1.9", "transfer_syntax_uid": "1.8", "status": "current", "received_at": 1.0}
    image |= {"sha256": "0", "size_bytes": 1, "unread": False, "calling_ae_title": "CT1", "association_id": "a"}
    entry = EMPTY_ENTRY | {"scanner": "ROOM", "acquired": acquired, "state": "NOT_SCORED", "category": "not_scored"}
    with database.write() as connection:
        first = int(connection.execute(sa.select(sa.func.count()).select_from(series)).scalar_one()) + 1
        for number, uid in enumerate(uids, start=first):
            mine = {"series_instance_uid": uid, "study_instance_uid": "1.2"}
            connection.execute(sa.insert(series).values(**own, **of_series, **counts, **times, series_instance_uid=uid))
            connection.execute(sa.insert(instances).values(**image, **mine, sop_instance_uid=uid, path=f"{number}.dcm"))
            known = {"change": number, "generation": 1, "revision": 0, "received_at": 1.0, "modality": modality}
            connection.execute(sa.insert(worklist).values(**entry | mine | known))


def begun(database: Database, **selection: object) -> BackscoreSet:
    with database.write() as connection:
        values = {"with_reports": False, "total": 0, "by": "Anna", "at": NOW}
        number = backscores.add(connection, Selection(**selection), WEIGHTS, **values)
        found = backscores.find(connection, number)
    assert found is not None
    return found


def pages(database: Database, one: BackscoreSet, at_most: int) -> list[list[str]]:
    """Return what a set takes, page by page, with no more than a handful of pages that only move its cursor on."""
    found: list[list[str]] = []
    for _ in range(200):
        with database.read() as connection:
            page = backscore_selection.next_page(connection, one, at_most=at_most)
        if page.is_last:
            return found
        found.append([uid for uid, _ in page.series])
        one = replace(one, cursor=page.cursor, n_taken=one.n_taken + len(page.series))
    pytest.fail("the pages have no end")


def uids(n: int, first: int = 0) -> list[str]:
    return [f"1.2.{number}.{number % 7}" for number in range(first, first + n)]


def every_series_once(database: Database) -> None:
    fill(database, uids(50))
    fill(database, uids(9, first=50), modality="MR")
    one = begun(database, modality="CT")

    taken = [uid for page in pages(database, one, at_most=8) for uid in page]

    assert sorted(taken) == sorted(uids(50))
    with database.read() as connection:
        assert backscore_selection.count(connection, one.selection, WEIGHTS, before=NOW) == 50


def test_pages_have_every_selected_series_once(database: Database) -> None:
    every_series_once(database)


def test_pages_have_every_selected_series_once_on_postgresql(url: str) -> None:
    database = Database(url)
    upgrade(database)
    every_series_once(database)
    database.close()


def test_a_page_looks_at_few_series_however_sparse_the_selection(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backscore_selection, "LOOKED_AT_AT_ONCE", 10)
    fill(database, uids(60), modality="MR")
    fill(database, ["1.3.1"])

    found = pages(database, begun(database, modality="CT"), at_most=8)

    assert found[-1] == ["1.3.1"]
    assert found[:-1] == [[]] * 6


def test_a_limit_ends_the_pages(database: Database) -> None:
    fill(database, uids(20))

    assert [len(page) for page in pages(database, begun(database, at_most=11), at_most=4)] == [4, 4, 3]


def test_a_series_without_a_date_of_acquisition_counts_by_its_reception(database: Database) -> None:
    fill(database, ["1.1"], acquired="")
    fill(database, ["1.2"], acquired="2026-01-05")

    def selected(**days: str) -> list[str]:
        return [uid for page in pages(database, begun(database, **days), at_most=8) for uid in page]

    assert selected(since="1970-01-01", until="1970-01-01") == ["1.1"]
    assert selected(since="1970-01-02") == ["1.2"]
    assert selected(until="2026-01-05") == ["1.1", "1.2"]


def test_what_a_paused_set_had_read_is_not_taken(database: Database) -> None:
    fill(database, uids(5))
    one = begun(database)
    with database.write() as connection:
        page = backscore_selection.next_page(connection, one, at_most=2)
        assert backscores.pause(connection, one.id, PauseReason.BY_PERSON)
        assert backscores.take(connection, one, page) == []
        assert backscores.resume(connection, one.id)
        assert len(backscores.take(connection, one, page)) == 2
        assert backscores.take(connection, one, page) == [], "another courier was faster"
        assert [item.state for item in backscores.under_way(connection)] == [ItemState.WAITING] * 2


def test_progress_has_a_rate_and_the_time_that_is_left(database: Database) -> None:
    fill(database, uids(40))
    one = begun(database)
    with database.write() as connection:
        for item in backscores.take(connection, one, backscore_selection.next_page(connection, one, at_most=40)):
            backscores.queue(connection, item, f"job {item.series_instance_uid}")
        for number, item in enumerate(backscores.under_way(connection)[:30]):
            queued = replace(item, state=ItemState.QUEUED)
            assert backscores.end(connection, queued, ItemState.CHANGED, at=NOW + 2 * number)
            assert not backscores.end(connection, queued, ItemState.FAILED, at=NOW), "an outcome stays"
        known = backscores.progress(connection, one.id, now=NOW + 60)

    assert (known.n_done, known.n_under_way) == (30, 10)
    assert known.per_minute == pytest.approx(30)
    assert known.left_s(40) == pytest.approx(20)


def test_a_set_is_scored_on_postgresql(url: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench", url=url, score=ScorePolicy(max_age_days=30))
    paths = ct_series(tmp_path / "ct", "a", slices=range(3), StudyDate="20200101")
    bench.receive_all(paths)
    bench.pass_time(90)
    checkpoint = bench.scorer.checkpoint
    weights = Weights(name=checkpoint.name, sha256=checkpoint.sha256, card_sha256=checkpoint.card_sha256)
    with bench.database.write() as connection:
        number = backscores.add(connection, Selection(), weights, with_reports=False, total=1, by="Anna", at=bench.now)

    assert feeder.feed(bench.node) == 1
    assert bench.work() == ["scored"]
    feeder.feed(bench.node)

    with bench.database.read() as connection:
        one = backscores.find(connection, number)
    assert one is not None
    assert one.state is SetState.DONE
    assert bench.series(series_uid(paths)).reason.code == "back_scored"
    bench.close()
