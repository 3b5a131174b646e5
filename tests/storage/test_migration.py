"""From nothing to the tables of this version; a database of another version is refused and left alone."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from mediqa_node.domain.errors import ConfigurationError, StorageFailed
from mediqa_node.storage.cluster_tables import compatibility
from mediqa_node.storage.database import Database
from mediqa_node.storage.heartbeats import heartbeats
from mediqa_node.storage.leases import read_leases
from mediqa_node.storage.migrate import _config, mismatch, upgrade
from mediqa_node.storage.tables import metadata


def test_an_empty_database_gets_every_table_once(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'node.db'}")

    upgrade(database)
    upgrade(database)

    assert set(metadata.tables) <= set(sa.inspect(database.engine).get_table_names())
    assert mismatch(database) is None
    database.close()


@pytest.mark.parametrize("revision", ["0005", "0001", "a-version-to-come"])
def test_a_database_of_another_version_is_refused_with_the_way_out(tmp_path: Path, revision: str) -> None:
    file = tmp_path / "node.db"
    with sqlite3.connect(file) as old:
        old.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        old.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        old.execute("CREATE TABLE series (series_instance_uid VARCHAR(64))")
    old.close()
    database = Database(f"sqlite:///{file}")

    with pytest.raises(ConfigurationError) as refused:
        upgrade(database)

    assert revision in str(refused.value)
    assert "Nothing was changed" in str(refused.value)
    assert "move node.db aside" in str(refused.value)
    assert sa.inspect(database.engine).get_table_names() == ["alembic_version", "series"]
    database.close()


def test_a_damaged_database_is_named_as_such(tmp_path: Path) -> None:
    file = tmp_path / "node.db"
    database = Database(f"sqlite:///{file}")
    upgrade(database)
    database.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))

    with pytest.raises(StorageFailed, match="damaged"), Database(f"sqlite:///{file}").read() as connection:
        connection.exec_driver_sql("SELECT * FROM series").all()


def test_what_a_node_of_the_version_before_leases_leaves_is_there_to_be_taken_over(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(database, "v02_0012")
    with database.write() as connection:
        beat = {"host": "h", "pid": 1, "started_at": 0.0, "at": 0.0, "sweeps": {}}
        connection.execute(sa.insert(heartbeats), [{"role": role, **beat} for role in ("receiver", "courier")])

    upgrade(database)

    with database.read() as connection:
        assert [row.name for row in read_leases(connection)] == ["receiver"]
    database.close()


def test_an_older_version_may_start_again_on_tables_that_a_newer_one_has_added_to(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'node.db'}")
    upgrade(database)
    known = ScriptDirectory.from_config(_config()).get_current_head()
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'to-come'")
        connection.execute(sa.insert(compatibility).values(revision="to-come", usable_from=known))

    upgrade(database)
    assert mismatch(database) is None

    with database.write() as connection:
        connection.execute(
            sa.update(compatibility).where(compatibility.c.revision == "to-come").values(usable_from="x")
        )
    with pytest.raises(ConfigurationError, match="another version"):
        upgrade(database)
    database.close()
