"""Bring the node's tables up to date, from version 0.2 on.

Several hosts may start at once, and one may go on with an older version while another is upgraded. Migrations run under
a lock of the database, and add: what an older version reads and writes keeps its name and meaning. The database says
from which revision on a version may use it, so that an older one may also start again.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from mediqa_node.domain.errors import ConfigurationError
from mediqa_node.storage.cluster_tables import compatibility
from mediqa_node.storage.database import Connection, Database

_USABLE_FROM = "v02_0012"
"""The oldest revision whose version works with the tables of this one; raised by a migration that takes away."""
_LOCK = 0x6D656469  # "medi"
_LOOK_EVERY_S = 0.2


@contextmanager
def migrating(database: Database) -> Iterator[None]:
    """Wait until no other host migrates, and keep others waiting during the block.

    On SQLite a node has one host, which holds a file lock.
    """
    if database.is_sqlite:
        yield
        return
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # asked again and again: an index that is built concurrently waits for every transaction, also one that waits
        while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_LOCK))).scalar_one():
            time.sleep(_LOOK_EVERY_S)
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK)))


def upgrade(database: Database, revision: str = "head") -> None:
    """Apply the migrations that are missing, in one transaction each.

    Raises:
        ConfigurationError: the database is of a version that no migration leads on from.
    """
    config = _config()
    with database.engine.begin() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
        if _is_newer_and_usable(connection, found):
            return
        refuse_unknown(found)
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        if revision == "head":
            head = ScriptDirectory.from_config(config).get_current_head()
            connection.execute(database.insert_or_ignore(compatibility, revision=head, usable_from=_USABLE_FROM))


def _is_newer_and_usable(connection: Connection, revision: str | None) -> bool:
    """Whether the tables are of a newer version, and say that this one may use them all the same."""
    if revision is None or revision in _known() or not sa.inspect(connection).has_table(compatibility.name):
        return False
    query = sa.select(compatibility.c.usable_from).where(compatibility.c.revision == revision)
    usable_from = connection.execute(query).scalar_one_or_none()
    return usable_from in _known()


def refuse_unknown(revision: str | None) -> None:
    """Raise ConfigurationError if this version has no migration from the given revision."""
    if (why := _unknown(revision)) is not None:
        raise ConfigurationError(why)


def _known() -> set[str]:
    """Return the revisions that this version knows."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _unknown(revision: str | None) -> str | None:
    if revision is None or revision in _known():
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
        if revision == newest or _is_newer_and_usable(connection, revision):
            return None
    return _unknown(revision) or "the database has not been upgraded to this version; `mediqa-node serve` upgrades it"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
