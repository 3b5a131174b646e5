"""Leases: one holder at a time, and a holder that was silent for too long writes nothing any more."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from mediqa_node.domain.errors import StorageFailed
from mediqa_node.storage import leases
from mediqa_node.storage.database import Database, Fenced
from mediqa_node.storage.leases import Leases, read_leases
from mediqa_node.storage.migrate import upgrade
from mediqa_node.storage.tables import senders

Open = Callable[[str], Database]


@pytest.fixture
def opened(url: str) -> Iterator[Open]:
    """Open the database in the name of a process."""
    made: list[Database] = []

    def open_as(process: str) -> Database:
        made.append(Database(url, process))
        return made[-1]

    upgrade(open_as(""))
    yield open_as
    for database in made:
        database.close()


def write(database: Database, title: str) -> None:
    with database.write() as connection:
        connection.execute(
            sa.insert(senders).values(calling_ae_title=title, splits_series=False, longest_gap_s=0.0, gaps_s=[])
        )


def titles(database: Database) -> set[str]:
    with database.read() as connection:
        return set(connection.execute(sa.select(senders.c.calling_ae_title)).scalars())


def test_a_lease_has_one_holder_until_it_runs_out_or_is_given_back(opened: Open) -> None:
    a, b = (Leases(opened(f"{host}/worker"), f"{host}/worker") for host in "ab")
    first = a.take("shadow", for_s=0.5)

    assert first is not None
    assert b.take("shadow") is None
    assert a.renew(first.fence, for_s=0.5)
    time.sleep(0.6)
    second = b.take("shadow")
    assert second is not None
    assert second.fence.token > first.fence.token
    assert second.lapsed_at > 0
    assert not a.renew(first.fence)
    assert a.take("shadow") is None
    b.give_back(second.fence)
    third = a.take("shadow")
    assert third is not None
    assert third.lapsed_at == 0


def test_a_process_that_starts_again_on_its_machine_has_its_lease_at_once(opened: Open) -> None:
    before, after = (Leases(opened("a/worker"), "a/worker") for _ in range(2))
    first, second = before.take("a/worker"), after.take("a/worker")

    assert first is not None
    assert second is not None
    assert second.fence.token > first.fence.token


def test_who_lost_the_lease_commits_nothing(opened: Open) -> None:
    a, b = opened("a/worker"), opened("b/worker")
    lost = Leases(a, "a/worker").take("a/worker", for_s=0.1)
    assert lost is not None
    a.fence(lost.fence)
    write(a, "BEFORE")
    time.sleep(0.2)
    assert Leases(b, "b/courier").take("a/worker") is not None

    with pytest.raises(Fenced):
        write(a, "AFTER")
    with pytest.raises(Fenced), a.engine.begin() as connection:  # as the durable engine writes
        connection.execute(
            sa.insert(senders).values(calling_ae_title="ENGINE", splits_series=False, longest_gap_s=0.0, gaps_s=[])
        )

    with pytest.raises(Fenced), a.write(a.keep()) as connection:  # as the receiver's writer writes
        connection.execute(
            sa.insert(senders).values(calling_ae_title="KEPT", splits_series=False, longest_gap_s=0.0, gaps_s=[])
        )

    assert titles(b) == {"BEFORE"}


def test_a_transaction_of_the_dead_holds_nobody_up_and_ends_without_effect(opened: Open) -> None:
    a, b = opened("a/courier"), opened("b/courier")
    lost = Leases(a, "a/courier").take("courier", for_s=0.1)
    assert lost is not None
    a.fence(lost.fence)
    write(a, "ONE")
    change = sa.update(senders).where(senders.c.calling_ae_title == "ONE")
    with pytest.raises(StorageFailed), a.write() as stopped:
        stopped.execute(change.values(splits_series=True))
        time.sleep(0.2)
        began = time.monotonic()
        assert Leases(b, "b/courier").take("courier") is not None
        with b.write() as connection:
            connection.execute(change.values(splits_series=False))
        assert time.monotonic() - began < 5

    with b.read() as connection:
        assert connection.execute(sa.select(senders.c.splits_series)).scalars().all() == [False]


def test_a_holder_renews_while_its_own_commits_are_under_way(opened: Open) -> None:
    database = opened("a/receiver")
    leases = Leases(database, "a/receiver")
    held = leases.take("a/receiver")
    assert held is not None
    database.fence(held.fence)
    locked, renewed = threading.Event(), threading.Event()

    def commit_slowly() -> None:
        with database.engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1 FROM leases WHERE name = 'a/receiver' FOR KEY SHARE")
            locked.set()
            renewed.wait(30)

    thread = threading.Thread(target=commit_slowly)
    thread.start()
    locked.wait(30)
    try:
        assert leases.renew(held.fence)
    finally:
        renewed.set()
        thread.join()


def test_a_lease_that_ran_out_is_free_once_its_holder_had_time_to_renew_it(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "GRACE_S", 0.3)
    a, b = (Leases(opened(f"{host}/courier"), f"{host}/courier") for host in "ab")
    held = a.take("courier", for_s=0.1)
    assert held is not None
    time.sleep(0.2)  # the database was away for so long

    assert "courier" in b.held_by_others()
    assert a.renew(held.fence, for_s=0.1)
    time.sleep(0.2)
    assert "courier" in b.held_by_others()
    time.sleep(0.4)
    assert "courier" not in b.held_by_others()
    assert b.look()[1] == {"courier"}
    monkeypatch.setattr(leases, "_LONGEST_GAP_S", 0.05)
    time.sleep(0.1)
    assert "courier" in b.held_by_others()  # this process was stopped itself


def test_leases_are_listed_with_what_is_left_of_them(opened: Open) -> None:
    database = opened("a/worker")
    Leases(database, "a/worker").take("a/worker", for_s=60)
    Leases(database, "a/receiver").take("a/receiver", for_s=-1)

    with database.read() as connection:
        found = {row.name: row for row in read_leases(connection)}

    assert found["a/worker"].holder == "a/worker"
    assert 50 < found["a/worker"].left_s <= 60
    assert found["a/receiver"].left_s < 0


def test_on_sqlite_the_only_host_always_has_its_leases_and_writes_none(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(database)
    leases = Leases(database, "courier")

    held = leases.take("courier")

    assert held is not None
    assert leases.renew(held.fence)
    database.fence(held.fence)
    write(database, "ONE")
    with database.read() as connection:
        assert "courier" not in {row.name for row in read_leases(connection)}
    database.close()
