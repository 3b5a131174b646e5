"""The database: SQLite in a folder, or PostgreSQL.

SQLite runs in WAL mode with `synchronous=FULL`, so that a commit survives the loss of power.
Every write goes through `write()`, which takes the write lock at once: a transaction that
first reads and then writes would otherwise fail with `database is locked` under load.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite

from mediqa_node.domain.errors import StorageFailed

Connection = sa.Connection
"""An open transaction, for packages that pass it on without importing SQLAlchemy."""


_NOTHING_WRITTEN = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


class NotWritten(StorageFailed):
    """SQLite had no room, or another program held it: nothing was written, even if it was the commit that failed."""


class Database:
    """A pool of connections to the node's database.

    Args:
        url: SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = create_engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a connection for queries; it never blocks a writer.

        Raises:
            StorageFailed: the database does not answer, or is damaged.
        """
        try:
            with self.engine.connect() as connection:
                yield connection
        except sa.exc.OperationalError as error:
            raise StorageFailed(f"database did not answer: {error.orig}") from error
        except sa.exc.DatabaseError as error:
            if type(error) is not sa.exc.DatabaseError:  # a fault of a query
                raise
            raise StorageFailed(f"database is damaged: {error.orig}") from error

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open one transaction, committed at the end of the block.

        Raises:
            NotWritten: the database is locked or full.
            StorageFailed: it is gone, or its disk fails.
        """
        try:
            with self.engine.begin() as connection:
                if self.is_sqlite:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
        except (sa.exc.OperationalError, sa.exc.InternalError) as error:
            code = getattr(error.orig, "sqlite_errorcode", None) or 0  # the low byte names the kind of failure
            kind = NotWritten if code & 0xFF in _NOTHING_WRITTEN else StorageFailed
            raise kind(f"database refused to write: {error.orig}") from error

    def insert_or_ignore(self, table: sa.Table, **values: Any) -> Any:
        """Return an INSERT that does nothing when a row with the same key is there."""
        insert = sqlite.insert if self.is_sqlite else postgresql.insert
        return insert(table).values(**values).on_conflict_do_nothing()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def create_engine(url: str) -> sa.Engine:
    """Return an engine with the durability that the receiver promises."""
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, hide_parameters=True)
    database = sa.engine.make_url(url).database
    if database:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    # statement parameters may hold header values, which must not reach an error message
    engine = sa.create_engine(url, connect_args={"timeout": 30}, pool_size=10, max_overflow=20, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    return engine


def take_table(connection: sa.Connection, table: sa.Table) -> None:
    """Lock a table for writing until this transaction ends; SQLite has a single writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))
