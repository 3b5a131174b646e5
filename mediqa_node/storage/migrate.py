"""Bring the node's tables up to date, from any earlier version."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from mediqa_node.storage.database import Database


def upgrade(database: Database, revision: str = "head") -> None:
    """Apply the migrations that are missing, in one transaction each."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
