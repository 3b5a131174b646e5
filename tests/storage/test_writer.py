"""Group commit: who waits for whom, and what an error costs."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from support.waiting import until

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.domain.series import ReceivedInstance
from mediqa_node.storage.database import Database
from mediqa_node.storage.ingest import Recorded
from mediqa_node.storage.spool import Incoming, Spool
from mediqa_node.storage.tables import associations, instances, metadata
from mediqa_node.storage.writer import CommitUncertain, IndexWriter


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'node.db'}")
    metadata.create_all(opened.engine)
    yield opened
    opened.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def writer(database: Database, spool: Spool) -> Iterator[IndexWriter]:
    running = IndexWriter(database, spool)
    yield running
    running.stop()


def spooled(spool: Spool, number: int, **changes: str) -> ReceivedInstance:
    path = spool.place(spool.begin(b"head"))
    instance = ReceivedInstance(
        sop_instance_uid=f"1.2.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        series_instance_uid="1.2.3",
        study_instance_uid="1.2.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae_title="CT",
        called_ae_title="MEDIQA",
        peer_address="127.0.0.1",
        association_id="a" * 32,
        received_at=datetime(2026, 11, 23, tzinfo=UTC),
        path=path,
        sha256=f"{number:064}",
        size_bytes=4,
    )
    return replace(instance, **changes)


def count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(instances)).scalar_one())


def in_threads(jobs: list[Callable[[], object]]) -> list[threading.Thread]:
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    return threads


def test_whoever_queued_while_a_commit_ran_shares_the_next_one(
    database: Database, spool: Spool, writer: IndexWriter
) -> None:
    commits: list[int] = []
    event.listen(database.engine, "commit", lambda _: commits.append(1))
    outcomes: list[Recorded] = []
    with sa.create_engine(database.url).connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        jobs = [lambda i=i: outcomes.append(writer.enter(spooled(spool, i), "CT")) for i in range(16)]  # type: ignore[misc]
        threads = in_threads(jobs)
        until(lambda: len(list(spool.files())) == 16, "all are waiting")
        other.rollback()
    for thread in threads:
        thread.join(timeout=600)

    assert outcomes == [Recorded.NEW] * 16
    assert 1 <= len(commits) <= 4
    assert count(database) == 16


def test_a_lone_sender_commits_itself_and_wakes_nobody(database: Database, spool: Spool, writer: IndexWriter) -> None:
    threads: list[int] = []
    event.listen(database.engine, "commit", lambda _: threads.append(threading.get_ident()))

    for number in (1, 2, 3):
        writer.enter(spooled(spool, number), "CT")

    assert threads == [threading.get_ident()] * 3


def test_an_answer_never_waits_for_the_commit_of_others(database: Database, spool: Spool, writer: IndexWriter) -> None:
    answered, began = threading.Event(), threading.Event()
    commits: list[bool] = []

    def commit(_connection: sa.Connection) -> None:
        if not commits:  # others queue behind the first commit
            began.set()
            until(lambda: len(writer._queue) == 3, "three wait")
            commits.append(True)
        else:
            commits.append(answered.wait(timeout=600))

    event.listen(database.engine, "commit", commit)
    first = threading.Thread(target=lambda: (writer.enter(spooled(spool, 0), "CT"), answered.set()), daemon=True)
    first.start()
    began.wait(timeout=600)
    others = in_threads([lambda i=i: writer.enter(spooled(spool, i), "CT") for i in (1, 2, 3)])  # type: ignore[misc]
    for thread in (first, *others):
        thread.join(timeout=600)

    assert commits == [True, True], "the second commit, of all three, ended after the first was answered"
    assert count(database) == 4


@pytest.mark.parametrize("fails", [False, True])
def test_a_commit_waits_for_a_file_that_is_just_made_durable(
    database: Database, spool: Spool, writer: IndexWriter, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    commits: list[int] = []
    event.listen(database.engine, "commit", lambda _: commits.append(1))
    first, second = spooled(spool, 1), spooled(spool, 2)
    writer._n_coming, writer._placed = 1, {first.path: 600.0}  # it has taken ten minutes
    begun = threading.Event()

    def place(_incoming: Incoming) -> str:
        begun.set()
        until(lambda: writer._queue, "the first one is about to commit")
        if fails:
            raise StorageFailed("disk")
        return second.path

    def other() -> None:
        with suppress(StorageFailed):
            writer.place(spool.begin(b"head"))
            writer.enter(second, "CT")

    monkeypatch.setattr(spool, "place", place)
    [thread] = in_threads([other])
    begun.wait(timeout=600)
    assert writer.enter(first, "CT") is Recorded.NEW
    thread.join(timeout=600)

    assert commits == [1]
    assert count(database) == (1 if fails else 2)
    assert (writer._n_coming, writer._placed) == (0, {})


def test_an_association_that_stored_nothing_asks_nothing_of_the_database(
    database: Database, spool: Spool, writer: IndexWriter
) -> None:
    writes: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *a: writes.append(a[2]))

    writer.close_association("b" * 32, released=True)

    assert writes == []


def test_one_bad_row_does_not_fail_its_neighbours(database: Database, spool: Spool, writer: IndexWriter) -> None:
    failed: list[BaseException] = []

    def enter(instance: ReceivedInstance) -> None:
        try:
            writer.enter(instance, "CT")
        except StorageFailed as error:
            failed.append(error)

    with sa.create_engine(database.url).connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        wanted = [spooled(spool, i) for i in range(6)]
        wanted[3] = replace(wanted[3], sop_class_uid=None)  # type: ignore[arg-type]
        threads = in_threads([lambda i=i: enter(i) for i in wanted])  # type: ignore[misc]
        threading.Event().wait(0.2)
        other.rollback()
    for thread in threads:
        thread.join(timeout=600)

    assert count(database) == 5
    [error] = failed
    assert str(error) == "index: IntegrityError"


def test_a_folder_that_cannot_be_synced_leaves_no_row(
    database: Database, spool: Spool, writer: IndexWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = spooled(spool, 1)
    monkeypatch.setattr("mediqa_node.storage.spool.os.fsync", _fails)

    with pytest.raises(StorageFailed) as caught:
        writer.enter(instance, "CT")

    assert not isinstance(caught.value, CommitUncertain)
    assert count(database) == 0


def _fails(_fd: int) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize(
    ("code", "is_uncertain"),
    [(sqlite3.SQLITE_IOERR, True), (sqlite3.SQLITE_FULL, False), (sqlite3.SQLITE_BUSY, False), (None, True)],
)
def test_a_commit_that_fails_is_told_apart_from_what_certainly_did_not_happen(
    code: int | None, is_uncertain: bool, database: Database, spool: Spool, writer: IndexWriter
) -> None:
    def fail(_connection: sa.Connection) -> None:
        said = sqlite3.OperationalError("it failed") if code is not None else psycopg.OperationalError("it is gone")
        said.sqlite_errorcode = code  # type: ignore[union-attr]
        raise sa.exc.OperationalError("COMMIT", None, said)

    event.listen(database.engine, "commit", fail)
    with pytest.raises(StorageFailed) as caught:
        writer.enter(spooled(spool, 1), "CT")
    assert isinstance(caught.value, CommitUncertain) is is_uncertain

    event.remove(database.engine, "commit", fail)
    assert writer.enter(spooled(spool, 2), "CT") is Recorded.NEW


def test_the_end_of_an_association_is_entered_after_its_instances(
    database: Database, spool: Spool, writer: IndexWriter
) -> None:
    writer.enter(spooled(spool, 1), "CT")
    writer.close_association("a" * 32, released=True)
    writer.stop()

    with database.read() as connection:
        [row] = connection.execute(sa.select(associations)).all()
    assert row.released
    assert row.closed_at is not None


def test_an_instance_that_comes_after_the_end_is_refused_not_forgotten(spool: Spool, writer: IndexWriter) -> None:
    writer.stop()

    with pytest.raises(StorageFailed, match="stopping"):
        writer.enter(spooled(spool, 1), "CT")
