"""The connection that the index writer keeps, and what each mode of durability asks of SQLite."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.receiving import Scu, ct

from mediqa_node.composition.resources import open_database
from mediqa_node.config import load
from mediqa_node.domain.cluster import Member
from mediqa_node.domain.errors import StorageFailed
from mediqa_node.storage import database as database_room
from mediqa_node.storage.database import Database
from mediqa_node.storage.tables import instances, metadata, senders

TESTS = Path(__file__).parents[1]


def note(connection: sa.Connection, title: str) -> None:
    connection.execute(
        sa.insert(senders).values(calling_ae_title=title, splits_series=False, longest_gap_s=0.0, gaps_s=[])
    )


def noted(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(sa.select(senders.c.calling_ae_title)).scalars())


def test_transactions_share_one_connection_until_one_fails(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'node.db'}")
    metadata.create_all(database.engine)
    taken: list[int] = []
    sa.event.listen(database.engine, "checkout", lambda *_: taken.append(1))
    kept = database.keep()

    for title in ("A", "B", "C"):
        with database.write(kept) as connection:
            note(connection, title)
    assert taken == [1]
    with pytest.raises(ZeroDivisionError), database.write(kept) as connection:
        note(connection, "D")
        raise ZeroDivisionError
    with database.write(kept) as connection:
        note(connection, "E")

    assert taken == [1, 1]
    kept.close()
    assert noted(database) == ["A", "B", "C", "E"]
    database.close()


def test_a_server_that_has_ended_the_connection_is_asked_anew(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(url)
    metadata.create_all(database.engine)
    kept = database.keep()
    with database.write(kept) as connection:
        note(connection, "A")
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    with database.write() as connection:
        connection.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")

    with pytest.raises(StorageFailed), database.write(kept) as connection:
        note(connection, "lost")
    with database.write(kept) as connection:
        note(connection, "B")
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    with database.write() as connection:
        connection.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")
    monkeypatch.setattr(database_room, "_IDLE_S", 0.0)  # after a pause nothing is lost
    with database.write(kept) as connection:
        note(connection, "C")

    kept.close()
    assert noted(database) == ["A", "B", "C"]
    database.close()


@pytest.mark.parametrize(
    ("durability", "role", "synchronous"),
    [("power-loss", "receiver", 2), ("process-crash", "receiver", 1), ("process-crash", "courier", 2)],
)
def test_process_crash_holds_for_the_receiver_alone(
    tmp_path: Path, durability: str, role: str, synchronous: int
) -> None:
    (tmp_path / "node.yaml").write_text(f"receiver: {{durability: {durability}}}\n")
    database = open_database(load(tmp_path / "node.yaml"), Member(None, role))

    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == synchronous
    database.close()


STAND_ALONE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.receiving import Listening
node = Listening(Path(sys.argv[2]), durable=False)
print(node.port, flush=True)
sys.stdin.read()
"""


def test_without_syncs_what_was_answered_survives_the_kill_of_the_receiver(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STAND_ALONE, str(TESTS), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with Scu(int(process.stdout.readline())) as scu:
            assert [scu.store_dataset(ct(number)) for number in range(1, 6)] == [0x0000] * 5
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=600) == -signal.SIGKILL

    database = Database(f"sqlite:///{tmp_path / 'node.db'}")
    with database.read() as connection:
        paths = list(connection.execute(sa.select(instances.c.path)).scalars())
    database.close()
    assert len(paths) == 5
    assert all((tmp_path / "spool" / path).stat().st_size > 0 for path in paths)
