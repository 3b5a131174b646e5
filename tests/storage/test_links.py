"""What links patients is remembered, on SQLite and PostgreSQL, and the first word stands."""

from pathlib import Path

import pytest

from mediqa_node.storage.database import Database
from mediqa_node.storage.harvested import remember_links
from mediqa_node.storage.migrate import upgrade


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_links_are_kept_once_with_their_first_time(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    database = Database(f"sqlite:///{tmp_path / 'node.db'}" if kind == "sqlite" else request.getfixturevalue("url"))
    upgrade(database)

    remember_links(database, {("pixels", "A"): 1.0, ("pixels", "B"): 2.0})
    remember_links(database, {("pixels", "A"): 7.0, ("event", "A"): 3.0})

    assert remember_links(database, {}) == {("pixels", "A"): 1.0, ("pixels", "B"): 2.0, ("event", "A"): 3.0}
    database.close()
