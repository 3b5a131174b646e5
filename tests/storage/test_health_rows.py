"""What processes and destinations write down, on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.bench import migrate

from mediqa_node.domain.health import Heartbeat, Sweep
from mediqa_node.domain.series import DeliveryReason
from mediqa_node.storage.database import Database
from mediqa_node.storage.health import note_attempt, waiting_destinations
from mediqa_node.storage.heartbeats import read_heartbeats, write_heartbeat
from mediqa_node.storage.tables import deliveries


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'node.db'}" if request.param == "sqlite" else request.getfixturevalue("url")
    made = Database(url)
    migrate(made)
    yield made
    made.close()


def wait(database: Database, destination: str, *created_at: float, state: str = "waiting", message: str = "") -> None:
    with database.write() as connection:
        for number, at in enumerate(created_at):
            connection.execute(
                sa.insert(deliveries).values(
                    series_instance_uid=f"1.2.{destination}.{state}.{number}",
                    revision=1,
                    destination=destination,
                    state=state,
                    message=message or None,
                    not_before=at,
                    wait_for_study_until=0.0,
                    attempts=1,
                    jobs=0,
                    created_at=at,
                )
            )


def attempt(database: Database, code: DeliveryReason | None, message: str, at: float) -> None:
    with database.write() as connection:
        note_attempt(database, connection, "PACS", code, message, at=at)


def test_a_destination_fails_since_its_first_failure_after_its_last_answer(database: Database) -> None:
    wait(database, "PACS", 100.0, 90.0)

    def known() -> tuple[float | None, str]:
        with database.read() as connection:
            [found] = waiting_destinations(connection)
        assert (found.n_waiting, found.oldest_at) == (2, 90.0)
        return found.failing_since, found.why

    assert known() == (None, "")
    attempt(database, DeliveryReason.NO_ANSWER, "refused", 110.0)
    attempt(database, DeliveryReason.NO_ANSWER, "no answer within 30 s", 120.0)
    assert known() == (110.0, "no answer within 30 s")
    attempt(database, DeliveryReason.SERIES_CHANGED, "the series has changed since", 125.0)  # nobody was called
    assert known() == (110.0, "no answer within 30 s")
    attempt(database, None, "", 130.0)
    assert known() == (None, "")
    attempt(database, DeliveryReason.GIVEN_UP, "given up", 140.0)
    attempt(database, DeliveryReason.REFUSED, "status 0x0122", 150.0)  # an answer, if not a welcome one
    assert known() == (None, "")


def test_each_destination_is_summed_up_whatever_waits_for_others(database: Database) -> None:
    wait(database, "A", *(float(at) for at in range(50, 90)), message="waiting for the study at the destination")
    wait(database, "B", 10.0)
    wait(database, "C", 5.0, state="parked")

    with database.read() as connection:
        found = waiting_destinations(connection)

    assert [(one.name, one.n_waiting, one.oldest_at, one.why) for one in found] == [
        ("A", 40, 50.0, "waiting for the study at the destination"),
        ("B", 1, 10.0, ""),
    ]


def test_a_role_has_one_row_that_it_rewrites(database: Database) -> None:
    first = Heartbeat(name="courier", host="a", pid=1, started_at=1.0, at=2.0, sweeps={})
    then = Heartbeat(
        name="courier",
        host="b",
        pid=2,
        started_at=3.0,
        at=4.0,
        sweeps={"liveness": Sweep(every_s=5.0, age_s=0.25)},
    )
    receiver = Heartbeat(
        name="receiver", host="a", pid=9, started_at=1.0, at=2.0, sweeps={}, n_associations=3, max_associations=32
    )
    for beat in (first, receiver, then):
        write_heartbeat(database, beat)

    with database.read() as connection:
        assert read_heartbeats(connection) == [then, receiver]
