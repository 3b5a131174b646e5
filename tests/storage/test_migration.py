"""From nothing to the tables of this version; a database of another version is refused and left alone."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from mediqa_node.domain.errors import ConfigurationError, StorageFailed
from mediqa_node.storage.database import Database
from mediqa_node.storage.migrate import mismatch, upgrade
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
