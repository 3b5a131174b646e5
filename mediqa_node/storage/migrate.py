"""Bring the node's tables up to date, from version 0.2 on."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.storage.database import Database


def upgrade(database: Database, revision: str = "head") -> None:
    """Apply the migrations that are missing, in one transaction each.

    Raises:
        ConfigurationError: the database is of a version that no migration leads on from.
    """
    config = _config()
    with database.engine.begin() as connection:
        refuse_unknown(MigrationContext.configure(connection).get_current_revision())
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def refuse_unknown(revision: str | None) -> None:
    """Raise ConfigurationError if this version has no migration from the given revision."""
    if (why := _unknown(revision)) is not None:
        raise ConfigurationError(why)


def _unknown(revision: str | None) -> str | None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is None or revision in known:
        return None
    return (
        f"the database was written by another version of mediqa-node (revision {revision}), which this one cannot "
        f"read. Nothing was changed. Either run that version, or start with an empty database: with that version, "
        f"save ratings and labels with `mediqa-node export`; then move node.db aside (PostgreSQL: name another "
        f"database in `database.url`) and start again. Instances in the spool are entered and assessed again"
    )


def mismatch(database: Database) -> str | None:
    """Return why the tables are not those of this version, with the way out; None if they are.

    Raises:
        StorageFailed: the database does not answer.
    """
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    with database.read() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    if revision == newest:
        return None
    return _unknown(revision) or "the database has not been upgraded to this version; `mediqa-node serve` upgrades it"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
