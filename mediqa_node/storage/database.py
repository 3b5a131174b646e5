"""The database: SQLite in a folder, or PostgreSQL.

SQLite runs in WAL mode with `synchronous=FULL`, so that a commit survives the loss of power. `NORMAL` does not sync at
a commit: it survives the end of any process, however it came, but after a loss of power the last commits may be gone.
The database is whole in either case. PostgreSQL syncs as its server is configured.
Every write goes through `write()`, which takes the write lock at once: a transaction that
first reads and then writes would otherwise fail with `database is locked` under load.

On PostgreSQL several hosts may share the database. A process that holds a lease (`storage.leases`) puts up a fence: no
transaction of its engine commits once another process has taken that lease.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


class Fenced(StorageFailed):
    """Another process has taken the lease of this one: nothing was written, and this process may not go on."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A lease with its token: while the row of that name has that token, its holder may write."""

    name: str
    token: int


APPLICATION = "mediqa-node"
"""How the sessions of the node begin their application name, which PostgreSQL shows to its administrator."""
_NETWORK = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""A server that is gone without a word is noticed within seconds, not after the quarter of an hour of TCP."""
_IDLE_IN_TRANSACTION_MS = 30_000
"""A process that is stopped within a transaction would hold locks that others wait for."""


_IDLE_S = 1.0


class Kept:
    """A connection that one writer keeps between its transactions, and uses from one thread at a time.

    Taking one from the pool and giving it back, with what is done then to be safe, takes as long as entering an
    instance. After a pause or an error the pool is asked again, and knows whether the database still answers.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None
        self._used_at = 0.0

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Open one transaction, committed at the end of the block."""
        if time.monotonic() - self._used_at > _IDLE_S:
            self.close()
        if self._connection is None:
            self._connection = self._engine.connect()
        try:
            with self._connection.begin():
                yield self._connection
        except BaseException:
            self.close()
            raise
        self._used_at = time.monotonic()

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Database:
    """A pool of connections to the node's database.

    Args:
        url: SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`.
        process: name of this process among all hosts; "" for commands.
        syncs: whether a commit to SQLite survives the loss of power.
    """

    def __init__(self, url: str, process: str = "", *, syncs: bool = True) -> None:
        self.url = url
        self.engine = create_engine(url, process, syncs=syncs)
        self.is_sqlite = self.engine.dialect.name == "sqlite"

    def fence(self, fence: Fence) -> None:
        """Have every transaction of this engine fail before its commit once the lease of the fence is another's.

        The row stays locked until the commit is over, so that who takes the lease sees all that was committed under it.
        `FOR KEY SHARE`: the renewals of the holder do not wait for its own commits.
        """
        if self.is_sqlite:
            return
        check = "SELECT 1 FROM leases WHERE name = %s AND token = %s FOR KEY SHARE"

        @event.listens_for(self.engine, "commit")
        def _check(connection: sa.Connection) -> None:
            if connection.exec_driver_sql(check, (fence.name, fence.token)).first() is None:
                raise Fenced(f"another process has taken the lease {fence.name}; nothing was written")

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
    def write(self, kept: Kept | None = None) -> Iterator[sa.Connection]:
        """Open one transaction, committed at the end of the block.

        Args:
            kept: the connection to use, by a writer that has one of its own.

        Raises:
            NotWritten: the database is locked or full.
            StorageFailed: it is gone, or its disk fails.
        """
        try:
            with kept.begin() if kept is not None else self.engine.begin() as connection:
                if self.is_sqlite:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
        except (sa.exc.OperationalError, sa.exc.InternalError) as error:
            code = getattr(error.orig, "sqlite_errorcode", None) or 0  # the low byte names the kind of failure
            kind = NotWritten if code & 0xFF in _NOTHING_WRITTEN else StorageFailed
            raise kind(f"database refused to write: {error.orig}") from error

    def keep(self) -> Kept:
        """Return a connection for a writer that has one transaction after another."""
        return Kept(self.engine)

    def insert_or_ignore(self, table: sa.Table, **values: Any) -> Any:
        """Return an INSERT that does nothing when a row with the same key is there."""
        insert = sqlite.insert if self.is_sqlite else postgresql.insert
        return insert(table).values(**values).on_conflict_do_nothing()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def create_engine(url: str, process: str = "", *, syncs: bool = True) -> sa.Engine:
    """Return an engine with the durability that the receiver promises."""
    if not url.startswith("sqlite"):
        session = {"application_name": f"{APPLICATION} {process}".strip(), **_NETWORK}
        engine = sa.create_engine(
            url, connect_args=session, pool_pre_ping=True, pool_size=10, max_overflow=20, hide_parameters=True
        )

        @event.listens_for(engine, "connect")
        def _limit(connection: Any, _record: Any) -> None:
            connection.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_IN_TRANSACTION_MS}")
            connection.commit()

        return engine
    database = sa.engine.make_url(url).database
    if database:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    # statement parameters may hold header values, which must not reach an error message
    engine = sa.create_engine(url, connect_args={"timeout": 30}, pool_size=10, max_overflow=20, hide_parameters=True)

    synchronous = "FULL" if syncs else "NORMAL"

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("busy_timeout=30000", "journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    return engine


def take_table(connection: sa.Connection, table: sa.Table) -> None:
    """Lock a table for writing until this transaction ends; SQLite has a single writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))


def clock_of(connection: sa.Connection) -> sa.ColumnElement[float]:
    """Return the present time by the clock of the database, seconds since 1970."""
    if connection.dialect.name == "sqlite":
        return sa.cast(sa.func.unixepoch("subsec"), sa.Float)
    return sa.cast(sa.func.extract("epoch", sa.func.clock_timestamp()), sa.Float)
